r"""A past of any length as the coefficients of a polynomial, kept up to date online.

The polynomial is the one of degree below N that is nearest to the past in mean square.
LegS weighs everything that was seen alike, LegT a window of fixed length.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from seqref.errors import (
    check_like_parameters,
    check_number,
    check_shape,
    check_size,
    check_tensor,
)
from seqref.ssm.discretisation import zero_order_hold

__all__ = [
    "hippo_legs",
    "hippo_legt",
    "legs_coefficients",
    "legt_coefficients",
    "reconstruct",
]

# Steps whose transitions are made at once.
_STEPS = 64


def hippo_legs(
    d_state: int,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> tuple[
    Float[Tensor, "{d_state} {d_state}"],
    Float[Tensor, "{d_state} 1"],
]:
    r"""The matrices of the scaled Legendre memory (LegS).

    $$ \dot c(t) = \frac{1}{t} \bigl( A c(t) + B x(t) \bigr) \qquad
       A_{nk} = - \begin{cases} \sqrt{(2n+1)(2k+1)} & n > k \\ n + 1 & n = k \\
       0 & n < k \end{cases} \qquad B_n = \sqrt{2n+1} $$

    with $n, k$ from 0.

    Args:
        d_state: N, the number of coefficients.
        dtype: Of the matrices; None for torch's default.
        device: Where they are; None for torch's default.

    Shapes:
        - returns: `A` (d_state, d_state), `B` (d_state, 1)

    Raises:
        ValueError: `d_state` is below 1.
        TypeError: `d_state` is no whole number, or `dtype` one of integers.

    Source:
        Gu et al. (2020), HiPPO.
        Differs: the sign stands in $A$, as in S4.
    """
    n, dtype = _degrees("hippo_legs", d_state, dtype, device)
    A = _roots(n).tril(-1) + (n[:, 0] + 1.0).diag()
    # Not -A, which would have negative zeros.
    return (0 - A).to(dtype), (2 * n + 1).double().sqrt().to(dtype)


def hippo_legt(
    d_state: int,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> tuple[
    Float[Tensor, "{d_state} {d_state}"],
    Float[Tensor, "{d_state} 1"],
]:
    r"""The matrices of the translated Legendre memory (LegT), of a window of length 1.

    $$ \dot c(t) = A c(t) + B x(t) \qquad
       A_{nk} = - \sqrt{(2n+1)(2k+1)} \begin{cases} 1 & n \ge k \\
       (-1)^{n-k} & n < k \end{cases} \qquad B_n = \sqrt{2n+1} $$

    A window of $\theta$ steps is a step size of $1 / \theta$.

    Args:
        d_state: N, the number of coefficients.
        dtype: Of the matrices; None for torch's default.
        device: Where they are; None for torch's default.

    Shapes:
        - returns: `A` (d_state, d_state), `B` (d_state, 1)

    Units:
        Time in windows.

    Raises:
        ValueError: `d_state` is below 1.
        TypeError: `d_state` is no whole number, or `dtype` one of integers.

    Source:
        Gu et al. (2020), HiPPO; Voelker, Kajić & Eliasmith (2019), in another scaling.
        Differs: the sign stands in $A$.
    """
    n, dtype = _degrees("hippo_legt", d_state, dtype, device)
    signs = 1 - 2 * ((n - n.T) % 2)
    A = -_roots(n) * torch.where(n >= n.T, 1, signs)
    return A.to(dtype), (2 * n + 1).double().sqrt().to(dtype)


def legs_coefficients(
    x: Float[Tensor, "batch time"],
    d_state: int,
    c_0: Float[Tensor, "batch {d_state}"] | None = None,
    *,
    seen: int = 0,
) -> Float[Tensor, "batch time {d_state}"]:
    r"""After each step the coefficients of all that was seen, exact for held inputs.

    $$ c_k = E_k c_{k-1} + (I - E_k) \, e_0 \, x_k \qquad
       E_k = \left( \frac{k}{k-1} \right)^{A} = e^{A \ln \frac{k}{k-1}} $$

    In the logarithm of time the memory is time-invariant, and $e_0$, the polynomial 1,
    is where a constant input leads. $E_1 = 0$.

    Args:
        x: A value for each step.
        d_state: The number of coefficients.
        c_0: Those after the steps that were seen before; None for none.
        seen: The number of steps that `c_0` has seen.

    Shapes:
        - `x`: (batch, time); `c_0`: (batch, d_state)
        - returns: (batch, time, d_state)

    Cost:
        O(T N^3) for the transitions, which do not depend on `x`; O(B T N^2) besides.

    Raises:
        ValueError: a wrong shape, dtype or device; `c_0` is given and `seen` is 0, or
            the other way round.
        TypeError: `x` is no tensor of floating point numbers, or a size is no integer.

    Source:
        Gu et al. (2020), HiPPO-LegS.
        Differs: the step is exact where the input is held, not Euler's or bilinear.
    """
    where = "legs_coefficients"
    c = _start(where, x, d_state, c_0)
    check_size(where, "seen", seen, minimum=0)
    if (c_0 is None) != (seen == 0):
        raise ValueError(
            f"{where}: `seen` must be the number of steps behind `c_0`, got "
            f"{seen} and {'no `c_0`' if c_0 is None else 'a `c_0`'}"
        )
    A, _ = hippo_legs(d_state, dtype=torch.float64, device=x.device)
    first, kept = torch.eye(d_state, dtype=torch.float64, device=x.device)[0], []
    for part in torch.arange(1, x.shape[1] + 1, device=x.device).split(_STEPS):
        k = (seen + part).double()
        E = (A * (k / (k - 1)).log()[:, None, None].nan_to_num(posinf=0)).matrix_exp()
        E = torch.where((k == 1)[:, None, None], 0.0, E)
        inputs = first - E[:, :, 0]
        E, inputs = E.to(x.dtype), inputs.to(x.dtype)
        steps = x[:, part - 1].unbind(1)
        for E_k, input_k, x_k in zip(E, inputs, steps, strict=True):
            c = _product(E_k, c) + x_k[:, None] * input_k
            kept.append(c)
    return torch.stack(kept, dim=1) if kept else x.new_empty(*x.shape, d_state)


def legt_coefficients(
    x: Float[Tensor, "batch time"],
    d_state: int,
    window: float,
    c_0: Float[Tensor, "batch {d_state}"] | None = None,
) -> Float[Tensor, "batch time {d_state}"]:
    r"""After each step the coefficients of a window, by a time-invariant system.

    They are not the nearest polynomial's: what leaves the window is read off the
    polynomial itself, not off the input.

    Args:
        x: A value for each step.
        d_state: The number of coefficients.
        window: Its length.
        c_0: The coefficients before the first step; None for zeros.

    Shapes:
        - `x`: (batch, time); `c_0`: (batch, d_state)
        - returns: (batch, time, d_state)

    Units:
        `window` in steps.

    Cost:
        O(N^3 + B T N^2).

    Raises:
        ValueError: a wrong shape, dtype, device or size.
        TypeError: `x` is no tensor of floating point numbers.

    Source:
        Gu et al. (2020), HiPPO-LegT; Voelker, Kajić & Eliasmith (2019).
    """
    where = "legt_coefficients"
    c = _start(where, x, d_state, c_0)
    check_number(where, "window", window, above=0, finite_in=torch.float64)
    A, B = hippo_legt(d_state, dtype=torch.float64, device=x.device)
    A_bar, B_bar = (part.to(x.dtype) for part in zero_order_hold(A, B, 1 / window))
    kept = []
    for x_k in x.unbind(1):
        c = _product(A_bar, c) + x_k[:, None] * B_bar[:, 0]
        kept.append(c)
    return torch.stack(kept, dim=1) if kept else x.new_empty(*x.shape, d_state)


def reconstruct(
    c: Float[Tensor, "*batch state"], places: Float[Tensor, " places"]
) -> Float[Tensor, "*batch places"]:
    r"""The polynomial of these coefficients, where it is asked for.

    $$ x(s) = \sum_n c_n \sqrt{2n+1} \, P_n(2s - 1) $$

    with the Legendre polynomials $P_n$.

    Args:
        c: Coefficients, of LegS or LegT.
        places: $s$, from 0, the oldest that is weighed, to 1, now.

    Shapes:
        - `c`: (..., state); `places`: (places,)
        - returns: (..., places)

    Units:
        `places` in shares of what was seen (LegS) or of the window (LegT).

    Cost:
        O(N) a place and row.

    Raises:
        ValueError: a wrong shape, dtype or device.
        TypeError: an argument is no tensor of floating point numbers.

    Source:
        Gu et al. (2020), HiPPO; the recurrence of Legendre's polynomials.
    """
    where = "reconstruct"
    _check_floating(where, "c", c)
    if c.dim() == 0 or c.shape[-1] == 0:
        raise ValueError(
            f"{where}: `c` must have shape (..., state), got {tuple(c.shape)}"
        )
    _check_floating(where, "places", places)
    check_shape(where, "places", places, [("places", None)])
    check_like_parameters(where, "places", places, c, "c's")
    z = 2 * places - 1
    before, current = torch.zeros_like(z), torch.ones_like(z)
    total = torch.zeros_like(c[..., :1] * z)
    for n, c_n in enumerate(c.unbind(-1)):
        total = total + c_n[..., None] * (2 * n + 1) ** 0.5 * current
        before, current = current, ((2 * n + 1) * z * current - n * before) / (n + 1)
    return total


def _degrees(
    where: str,
    d_state: int,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> tuple[Tensor, torch.dtype]:
    r"""$n$ as a column, and the dtype of the matrices."""
    check_size(where, "d_state", d_state)
    dtype = dtype or torch.get_default_dtype()
    if not (dtype.is_floating_point or dtype.is_complex):
        raise TypeError(
            f"{where}: `dtype` must be of floating point or complex, got {dtype}"
        )
    return torch.arange(d_state, device=device)[:, None], dtype


def _roots(n: Tensor) -> Tensor:
    r"""$\sqrt{(2n+1)(2k+1)}$, rounded once: a product of two roots is so twice."""
    return ((2 * n + 1) * (2 * n.T + 1)).double().sqrt()


def _product(matrix: Tensor, c: Tensor) -> Tensor:
    r"""Of a matrix with each row of c; autocast takes a matmul in half precision."""
    return (matrix * c[:, None]).sum(dim=-1)


def _start(where: str, x: Tensor, d_state: int, c_0: Tensor | None) -> Tensor:
    r"""Raise unless the arguments fit; the coefficients before the first step."""
    _check_floating(where, "x", x)
    check_shape(where, "x", x, [("batch", None), ("time", None)])
    check_size(where, "d_state", d_state)
    if c_0 is None:
        return x.new_zeros(x.shape[0], d_state)
    check_shape(where, "c_0", c_0, [("batch", x.shape[0]), ("d_state", d_state)])
    check_like_parameters(where, "c_0", c_0, x, "x's")
    return c_0


def _check_floating(where: str, name: str, value: Tensor) -> None:
    check_tensor(where, name, value)
    if value.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"{where}: `{name}` must be of float32 or float64, got {value.dtype}"
        )
