"""The laws in closed form, every layer and direction, what stays, what is refused."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import seqref
from seqref import recurrent
from seqref.recurrent._base import RecurrentCell
from seqref.recurrent.initialisation import (
    _KINDS,
    Change,
    Report,
    chrono_,
    forget_bias_,
    identity_,
    orthogonal_,
)
from tests.layers import LAYERS, OF_A_CELL

F64 = torch.float64
OPTIONS = {"num_layers": 2, "bidirectional": True, "dtype": F64}


def stacked(kind):
    both = seqref.Bidirectional(kind(3, 5, dtype=F64), kind(3, 5, dtype=F64))
    return seqref.Stacked([both, kind(10, 5, dtype=F64)])


def family_of(name):
    """The kind of recurrence that the functions take a layer for, or None."""
    cell = LAYERS[name]().cell
    return next((k for k, known in _KINDS.items() if isinstance(cell, known)), None)


def families(name):
    torchs = getattr(nn, name)
    built = [torchs(3, 5, **OPTIONS), getattr(nn, name + "Cell")(3, 5, dtype=F64)]
    for key in OF_A_CELL:
        # A projection has no square blocks, and is tried on its own.
        if family_of(key) == name and "proj_size" not in LAYERS[key].arguments:
            built += [LAYERS[key](dtype=F64), stacked(LAYERS[key])]
    return built


RNNS, LSTMS, GRUS = (families(name) for name in ("RNN", "LSTM", "GRU"))
REFUSED = [name for name in OF_A_CELL if family_of(name) is None]


def ids(module):
    return f"{type(module).__module__.split('.')[0]}-{type(module).__name__}"


def biases(module):
    named = dict(module.named_parameters())
    return [
        (p, named[n.replace("bias_ih", "bias_hh")])
        for n, p in named.items()
        if "bias_ih" in n
    ]


@pytest.mark.parametrize("module", RNNS + LSTMS + GRUS, ids=ids)
def test_orthogonal(module):
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    changes = orthogonal_(module, 0.5, torch.Generator().manual_seed(0))
    named = dict(module.named_parameters())
    for c in changes:
        w = named[c.parameter][slice(*c.rows)]
        torch.testing.assert_close(w @ w.T, 0.25 * torch.eye(5, dtype=F64))
    changed = {n for n in named if not torch.equal(named[n], before[n])}
    assert changed == {c.parameter for c in changes}
    assert changed == {n for n in named if "weight_hh" in n}
    expect = torch.Generator().manual_seed(0)
    for c in changes:
        judge = nn.init.orthogonal_(torch.empty(5, 5, dtype=F64), 0.5, generator=expect)
        assert torch.equal(named[c.parameter][slice(*c.rows)], judge)


@pytest.mark.parametrize("module", RNNS, ids=ids)
def test_identity(module):
    identity_(module, 0.9)
    for n, p in module.named_parameters():
        if "weight_hh" in n:
            assert torch.equal(p, 0.9 * torch.eye(5, dtype=F64))
        elif "bias" in n:
            assert torch.equal(p, torch.zeros_like(p))


@pytest.mark.parametrize("module", LSTMS, ids=ids)
def test_forget_bias(module):
    other = [(a + b).detach().clone() for a, b in biases(module)]
    changes = forget_bias_(module, 3)
    pairs = biases(module)
    assert len(changes) == 2 * len(pairs)
    for (a, b), old in zip(pairs, other, strict=True):
        assert torch.equal((a + b)[5:10], torch.full((5,), 3.0, dtype=F64))
        keep = [*range(5), *range(10, 20)]
        assert torch.equal((a + b)[keep], old[keep])


@pytest.mark.parametrize("module", LSTMS + GRUS, ids=ids)
def test_chrono(module):
    chrono_(module, 200, torch.Generator().manual_seed(1))
    draw = torch.Generator().manual_seed(1)
    for a, b in biases(module):
        total = a + b
        expected = torch.empty(5, dtype=F64).uniform_(1, 199, generator=draw).log()
        assert torch.equal(total[5:10], expected)
        assert expected.min() >= 0
        assert expected.max() <= math.log(199)
        if len(total) == 20:
            assert torch.equal(total[:5], -expected)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision(half):
    layer = nn.LSTM(3, 5, dtype=half)
    orthogonal_(layer)
    chrono_(layer, 50, torch.Generator().manual_seed(0))
    w = layer.weight_hh_l0[:5].double()
    torch.testing.assert_close(w @ w.T, torch.eye(5, dtype=F64), atol=0.02, rtol=0)
    draw = torch.empty(5).uniform_(1, 49, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer.bias_ih_l0[5:10], draw.log().to(half))


def test_equal_generators_give_equal_weights():
    drawn = []
    for seed in (0, 0, 1):
        layer = nn.LSTM(3, 5)
        orthogonal_(layer, generator=torch.Generator().manual_seed(seed))
        chrono_(layer, 50, torch.Generator().manual_seed(seed))
        drawn.append((layer.weight_hh_l0.detach(), layer.bias_ih_l0[:10].detach()))
    assert all(map(torch.equal, drawn[0], drawn[1]))
    assert not any(map(torch.equal, drawn[0], drawn[2]))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, seqref.LSTM, seqref.GRU])
def test_a_chrono_gate_keeps_what_the_law_says(kind):
    """With zero weights the state decays by 1 - 1 / (u + 1) a step, from outside."""
    layer = kind(3, 5, dtype=F64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    chrono_(layer, 40, torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(0)
    u = torch.empty(5, dtype=F64).uniform_(1, 39, generator=draw)
    start = torch.ones(1, 5, dtype=F64)
    x = torch.zeros(1, 30, 3, dtype=F64)
    if kind in (nn.LSTM, nn.GRU):
        x = x.transpose(0, 1)
        pair = (0 * start[None], start[None]) if kind is nn.LSTM else start[None]
        _, end = layer(x, pair)
    else:
        state = layer.initial_state(1)
        state = state._replace(**{state._fields[-1]: start})
        _, end = layer(x, state)
    last = end if isinstance(end, torch.Tensor) else end[-1]
    left = (1 - 1 / (u + 1)) ** 30
    torch.testing.assert_close(last.reshape(5), left, atol=1e-12, rtol=1e-12)


def test_what_is_not_named_stays():
    layer = nn.GRU(3, 5, dtype=F64)
    before = {n: p.detach().clone() for n, p in layer.named_parameters()}
    chrono_(layer, 9)
    for name, parameter in layer.named_parameters():
        keep = [*range(5), *range(10, 15)] if "bias" in name else slice(None)
        assert torch.equal(parameter[keep], before[name][keep])


def test_gradients_flow_and_a_graph_in_use_is_not_changed_silently():
    layer = seqref.LSTM(3, 5)
    y, _ = layer(torch.randn(2, 4, 3))
    orthogonal_(layer)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    layer(torch.randn(2, 4, 3))[0].sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in layer.parameters())


def unchanged(module, call, error, match):
    before = [p.detach().clone() for p in module.parameters()]
    with pytest.raises(error, match=match):
        call(module)
    assert all(map(torch.equal, before, module.parameters()))


def chrono_9(module):
    return chrono_(module, 9)


@pytest.mark.parametrize("call", [forget_bias_, identity_, chrono_9])
def test_another_kind_is_refused(call):
    mixed = seqref.Stacked([seqref.LSTM(3, 5), seqref.RNN(5, 5)])
    unchanged(mixed, call, TypeError, "nothing was changed")


def test_an_unknown_cell_is_refused():
    class OtherCell(RecurrentCell):
        n_blocks, state_type = 1, seqref.RNNState

        def forward(self, x_t, state=None):
            raise AssertionError("a test should not reach a step of this cell")

    both = nn.ModuleList([seqref.LSTM(3, 5), OtherCell(3, 5)])
    unchanged(both, orthogonal_, TypeError, "got OtherCell at `1`; nothing was")
    unchanged(both[1], orthogonal_, TypeError, "got OtherCell; nothing was")


COMPUTED = "computed from others .* nothing was changed"


def test_computed_parameters_are_refused_where_they_would_be_written():
    new = nn.utils.parametrizations.weight_norm(nn.LSTM(3, 5), "weight_hh_l0")
    unchanged(new, orthogonal_, ValueError, f"`weight_hh_l0` .* {COMPUTED}")
    assert len(forget_bias_(new)) == 2
    pruned = nn.LSTM(3, 5)
    prune.l1_unstructured(pruned, "bias_hh_l0", amount=2)
    unchanged(pruned, chrono_9, ValueError, f"`bias_hh_l0` .* {COMPUTED}")
    assert len(orthogonal_(pruned)) == 4


def test_shared_parameters_are_refused():
    tied = nn.LSTM(3, 5)
    tied.bias_hh_l0 = tied.bias_ih_l0
    unchanged(tied, forget_bias_, ValueError, "got the tensor of `bias_ih_l0`")
    first, second = seqref.RNN(5, 5), seqref.RNN(5, 5)
    second.cell.weight_hh = first.cell.weight_hh
    stack = seqref.Stacked([first, second])
    unchanged(stack, identity_, ValueError, "got the tensor of `layers.0.cell.weight")
    same = seqref.LSTM(3, 5)
    assert len(chrono_9(seqref.Bidirectional(same, same))) == 4


def test_meta_is_refused():
    with pytest.raises(ValueError, match="on the device meta"):
        orthogonal_(nn.GRU(3, 5, device="meta"))


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: chrono_(nn.LSTM(3, 5, bias=False), 9), ValueError, "must have biases"),
        (lambda: orthogonal_(nn.LSTM(3, 5, proj_size=2)), ValueError, "square blocks"),
        (lambda: chrono_(nn.LSTM(3, 5), 2), ValueError, "must be above 2, got 2"),
        (lambda: chrono_(nn.LSTM(3, 5), math.inf), ValueError, "must be finite"),
        (lambda: chrono_(nn.LSTM(3, 5), True), TypeError, "must be a number, got bool"),
        (
            lambda: chrono_(nn.LSTM(3, 5), 9, 0),
            TypeError,
            "`generator` must be a",
        ),
        (lambda: orthogonal_(nn.GRU(3, 5), 1, 0), TypeError, "`generator` must be a"),
        (lambda: orthogonal_(nn.Linear(3, 3)), TypeError, "must hold a recurrent"),
        (lambda: orthogonal_([]), TypeError, "must be a torch.nn.Module, got list"),
        (lambda: forget_bias_(nn.LSTM(3, 5), math.nan), ValueError, "be finite"),
        (lambda: identity_(nn.RNN(3, 5), "1"), TypeError, "`gain` must be a number"),
        (lambda: orthogonal_(nn.GRU(3, 5), 10**400), ValueError, "finite in float32"),
        (lambda: chrono_(nn.GRU(3, 5), 1e39), ValueError, "finite in float32"),
    ],
)
def test_bad_arguments(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda m: orthogonal_(m, 1e30), "weight_hh_l0"),
        (lambda m: identity_(m, 1e6), "weight_hh_l0"),
        (lambda m: forget_bias_(m, -1e6), "bias_ih_l0"),
    ],
)
def test_a_number_that_the_dtype_cannot_hold(call, name):
    kind = nn.LSTM if name == "bias_ih_l0" else nn.RNN
    match = f"`{name}` must get numbers that torch.float16 can hold, .* nothing was"
    unchanged(kind(3, 5, dtype=torch.float16), call, ValueError, match)
    call(kind(3, 5))


def test_the_default_device_is_not_asked():
    lstm, rnn = nn.LSTM(3, 5), nn.RNN(3, 5)
    with torch.device("meta"):
        chrono_(lstm, 9, torch.Generator("cpu").manual_seed(0))
        forget_bias_(lstm, 2)
        orthogonal_(lstm)
        identity_(rnn)
    assert torch.equal(rnn.weight_hh_l0, torch.eye(5))
    assert (lstm.bias_ih_l0[5:10] == 2).all()
    w = lstm.weight_hh_l0[:5]
    torch.testing.assert_close(w @ w.T, torch.eye(5))


@pytest.mark.errors
def test_numbers_of_other_kinds():
    layer = nn.RNN(3, 5)
    assert "0.5 * identity" in str(identity_(layer, Fraction(1, 2)))
    assert torch.equal(layer.weight_hh_l0, torch.eye(5) / 2)


def test_a_layer_without_biases():
    layer = seqref.RNN(3, 5, bias=False, dtype=F64)
    assert len(identity_(layer)) == 1
    assert torch.equal(layer.cell.weight_hh, torch.eye(5, dtype=F64))
    assert len(orthogonal_(nn.GRU(3, 5, bias=False))) == 3


def test_a_projected_lstm():
    layer = nn.LSTM(3, 5, proj_size=2)
    ours = recurrent.ProjectedLSTM(3, 5, 2)
    for module, ends in ((layer, "_l0"), (ours.cell, "")):
        forget_bias_(module, 2)
        pair = [getattr(module, name + ends) for name in ("bias_ih", "bias_hh")]
        assert torch.equal((pair[0] + pair[1])[5:10], torch.full((5,), 2))
        unchanged(module, orthogonal_, ValueError, "square blocks")


@pytest.mark.parametrize("name", REFUSED)
def test_cells_with_other_blocks_are_refused(name):
    layer = LAYERS[name]()
    kind = type(layer.cell).__name__
    match = f"got {kind} at `cell`; nothing was"
    if not isinstance(layer.cell, RecurrentCell):
        # No weight of it stands on its state.
        match = f"must hold a recurrent layer or cell .*, got {type(layer).__name__}"
    unchanged(layer, chrono_9, TypeError, match)


def test_the_report():
    report = forget_bias_(nn.LSTM(3, 5), 1)
    changes = (
        Change("bias_ih_l0", (5, 10), "f", "1"),
        Change("bias_hh_l0", (5, 10), "f", "0"),
    )
    assert report == Report(changes)
    assert tuple(report) == changes
    assert str(report).splitlines() == [
        "bias_ih_l0  f, rows 5 to 9: 1",
        "bias_hh_l0  f, rows 5 to 9: 0",
    ]
    assert "0.5 * orthogonal" in str(orthogonal_(nn.RNN(3, 5), 0.5))
    values = [change.value for change in chrono_(seqref.LSTMCell(3, 5), 200)]
    assert values == ["log U[1, 199]", "0", "minus that of f", "0"]


def test_defaults_and_the_smallest_horizon():
    lstm = nn.LSTM(3, 5)
    forget_bias_(lstm)
    assert (lstm.bias_ih_l0 + lstm.bias_hh_l0)[5:10].tolist() == [1.0] * 5
    # log U[1, 2]: a horizon of 3 is the first whole one that leaves room for a draw.
    chrono_(lstm, horizon=3)
    drawn = (lstm.bias_ih_l0 + lstm.bias_hh_l0)[5:10]
    assert (drawn >= 0).all()
    assert (drawn <= math.log(2)).all()
    rnn = nn.RNN(3, 5)
    identity_(rnn)
    assert torch.equal(rnn.weight_hh_l0, torch.eye(5))
    assert str(identity_(rnn)).splitlines()[0].endswith(": identity")
    half = str(identity_(rnn, gain=0.5))
    assert half.splitlines()[0].endswith(": 0.5 * identity")
