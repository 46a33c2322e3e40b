"""Discretisation: judged by SciPy, by closed forms, near and at a singular matrix."""

import math

import numpy
import pytest
import torch
from scipy.signal import cont2discrete
from torch.autograd import gradcheck, gradgradcheck

from seqref.ssm import bilinear, euler, zero_order_hold
from seqref.ssm.discretisation import expm1_ratio

F64, C128 = torch.float64, torch.complex128
RULES = {"zoh": zero_order_hold, "bilinear": bilinear, "euler": euler}


@pytest.fixture(params=[F64, C128], ids=str)
def dtype(request):
    return request.param


def system(dtype=F64, states=4, inputs=2, batch=(), seed=0):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn((*batch, states, states), generator=generator, dtype=dtype)
    A = A - 2 * torch.eye(states, dtype=dtype)
    B = torch.randn((*batch, states, inputs), generator=generator, dtype=dtype)
    return A, B


def close(ours, expected, tolerance=1e-12):
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dt", [0.0, 1e-3, 0.1, 2.0])
def test_equals_scipy(name, dt, dtype):
    A, B = system(dtype)
    C, D = numpy.eye(4), numpy.zeros((4, 2))
    judge = cont2discrete((A.numpy(), B.numpy(), C, D), dt, method=name)
    expected = [torch.from_numpy(x).to(dtype) for x in judge[:2]]
    close(RULES[name](A, B, dt), expected)
    # Of the trapezoid rule SciPy changes what comes out as well.
    changed = numpy.abs(judge[2] - C).max() + numpy.abs(judge[3]).max()
    assert (changed > 1e-6) == (name == "bilinear" and dt > 0)


@pytest.mark.parametrize("name", RULES)
def test_a_diagonal_is_its_matrix(name, dtype):
    generator = torch.Generator().manual_seed(1)
    A, B = (torch.randn(3, 5, generator=generator, dtype=dtype) for _ in range(2))
    A[0, 0] = 0.0
    dt = torch.rand(3, generator=generator, dtype=F64)
    A_bar, B_bar = RULES[name](A, B, dt[:, None], diagonal=True)
    dense = RULES[name](A.diag_embed(), B[..., None], dt)
    close((A_bar.diag_embed(), B_bar[..., None]), dense)


@pytest.mark.parametrize("name", RULES)
def test_axes_broadcast(name):
    A, B = system(batch=(3,))
    dt = torch.tensor([[0.1], [0.4]], dtype=F64)
    A_bar, B_bar = RULES[name](A, B[0], dt)
    assert A_bar.shape == (2, 3, 4, 4)
    B_bar = B_bar.expand(2, 3, 4, 2)
    close((A_bar[1, 2], B_bar[1, 2]), RULES[name](A[2], B[0], 0.4))


def test_a_singular_matrix_has_its_integral():
    """A double integrator: position, speed, force."""
    A, B = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[0.0], [1.0]])
    A_bar, B_bar = zero_order_hold(A, B, 0.5)
    exact = torch.tensor([[1.0, 0.5], [0.0, 1.0]]), torch.tensor([[0.125], [0.5]])
    close((A_bar, B_bar), exact, tolerance=1e-7)
    with pytest.raises(RuntimeError, match="singular"):
        torch.linalg.solve(A, (A_bar - torch.eye(2)) @ B)


def test_a_large_input_matrix_costs_no_digits():
    """The exponential is of a matrix without B in it, whose size would count."""
    A, B = system(torch.float32)
    exact = zero_order_hold(A.double(), B.double(), 0.1)
    for scale in (1.0, 2.0**30):
        A_bar, B_bar = zero_order_hold(A, scale * B, 0.1)
        torch.testing.assert_close(A_bar.double(), exact[0], rtol=0, atol=3e-7)
        torch.testing.assert_close(B_bar.double() / scale, exact[1], rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", RULES)
def test_a_step_of_no_size_is_none(name):
    A, B = system()
    A_bar, B_bar = RULES[name](A, B, 0.0)
    assert torch.equal(A_bar, torch.eye(4, dtype=F64))
    assert (B_bar == 0).all()


def test_two_half_steps_are_a_step_under_a_held_input():
    A, B = system(dtype=C128)
    whole, half = zero_order_hold(A, B, 1.0), zero_order_hold(A, B, 0.5)
    close(whole, (half[0] @ half[0], half[0] @ half[1] + half[1]))


@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.complex64, C128], ids=str)
def test_the_ratio_is_right_at_every_size(dtype):
    """Against a sum of its series in double precision, and its derivative."""
    sizes = [0.0, *(s * 10.0**k for k in range(-12, 1) for s in (-1, 1, 0.999, -0.3))]
    turn = 1j if dtype.is_complex else 1
    z = (torch.tensor(sizes, dtype=F64) * turn).to(dtype).requires_grad_()
    ours = expm1_ratio(z)
    (slope,) = torch.autograd.grad(ours, z, torch.ones_like(ours))
    exact = z.detach().to(C128)
    value = sum(exact**k / math.gamma(k + 2) for k in range(25))
    derivative = sum((k + 1) * exact**k / math.gamma(k + 3) for k in range(25))
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(ours.detach().to(C128), value, rtol=4 * eps, atol=0)
    # Of complex numbers a gradient is the conjugate.
    torch.testing.assert_close(slope.to(C128).conj(), derivative, rtol=8 * eps, atol=0)


def test_the_ratio_where_its_terms_leave_double_precision():
    z = torch.tensor([-math.inf, -1e300, -800.0, 709.0, math.nan], dtype=F64)
    expected = [0.0, 1e-300, 1 / 800, math.exp(709) / 709, math.nan]
    expected = torch.tensor(expected, dtype=F64)
    torch.testing.assert_close(expm1_ratio(z), expected, equal_nan=True)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("diagonal", [True, False])
def test_gradients_and_theirs_at_a_singular_matrix(name, diagonal, dtype):
    A, B = system(dtype, states=2, inputs=1)
    A, B = (A[0], B[..., 0]) if diagonal else (A, B)
    A = A * 0 if diagonal else A * torch.tensor([[1.0], [0.0]])
    dt = torch.tensor(0.3, dtype=F64)
    inputs = [x.clone().requires_grad_() for x in (A, B, dt)]

    def run(A, B, dt):
        return RULES[name](A, B, dt, diagonal=diagonal)

    assert gradcheck(run, inputs)
    assert gradgradcheck(run, inputs)


def test_stable_systems_stay_so_but_not_under_euler():
    A = torch.tensor([-0.5 + 40j, -30.0, -1e-3 + 5j], dtype=C128)
    one = torch.ones_like(A)
    for dt in (1e-3, 0.1, 10.0):
        for rule in (zero_order_hold, bilinear):
            assert (rule(A, one, dt, diagonal=True)[0].abs() < 1).all()
    assert (euler(A, one, 0.1, diagonal=True)[0].abs() > 1).all()


def test_what_mamba_takes():
    """The exponential for A, and for B what Euler's method has."""
    from mambapy.mamba import MambaBlock, MambaConfig

    generator = torch.Generator().manual_seed(2)
    block = MambaBlock(MambaConfig(d_model=2, n_layers=1, d_state=4))
    x, delta = (torch.rand(3, 1, 4, generator=generator) for _ in range(2))
    A, D = -torch.rand(4, 4, generator=generator), torch.zeros(4)
    B = torch.randn(3, 1, 4, generator=generator)
    ones = torch.ones_like(B)
    y = block.selective_scan(x, delta, A, B, ones, D)[:, 0]
    sizes = delta[:, 0, :, None]
    by_rule = {
        name: (rule(A, B, sizes, diagonal=True)[1] * x[:, 0, :, None]).sum(dim=-1)
        for name, rule in RULES.items()
    }
    torch.testing.assert_close(y, by_rule["euler"])
    assert ((y - by_rule["zoh"]).abs() > 1e-4).any()


def test_the_trapezoid_rule_has_a_pole():
    A, B = torch.eye(1) * 4, torch.ones(1, 1)
    with pytest.raises(RuntimeError, match="zero"):
        bilinear(A, B, 0.5)
    for part in bilinear(A[0], B[0], 0.5, diagonal=True):
        assert part.isinf().all()


@pytest.mark.parametrize("name", ["zoh", "bilinear"])
def test_autocast_takes_no_digits(name):
    A, B = system(torch.float32)
    expected = RULES[name](A, B, 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(RULES[name](A, B, 0.1), expected, tolerance=0)


@pytest.mark.errors
@pytest.mark.parametrize("name", RULES)
def test_bad_arguments(name):
    rule = RULES[name]
    A, B = system()
    with pytest.raises(ValueError, match=r"`A` must have shape \(state=3, state=3\)"):
        rule(A[:, :3], B, 0.1)
    with pytest.raises(ValueError, match=r"`A` must.*diagonal=True"):
        rule(A[0], B, 0.1)
    with pytest.raises(ValueError, match=r"`B` must have shape \(state=4, input\)"):
        rule(A, B[:3], 0.1)
    with pytest.raises(ValueError, match=r"`B` must.*a column for each input"):
        rule(A, B[:, 0], 0.1)
    with pytest.raises(ValueError, match="`dt` must be at least 0"):
        rule(A, B, -0.1)
    with pytest.raises(ValueError, match=r"`dt` must be.*finite"):
        rule(A, B, math.inf)
    with pytest.raises(ValueError, match="`B` must have the precision of A"):
        rule(A, B.float(), 0.1)
    with pytest.raises(ValueError, match=r"`dt` must be of torch\.float64 beside A"):
        rule(A, B, torch.tensor(0.1))
    # A complex system has real steps.
    wide = torch.tensor(0.1, dtype=C128)
    with pytest.raises(ValueError, match=r"must be of torch\.float64.*got.*complex128"):
        rule(A.to(C128), B, wide)
    with pytest.raises(ValueError, match="`B` must be on A's device cpu"):
        rule(A, B.to("meta"), 0.1)
    with pytest.raises(ValueError, match=r"must broadcast, got \(3,\), \(\), \(2,\)"):
        rule(A.expand(3, 4, 4), B, torch.ones(2, dtype=F64))
    with pytest.raises(ValueError, match=r"must broadcast, got \(4,\), \(3,\), \(\)"):
        rule(A[0], B[:3, 0], 0.1, diagonal=True)
    with pytest.raises(TypeError, match="`A` must have one of float32, float64"):
        rule(A.half(), B.half(), 0.1)
    with pytest.raises(TypeError, match=r"`B` must be a torch\.Tensor"):
        rule(A, 1.0, 0.1)
