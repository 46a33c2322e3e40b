"""Variants of the LSTM beside torch.nn and beside their equations, in both modes."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqref import (
    LSTM,
    Bidirectional,
    BidirectionalState,
    LayerNormLSTM,
    LayerNormLSTMCell,
    LockedDropout,
    LSTMCell,
    LSTMState,
    ProjectedLSTM,
    ProjectedLSTMCell,
    Stacked,
    VariationalLSTM,
    VariationalLSTMCell,
    VariationalLSTMState,
    ZoneoutLSTM,
    ZoneoutLSTMCell,
    zoneout,
)
from seqref.models import LanguageModel
from seqref.recurrence import detach_state, reset_rows, scan, select_rows
from seqref.recurrent.gradients import state_jacobian
from seqref.tasks import Streams
from seqref.testing import check_sequence_layer
from seqref.training import train

F64 = torch.float64
TIGHT = {"atol": 1e-12, "rtol": 1e-12}

LAYERS = {
    "layer norm": lambda **options: LayerNormLSTM(3, 5, **options),
    "projected": lambda **options: ProjectedLSTM(3, 5, 2, **options),
    "zoneout": lambda **options: ZoneoutLSTM(
        3, 5, zoneout_c=0.5, zoneout_h=0.2, **options
    ),
    "variational": lambda **options: VariationalLSTM(
        3, 5, dropout_x=0.3, dropout_h=0.4, **options
    ),
}


@pytest.fixture(params=LAYERS, ids=lambda name: name.replace(" ", "_"))
def make(request):
    return LAYERS[request.param]


def test_contract_of_a_stack_of_all():
    stack = Stacked(
        [
            LayerNormLSTM(3, 6),
            ProjectedLSTM(6, 5, 4),
            ZoneoutLSTM(4, 5, zoneout_c=0.5, zoneout_h=0.1),
            VariationalLSTM(5, 5, dropout_x=0.5, dropout_h=0.5),
        ]
    ).eval()
    assert "chunks" in check_sequence_layer(stack, torch.randn(2, 5, 3)).checked


def move_norms(cell):
    """Norms that are not the identity after normalization."""
    with torch.no_grad():
        for norm in (cell.norm_ih, cell.norm_hh, cell.norm_c):
            norm.weight.uniform_(0.5, 1.5)
            if norm.bias is not None:
                norm.bias.uniform_(-1, 1)


def gradients(outputs, leaves, upstream):
    return torch.autograd.grad(outputs, leaves, upstream)


def same(mine, theirs, **tolerance):
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, **(tolerance or TIGHT))


# Layer norm.


def normalized(a, norm):
    """The formula, without torch's layer norm."""
    mean = a.sum(-1, keepdim=True) / a.shape[-1]
    variance = ((a - mean) ** 2).sum(-1, keepdim=True) / a.shape[-1]
    result = (a - mean) / (variance + norm.eps) ** 0.5 * norm.weight
    return result if norm.bias is None else result + norm.bias


def layer_norm_lstm(cell, x, h_t, c_t):
    """Gate by gate, with torch's blocks cut out by hand."""
    width, outputs = cell.hidden_size, []
    for t in range(x.shape[1]):
        pre = normalized(x[:, t] @ cell.weight_ih.T, cell.norm_ih)
        pre = pre + normalized(h_t @ cell.weight_hh.T, cell.norm_hh)
        i_t = torch.sigmoid(pre[:, :width])
        f_t = torch.sigmoid(pre[:, width : 2 * width])
        g_t = torch.tanh(pre[:, 2 * width : 3 * width])
        o_t = torch.sigmoid(pre[:, 3 * width :])
        c_t = c_t * f_t + i_t * g_t
        h_t = torch.tanh(normalized(c_t, cell.norm_c)) * o_t
        outputs.append(h_t)
    return torch.stack(outputs, 1), h_t, c_t


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_equals_its_equations(bias):
    layer = LayerNormLSTM(3, 5, bias=bias, eps=1e-3, dtype=F64)
    move_norms(layer.cell)
    leaves = [torch.randn(2, 7, 3, dtype=F64, requires_grad=True)]
    leaves += [torch.randn(2, 5, dtype=F64, requires_grad=True) for _ in "hc"]
    y, state = layer(leaves[0], LSTMState(*leaves[1:]))
    judged = layer_norm_lstm(layer.cell, *leaves)
    same([y, *state], judged)
    upstream = [torch.randn_like(each) for each in judged]
    leaves += layer.parameters()
    mine = gradients([y, *state], leaves, upstream)
    same(mine, gradients(judged, leaves, upstream))
    assert all(gradient.abs().min() > 0 for gradient in mine)


def test_layer_norm_without_norms_is_torchs_cell():
    """Gains and biases that undo each norm leave torch.nn's LSTM, for one step."""
    cell = LayerNormLSTMCell(3, 5, dtype=F64)
    judge = nn.LSTMCell(3, 5, dtype=F64)
    x_t, h, c = (torch.randn(1, n, dtype=F64) for n in (3, 5, 5))
    with torch.no_grad():
        cell.weight_ih.copy_(judge.weight_ih)
        cell.weight_hh.copy_(judge.weight_hh)
        from_x, from_h = x_t @ judge.weight_ih.T, h @ judge.weight_hh.T
        for norm, value, bias in (
            (cell.norm_ih, from_x, judge.bias_ih),
            (cell.norm_hh, from_h, judge.bias_hh),
        ):
            norm.weight.fill_((value.var(correction=0) + norm.eps).sqrt().item())
            norm.bias.copy_(value.mean() + bias)
        _, c_judge = judge(x_t, (h, c))
        spread = c_judge.var(correction=0) + cell.norm_c.eps
        cell.norm_c.weight.fill_(spread.sqrt().item())
        cell.norm_c.bias.fill_(c_judge.mean().item())
        h_t, state = cell(x_t, LSTMState(h, c))
        torch.testing.assert_close(tuple(state), judge(x_t, (h, c)), **TIGHT)
        torch.testing.assert_close(h_t, state.h, **TIGHT)


@pytest.mark.parametrize("name", ["weight_ih", "weight_hh"])
def test_layer_norm_does_not_see_scale_or_shift_of_its_matrices(name):
    layer = LayerNormLSTM(3, 5, eps=1e-300, dtype=F64)
    move_norms(layer.cell)
    x = torch.randn(2, 6, 3, dtype=F64)
    start = LSTMState(*torch.randn(2, 2, 5, dtype=F64))
    before = layer(x, start)
    weight = getattr(layer.cell, name)
    with torch.no_grad():
        weight.mul_(7).add_(torch.randn(1, weight.shape[1], dtype=F64))
    after = layer(x, start)
    same([after[0], *after[1]], [before[0], *before[1]])
    with torch.no_grad():
        weight[:5].mul_(2)
    assert (layer(x, start)[0] - before[0]).abs().max() > 0.01


def test_gradient_of_a_scaled_matrix_shrinks_by_the_scale():
    layer = LayerNormLSTM(3, 5, eps=1e-300, dtype=F64)
    x = torch.randn(2, 6, 3, dtype=F64)
    start = LSTMState(*torch.randn(2, 2, 5, dtype=F64))
    weight = layer.cell.weight_hh
    upstream = torch.randn(2, 6, 5, dtype=F64)
    (before,) = gradients([layer(x, start)[0]], [weight], [upstream])
    with torch.no_grad():
        weight.mul_(8)
    (after,) = gradients([layer(x, start)[0]], [weight], [upstream])
    torch.testing.assert_close(8 * after, before, **TIGHT)
    # And it is orthogonal to the matrix, since no scale is seen.
    assert abs((after * weight).sum()) < 1e-12 * after.norm() * weight.norm()


def test_layer_norm_does_not_see_the_size_of_an_input():
    layer = LayerNormLSTM(3, 5, eps=1e-300, dtype=F64)
    x = torch.randn(2, 6, 3, dtype=F64)
    sizes = torch.empty(2, 6, 1, dtype=F64).uniform_(0.1, 10)
    same([layer(sizes * x)[0]], [layer(x)[0]])
    assert (layer(-x)[0] - layer(x)[0]).abs().max() > 0.01


def test_of_an_input_of_width_one_only_the_sign_is_seen():
    layer = LayerNormLSTM(1, 5, eps=1e-300, dtype=F64)
    x = torch.randn(2, 6, 1, dtype=F64)
    same([layer(x)[0]], [layer(x.sign())[0]])


def test_blank_inputs_at_the_start_multiply_a_gradient():
    layer = LayerNormLSTM(3, 5, dtype=F64)
    x, upstream = torch.randn(2, 6, 3, dtype=F64), torch.randn(2, 6, 5, dtype=F64)
    norms = []
    for blanks in range(4):
        x[:, :blanks] = 0
        bias = layer.cell.norm_hh.bias
        norms.append(gradients([layer(x)[0]], [bias], [upstream])[0].norm())
    for before, after in pairwise(norms):
        assert 50 < after / before < 100 / layer.cell.eps
    # A bias before the norm ends it.
    embedded = nn.Linear(3, 3, dtype=F64)(x)
    assert gradients([layer(embedded)[0]], [bias], [upstream])[0].norm() < 100


def test_the_state_holds_the_cell_state_before_its_norm():
    layer = LayerNormLSTM(3, 5, dtype=F64)
    with torch.no_grad():
        layer.cell.norm_ih.bias.copy_(
            torch.tensor([-1e3, 1e3, 0, 0]).repeat_interleave(5)
        )
    start = LSTMState(torch.randn(2, 5, dtype=F64), 9 * torch.randn(2, 5, dtype=F64))
    _, state = layer(torch.randn(2, 8, 3, dtype=F64), start)
    torch.testing.assert_close(state.c, start.c, **TIGHT)


def test_initialisation_of_layer_norm():
    cell = LayerNormLSTMCell(30, 50)
    for weight in (cell.weight_ih, cell.weight_hh):
        assert 0.9 / math.sqrt(50) < weight.abs().max() <= 1 / math.sqrt(50)
    for norm in (cell.norm_ih, cell.norm_hh, cell.norm_c):
        assert norm.weight.eq(1).all()
        assert norm.bias.eq(0).all()
    move_norms(cell)
    old = cell.weight_hh.detach().clone()
    cell.reset_parameters()
    assert not torch.equal(cell.weight_hh, old)
    assert cell.norm_c.weight.eq(1).all()
    assert cell.norm_hh.bias.eq(0).all()
    names = [n for n, _ in LayerNormLSTMCell(3, 5, bias=False).named_parameters()]
    assert not [n for n in names if "bias" in n]
    count = sum(p.numel() for p in LayerNormLSTM(3, 5).parameters())
    assert count == 4 * 5 * (3 + 5) + 2 * (4 * 5 + 4 * 5 + 5)


# Projection.


def projected_from_judge(bias):
    judge = nn.LSTM(3, 5, proj_size=2, bias=bias, batch_first=True, dtype=F64)
    layer = ProjectedLSTM(3, 5, 2, bias=bias, dtype=F64)
    state = {n.removesuffix("_l0"): v for n, v in judge.state_dict().items()}
    layer.cell.load_state_dict(state, strict=True)
    assert list(state) == [n for n, _ in layer.cell.named_parameters()]
    return layer, judge


@pytest.mark.parametrize("given", [None, [2, 6, 1, 4]])
@pytest.mark.parametrize("bias", [True, False])
def test_projected_equals_torch(bias, given):
    layer, judge = projected_from_judge(bias)
    values = [torch.randn(4, n, dtype=F64) for n in (2, 5)]
    leaves = [torch.randn(4, 6, 3, dtype=F64), *values]
    lengths = None if given is None else torch.tensor(given)
    mine = [v.clone().requires_grad_() for v in leaves]
    y, state = layer(mine[0], LSTMState(*mine[1:]), lengths)
    upstream = [torch.randn_like(each) for each in (y, *state)]
    theirs = [v.clone().requires_grad_() for v in leaves]
    inputs = theirs[0]
    if lengths is not None:
        inputs = pack_padded_sequence(inputs, lengths, True, enforce_sorted=False)
    y_judge, (h_n, c_n) = judge(inputs, (theirs[1][None], theirs[2][None]))
    if lengths is not None:
        y_judge, _ = pad_packed_sequence(y_judge, batch_first=True, total_length=6)
    same([y, *state], [y_judge, h_n[0], c_n[0]])
    same(
        gradients([y, *state], [*mine, *layer.parameters()], upstream),
        gradients([y_judge, h_n[0], c_n[0]], [*theirs, *judge.parameters()], upstream),
    )


def test_two_directions_of_projected_layers_equal_torch():
    judge = nn.LSTM(3, 5, proj_size=2, bidirectional=True, batch_first=True, dtype=F64)
    both = Bidirectional(*(ProjectedLSTM(3, 5, 2, dtype=F64) for _ in range(2)))
    assert both.output_size == 4
    for layer, suffix in (
        (both.forward_layer, "_l0"),
        (both.backward_layer, "_l0_reverse"),
    ):
        own = [n for n, _ in layer.cell.named_parameters()]
        layer.cell.load_state_dict({n: getattr(judge, n + suffix) for n in own})
    x, lengths = torch.randn(3, 6, 3, dtype=F64), torch.tensor([4, 6, 1])
    h_0, c_0 = torch.randn(2, 3, 2, dtype=F64), torch.randn(2, 3, 5, dtype=F64)
    start = BidirectionalState(*(LSTMState(h_0[i], c_0[i]) for i in range(2)))
    y, state = both(x, start, lengths)
    packed = pack_padded_sequence(x, lengths, True, enforce_sorted=False)
    y_judge, (h_n, c_n) = judge(packed, (h_0, c_0))
    y_judge, _ = pad_packed_sequence(y_judge, batch_first=True, total_length=6)
    same([y], [y_judge])
    same([*state.forward, *state.backward], [h_n[0], c_n[0], h_n[1], c_n[1]])


@pytest.mark.errors
def test_weights_of_a_torch_layer_are_refused_with_the_mend():
    state = nn.LSTM(3, 5, proj_size=2).state_dict()
    message = (
        r"^ProjectedLSTM.load_state_dict: these are the weights of a torch.nn.LSTM, "
        r".*; for one layer and one direction, rename: layer.cell.load_state_dict\("
    )
    with pytest.raises(RuntimeError, match=message):
        ProjectedLSTM(3, 5, 2).load_state_dict(state)
    message = r"^LayerNormLSTM.load_state_dict: .*torch.nn has no LayerNormLSTM"
    with pytest.raises(RuntimeError, match=message):
        LayerNormLSTM(3, 5).load_state_dict(nn.LSTM(3, 5).state_dict())


def test_sizes_of_a_projected_layer():
    layer = ProjectedLSTM(3, 5, 2)
    assert (layer.input_size, layer.hidden_size, layer.proj_size) == (3, 5, 2)
    assert layer.output_size == 2
    state = layer.initial_state(4)
    assert [tuple(part.shape) for part in state] == [(4, 2), (4, 5)]
    count = sum(p.numel() for p in layer.parameters())
    assert count == 4 * (5 * 3 + 5 * 2 + 2 * 5) + 2 * 5
    assert count == sum(p.numel() for p in nn.LSTM(3, 5, proj_size=2).parameters())
    for parameter in ProjectedLSTMCell(30, 50, 20).parameters():
        assert 0.8 / math.sqrt(50) < parameter.abs().max() <= 1 / math.sqrt(50)


# Zoneout.


def authors_zoneout(new, old, p):
    """The form of the authors' TensorFlow wrapper: dropout of the update."""
    return (1 - p) * F.dropout(new - old, p) + old


@pytest.mark.parametrize("p", [0.0, 0.3, 0.9])
def test_zoneout_is_dropout_of_the_update(p):
    new, old = torch.randn(2, 50, 40, dtype=F64)
    torch.manual_seed(5)
    result = zoneout(new, old, p)
    torch.manual_seed(5)
    torch.testing.assert_close(result, authors_zoneout(new, old, p), **TIGHT)
    kept = (result == old).double().mean().item()
    assert kept == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / 2000))
    assert ((result == old) | (result == new)).all()
    expected = p * old + (1 - p) * new
    torch.testing.assert_close(zoneout(new, old, p, False), expected, **TIGHT)


def test_gradients_of_zoneout_go_where_the_values_came_from():
    new, old = (torch.randn(50, 40, dtype=F64, requires_grad=True) for _ in "no")
    result = zoneout(new, old, 0.4)
    up = torch.randn_like(new)
    to_new, to_old = gradients([result], [new, old], [up])
    kept = result == old
    assert 0 < kept.sum() < kept.numel()
    same([to_new, to_old], [up * ~kept, up * kept])
    result = zoneout(new, old, 0.4, training=False)
    same(gradients([result], [new, old], [up]), [0.6 * up, 0.4 * up])


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("infinite", [math.inf, -math.inf, math.nan])
def test_without_zoneout_nothing_of_the_old_value_is_left(infinite, train):
    new, old = torch.randn(2, 3, dtype=F64), torch.full((2, 3), infinite, dtype=F64)
    assert torch.equal(zoneout(new, old, 0.0, train), new)


def zoneout_lstm(judge, x, h_t, c_t, rates, train):
    """Over torch's own cell, with the authors' formula for what is kept."""
    outputs, (p_c, p_h) = [], rates
    for x_t in x.unbind(1):
        h_new, c_new = judge(x_t, (h_t, c_t))
        if train:
            c_t = authors_zoneout(c_new, c_t, p_c)
            h_t = authors_zoneout(h_new, h_t, p_h)
        else:
            c_t, h_t = p_c * c_t + (1 - p_c) * c_new, p_h * h_t + (1 - p_h) * h_new
        outputs.append(h_t)
    return torch.stack(outputs, 1), h_t, c_t


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_zoneout_lstm_over_torchs_cell(bias, train):
    judge = nn.LSTMCell(3, 5, bias=bias, dtype=F64)
    layer = ZoneoutLSTM(3, 5, zoneout_c=0.5, zoneout_h=0.2, bias=bias, dtype=F64)
    layer.cell.load_state_dict(judge.state_dict(), strict=True)
    layer.train(train)
    leaves = [torch.randn(4, 7, 3, dtype=F64, requires_grad=True)]
    leaves += [torch.randn(4, 5, dtype=F64, requires_grad=True) for _ in "hc"]
    torch.manual_seed(6)
    y, state = layer(leaves[0], LSTMState(*leaves[1:]))
    torch.manual_seed(6)
    judged = zoneout_lstm(judge, *leaves, (0.5, 0.2), train)
    same([y, *state], judged)
    upstream = [torch.randn_like(each) for each in judged]
    same(
        gradients([y, *state], [*leaves, *layer.parameters()], upstream),
        gradients(judged, [*leaves, *judge.parameters()], upstream),
    )


def test_without_zoneout_it_is_the_lstm():
    layer = ZoneoutLSTM(3, 5, zoneout_c=0.0, zoneout_h=0.0, dtype=F64)
    plain = LSTM(3, 5, dtype=F64)
    plain.cell.load_state_dict(layer.cell.state_dict())
    x = torch.randn(2, 7, 3, dtype=F64)
    for mode in (True, False):
        layer.train(mode)
        y, state = layer(x)
        expected, end = plain(x)
        same([y, *state], [expected, *end])


@pytest.mark.parametrize("lengths", [None, torch.tensor([7, 0, 3])])
def test_zoneout_draws_the_same_in_every_form(lengths):
    layer = ZoneoutLSTM(3, 5, zoneout_c=0.5, zoneout_h=0.2, dtype=F64)
    x = torch.randn(3, 7, 3, dtype=F64)
    if lengths is not None:
        x[1], x[2, 3:] = torch.nan, torch.nan
    torch.manual_seed(7)
    y, state = layer(x, lengths=lengths)
    torch.manual_seed(7)
    y_scan, state_scan = scan(layer, x, lengths=lengths)
    same([y, *state], [y_scan, *state_scan])
    again, _ = layer(x, lengths=lengths)
    assert (again - y).abs().max() > 0.01


def test_a_stack_of_zoneout_draws_in_another_order_by_steps():
    one, two = (
        ZoneoutLSTM(3, 3, zoneout_c=0.5, zoneout_h=0.2, dtype=F64) for _ in range(2)
    )
    x = torch.randn(2, 7, 3, dtype=F64)

    def chunks(layer):
        first, state = layer(x[:, :3])
        return torch.cat([first, layer(x[:, 3:], state)[0]], 1)

    for layer, agree in ((one, True), (Stacked([one, two]), False)):
        results = []
        for run in (lambda f: f(x)[0], lambda f: scan(f, x)[0], chunks):
            torch.manual_seed(8)
            results.append(run(layer))
        for other in results[1:]:
            assert torch.allclose(results[0], other, **TIGHT) is agree


# Variational dropout.


def variational(**options):
    layer = VariationalLSTM(6, 5, dropout_x=0.3, dropout_h=0.4, dtype=F64, **options)
    return layer, torch.randn(4, 7, 6, dtype=F64)


@pytest.mark.parametrize("bias", [True, False])
def test_variational_lstm_over_torchs_cell(bias):
    layer, x = variational(bias=bias)
    judge = nn.LSTMCell(6, 5, bias=bias, dtype=F64)
    judge.load_state_dict(layer.cell.state_dict(), strict=True)
    start = layer.initial_state(4)
    assert 0 < start.mask_x.count_nonzero() < 24
    assert 0 < start.mask_h.count_nonzero() < 20
    h, c = (torch.randn(4, 5, dtype=F64, requires_grad=True) for _ in "hc")
    x.requires_grad_()
    y, state = layer(x, start._replace(h=h, c=c))
    outputs, h_t, c_t = [], h, c
    for x_t in x.unbind(1):
        h_t, c_t = judge(x_t * start.mask_x, (h_t * start.mask_h, c_t))
        outputs.append(h_t)
    judged = [torch.stack(outputs, 1), h_t, c_t]
    same([y, state.h, state.c], judged)
    upstream = [torch.randn_like(each) for each in judged]
    same(
        gradients([y, state.h, state.c], [x, h, c, *layer.parameters()], upstream),
        gradients(judged, [x, h, c, *judge.parameters()], upstream),
    )
    assert torch.equal(state.mask_x, start.mask_x)
    assert torch.equal(state.mask_h, start.mask_h)


def test_masks_hold_zeros_and_one_over_what_is_kept():
    layer = VariationalLSTM(40, 50, dropout_x=0.25, dropout_h=0.5)
    state = layer.initial_state(60)
    for mask, p in ((state.mask_x, 0.25), (state.mask_h, 0.5)):
        assert set(mask.unique().tolist()) == {0.0, torch.tensor(1 / (1 - p)).item()}
        dropped = mask.eq(0).double().mean().item()
        assert dropped == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / 2400))
        assert mask.mean().item() == pytest.approx(1, abs=0.1)
        assert (mask[0] != mask[1]).any()
    assert not state.h.any()
    assert not state.c.any()


@pytest.mark.parametrize("lengths", [None, torch.tensor([7, 0, 3, 5])])
def test_in_training_every_form_meets_the_masks_of_the_state(lengths):
    layer, x = variational()
    assert layer.training
    if lengths is not None:
        for row, length in enumerate(lengths.tolist()):
            x[row, length:] = torch.nan
    start = layer.initial_state(4)
    y, state = layer(x, start, lengths)
    y_scan, state_scan = scan(layer, x, start, lengths)
    same([y, *state], [y_scan, *state_scan])
    again, _ = layer(x, start, lengths)
    assert torch.equal(again, y)
    if lengths is None:
        first, carried = layer(x[:, :3], start)
        second, carried = layer(x[:, 3:], detach_state(carried))
        same([torch.cat([first, second], 1), *carried], [y, *state])
    other, _ = layer(x, lengths=lengths)
    assert (other - y).abs().max() > 0.01


def test_evaluation_does_not_look_at_the_masks():
    layer, x = variational()
    plain = LSTM(6, 5, dtype=F64)
    plain.cell.load_state_dict(layer.cell.state_dict())
    begun_in_training = layer.initial_state(4)
    layer.eval()
    expected, end = plain(x)
    for start in (None, begun_in_training, layer.initial_state(4)):
        y, state = layer(x, start)
        same([y, state.h, state.c], [expected, *end])
        y_t, _ = layer.step(x[:, 0], start)
        same([y_t], [expected[:, 0]])
    assert layer.initial_state(4).mask_x.eq(1).all()
    assert layer.initial_state(4).mask_h.eq(1).all()


def test_redraw_keeps_h_and_c():
    layer, x = variational()
    _, state = layer(x)
    for module in (layer, layer.cell):
        fresh = module.redraw(state)
        assert fresh.h is state.h
        assert fresh.c is state.c
        assert not torch.equal(fresh.mask_x, state.mask_x)
        assert not torch.equal(fresh.mask_h, state.mask_h)
    layer.eval()
    assert layer.redraw(state).mask_h.eq(1).all()


def test_train_keeps_one_draw_for_a_pass_over_the_text():
    torch.manual_seed(9)
    layer = VariationalLSTM(4, 16, dropout_x=0.3, dropout_h=0.3)
    model, seen = LanguageModel(7, layer), []
    layer.register_forward_hook(lambda _, inputs, output: seen.append(output[1]))
    streams = Streams(torch.randint(7, (101,)), batch_size=2, horizon=10)
    assert len(list(streams)) == 5
    train(model, streams, torch.optim.SGD(model.parameters()), 10)
    masks = [state.mask_h for state in seen]
    for k in range(10):
        assert torch.equal(masks[k], masks[k // 5 * 5])
    assert not torch.equal(masks[0], masks[5])


@pytest.mark.parametrize("train", [True, False])
def test_a_jacobian_by_the_state_has_an_identity_for_the_masks(train):
    layer, x = variational()
    layer.train(train)
    jacobian = state_jacobian(layer, x[:, 0], layer.initial_state(4))
    assert jacobian.shape == (4, 21, 21)
    expected = torch.cat([torch.zeros(11, 10), torch.eye(11)], 1).double()
    torch.testing.assert_close(jacobian[:, 10:], expected.expand(4, -1, -1))
    plain = LSTM(6, 5, dtype=F64)
    plain.cell.load_state_dict(layer.cell.state_dict())
    if not train:
        judge = state_jacobian(plain, x[:, 0], plain.initial_state(4))
        torch.testing.assert_close(jacobian[:, :10, :10], judge, **TIGHT)
        assert torch.linalg.matrix_norm(judge, 2).min() < 0.99
    assert torch.linalg.matrix_norm(jacobian, 2).min() > 1 - 1e-12


def test_masks_go_with_their_rows():
    layer, x = variational()
    _, state = layer(x)
    chosen = select_rows(state, torch.tensor([2, 2, 0]))
    assert torch.equal(chosen.mask_x, state.mask_x[[2, 2, 0]])
    fresh = layer.initial_state(4)
    mixed = reset_rows(state, fresh, torch.tensor([True, False, False, True]))
    assert torch.equal(mixed.mask_h[1:3], state.mask_h[1:3])
    assert torch.equal(mixed.mask_h[[0, 3]], fresh.mask_h[[0, 3]])


def test_no_dropout_is_the_lstm():
    layer = VariationalLSTM(3, 5, dropout_x=0.0, dropout_h=0.0, dtype=F64)
    plain = LSTM(3, 5, dtype=F64)
    plain.cell.load_state_dict(layer.cell.state_dict())
    x = torch.randn(2, 7, 3, dtype=F64)
    same([layer(x)[0]], [plain(x)[0]])


def test_locked_dropout():
    dropout = LockedDropout(0.25)
    x = torch.randn(60, 9, 40, dtype=F64, requires_grad=True)
    y = dropout(x)
    mask = (y / x).detach()
    assert torch.allclose(mask, mask[:, :1].expand_as(mask))
    kept = mask[:, 0] > 0
    torch.testing.assert_close(mask[:, 0], kept.double() / 0.75, **TIGHT)
    share = kept.double().mean().item()
    assert share == pytest.approx(0.75, abs=5 * math.sqrt(0.1875 / 2400))
    assert (kept[0] != kept[1]).any()
    (gradient,) = gradients([y], [x], [torch.ones_like(y)])
    torch.testing.assert_close(gradient, mask, **TIGHT)
    assert not torch.equal(dropout(x), y)
    dropout.eval()
    assert torch.equal(dropout(x), x)
    assert dropout(x[:, :0]).shape == (60, 0, 40)


# What all of them share.


def test_step_and_cell_agree(make):
    layer = make(dtype=F64).eval()
    x = torch.randn(2, 4, 3, dtype=F64)
    state, outputs = layer.initial_state(2), []
    for x_t in x.unbind(1):
        from_cell, after = layer.cell(x_t, state)
        y_t, state = layer.step(x_t, state)
        assert torch.equal(y_t, from_cell)
        assert torch.equal(after.c, state.c)
        outputs.append(y_t)
    y, final = layer(x)
    same([y, *final], [torch.stack(outputs, 1), *state])
    same(layer.cell(x[:, 0])[1], layer.step(x[:, 0])[1])


def test_under_autocast_states_keep_their_dtype(make):
    layer = make().eval()
    x = torch.randn(2, 4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer(x)
        _, after_step = layer.step(x[:, 0])
    assert y.dtype == torch.float32
    assert {part.dtype for part in (*state, *after_step)} == {torch.float32}
    torch.testing.assert_close(y, layer(x)[0], atol=0.05, rtol=0)


WRONG = {
    "hidden_size": (
        lambda: LayerNormLSTM(3, 1),
        ValueError,
        r"^LayerNormLSTM: `hidden_size` must be at least 2, got 1$",
    ),
    "eps": (
        lambda: LayerNormLSTMCell(3, 5, eps=0),
        ValueError,
        r"^LayerNormLSTMCell: `eps` must be above 0 and finite, got 0$",
    ),
    "eps_nan": (
        lambda: LayerNormLSTMCell(3, 5, eps=math.nan),
        ValueError,
        r"`eps` must be above 0 and finite, got nan$",
    ),
    "eps_kind": (
        lambda: LayerNormLSTMCell(3, 5, eps="1"),
        TypeError,
        r"`eps` must be a number, got str$",
    ),
    "eps_infinite": (
        lambda: LayerNormLSTM(3, 5, eps=math.inf),
        ValueError,
        r"^LayerNormLSTM: `eps` must be above 0 and finite, got inf$",
    ),
    "proj_size": (
        lambda: ProjectedLSTM(3, 5, 5),
        ValueError,
        r"^ProjectedLSTM: `proj_size` must be below hidden_size=5, got 5$",
    ),
    "proj_size_0": (
        lambda: ProjectedLSTM(3, 5, 0),
        ValueError,
        r"`proj_size` must be at least 1, got 0$",
    ),
    "zoneout_c": (
        lambda: ZoneoutLSTM(3, 5, zoneout_c=1.0, zoneout_h=0),
        ValueError,
        r"^ZoneoutLSTM: `zoneout_c` must be at least 0 and below 1, got 1.0$",
    ),
    "zoneout_h": (
        lambda: ZoneoutLSTM(3, 5, zoneout_c=0, zoneout_h=True),
        TypeError,
        r"^ZoneoutLSTM: `zoneout_h` must be a number, got bool$",
    ),
    "dropout_x": (
        lambda: VariationalLSTM(3, 5, dropout_x=-0.1, dropout_h=0),
        ValueError,
        r"^VariationalLSTM: `dropout_x` must be at least 0 and below 1, got -0.1$",
    ),
    "dropout_h": (
        lambda: VariationalLSTM(3, 5, dropout_x=0, dropout_h=math.nan),
        ValueError,
        r"`dropout_h` must be at least 0 and below 1, got nan$",
    ),
    "locked": (
        lambda: LockedDropout(1),
        ValueError,
        r"^LockedDropout: `p` must be at least 0 and below 1, got 1$",
    ),
    "locked_axes": (
        lambda: LockedDropout(0.5)(torch.zeros(2, 3)),
        ValueError,
        r"^LockedDropout.forward: `x` must have shape \(batch, time, width\), got",
    ),
    "zoneout_shapes": (
        lambda: zoneout(torch.zeros(2, 3), torch.zeros(2, 4), 0.5),
        ValueError,
        r"^zoneout: `old` must have shape \(axis 0=2, axis 1=3\), got \(2, 4\)$",
    ),
    "zoneout_dtypes": (
        lambda: zoneout(torch.zeros(2), torch.zeros(2, dtype=F64), 0.5),
        ValueError,
        r"^zoneout: `old` must have the dtype of `new`, torch.float32, got torch.float",
    ),
    "zoneout_devices": (
        lambda: zoneout(torch.zeros(2), torch.zeros(2, device="meta"), 0.5, False),
        ValueError,
        r"^zoneout: `old` must have the device of `new`, cpu, got meta$",
    ),
    "zoneout_p": (
        lambda: zoneout(torch.zeros(2), torch.zeros(2), 1.5),
        ValueError,
        r"^zoneout: `p` must be at least 0 and below 1, got 1.5$",
    ),
    "zoneout_kind": (
        lambda: zoneout(0.0, torch.zeros(2), 0.5),
        TypeError,
        r"^zoneout: `new` must be a torch.Tensor, got float$",
    ),
}


@pytest.mark.errors
@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(name):
    call, kind, message = WRONG[name]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.errors
def test_wrong_input_and_state(make):
    layer = make()
    name = type(layer).__name__
    with pytest.raises(ValueError, match=rf"^{name}.forward: `x` must have shape"):
        layer(torch.zeros(2, 4, 7))
    with pytest.raises(ValueError, match=rf"^{name}.step: `x_t` must have shape"):
        layer.step(torch.zeros(2, 4, 3))
    with pytest.raises(ValueError, match=rf"^{name}Cell.forward: `x_t` must have"):
        layer.cell(torch.zeros(2, 4))
    kind = type(layer.initial_state(2)).__name__
    message = rf"^{name}.forward: `state` must be {kind}\(h, c.*\), got tuple \(pass"
    with pytest.raises(TypeError, match=message):
        layer(torch.zeros(2, 4, 3), tuple(layer.initial_state(2)))
    with pytest.raises(ValueError, match=rf"^{name}.step: `state.h` must have shape"):
        layer.step(torch.zeros(2, 3), layer.initial_state(3))
    with pytest.raises(ValueError, match=r"`lengths` must be at most time=4, got 5"):
        layer(torch.zeros(2, 4, 3), lengths=torch.tensor([5, 1]))


@pytest.mark.errors
def test_states_of_other_widths_are_refused():
    projected = ProjectedLSTM(3, 5, 2)
    message = r"`state.h` must have shape \(batch=2, proj_size=2\), got \(2, 5\)$"
    with pytest.raises(ValueError, match=message):
        projected(torch.zeros(2, 4, 3), LSTM(3, 5).initial_state(2))
    layer = VariationalLSTM(3, 5, dropout_x=0.5, dropout_h=0.5)
    state = layer.initial_state(2)
    message = r"`state.mask_x` must have shape \(batch=2, input_size=3\), got \(2, 5\)$"
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(2, 4, 3), state._replace(mask_x=state.mask_h))
    with pytest.raises(TypeError, match=r"^VariationalLSTM.redraw: `state` must be"):
        layer.redraw(LSTM(3, 5).initial_state(2))
    message = r"^VariationalLSTMCell.redraw: `state.h` must have shape"
    with pytest.raises(ValueError, match=message):
        layer.cell.redraw(VariationalLSTMState(*torch.zeros(4)))


@pytest.mark.errors
def test_an_lstm_takes_no_state_with_masks():
    layer = VariationalLSTM(3, 5, dropout_x=0.5, dropout_h=0.5)
    with pytest.raises(TypeError, match=r"must be LSTMState\(h, c\), got Variational"):
        LSTMCell(3, 5)(torch.zeros(2, 3), layer.initial_state(2))


@pytest.mark.errors
def test_a_layer_and_a_cell_each_name_themselves(make):
    layer = make()
    for kind in (type(layer), type(layer.cell)):
        message = rf"^{kind.__name__}: `input_size` must be at least 1, got 0$"
        options = {
            name: getattr(layer.cell, name)
            for name in (
                *("proj_size", "zoneout_c", "zoneout_h", "dropout_x", "dropout_h"),
            )
            if hasattr(layer.cell, name)
        }
        with pytest.raises(ValueError, match=message):
            kind(0, 5, **options)


@pytest.mark.parametrize("name", ["zoneout", "variational", "locked"])
def test_each_row_of_vmap_has_draws_of_its_own(name):
    module = LockedDropout(0.5) if name == "locked" else LAYERS[name]()
    x = torch.ones(1, 4, 3)

    def run(scale):
        result = module(scale * x)
        return result if name == "locked" else result[0]

    many = torch.func.vmap(run, randomness="different")(torch.ones(16))
    assert len({tuple(row.flatten().tolist()) for row in many}) > 4
    same = torch.func.vmap(run, randomness="same")(torch.ones(16))
    assert len({tuple(row.flatten().tolist()) for row in same}) == 1


def test_masks_are_those_of_a_draw_in_place():
    layer = LAYERS["variational"]()
    torch.manual_seed(3)
    state = layer.initial_state(4)
    torch.manual_seed(3)
    for mask, p in ((state.mask_x, 0.3), (state.mask_h, 0.4)):
        expected = torch.empty_like(mask).bernoulli_(1 - p).div_(1 - p)
        assert torch.equal(mask, expected)


def test_representations_name_what_was_chosen():
    assert "LayerNormLSTMCell(\n    3, 5, bias=False, eps=0.001" in repr(
        LayerNormLSTM(3, 5, bias=False, eps=1e-3)
    )
    assert "ProjectedLSTMCell(3, 5, 2, bias=True)" in repr(ProjectedLSTM(3, 5, 2))
    assert "bias=True, zoneout_c=0.5, zoneout_h=0.05" in repr(
        ZoneoutLSTMCell(3, 5, zoneout_c=0.5, zoneout_h=0.05)
    )
    assert "bias=True, dropout_x=0.1, dropout_h=0.2" in repr(
        VariationalLSTMCell(3, 5, dropout_x=0.1, dropout_h=0.2)
    )
    assert repr(LockedDropout(0.5)) == "LockedDropout(p=0.5)"
