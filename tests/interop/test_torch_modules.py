"""from_torch and to_torch: every form of torch.nn's modules, and what has no equal."""

import copy
import inspect
import io
import itertools
import pathlib
import re
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import seqref
from seqref import GRU, LSTM, RNN, Bidirectional, ChoGRU, Stacked
from seqref.interop import from_torch, state_from_torch, state_to_torch, to_torch

F64 = torch.float64
JUDGES = {
    "tanh": (nn.RNN, {}, RNN),
    "relu": (nn.RNN, {"nonlinearity": "relu"}, RNN),
    "lstm": (nn.LSTM, {}, LSTM),
    "gru": (nn.GRU, {}, GRU),
}
CELLS = {
    "tanh": (nn.RNNCell, {}, seqref.RNNCell),
    "relu": (nn.RNNCell, {"nonlinearity": "relu"}, seqref.RNNCell),
    "lstm": (nn.LSTMCell, {}, seqref.LSTMCell),
    "gru": (nn.GRUCell, {}, seqref.GRUCell),
}


def judge_of(kind, **options):
    make, chosen, _ = JUDGES[kind]
    return make(3, 5, dtype=F64, **chosen, **options)


def our_name(name, judge):
    """Where torch.nn's parameter stands in the converted layer."""
    stem, _, place = name.partition("_l")
    depth, _, reverse = place.partition("_")
    path = f"layers.{depth}." if judge.num_layers > 1 else ""
    if judge.bidirectional:
        path += "backward_layer." if reverse else "forward_layer."
    return f"{path}cell.{stem}"


def parts(state):
    return list(state) if isinstance(state, tuple) else [state]


def results(outputs, wanted, upstream):
    """Outputs and the gradients of everything in `wanted`."""
    return [*outputs, *torch.autograd.grad(outputs, wanted, upstream)]


GRID = list(
    itertools.product(
        JUDGES, (1, 2, 3), (False, True), (True, False), (True, False), (False, True)
    )
)


@pytest.mark.parametrize(
    ("kind", "depth", "two_ways", "bias", "batch_first", "padded"), GRID
)
def test_the_layer_computes_what_the_module_computes(
    kind, depth, two_ways, bias, batch_first, padded
):
    judge = judge_of(
        kind,
        num_layers=depth,
        bias=bias,
        batch_first=batch_first,
        bidirectional=two_ways,
    )
    layer = from_torch(judge)
    x = torch.randn(4, 6, 3, dtype=F64)
    places = depth * (2 if two_ways else 1)
    n_states = 2 if kind == "lstm" else 1
    starts = [torch.randn(places, 4, 5, dtype=F64) for _ in range(n_states)]
    lengths = torch.tensor([2, 6, 1, 4]) if padded else None

    def torch_state(tensors):
        return tuple(tensors) if n_states == 2 else tensors[0]

    leaves = [t.clone().requires_grad_() for t in (x, *starts)]
    given = leaves[0] if batch_first else leaves[0].transpose(0, 1)
    if padded:
        given = pack_padded_sequence(given, lengths, batch_first, enforce_sorted=False)
    y, ends = judge(given, torch_state(leaves[1:]))
    if padded:
        y, _ = pad_packed_sequence(y, batch_first)
    y = y if batch_first else y.transpose(0, 1)
    names = [name for name, _ in judge.named_parameters()]
    upstream = [torch.randn_like(t) for t in (y, *parts(ends))]
    expected = results([y, *parts(ends)], [*leaves, *judge.parameters()], upstream)

    leaves = [t.clone().requires_grad_() for t in (x, *starts)]
    y, state = layer(
        leaves[0], state_from_torch(torch_state(leaves[1:]), layer), lengths
    )
    ends = state_to_torch(state)
    own = dict(layer.named_parameters())
    assert set(own) == {our_name(name, judge) for name in names}
    got = results(
        [y, *parts(ends)],
        [*leaves, *(own[our_name(n, judge)] for n in names)],
        upstream,
    )
    labels = ["y", *"hc"[:n_states], "grad x", *(f"grad {c}" for c in "hc"[:n_states])]
    for label, mine, theirs in zip([*labels, *names], got, expected, strict=True):
        torch.testing.assert_close(
            mine, theirs, atol=1e-12, rtol=1e-12, msg=lambda m, at=label: f"{at}: {m}"
        )


def same_state_dicts(one, other):
    assert list(one) == list(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


ARGUMENTS = (
    "mode",
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
    "proj_size",
)


@pytest.mark.parametrize("dtype", [F64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "depth", "two_ways", "bias", "batch_first"),
    sorted({case[:5] for case in GRID}),
)
def test_round_trips_are_exact(kind, depth, two_ways, bias, batch_first, dtype):
    judge = judge_of(
        kind,
        num_layers=depth,
        bias=bias,
        batch_first=batch_first,
        bidirectional=two_ways,
        dropout=0.25 if depth > 1 else 0.0,
    ).to(dtype)
    layer = from_torch(judge)
    back = to_torch(layer, batch_first=batch_first)
    assert type(back) is type(judge)
    for argument in ARGUMENTS:
        assert getattr(back, argument) == getattr(judge, argument), argument
    same_state_dicts(back.state_dict(), judge.state_dict())
    x = torch.randn(4, 6, 3, dtype=dtype)
    for module in (back, judge):
        module.eval()
    assert torch.equal(back(x)[0], judge(x)[0])
    again = from_torch(back.train())
    assert repr(again) == repr(layer)
    same_state_dicts(again.state_dict(), layer.state_dict())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", CELLS)
def test_cells_both_ways(kind, bias):
    make, options, ours = CELLS[kind]
    judge = make(3, 5, bias=bias, dtype=F64, **options)
    cell = from_torch(judge)
    assert type(cell) is ours
    same_state_dicts(cell.state_dict(), judge.state_dict())
    x_t, start = torch.randn(4, 3, dtype=F64), torch.randn(2, 4, 5, dtype=F64)
    given = tuple(start) if kind == "lstm" else start[0]
    h_t, state = cell(x_t, cell.state_type(*start[: 1 + (kind == "lstm")]))
    judged = parts(judge(x_t, given))
    torch.testing.assert_close(h_t, judged[0], atol=1e-14, rtol=1e-14)
    torch.testing.assert_close(list(state), judged, atol=1e-14, rtol=1e-14)
    back = to_torch(cell)
    assert type(back) is make
    assert repr(back) == repr(judge)
    same_state_dicts(back.state_dict(), judge.state_dict())


def test_the_simplest_equal_is_chosen():
    assert type(from_torch(nn.LSTM(3, 5))) is LSTM
    assert type(from_torch(nn.LSTM(3, 5, bidirectional=True))) is Bidirectional
    deep = from_torch(nn.GRU(3, 5, 2, bidirectional=True))
    assert type(deep) is Stacked
    assert [type(layer) for layer in deep.layers] == [Bidirectional] * 2
    assert type(to_torch(Stacked([LSTM(3, 5)]))) is nn.LSTM


@pytest.mark.parametrize("two_ways", [False, True])
def test_dropout_stands_between_the_layers_and_draws_the_same_masks(two_ways):
    # With one row, batch first and time first lie alike in memory, so that one seed
    # gives one mask.
    judge = judge_of("gru", num_layers=3, dropout=0.4, bidirectional=two_ways)
    layer = from_torch(judge)
    assert layer.dropout == 0.4
    x = torch.randn(7, 1, 3, dtype=F64)
    torch.manual_seed(5)
    expected, _ = judge(x)
    torch.manual_seed(5)
    y, _ = layer(x.transpose(0, 1))
    torch.testing.assert_close(y.transpose(0, 1), expected, atol=1e-13, rtol=1e-13)
    assert (y.transpose(0, 1) - judge.eval()(x)[0]).abs().max() > 0.01


def test_dropout_on_one_layer_is_left_out_as_it_does_nothing():
    with pytest.warns(UserWarning, match="non-zero dropout expects num_layers greater"):
        judge = nn.LSTM(3, 5, dropout=0.5, batch_first=True, dtype=F64)
    layer = from_torch(judge)
    assert type(layer) is LSTM
    x = torch.randn(2, 7, 3, dtype=F64)
    torch.testing.assert_close(layer(x)[0], judge(x)[0], atol=1e-14, rtol=1e-14)
    assert to_torch(layer).dropout == 0


@pytest.mark.parametrize("module", [nn.LSTM(3, 5, 2), nn.GRUCell(3, 5)])
def test_training_mode_and_frozen_parameters_are_kept(module):
    module = copy.deepcopy(module)
    frozen = [name for name, _ in module.named_parameters()][1::2]
    for name in frozen:
        module.get_parameter(name).requires_grad_(False)
    for mode in (False, True):
        layer = from_torch(module.train(mode))
        assert {part.training for part in layer.modules()} == {mode}
        back = to_torch(layer)
        assert back.training is mode
        needs = {name: p.requires_grad for name, p in back.named_parameters()}
        assert needs == {name: name not in frozen for name in needs}
        assert sum(not p.requires_grad for p in layer.parameters()) == len(frozen)


def test_parameters_are_copies_and_no_random_number_is_drawn():
    judge = nn.GRU(3, 5, 2, bidirectional=True)
    before = torch.random.get_rng_state()
    layer = from_torch(judge)
    back = to_torch(layer)
    assert torch.equal(torch.random.get_rng_state(), before)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    assert all(parameter.count_nonzero() for parameter in judge.parameters())
    assert all(parameter.count_nonzero() for parameter in back.parameters())


def test_gradients_are_not_copied():
    judge = nn.LSTM(3, 5)
    judge(torch.randn(4, 2, 3))[0].sum().backward()
    layer = from_torch(judge)
    assert [p.grad for p in layer.parameters()] == [None] * 4
    assert all(p.is_leaf for p in layer.parameters())


def test_a_converted_module_is_a_full_one():
    """It learns, moves, is copied and saved as one made by its constructor."""
    layer = Stacked([LSTM(3, 5), LSTM(5, 5)])
    module = to_torch(layer)
    x = torch.randn(2, 6, 3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    module(x)[0].square().sum().backward()
    optimizer.step()
    changed, _ = module(x)
    assert (changed - layer(x)[0]).abs().max() > 1e-4
    assert torch.equal(copy.deepcopy(module)(x)[0], changed)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh = nn.LSTM(3, 5, 2, batch_first=True)
    fresh.load_state_dict(torch.load(file))
    assert torch.equal(fresh(x)[0], changed)
    assert module.double()(x.double())[0].dtype == F64
    torch.testing.assert_close(module.float()(x)[0], changed)


def test_dtype_and_device_are_those_of_the_parameters():
    module = nn.LSTM(3, 5, 2, device="meta", dtype=torch.bfloat16)
    layer = from_torch(module)
    back = to_torch(layer)
    for parameter in (*layer.parameters(), *back.parameters()):
        assert (parameter.device.type, parameter.dtype) == ("meta", torch.bfloat16)


@pytest.mark.parametrize("kind", JUDGES)
def test_on_a_device(kind, device):
    judge = judge_of(kind, num_layers=2, bidirectional=True, batch_first=True)
    judge.to(device)
    x = torch.randn(2, 6, 3, dtype=F64, device=device)
    layer = from_torch(judge)
    assert {p.device.type for p in layer.parameters()} == {device}
    torch.testing.assert_close(layer(x)[0], judge(x)[0], atol=1e-12, rtol=1e-12)
    with warnings.catch_warnings():
        # cuDNN warns where the weights are not one piece of memory.
        warnings.simplefilter("error")
        back = to_torch(layer)(x)[0]
    torch.testing.assert_close(back, judge(x)[0], atol=1e-12, rtol=1e-12)


# What has no equal.


@pytest.mark.errors
def test_projections_are_refused():
    message = r"^from_torch: `module\.proj_size` must be 0, got 2 \(.*ProjectedLSTM"
    with pytest.raises(ValueError, match=message):
        from_torch(nn.LSTM(3, 5, proj_size=2))


@pytest.mark.errors
def test_dropout_of_one_is_refused():
    message = r"^from_torch: `module\.dropout` must be below 1, since .* got 1\.0$"
    with pytest.raises(ValueError, match=message):
        from_torch(nn.LSTM(3, 5, 2, dropout=1.0))


class Own(nn.LSTM):
    pass


class OwnLayer(LSTM):
    pass


@pytest.mark.errors
@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(3, 5), r"got torch\.nn\.modules\.linear\.Linear$"),
        (nn.RNNBase("LSTM", 3, 5), r"got torch\.nn\.modules\.rnn\.RNNBase$"),
        (Own(3, 5), r"Own, a subclass, which may compute something else \(if it does"),
        (LSTM(3, 5), r"got LSTM, which is a module of seqref already$"),
        (seqref.GRUCell(3, 5), r"got GRUCell, which is a module of seqref already$"),
        (nn.LSTM(3, 5).state_dict(), r"got collections\.OrderedDict$"),
        (None, r"got NoneType$"),
    ],
)
def test_other_modules_are_refused(module, message):
    start = (
        r"^from_torch: `module` must be one of torch\.nn's RNN, LSTM, GRU, RNNCell, "
    )
    with pytest.raises(TypeError, match=start + ".*" + message):
        from_torch(module)


@pytest.mark.errors
@pytest.mark.parametrize("make", [lambda: nn.LSTM(3, 5), lambda: nn.LSTMCell(3, 5)])
def test_what_stands_on_a_torch_parameter_is_refused(make):
    name = "weight_hh" + ("_l0" if isinstance(make(), nn.LSTM) else "")
    module = parametrizations.weight_norm(make(), name)
    message = r"got .*Parametrized.*, with a parametrization, .*remove_parametrizations"
    with pytest.raises(TypeError, match=message):
        from_torch(module)
    parametrize.remove_parametrizations(module, name)
    assert torch.equal(
        next(v for n, v in from_torch(module).named_parameters() if "hh" in n),
        getattr(module, name),
    )
    pruned = prune.l1_unstructured(make(), name, amount=3)
    message = (
        rf"^from_torch: `module\.{name}` must be a parameter, got a value that is "
    )
    with pytest.raises(ValueError, match=message):
        from_torch(pruned)
    prune.remove(pruned, name)
    from_torch(pruned)


@pytest.mark.errors
def test_a_parametrization_of_a_cell_is_refused():
    layer = Stacked([LSTM(3, 5), LSTM(5, 5)])
    parametrizations.weight_norm(layer.layers[1].cell, "weight_hh")
    message = (
        r"^to_torch: `layer\.layers\[1\]\.cell\.weight_hh` must be a parameter, got a"
    )
    with pytest.raises(ValueError, match=message):
        to_torch(layer)


@pytest.mark.errors
def test_a_parametrization_of_nothing_that_is_copied_is_refused_too():
    layer = LSTM(3, 5)
    layer.cell.register_parameter("more", nn.Parameter(torch.zeros(2)))
    parametrize.register_parametrization(layer.cell, "more", nn.Identity())
    with pytest.raises(TypeError, match=r"`layer\.cell` must be a cell of seqref, got"):
        to_torch(layer)


@pytest.mark.errors
def test_hooks_are_refused():
    for convert, module, inner in (
        (from_torch, nn.LSTM(3, 5), None),
        (from_torch, nn.GRUCell(3, 5), None),
        (to_torch, Stacked([LSTM(3, 5), LSTM(5, 5)]), "layers.1.cell"),
        (to_torch, seqref.RNNCell(3, 5), None),
    ):
        part = module if inner is None else module.get_submodule(inner)
        for register in (
            part.register_forward_hook,
            part.register_forward_pre_hook,
            part.register_full_backward_hook,
            part.register_full_backward_pre_hook,
        ):
            handle = register(lambda *given: None)
            with pytest.raises(
                ValueError, match=r": a module must have no hooks, since"
            ):
                convert(module)
            handle.remove()
        convert(module)


@pytest.mark.errors
def test_shared_parameters_are_refused():
    module = nn.LSTM(5, 5, 2)
    module.weight_hh_l1 = module.weight_hh_l0
    message = (
        r"^from_torch: each parameter must stand in one place, .* as "
        r"`module\.weight_hh_l0` and as `module\.weight_hh_l1`$"
    )
    with pytest.raises(ValueError, match=message):
        from_torch(module)
    one, other = LSTM(5, 5), LSTM(5, 5)
    other.cell = one.cell
    for layer in (Stacked([one, other]), Bidirectional(one, one)):
        with pytest.raises(
            ValueError, match=r"^to_torch: each parameter must stand in"
        ):
            to_torch(layer)


@pytest.mark.errors
@pytest.mark.parametrize("layer", [ChoGRU(3, 5), seqref.ChoGRUCell(3, 5)])
def test_reset_before_the_product_is_refused(layer):
    message = (
        r"^to_torch: `layer` must reset after the recurrent product, .* got ChoGRU"
        r"(Cell)?, which resets before it, and no map of weights"
    )
    with pytest.raises(TypeError, match=message):
        to_torch(layer)


def no_module_of_torch():
    two = Bidirectional(LSTM(3, 5), LSTM(3, 5))
    return [
        (
            Stacked([LSTM(5, 5), LSTM(5, 5)], residual=True),
            ValueError,
            r"`layer\.residual` must be False, since no module of torch\.nn adds",
        ),
        (
            Stacked([LSTM(3, 5), LSTM(5, 4)]),
            ValueError,
            r"one `hidden_size`, .* got 5 in `layer\.layers\[0\]` and 4 in `layer\.lay",
        ),
        (
            Bidirectional(GRU(3, 5), GRU(3, 4)),
            ValueError,
            r"`hidden_size`, .* 5 in `layer\.forward_layer` and 4 in `layer\.backward",
        ),
        (
            Stacked([LSTM(3, 5), LSTM(5, 5, bias=False)]),
            ValueError,
            r"one `bias`, .* got True in `layer\.layers\[0\]` and False in",
        ),
        (
            Stacked([RNN(3, 5), RNN(5, 5, nonlinearity="relu")]),
            ValueError,
            r"one `nonlinearity`, .* got tanh in .* and relu in",
        ),
        (
            Stacked([LSTM(3, 5), GRU(5, 5)]),
            TypeError,
            r"one kind, .* got LSTM as `layer\.layers\[0\]` and GRU as `layer\.layers",
        ),
        (
            Bidirectional(LSTM(3, 5), RNN(3, 5)),
            TypeError,
            r"one kind, .* and RNN as `layer\.backward_layer`$",
        ),
        (
            Stacked([two, LSTM(10, 5)]),
            ValueError,
            r"as many directions as `layer\.layers\[0\]`, 2, .* got 1 in `layer\.lay",
        ),
        (
            Bidirectional(Stacked([LSTM(3, 5)]), Stacked([LSTM(3, 5)])),
            TypeError,
            r"`layer\.forward_layer` must be a layer, got Stacked: in torch\.nn each",
        ),
        (
            Stacked([Stacked([LSTM(3, 5)]), LSTM(5, 5)]),
            TypeError,
            r"`layer\.layers\[0\]` must be RNN, LSTM, GRU, or Bidirectional of two, "
            r"of which .* got Stacked$",
        ),
        (
            OwnLayer(3, 5),
            TypeError,
            r"`layer` must be RNN, LSTM, GRU, or Bidirectional of two, or Stacked of "
            r"these, of which torch\.nn's modules are made, got .*OwnLayer$",
        ),
        (
            Bidirectional(LSTM(3, 5), OwnLayer(3, 5)),
            TypeError,
            r"`layer\.backward_layer` must be RNN, LSTM, GRU, of which .*OwnLayer$",
        ),
        (nn.LSTM(3, 5), TypeError, r"got torch\.nn\.modules\.rnn\.LSTM"),
        (None, TypeError, r"got NoneType"),
    ]


@pytest.mark.errors
@pytest.mark.parametrize(("layer", "error", "message"), no_module_of_torch())
def test_what_torch_has_not_is_refused(layer, error, message):
    with pytest.raises(error, match="^to_torch: .*" + message):
        to_torch(layer)


@pytest.mark.errors
def test_a_layer_that_was_altered_inside_is_refused():
    layer = ChoGRU(3, 5)
    stack = Stacked([GRU(3, 3), layer])
    with pytest.raises(TypeError, match=r"and ChoGRU as `layer\.layers\[1\]`$"):
        to_torch(stack)
    with pytest.raises(TypeError, match=r"`layer\.layers\[0\]` must reset after"):
        to_torch(Stacked([layer, ChoGRU(5, 5)]))


@pytest.mark.errors
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_a_state_dict_of_torch_names_from_torch(kind):
    weights = getattr(nn, kind)(3, 5).state_dict()
    message = (
        rf"^{kind}\.load_state_dict: these are the weights of a torch\.nn\.{kind}, .* "
        r"seqref\.interop\.from_torch\(module\)\. Or, .* rename: layer\.cell\.load"
    )
    with pytest.raises(RuntimeError, match=message):
        getattr(seqref, kind)(3, 5).load_state_dict(weights)


@pytest.mark.errors
def test_weights_of_another_layer_are_not_said_to_fit():
    """A ChoGRU takes tensors of these shapes, and would compute something else."""
    message = (
        r"^ChoGRU\.load_state_dict: these are the weights of a torch\.nn layer, .* and "
        r"torch\.nn has no ChoGRU\. .* seqref\.interop\.from_torch\(module\)$"
    )
    with pytest.raises(RuntimeError, match=message):
        ChoGRU(3, 5).load_state_dict(nn.GRU(3, 5).state_dict())


# The page's table.


def page_table():
    page = pathlib.Path(__file__).parents[2] / "docs/start/from-torch.md"
    _, _, section = page.read_text("utf-8").partition(
        "## What becomes of each argument"
    )
    section, _, _ = section.partition("\n## ")
    return dict(re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", section, re.M))


def arguments_of(function):
    """Names and defaults as the page writes them."""
    defaults = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in ("self", "mode"):
            default = parameter.default
            text = str(default) if not isinstance(default, str) else f'"{default}"'
            required = default is inspect.Parameter.empty
            defaults[name] = "required" if required else f"`{text}`"
    return defaults


def test_the_page_has_every_argument_of_every_constructor():
    known = arguments_of(nn.RNNBase.__init__)
    for kind in (nn.RNNCell, nn.LSTMCell, nn.GRUCell):
        known |= arguments_of(kind)
    assert page_table() == known
    # The kinds of layers hand everything on, but for this one of nn.RNN.
    for kind in (nn.RNN, nn.LSTM, nn.GRU):
        assert list(inspect.signature(kind.__init__).parameters) == [
            "self",
            "args",
            "kwargs",
        ]
    assert nn.RNN(3, 5).nonlinearity == "tanh"
