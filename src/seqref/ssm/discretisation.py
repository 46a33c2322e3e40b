r"""From a system in continuous time to a step.

Of $\dot h(t) = A h(t) + B x(t)$ and the size of a step $\Delta$ each rule makes
$h_k = \bar A h_{k-1} + \bar B x_k$.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Inexact
from torch import Tensor

from seqref.errors import (
    autocast_is_on,
    check_number,
    check_shape,
    check_tensor,
)

__all__ = ["bilinear", "euler", "expm1_ratio", "zero_order_hold"]

# The dtypes of A and B, and that of a step size beside each.
REAL = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}
Pair = tuple[Inexact[Tensor, "..."], Inexact[Tensor, "..."]]


def zero_order_hold(
    A: Inexact[Tensor, "..."],
    B: Inexact[Tensor, "..."],
    dt: Inexact[Tensor, "..."] | float,
    *,
    diagonal: bool = False,
) -> Pair:
    r"""Exact where the input keeps its value for the whole of a step.

    $$ \bar A = e^{\Delta A} \qquad
       \bar B = \int_0^\Delta e^{s A} \, ds \; B = \Delta \, \varphi(\Delta A) \, B
       \qquad \varphi(z) = \frac{e^z - 1}{z} = 1 + \frac{z}{2} + \dots $$

    $\varphi$ has no pole, so $A$ need not be invertible: of a matrix it is taken from
    the exponential of $\begin{pmatrix} \Delta A & I \\ 0 & 0 \end{pmatrix}$, which is
    $\begin{pmatrix} e^{\Delta A} & \varphi(\Delta A) \\ 0 & I \end{pmatrix}$; of a
    diagonal by `expm1_ratio`.

    Args:
        A: What the state does by itself, real or complex.
        B: How the input enters.
        dt: $\Delta$, the size of a step.
        diagonal: Whether `A` and `B` are vectors of one state and one input a number.

    Shapes:
        - a matrix: `A` (..., state, state), `B` (..., state, input), `dt` a number or
          (...); returns `A_bar` (..., state, state), `B_bar` (..., state, input)
        - diagonal: `A`, `B` and `dt` of any shapes that broadcast, one number a state;
          returns `A_bar`, shaped as `A` and `dt` together, and `B_bar` as all three

    Units:
        `dt` in the unit of time of which `A` has the inverse.

    Cost:
        O(N^3) a system of N states as a matrix, O(N) as a diagonal.

    Raises:
        ValueError: a wrong shape, dtype or device; `dt` is a number that is negative or
            not finite. The values of a tensor are not read.
        TypeError: an argument is no tensor, or of none of single and double precision.

    Source:
        Gu & Dao (2023), eq. 4.
        Differs: no inverse of $A$, which need not exist.
    """
    A, B, dt = _checked("zero_order_hold", A, B, dt, diagonal)
    with _without_autocast(A):
        z = dt * A
        if diagonal:
            return z.exp(), dt * expm1_ratio(z) * B
        n = A.shape[-1]
        one = torch.eye(n, dtype=A.dtype, device=A.device).expand_as(z)
        top = torch.cat([z, one], dim=-1)
        block = torch.linalg.matrix_exp(torch.cat([top, torch.zeros_like(top)], dim=-2))
        return block[..., :n, :n], dt * (block[..., :n, n:] @ B)


def bilinear(
    A: Inexact[Tensor, "..."],
    B: Inexact[Tensor, "..."],
    dt: Inexact[Tensor, "..."] | float,
    *,
    diagonal: bool = False,
) -> Pair:
    r"""The trapezoid rule: half a step back, half a step on.

    $$ \bar A = \left(I - \tfrac{\Delta}{2} A\right)^{-1}
                \left(I + \tfrac{\Delta}{2} A\right) \qquad
       \bar B = \left(I - \tfrac{\Delta}{2} A\right)^{-1} \Delta B $$

    Args:
        A: What the state does by itself, real or complex.
        B: How the input enters.
        dt: $\Delta$, the size of a step.
        diagonal: Whether `A` and `B` are vectors of one state and one input a number.

    Shapes:
        - as `zero_order_hold`

    Cost:
        O(N^3) a system of N states as a matrix, O(N) as a diagonal.

    Raises:
        ValueError: a wrong shape, dtype or device; `dt` is a number that is negative or
            not finite. The values of a tensor are not read.
        TypeError: an argument is no tensor, or of none of single and double precision.
        RuntimeError: a matrix has the eigenvalue $2 / \Delta$, which no stable one
            has; of a diagonal the result is not finite there.

    Source:
        Gu, Goel & Ré (2022).
    """
    A, B, dt = _checked("bilinear", A, B, dt, diagonal)
    half = dt / 2 * A
    if diagonal:
        return (1 + half) / (1 - half), dt * B / (1 - half)
    with _without_autocast(A):
        one = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        factors, pivots = torch.linalg.lu_factor(one - half)
        A_bar = torch.linalg.lu_solve(factors, pivots, one + half)
        return A_bar, torch.linalg.lu_solve(factors, pivots, dt * B)


def euler(
    A: Inexact[Tensor, "..."],
    B: Inexact[Tensor, "..."],
    dt: Inexact[Tensor, "..."] | float,
    *,
    diagonal: bool = False,
) -> Pair:
    r"""A straight line from where the step begins.

    $$ \bar A = I + \Delta A \qquad \bar B = \Delta B $$

    Args:
        A: What the state does by itself, real or complex.
        B: How the input enters.
        dt: $\Delta$, the size of a step.
        diagonal: Whether `A` and `B` are vectors of one state and one input a number.

    Shapes:
        - as `zero_order_hold`

    Cost:
        O(N^2) a system of N states as a matrix, O(N) as a diagonal.

    Raises:
        ValueError: a wrong shape, dtype or device; `dt` is a number that is negative or
            not finite. The values of a tensor are not read.
        TypeError: an argument is no tensor, or of none of single and double precision.

    Source:
        Euler's method; its $\bar B$ is what the code of Mamba takes (Gu & Dao, 2023).
    """
    A, B, dt = _checked("euler", A, B, dt, diagonal)
    if diagonal:
        return 1 + dt * A, dt * B
    one = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return one + dt * A, dt * B


def expm1_ratio(z: Inexact[Tensor, "*shape"]) -> Inexact[Tensor, "*shape"]:
    r"""$\varphi(z) = (e^z - 1) / z$, right near 0 and at it, and so its derivatives.

    Args:
        z: Real or complex numbers.

    Shapes:
        - `z`: any; returns the same

    Cost:
        O(1) a number: a polynomial where $|z| < 1$, the quotient elsewhere.

    Source:
        The series of $e^z$.
    """
    near = z.abs() < 1
    small = torch.where(near, z, torch.zeros_like(z))
    large = torch.where(near, torch.ones_like(z), z)
    # The quotient has the right value near 0, and autograd's derivative of it has not:
    # that is a difference of two terms of size 1 / z. The derivatives of a polynomial
    # have no difference in them.
    series = torch.full_like(z, 1 / math.factorial(_TERMS))
    for k in range(_TERMS - 1, 0, -1):
        series = series * small + 1 / math.factorial(k)
    return torch.where(near, series, torch.expm1(large) / large)


# 1 / 19! is below half a rounding of 1 in double precision, and so it is of the
# first two derivatives.
_TERMS = 20


def _checked(
    where: str, A: Tensor, B: Tensor, dt: Tensor | float, diagonal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Raise unless the arguments fit; the step size comes as a tensor."""
    for name, value in (("A", A), ("B", B)):
        check_tensor(where, name, value)
        if value.dtype not in REAL:
            known = ", ".join(str(dtype).removeprefix("torch.") for dtype in REAL)
            raise TypeError(
                f"{where}: `{name}` must have one of {known}, got {value.dtype}"
            )
    real = REAL[A.dtype]
    if not isinstance(dt, Tensor):
        check_number(where, "dt", dt, minimum=0, finite_in=real)
        dt = torch.tensor(dt, dtype=real, device=A.device)
    _check_beside(where, A, B, dt)
    if diagonal:
        _check_broadcast(where, [A.shape, B.shape, dt.shape])
        return A, B, dt
    n = A.shape[-1] if A.dim() else 0
    square, column = (("state", n), ("state", n)), (("state", n), ("input", None))
    for name, value, last, hint in (
        ("A", A, square, "a diagonal is given with diagonal=True"),
        ("B", B, column, "a column for each input"),
    ):
        axes = [(f"axis_{i}", None) for i in range(value.dim() - 2)]
        check_shape(where, name, value, [*axes, *last], hint)
    _check_broadcast(where, [A.shape[:-2], B.shape[:-2], dt.shape])
    dtype = torch.promote_types(A.dtype, B.dtype)
    return A.to(dtype), B.to(dtype), dt[..., None, None]


def _check_beside(where: str, A: Tensor, B: Tensor, dt: Tensor) -> None:
    real = REAL[A.dtype]
    for name, value, dtype, fits in (
        ("B", B, REAL[B.dtype], "have the precision of A, which"),
        ("dt", dt, dt.dtype, f"be of {real} beside A, which"),
    ):
        if dtype != real:
            raise ValueError(
                f"{where}: `{name}` must {fits} is {A.dtype}, got {value.dtype}"
            )
        if value.device != A.device:
            raise ValueError(
                f"{where}: `{name}` must be on A's device {A.device}, got "
                f"{value.device}"
            )


def _check_broadcast(where: str, shapes: list[torch.Size]) -> None:
    try:
        torch.broadcast_shapes(*shapes)
    except RuntimeError:
        shown = ", ".join(str(tuple(shape)) for shape in shapes)
        raise ValueError(
            f"{where}: the axes of `A`, `B` and `dt` (of matrices those before the "
            f"last two) must broadcast, got {shown}"
        ) from None


def _without_autocast(x: Tensor) -> AbstractContextManager[object]:
    r"""No product in half precision: digits lost here are lost at every step."""
    if autocast_is_on(x.device):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()
