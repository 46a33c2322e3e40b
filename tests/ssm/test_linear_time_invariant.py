"""LTI: judged by SciPy's simulation; recurrence, scan and convolution are one."""

import math

import numpy
import pytest
import torch
from scipy.signal import cont2discrete, dlsim

from seqref import LTI, LTIState
from seqref.recurrence import scan
from seqref.ssm import bilinear, euler, zero_order_hold
from seqref.testing import check_sequence_layer

F64 = torch.float64
RULES = {"zoh": zero_order_hold, "bilinear": bilinear, "euler": euler}


def layer_of(seed=0, **options):
    """A layer none of whose parameters is a constant."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = LTI(3, 4, dtype=F64, **options)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def drawn(*sizes, seed=1):
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("time", [1, 13])
def test_contract(rule, time):
    check_sequence_layer(layer_of(rule=RULES[rule]), drawn(2, time, 3))


@pytest.mark.parametrize("name", RULES)
def test_equals_scipy(name):
    """Each channel as a dense system of real numbers, of twice the states."""
    layer, x = layer_of(rule=RULES[name]), drawn(1, 20, 3)
    y, _ = layer(x)
    for channel in range(3):
        pairs = [dense(layer, channel, n) for n in range(4)]
        A = torch.block_diag(*(pair[0] for pair in pairs)).numpy()
        B = torch.cat([pair[1] for pair in pairs])[:, None].numpy()
        C = torch.cat([pair[2] for pair in pairs])[None].numpy()
        D, dt = numpy.zeros((1, 1)), layer.log_dt[channel].exp().item()
        A_bar, B_bar, *_ = cont2discrete((A, B, C, D), dt, method=name)
        # The output of dlsim comes from the state before the input.
        x_c = numpy.append(x[0, :, channel].numpy(), 0.0)
        _, theirs, _ = dlsim((A_bar, B_bar, C, D, 1.0), x_c)
        expected = torch.from_numpy(theirs[1:, 0]) + layer.D[channel] * x[0, :, channel]
        torch.testing.assert_close(y[0, :, channel], expected, atol=1e-10, rtol=1e-10)


def dense(layer, channel, n):
    """One complex state as two real ones."""
    real, imag = -layer.log_neg_real[channel, n].exp(), layer.imag[channel, n]
    A = torch.stack([torch.stack([real, -imag]), torch.stack([imag, real])])
    C = 2 * layer.C[channel, n] * torch.tensor([1.0, -1.0])
    return A.detach(), layer.B[channel, n].detach(), C.detach()


@pytest.mark.parametrize("lengths", [None, torch.tensor([40, 0, 7])])
def test_recurrence_scan_and_convolution_are_one(lengths):
    layer, x = layer_of(), drawn(3, 40, 3)
    runs = [
        scan(layer, x, lengths=lengths)[0],
        layer(x, lengths=lengths)[0],
        layer.convolved(x, lengths),
    ]
    above = drawn(3, 40, 3, seed=2)
    grads = [torch.autograd.grad(y, list(layer.parameters()), above) for y in runs]
    for y, grad in zip(runs[1:], grads[1:], strict=True):
        torch.testing.assert_close(y, runs[0], atol=1e-11, rtol=1e-11)
        for one, other in zip(grad, grads[0], strict=True):
            torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_the_kernel_is_the_answer_to_an_impulse():
    layer = layer_of()
    impulse = torch.zeros(1, 9, 3, dtype=F64)
    impulse[:, 0] = 1.0
    y, _ = layer(impulse)
    y[:, 0] -= layer.D
    torch.testing.assert_close(layer.kernel(9), y[0].T)
    assert layer.kernel(0).shape == (3, 0)


@pytest.mark.parametrize("rule", ["zoh", "bilinear"])
def test_a_state_that_is_forgotten_at_once(rule):
    """Its factor is 0, of which a power has no derivative in torch."""
    layer, x = LTI(1, 2, rule=RULES[rule], dtype=F64), drawn(2, 5, 1)
    real = {"zoh": 1000.0, "bilinear": 2.0}[rule]
    with torch.no_grad():
        layer.log_dt.zero_()
        layer.log_neg_real[0, 0] = math.log(real)
        layer.imag.zero_()
    assert layer.discretised()[0][0, 0] == 0
    runs = [layer(x)[0], layer.convolved(x)]
    torch.testing.assert_close(*runs)
    grads = [torch.autograd.grad(y.sum(), list(layer.parameters())) for y in runs]
    for one, other in zip(*grads, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other)


def test_it_is_linear_and_the_same_at_every_step():
    layer, x = layer_of(), drawn(2, 9, 3)
    y, _ = layer(x)
    torch.testing.assert_close(layer(3 * x[:1] + x[1:])[0], 3 * y[:1] + y[1:])
    later = torch.cat([torch.zeros_like(x[:, :4]), x], dim=1)
    torch.testing.assert_close(layer(later)[0][:, 4:], y)


def test_a_state_without_input_decays_by_its_law():
    layer = LTI(2, 3, dtype=F64)
    state = LTIState(drawn(1, 2, 3), drawn(1, 2, 3, seed=3))
    _, after = layer(torch.zeros(1, 50, 2, dtype=F64), state)
    left = torch.exp(-0.5 * 50 * layer.log_dt.exp())[:, None]
    norms = [torch.hypot(*h) for h in (state, after)]
    torch.testing.assert_close(norms[1], left * norms[0])


def test_parameters_are_drawn_by_their_law():
    layer = LTI(2000, 8, dt_min=0.01, dt_max=0.5)
    dt = layer.log_dt.exp()
    assert 0.01 <= dt.min() < dt.max() <= 0.5 * (1 + 1e-6)
    middle = math.log(0.01 * 0.5) / 2
    assert layer.log_dt.mean().item() == pytest.approx(middle, abs=0.1)
    assert layer.C.std().item() == pytest.approx(0.25, rel=0.02)
    A_bar, _ = layer.discretised()
    assert (A_bar.abs() < 1).all()


@pytest.mark.errors
def test_bad_input_is_named():
    layer = LTI(3, 4)
    x = torch.randn(2, 5, 3)
    with pytest.raises(ValueError, match=r"LTI.forward: `x` must.*d_model=3"):
        layer(x[..., :2])
    with pytest.raises(TypeError, match=r"`state` must be LTIState\(real, imag\)"):
        layer(x, (torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)))
    with pytest.raises(ValueError, match=r"`state.imag` must have shape.*d_state=4"):
        layer.step(x[:, 0], LTIState(torch.zeros(2, 3, 4), torch.zeros(2, 3, 5)))
    with pytest.raises(ValueError, match=r"`dt_max` must be at least 0\.001"):
        LTI(3, 4, dt_max=1e-5)
    with pytest.raises(ValueError, match="`d_state` must be at least 1"):
        LTI(3, 0)
    with pytest.raises(ValueError, match="`taps` must be at least 0"):
        layer.kernel(-1)
