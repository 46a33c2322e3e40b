"""LRU: judged by the paper's formulas in a loop, and by what follows from them."""

import copy
import math

import pytest
import torch

from seqref import LRU, LRUState
from seqref.ops.linear_scan.parallel import chunks_of
from seqref.recurrence import scan
from seqref.testing import check_sequence_layer

F64, C128 = torch.float64, torch.complex128


def stirred(layer):
    """Normalised by other numbers than at the start, so that a fault shows."""
    with torch.no_grad():
        layer.log_gamma.add_(torch.randn_like(layer.log_gamma))
    return layer


def by_the_paper(layer, x, h_0):
    """Appendix A of the paper, one row and one step after the other."""
    nu_log, theta_log, gamma_log = layer.log_nu, layer.log_theta, layer.log_gamma
    B = layer.B[..., 0] + 1j * layer.B[..., 1]
    C = layer.C[..., 0] + 1j * layer.C[..., 1]
    diag_lambda = torch.exp(-torch.exp(nu_log) + 1j * torch.exp(theta_log))
    B_norm = B * torch.exp(gamma_log)[:, None]
    rows, states = [], []
    for row, h in zip(x, h_0, strict=True):
        outputs = []
        for x_t in row:
            h = diag_lambda * h + B_norm @ x_t.to(C128)
            outputs.append((C @ h).real + layer.D * x_t)
        rows.append(torch.stack(outputs))
        states.append(h)
    return torch.stack(rows), torch.stack(states)


def test_equals_the_formulas_of_the_paper():
    torch.manual_seed(0)
    layer = stirred(LRU(3, 5, dtype=F64))
    x = torch.randn(2, 9, 3, dtype=F64, requires_grad=True)
    h_0 = torch.randn(2, 5, dtype=C128, requires_grad=True)
    ours, judge = layer(x, LRUState(h_0)), by_the_paper(layer, x, h_0)
    above = torch.randn(2, 9, 3, dtype=F64), torch.randn(2, 5, dtype=C128)
    inputs = [x, h_0, *layer.parameters()]
    results = [
        [y, h_n, *torch.autograd.grad((y, h_n), inputs, above)]
        for y, h_n in ((ours[0], ours[1].h), judge)
    ]
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=1e-10)


def test_contract_where_chunks_are_full_and_where_steps_are_left():
    assert [chunks_of(2, time, 5) for time in (9, 10, 11)] == [4, 5, 5]
    for time in (9, 10, 11):
        report = check_sequence_layer(
            stirred(LRU(3, 5, dtype=F64)), torch.randn(2, time, 3, dtype=F64)
        )
        assert {"padding", "initial state"} <= set(report.checked)


def test_in_single_precision_the_scan_is_as_near_as_the_loop():
    for seed in range(5):
        torch.manual_seed(seed)
        exact = LRU(3, 5, r_min=0.9, dtype=F64)
        layer = copy.deepcopy(exact).float()
        x = torch.randn(2, 100, 3)
        h_0 = torch.randn(2, 5, dtype=torch.complex64)
        above = torch.randn(2, 100, 3)
        truth = passes(scan, exact, x.double(), h_0.to(C128), above.double())
        loop = passes(scan, layer, x, h_0, above)
        ours = passes(lambda layer, *given: layer(*given), layer, x, h_0, above)
        for name, value in truth.items():
            far, allowed = ((r[name] - value).abs().max() for r in (ours, loop))
            slack = 8 * torch.finfo(torch.float32).eps * value.abs().max()
            assert far <= 2 * allowed + slack, name


def passes(form, layer, x, h_0, above):
    x, h_0 = x.clone().requires_grad_(), h_0.clone().requires_grad_()
    y, (h_n,) = form(layer, x, LRUState(h_0))
    named = dict(layer.named_parameters(), x=x, h_0=h_0)
    grads = torch.autograd.grad((y, h_n.abs().sum()), [*named.values()], (above, None))
    return {"y": y, "h_n": h_n, **dict(zip(named, grads, strict=True))}


def test_an_impulse_gives_powers_of_the_eigenvalues():
    layer = stirred(LRU(3, 5, dtype=F64))
    x = torch.zeros(3, 20, 3, dtype=F64)
    x[:, 0] = torch.eye(3)
    y, _ = layer(x)
    B, C = (torch.view_as_complex(p.detach()) for p in (layer.B, layer.C))
    powers = layer.eigenvalues() ** torch.arange(20)[:, None]
    gamma = layer.log_gamma.exp()
    kernel = torch.einsum("yn,tn,n,nx->xty", C, powers, gamma.to(C128), B).real
    kernel[:, 0] += layer.D.diag()
    torch.testing.assert_close(y, kernel, atol=1e-12, rtol=1e-12)


def test_it_is_a_convolution_with_its_impulse_response():
    layer = stirred(LRU(1, 4, dtype=F64))
    impulse, x = torch.zeros(1, 30, 1, dtype=F64), torch.randn(1, 30, 1, dtype=F64)
    impulse[0, 0] = 1
    kernel, y = layer(impulse)[0][0, :, 0], layer(x)[0][0, :, 0]
    for t in range(30):
        expected = (kernel[: t + 1].flip(0) * x[0, : t + 1, 0]).sum()
        torch.testing.assert_close(y[t], expected)


def test_no_parameter_takes_an_eigenvalue_out_of_the_disc():
    layer = LRU(1, 5, dtype=F64)
    with torch.no_grad():
        layer.log_nu.copy_(torch.tensor([-30.0, -5.0, 0.0, 2.0, 30.0]))
        layer.log_theta.copy_(torch.tensor([-30.0, 0.0, 1.0, 5.0, -1.0]))
    radii = layer.eigenvalues().abs()
    torch.testing.assert_close(radii, torch.exp(-layer.log_nu.exp()))
    assert (radii < 1).all()
    # By hand: a quarter of a turn, a tenth kept.
    with torch.no_grad():
        layer.log_nu.fill_(math.log(math.log(10)))
        layer.log_theta.fill_(math.log(math.pi / 2))
    assert layer.eigenvalues()[0].real.item() == pytest.approx(0, abs=1e-12)
    assert layer.eigenvalues()[0].imag.item() == pytest.approx(0.1)


@pytest.mark.parametrize("ring", [(0.0, 1.0, 2 * math.pi), (0.9, 0.99, 0.3)])
def test_eigenvalues_are_drawn_by_area_on_a_ring(ring):
    torch.manual_seed(0)
    low, high, phase = ring
    layer = LRU(1, 20000, r_min=low, r_max=high, max_phase=phase, dtype=F64)
    poles = layer.eigenvalues().detach()
    share = (poles.abs() ** 2 - low**2) / (high**2 - low**2)
    turn = layer.log_theta.detach().exp() / phase
    for uniform in (share, turn):
        assert 0 <= uniform.min() < 0.001
        assert 0.999 < uniform.max() <= 1
        ranks = torch.arange(1, 20001, dtype=F64) / 20001
        # The largest distance of the two laws, which is above 0.0138 in one of 1,000.
        assert (uniform.sort().values - ranks).abs().max() < 0.0138
    correlation = torch.corrcoef(torch.stack([share, turn]))[0, 1]
    assert abs(correlation) < 0.03
    torch.testing.assert_close(
        layer.log_gamma.detach().exp() ** 2, 1 - poles.abs() ** 2
    )


def test_matrices_are_drawn_by_their_law():
    layer = LRU(300, 200)
    for parameter, variance in (
        (layer.B, 1 / 600),
        (layer.C, 1 / 200),
        (layer.D, 1.0),
    ):
        assert parameter.var().item() == pytest.approx(variance, rel=0.3)
        assert abs(parameter.mean().item()) < 4 * (variance / parameter.numel()) ** 0.5
    again = LRU(300, 200)
    assert not torch.equal(layer.log_nu, again.log_nu)


def test_gamma_keeps_the_variance_of_the_state():
    """White input: the variance of each number is that of what comes in, times 1."""
    torch.manual_seed(0)
    layer = LRU(4, 20, r_max=0.97, dtype=F64)
    _, state = layer(torch.randn(500, 300, 4, dtype=F64))
    coming = layer.B.detach().square().sum(dim=(1, 2))
    ratio = state.h.abs().square().mean(dim=0).detach() / coming
    # The mean of 500 squares; of a real pole, the widest, it has the spread 0.063.
    assert (ratio - 1).abs().max() < 0.3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_a_state_in_single(dtype):
    layer = LRU(3, 5, r_max=0.9, dtype=dtype)
    exact = copy.deepcopy(layer).double()
    x = torch.randn(2, 6, 3).to(dtype)
    y, state = layer(x)
    assert (y.dtype, state.h.dtype) == (dtype, torch.complex64)
    y_t, after = layer.step(x[:, 0])
    assert (y_t.dtype, after.h.dtype) == (dtype, torch.complex64)
    tolerance = 20 * torch.finfo(dtype).eps
    expected = exact(x.double())[0]
    torch.testing.assert_close(y.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.errors
def test_bad_input_is_named():
    layer, x = LRU(3, 5), torch.randn(2, 4, 3)
    with pytest.raises(ValueError, match=r"^LRU.forward: `x` .*d_model=3\), got \(2,"):
        layer(torch.randn(2, 4, 5))
    with pytest.raises(ValueError, match=r"^LRU.step: `x_t` .*a whole sequence"):
        layer.step(x)
    with pytest.raises(ValueError, match=r"`state.h` .*\(batch=2, d_state=5\)"):
        layer(x, LRUState(torch.zeros(2, 4, dtype=torch.complex64)))
    with pytest.raises(ValueError, match=r"`state.h` .*dtype torch.complex64, got"):
        layer(x, LRUState(torch.zeros(2, 5)))
    with pytest.raises(TypeError, match=r"`state` must be LRUState\(h\), got Tensor"):
        layer(x, torch.zeros(2, 5, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"`lengths` must be at most time=4"):
        layer(x, lengths=torch.tensor([5, 1]))
    with pytest.raises(ValueError, match=r"^LRU: `r_max` must be above 0.5 and at mo"):
        LRU(3, 5, r_min=0.5, r_max=0.5)
    with pytest.raises(ValueError, match=r"^LRU: `r_min` must be at least 0"):
        LRU(3, 5, r_min=-0.1)
    with pytest.raises(ValueError, match=r"^LRU: `max_phase` must be above 0"):
        LRU(3, 5, max_phase=0.0)
    with pytest.raises(ValueError, match=r"^LRU: `d_state` must be at least 1"):
        LRU(3, 0)
