"""MinGRU, MinLSTM: judged by minGRU-pytorch and by torch's GRU, and by closed forms."""

import copy

import pytest
import torch
from minGRU_pytorch import minGRU
from minGRU_pytorch.minLSTM import minLSTM
from torch import nn

from seqref import GRU, MinGRU, MinGRUCell, MinimalState, MinLSTM, MinLSTMCell
from seqref.ops.linear_scan.parallel import chunks_of
from seqref.recurrence import scan
from seqref.recurrent.minimal import positive
from seqref.testing import check_sequence_layer

F64 = torch.float64
KINDS = (MinGRU, MinLSTM)


def state_of(batch=2, hidden=5, dtype=F64):
    return MinimalState(torch.rand(batch, hidden, dtype=dtype) + 0.1)


@pytest.mark.parametrize(
    ("kind", "candidate"), [(MinGRU, "linear"), (MinLSTM, "positive")]
)
def test_contract_where_chunks_are_full_and_where_steps_are_left(kind, candidate):
    # Three chunks of three steps; five of two; three of three and two steps.
    assert [chunks_of(2, time, 5) for time in (9, 10, 11)] == [4, 5, 5]
    for time in (9, 10, 11):
        layer = kind(3, 5, candidate=candidate, dtype=F64)
        report = check_sequence_layer(layer, torch.randn(2, time, 3, dtype=F64))
        assert "padding" in report.checked


@pytest.mark.parametrize("kind", KINDS)
def test_in_single_precision_the_scan_is_as_near_as_the_loop(kind):
    for seed in range(5):
        torch.manual_seed(seed)
        exact = kind(3, 5, candidate="linear", dtype=F64)
        layer = copy.deepcopy(exact).float()
        x, h_0 = torch.randn(2, 100, 3), torch.randn(2, 5)
        above = torch.randn(2, 100, 5)
        truth = passes(scan, exact, x.double(), h_0.double(), above.double())
        loop = passes(scan, layer, x, h_0, above)
        ours = passes(lambda layer, *given: layer(*given), layer, x, h_0, above)
        for name, value in truth.items():
            far, allowed = ((r[name] - value).abs().max() for r in (ours, loop))
            slack = 8 * torch.finfo(torch.float32).eps * value.abs().max()
            assert far <= 2 * allowed + slack, name


def passes(form, layer, x, h_0, above):
    x, h_0 = x.clone().requires_grad_(), h_0.clone().requires_grad_()
    y, (h_n,) = form(layer, x, MinimalState(h_0))
    named = dict(layer.named_parameters(), x=x, h_0=h_0)
    grads = torch.autograd.grad((y, h_n), [*named.values()], (above, above[:, 0]))
    return {"y": y, "h_n": h_n, **dict(zip(named, grads, strict=True))}


JUDGES = {
    # Of theirs the candidate's rows come first, then those of f before those of i.
    MinGRU: (minGRU, "to_hidden_and_gate", (1, 0)),
    MinLSTM: (minLSTM, "to_hidden_and_f_i_gate", (2, 1, 0)),
}


def pair(kind, dtype=F64):
    """Ours and theirs with one set of weights, 5 wide."""
    make, name, order = JUDGES[kind]
    ours = kind(5, 5, candidate="positive", bias=False, dtype=dtype)
    theirs = make(5).to(dtype)
    blocks = ours.cell.weight_ih.detach().chunk(len(order))
    weight = torch.cat([blocks[i] for i in order])
    theirs.load_state_dict({f"{name}.weight": weight}, strict=True)
    return ours, theirs


@pytest.mark.parametrize(
    ("kind", "given"), [(MinGRU, False), (MinGRU, True), (MinLSTM, False)]
)
def test_equals_official(kind, given):
    """The package minGRU-pytorch, which scans in logarithms."""
    ours, theirs = pair(kind)
    x = torch.randn(2, 9, 5, dtype=F64, requires_grad=True)
    h_0 = state_of().h.requires_grad_() if given else None
    y, (h_n,) = ours(x, None if h_0 is None else MinimalState(h_0))
    other = theirs(x, None if h_0 is None else h_0[:, None])
    torch.testing.assert_close(y, other, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(h_n, other[:, -1], atol=1e-10, rtol=1e-10)
    above, inputs = torch.randn_like(y), [x] if h_0 is None else [x, h_0]
    mine, its = (torch.autograd.grad(out, inputs, above) for out in (y, other))
    for one, two in zip(mine, its, strict=True):
        torch.testing.assert_close(one, two, atol=1e-10, rtol=1e-10)


def test_the_judge_of_minlstm_does_not_go_on_where_it_stopped():
    """Two parts with a carried state: ours are the whole, those of 0.2.1 are not."""
    ours, theirs = pair(MinLSTM)
    x = torch.randn(2, 8, 5, dtype=F64)
    whole = ours(x)[0]
    first, state = theirs(x[:, :4], return_next_prev_hidden=True)
    second = theirs(x[:, 4:], state)
    torch.testing.assert_close(first, whole[:, :4])
    assert (second[:, 0] - whole[:, 4]).abs().max() > 0.01
    # It computes what ours does from g(h), whose values are all above one half.
    carried = ours(x[:, 4:], MinimalState(positive(state[:, 0])))[0]
    torch.testing.assert_close(second, carried)


def test_equals_torch_with_a_gate_that_keeps():
    """A GRU without weights of the state is a minGRU but for the sign of z and tanh."""
    layer, judge = MinGRU(3, 5, dtype=F64), nn.GRU(3, 5, batch_first=True).to(F64)
    small = 1e-5
    z_weight, n_weight = layer.cell.weight_ih.detach().chunk(2)
    z_bias, n_bias = layer.cell.get_parameter("bias_ih").detach().chunk(2)
    judge.load_state_dict(
        {
            "weight_ih_l0": torch.cat([n_weight, -z_weight, small * n_weight]),
            "bias_ih_l0": torch.cat([n_bias, -z_bias, small * n_bias]),
            "weight_hh_l0": torch.zeros(15, 5),
            "bias_hh_l0": torch.zeros(15),
        }
    )
    x, h_0 = torch.randn(2, 7, 3, dtype=F64), torch.randn(2, 5, dtype=F64)
    y, (h_n,) = layer(x, MinimalState(h_0))
    theirs, last = judge(x, small * h_0[None])
    torch.testing.assert_close(y, theirs / small, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(h_n, last[0] / small, atol=1e-8, rtol=1e-8)


def test_on_a_constant_input_it_goes_to_its_candidate_by_powers():
    layer = MinGRU(3, 5, dtype=F64)
    x = torch.randn(2, 1, 3, dtype=F64).expand(-1, 30, -1)
    weight, bias = layer.cell.weight_ih, layer.cell.get_parameter("bias_ih")
    z_pre, n = (x[:, 0] @ weight.T + bias).chunk(2, dim=-1)
    h_0 = torch.randn(2, 5, dtype=F64)
    y, _ = layer(x, MinimalState(h_0))
    t = torch.arange(1, 31, dtype=F64)[:, None]
    left = (1 - z_pre.sigmoid())[:, None] ** t
    torch.testing.assert_close(y, n[:, None] + left * (h_0 - n)[:, None])


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_constant_input_a_read_out_turns_at_most_once_a_unit(kind):
    """A constant and D decays have at most D zeros; a parity turns at each step."""
    torch.manual_seed(0)
    turns = []
    for _ in range(50):
        layer = kind(1, 3, dtype=F64)
        with torch.no_grad():
            layer.cell.weight_ih.normal_(std=3.0)
        x, w = torch.ones(1, 60, 1, dtype=F64), torch.randn(3, dtype=F64)
        y, _ = layer(x, MinimalState(torch.randn(1, 3, dtype=F64)))
        readout = (y @ w)[0]
        # The constant of the read-out is chosen to be hard.
        for c in readout.sort().values[5::10]:
            far = readout[(readout - c).abs() > 1e-9]
            turns.append(int((far > c).int().diff().abs().sum()))
    assert 1 <= max(turns) <= 3
    parity = torch.arange(60) % 2
    assert parity.diff().abs().sum() == 59


@pytest.mark.parametrize("units", [1, 2, 3])
def test_so_many_units_follow_a_run_of_ones_for_one_step_more(units):
    """Parity is told by a sign; the next step, of `units + 2`, is wrong."""
    layer = MinGRU(1, units, dtype=F64)
    z = torch.linspace(0.2, 0.8, units, dtype=F64)
    bias = torch.cat([z.logit(), torch.ones(units, dtype=F64)])
    layer.cell.load_state_dict(
        {"weight_ih": torch.zeros(2 * units, 1), "bias_ih": bias}
    )
    y = layer(torch.ones(1, units + 2, 1, dtype=F64))[0][0]
    features = torch.cat([torch.ones_like(y[:, :1]), y], dim=1)
    signs = 1.0 - 2.0 * (torch.arange(units + 2, dtype=F64) % 2)
    readout = torch.linalg.solve(features[:-1], signs[:-1])
    right = (features @ readout).sign() == signs
    assert right.tolist() == [True] * (units + 1) + [False]


def test_minlstm_is_a_mingru_whose_gate_has_two_logits():
    lstm, gru = MinLSTM(3, 5, dtype=F64), MinGRU(3, 5, dtype=F64)
    x = torch.randn(2, 6, 3, dtype=F64)
    i_w, f_w, n_w = lstm.cell.weight_ih.detach().chunk(3)
    i_b, f_b, n_b = lstm.cell.get_parameter("bias_ih").detach().chunk(3)
    # Both far below zero log σ is the identity, and the difference is one projection.
    low = 50.0
    lstm.cell.load_state_dict(
        {
            "weight_ih": torch.cat([i_w, f_w, n_w]),
            "bias_ih": torch.cat([i_b - low, f_b - low, n_b]),
        }
    )
    gru.cell.load_state_dict(
        {
            "weight_ih": torch.cat([i_w - f_w, n_w]),
            "bias_ih": torch.cat([i_b - f_b, n_b]),
        }
    )
    torch.testing.assert_close(lstm(x)[0], gru(x)[0])


@pytest.mark.parametrize("both", [-200.0, 200.0])
def test_two_gates_that_are_shut_or_open_share_alike(both):
    cell = MinLSTMCell(1, 1)
    cell.load_state_dict(
        {"weight_ih": torch.zeros(3, 1), "bias_ih": torch.tensor([both, both, 4.0])}
    )
    h_t, _ = cell(torch.zeros(1, 1), MinimalState(torch.tensor([[2.0]])))
    assert h_t.item() == 3.0
    grads = torch.autograd.grad(h_t.sum(), [*cell.parameters()])
    assert all(g.isfinite().all() for g in grads)


def test_a_large_gate_takes_and_one_of_torch_keeps():
    ours, other = MinGRU(1, 1), GRU(1, 1)
    with torch.no_grad():
        for layer, row in ((ours, 0), (other, 1)):
            for parameter in layer.parameters():
                parameter.zero_()
            layer.cell.get_parameter("bias_ih")[row] = 20.0
            layer.cell.get_parameter("bias_ih")[-1] = 0.5
    x, first = torch.zeros(1, 1, 1), torch.full((1, 1), 0.25)
    assert ours(x, MinimalState(first))[0].item() == pytest.approx(0.5)
    kept = other(x, other.initial_state(1)._replace(h=first))[0]
    assert kept.item() == pytest.approx(0.25)


def test_the_positive_candidate():
    x = torch.tensor([-100.0, -1.0, -1e-9, 0.0, 2.0], dtype=F64, requires_grad=True)
    expected = torch.cat([x[:3].sigmoid(), x[3:] + 0.5])
    torch.testing.assert_close(positive(x), expected)
    slopes = torch.autograd.grad(positive(x).sum(), x)[0]
    below = (x[:3].sigmoid() * (1 - x[:3].sigmoid())).detach()
    torch.testing.assert_close(slopes, torch.cat([below, torch.ones(2, dtype=F64)]))
    y, _ = MinGRU(3, 5, candidate="positive", dtype=F64)(
        torch.randn(2, 9, 3, dtype=F64)
    )
    assert (y > 0).all()


def test_parameters_are_counted():
    """Two and three blocks of hidden (input + 1), a GRU three of hidden + 1 more."""
    counts = {k: sum(p.numel() for p in k(6, 8).parameters()) for k in (*KINDS, GRU)}
    assert counts == {MinGRU: 2 * 8 * 7, MinLSTM: 3 * 8 * 7, GRU: 3 * 8 * (7 + 9)}


@pytest.mark.errors
@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_is_named(kind):
    layer, name = kind(3, 5), kind.__name__
    with pytest.raises(ValueError, match=rf"{name}.forward: `state.h`.*hidden_size=5"):
        layer(torch.randn(2, 6, 3), MinimalState(torch.zeros(2, 4)))
    with pytest.raises(TypeError, match=r"`state` must be MinimalState\(h\), got Tens"):
        layer(torch.randn(2, 6, 3), torch.zeros(2, 5))
    with pytest.raises(ValueError, match=rf"^{name}: `candidate` must be one of"):
        kind(3, 5, candidate="tanh")
    with pytest.raises(ValueError, match=r"^MinGRUCell: `candidate` must be one of"):
        MinGRUCell(3, 5, candidate="tanh")
