"""HiPPO: judged by NumPy's Legendre series, by closed forms, and by least squares."""

import numpy
import pytest
import torch
from numpy.polynomial import legendre
from torch.autograd import gradcheck

from seqref.ssm import (
    hippo_legs,
    hippo_legt,
    legs_coefficients,
    legt_coefficients,
    reconstruct,
    zero_order_hold,
)

F64 = torch.float64


def noise(steps, rows=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, steps, generator=generator, dtype=F64)


def projected(x, d_state):
    """Coefficients of the nearest polynomial to a signal that is held at each step."""
    edges = numpy.linspace(-1, 1, x.shape[-1] + 1)
    rows = []
    for n in range(d_state):
        integral = legendre.legval(edges, legendre.legint([0] * n + [1]))
        rows.append((2 * n + 1) ** 0.5 / 2 * x.numpy() @ numpy.diff(integral))
    return torch.from_numpy(numpy.stack(rows, axis=-1))


@pytest.mark.parametrize("d_state", [1, 2, 16, 64])
def test_legs_is_the_projection_of_all_that_was_seen(d_state):
    x = noise(150)
    c = legs_coefficients(x, d_state)
    for seen in (1, 2, 3, 63, 64, 65, 66, 129, 150):
        expected = projected(x[:, :seen], d_state)
        torch.testing.assert_close(c[:, seen - 1], expected, atol=1e-12, rtol=1e-10)


def test_legs_goes_on_from_coefficients():
    x = noise(140)
    whole, first = legs_coefficients(x, 8), legs_coefficients(x[:, :65], 8)
    second = legs_coefficients(x[:, 65:], 8, first[:, -1], seen=65)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)


def test_legs_does_not_depend_on_the_rate_of_sampling():
    """Each value held for three steps is the same past, three times as long."""
    x = noise(50)
    slow = legs_coefficients(x.repeat_interleave(3, dim=1), 12)[:, 2::3]
    torch.testing.assert_close(slow, legs_coefficients(x, 12))
    slow = legt_coefficients(x.repeat_interleave(3, dim=1), 12, 60.0)[:, 2::3]
    torch.testing.assert_close(slow, legt_coefficients(x, 12, 20.0))


def test_the_matrix_of_legs():
    A, B = hippo_legs(3, dtype=F64)
    q = torch.tensor([1.0, 3.0, 5.0], dtype=F64).sqrt()
    expected = -torch.tensor(
        [[1, 0, 0], [q[1] * q[0], 2, 0], [q[2] * q[0], q[2] * q[1], 3]], dtype=F64
    )
    torch.testing.assert_close(A, expected)
    torch.testing.assert_close(B[:, 0], q)
    # Where a constant leads.
    A, B = hippo_legs(40, dtype=F64)
    rest = -torch.linalg.solve(A, B)[:, 0]
    torch.testing.assert_close(rest, torch.eye(40, dtype=F64)[0], atol=1e-9, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, F64], ids=str)
def test_the_matrices_are_rounded_once(dtype):
    """Not a product of two roots that are rounded themselves."""
    n = torch.arange(64, dtype=F64)
    squares = (2 * n[:, None] + 1) * (2 * n + 1)
    for make in (hippo_legs, hippo_legt):
        A, B = make(64, dtype=dtype)
        assert A.dtype == B.dtype == dtype
        assert torch.equal(A.tril(-1), -squares.sqrt().to(dtype).tril(-1))
        assert torch.equal(B[:, 0], (2 * n + 1).sqrt().to(dtype))
    assert torch.equal(A.diag(), -(2 * n + 1).to(dtype))


def test_a_term_of_rank_one_makes_the_matrices_normal():
    """What S4 builds on: a skew part is left, and half of the identity."""
    for make, share, diagonal in ((hippo_legs, 0.5, -0.5), (hippo_legt, 0.5, 0.0)):
        A, B = make(9, dtype=F64)
        n = torch.arange(9)
        other = B * (-1.0) ** n[:, None]
        rank = share * B @ B.T
        if make is hippo_legt:
            rank = rank + share * other @ other.T
        normal = A + rank
        torch.testing.assert_close(
            normal + normal.T, 2 * diagonal * torch.eye(9, dtype=F64)
        )
    assert not torch.allclose(A @ A.T, A.T @ A)


def test_legt_is_near_the_projection_of_its_window_and_not_on_it():
    t = torch.arange(600, dtype=F64)
    x = (torch.sin(t / 13) + 0.5 * torch.cos(t / 7))[None]
    errors = []
    for d_state in (4, 16, 48):
        ours = legt_coefficients(x, d_state, 100.0)[:, -1]
        expected = projected(x[:, -100:], d_state)
        errors.append(((ours - expected).norm() / expected.norm()).item())
    assert errors[0] > 0.2
    assert errors[1] < 2e-3
    assert 1e-5 < errors[2] < 2e-3


def test_legt_forgets_what_left_its_window():
    x = torch.zeros(1, 400, dtype=F64)
    x[:, :20] = 1.0
    c = legt_coefficients(x, 32, 100.0)
    assert c[:, 60].norm() > 0.1
    assert c[:, -1].norm() < 1e-3
    A, _ = hippo_legt(32, dtype=F64)
    assert torch.linalg.eigvals(A).real.max() < 0


@pytest.mark.parametrize("d_state", [1, 5, 30])
def test_the_reconstruction_is_numpys(d_state):
    c, places = noise(d_state), torch.linspace(0, 1, 17, dtype=F64)
    scaled = c.numpy() * numpy.sqrt(2 * numpy.arange(d_state) + 1)
    expected = legendre.legval(2 * places.numpy() - 1, scaled.T)
    torch.testing.assert_close(reconstruct(c, places), torch.from_numpy(expected))


def test_a_polynomial_comes_back():
    """One of a degree below N, up to what holding its samples changes."""
    s = (torch.arange(1000, dtype=F64) + 0.5) / 1000
    x = (1 - 3 * s + 4 * s**3)[None]
    ours = reconstruct(legs_coefficients(x, 4)[:, -1], s)
    torch.testing.assert_close(ours, x, atol=2e-5, rtol=0)


def test_nothing_is_nearer():
    """Least squares over the same polynomials."""
    x, d_state = noise(200, rows=1), 6
    c = legs_coefficients(x, d_state)[:, -1]
    fine = (torch.arange(20000, dtype=F64) + 0.5) / 20000
    held = x[0].repeat_interleave(100)
    basis = reconstruct(torch.eye(d_state, dtype=F64), fine).T
    best = torch.linalg.lstsq(basis, held[:, None]).solution[:, 0]
    torch.testing.assert_close(c[0], best, atol=1e-5, rtol=1e-5)


def test_a_time_invariant_system_with_the_matrix_of_legs_is_another_memory():
    """S4's: its weights fall with time, so that a far past is forgotten."""
    A, B = hippo_legs(16, dtype=F64)
    A_bar, B_bar = zero_order_hold(A, B, 0.01)
    x = torch.zeros(1, 2000, dtype=F64)
    x[:, :500] = 1.0
    c = torch.zeros(16, dtype=F64)
    for x_k in x[0]:
        c = A_bar @ c + B_bar[:, 0] * x_k
    scaled = legs_coefficients(x, 16)[0, -1]
    # The share of ones in all that was seen stays; the other memory has lost it.
    assert scaled[0].item() == pytest.approx(0.25)
    assert c.norm() < 1e-3 < scaled.norm()


def test_gradients_and_single_precision():
    x = noise(9).requires_grad_()
    assert gradcheck(lambda x: legs_coefficients(x, 3), (x,))
    assert gradcheck(lambda x: legt_coefficients(x, 3, 5.0), (x,))
    c, places = noise(4).requires_grad_(), torch.rand(3, dtype=F64).requires_grad_()
    assert gradcheck(reconstruct, (c, places))
    exact, single = legs_coefficients(x, 8), legs_coefficients(x.float(), 8)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, atol=1e-6, rtol=1e-5)


def test_autocast_does_not_cost_digits():
    x = noise(70).float()
    for make in (
        lambda: legs_coefficients(x, 8),
        lambda: legt_coefficients(x, 8, 30.0),
    ):
        expected = make()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(make(), expected)


def test_no_steps():
    x = noise(0)
    assert legs_coefficients(x, 3).shape == (2, 0, 3)
    assert legt_coefficients(x, 3, 5.0).shape == (2, 0, 3)


@pytest.mark.errors
def test_bad_arguments():
    x = noise(5)
    with pytest.raises(ValueError, match=r"hippo_legs: `d_state` must be at least 1"):
        hippo_legs(0)
    with pytest.raises(TypeError, match="hippo_legt: `d_state` must be an int"):
        hippo_legt(2.0)
    with pytest.raises(TypeError, match=r"hippo_legs: `dtype` must be.*got torch\.int"):
        hippo_legs(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"`x` must have shape \(batch, time\)"):
        legs_coefficients(x[0], 3)
    with pytest.raises(TypeError, match="`x` must be of float32 or float64"):
        legs_coefficients(x.half(), 3)
    with pytest.raises(ValueError, match="`seen` must be the number of steps behind"):
        legs_coefficients(x, 3, seen=4)
    with pytest.raises(ValueError, match="got 0 and a `c_0`"):
        legs_coefficients(x, 3, noise(3))
    with pytest.raises(ValueError, match=r"`c_0` must have shape \(batch=2, d_state=3"):
        legs_coefficients(x, 3, noise(4), seen=1)
    with pytest.raises(ValueError, match="`c_0` must have x's dtype"):
        legt_coefficients(x, 3, 5, noise(3).float())
    with pytest.raises(ValueError, match="`window` must be above 0"):
        legt_coefficients(x, 3, 0.0)
    with pytest.raises(ValueError, match=r"`c` must have shape \(\.\.\., state\)"):
        reconstruct(torch.tensor(1.0), torch.zeros(2))
    with pytest.raises(ValueError, match="`places` must have c's dtype"):
        reconstruct(x, torch.zeros(2))
    with pytest.raises(ValueError, match=r"`places` must have shape \(places,\)"):
        reconstruct(x, torch.zeros(2, 2, dtype=F64))
