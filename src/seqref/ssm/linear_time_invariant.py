r"""A linear time-invariant layer: a recurrence, a scan and a convolution in one."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Complex, Float, Integer
from torch import Tensor, nn

from seqref.errors import (
    check_lengths,
    check_like_parameters,
    check_number,
    check_shape,
    check_size,
)
from seqref.ops._padding import blank_padding, real_steps
from seqref.ops.linear_scan import linear_scan
from seqref.ops.long_convolution import long_convolution
from seqref.ssm.discretisation import zero_order_hold

__all__ = ["LTI", "LTIState"]


class LTIState(NamedTuple):
    r"""What an `LTI` carries: real and imaginary parts, each (batch, model, state)."""

    real: Float[Tensor, "batch model state"]
    imag: Float[Tensor, "batch model state"]


class LTI(nn.Module):
    r"""A diagonal system for each channel, the same at every step.

    $$ h_t = \bar A \odot h_{t-1} + \bar B \, x_t \qquad
       y_t = 2 \operatorname{Re} \sum_n C_n h_{t,n} + D \, x_t $$

    with $\bar A$ and $\bar B$ from $A$, $B$ and $\Delta$ by `rule`. Every state stands
    for itself and its conjugate, hence the 2. $A$ is held as `log_neg_real` and `imag`,
    so its real part is negative whatever is learned.

    Args:
        d_model: Width of inputs and outputs: channels, each a system of its own.
        d_state: Complex states of a channel.
        rule: A function of `A`, `B` and `dt` that takes `diagonal=True`, such as those
            of `seqref.ssm.discretisation`.
        dt_min: Least step size that is drawn.
        dt_max: Largest.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x_t`: (batch, model); `x`: (batch, time, model); `lengths`: (batch,)
        - `state`: `LTIState(real, imag)`, each (batch, model, state)
        - returns: outputs shaped as the input, and the new state

    Cost:
        O(D N) time and memory for a step, O(T D N) for a sequence; `convolved`
        O(T D (N + log T)) time, and O(T D N) memory for powers that all rows share.

    Forms:
        `step`, `scan`, and `forward`: `linear_scan` over all states. `convolved` gives
        the same outputs from a state of zero, by `long_convolution` with `kernel`.

    Initialisation:
        $A_n = -\tfrac12 + \pi n i$, $B_n = 1$, $C_n$ normal with variance
        $1 / (2 N)$ in each part, $D = 1$, $\log \Delta$ uniform between those of
        `dt_min` and `dt_max`.

    Raises:
        ValueError: a wrong shape, dtype, device, length or size; `dt_max` below
            `dt_min`.
        TypeError: `state` is no `LTIState`; `lengths` is not of an integer dtype.

    Source:
        Kalman (1960): systems by their state; Gu, Goel, Gupta & Ré (2022): the diagonal
        and its initialisation (S4D-Lin).
        Differs: no activation and no mixing of channels after it.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int,
        *,
        rule: Callable[..., tuple[Tensor, Tensor]] = zero_order_hold,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_size("LTI", "d_model", d_model)
        check_size("LTI", "d_state", d_state)
        check_number("LTI", "dt_min", dt_min, above=0)
        check_number("LTI", "dt_max", dt_max, minimum=dt_min)
        self.input_size = self.output_size = self.d_model = d_model
        self.d_state, self.rule = d_state, rule
        self.dt_min, self.dt_max = dt_min, dt_max
        empty = torch.empty((), device=device, dtype=dtype).new_empty
        self.log_dt = nn.Parameter(empty(d_model))
        self.log_neg_real = nn.Parameter(empty(d_model, d_state))
        self.imag = nn.Parameter(empty(d_model, d_state))
        self.B = nn.Parameter(empty(d_model, d_state, 2))
        self.C = nn.Parameter(empty(d_model, d_state, 2))
        self.D = nn.Parameter(empty(d_model))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        r"""Draw every parameter anew."""
        nn.init.uniform_(self.log_dt, math.log(self.dt_min), math.log(self.dt_max))
        self.log_neg_real.fill_(math.log(0.5))
        self.imag.copy_(math.pi * torch.arange(self.d_state))
        self.B.copy_(self.B.new_tensor([1.0, 0.0]))
        nn.init.normal_(self.C, std=(2 * self.d_state) ** -0.5)
        nn.init.ones_(self.D)

    def initial_state(self, batch_size: int) -> LTIState:
        r"""Zeros.

        Shapes:
            - returns: `real` and `imag`, each (batch, model, state)

        Raises:
            ValueError: `batch_size` is below 0.
            TypeError: `batch_size` is no int.
        """
        check_size("LTI.initial_state", "batch_size", batch_size, minimum=0)
        return self._zeros(batch_size)

    def step(
        self, x_t: Float[Tensor, "batch {self.d_model}"], state: LTIState | None = None
    ) -> tuple[Float[Tensor, "batch {self.d_model}"], LTIState]:
        r"""One step, the layer's definition; None starts from zeros.

        Shapes:
            - as the class
        """
        check_shape("LTI.step", "x_t", x_t, self._axes[::2])
        check_like_parameters("LTI.step", "x_t", x_t, self.D)
        x_t, h = x_t.to(self.D.dtype), _read(self, "LTI.step", state, x_t.shape[0])
        A_bar, B_bar = self.discretised()
        h = A_bar * h + B_bar * x_t[..., None].to(_real(h))
        return self._output(h, x_t), self._write(h)

    def forward(
        self,
        x: Float[Tensor, "batch time {self.d_model}"],
        state: LTIState | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.d_model}"], LTIState]:
        where = "LTI.forward"
        x, real = _checked(self, where, x, lengths)
        h_0 = _read(self, where, state, x.shape[0])
        A_bar, B_bar = self.discretised()
        b = B_bar * x[..., None].to(_real(h_0))
        h, h_n = linear_scan(A_bar.expand_as(b), b, h_0, lengths=lengths)
        y = self._output(h, x)
        return (y if real is None else blank_padding(y, real)), self._write(h_n)

    def convolved(
        self,
        x: Float[Tensor, "batch time {self.d_model}"],
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch time {self.d_model}"]:
        r"""The outputs from a state of zero, as a convolution; no state comes back.

        Shapes:
            - as the class
        """
        x, real = _checked(self, "LTI.convolved", x, lengths)
        kernel = self.kernel(x.shape[1]).to(x.dtype)
        y = long_convolution(x, kernel) + self.D * x
        return y if real is None else blank_padding(y, real)

    def kernel(self, taps: int) -> Float[Tensor, "{self.d_model} taps"]:
        r"""What an input of 1 adds to the outputs from its own step on, without $D$.

        $$ k_s = 2 \operatorname{Re} \sum_n C_n \bar A_n^s \bar B_n $$

        Args:
            taps: How many steps.

        Shapes:
            - returns: (model, taps)

        Raises:
            ValueError: `taps` is below 0.
            TypeError: `taps` is no int.
        """
        check_size("LTI.kernel", "taps", taps, minimum=0)
        A_bar, B_bar = self.discretised()
        # By doubling: a state that is forgotten at once has a factor of 0, and torch
        # has no 0 ** 0 of complex numbers, nor its derivative.
        powers, factor = torch.ones_like(A_bar)[..., None], A_bar[..., None]
        while powers.shape[-1] < taps:
            powers = torch.cat([powers, powers * factor], dim=-1)
            factor = factor * factor
        powers = powers[..., :taps]
        weights = torch.view_as_complex(_wide(self.C)) * B_bar
        return 2 * (weights[..., None] * powers).real.sum(dim=1)

    def discretised(
        self,
    ) -> tuple[
        Complex[Tensor, "{self.d_model} {self.d_state}"],
        Complex[Tensor, "{self.d_model} {self.d_state}"],
    ]:
        r"""$\bar A$ and $\bar B$, by the layer's rule.

        Shapes:
            - returns: each (model, state)
        """
        A = torch.complex(-_wide(self.log_neg_real).exp(), _wide(self.imag))
        B = torch.view_as_complex(_wide(self.B))
        dt = _wide(self.log_dt).exp()[:, None]
        return self.rule(A, B, dt, diagonal=True)

    @property
    def _axes(self) -> Any:
        return ("batch", None), ("time", None), ("d_model", self.d_model)

    def _zeros(self, batch: int) -> LTIState:
        shape = batch, self.d_model, self.d_state
        return LTIState(self.D.new_zeros(shape), self.D.new_zeros(shape))

    def _write(self, h: Tensor) -> LTIState:
        return LTIState(h.real.to(self.D.dtype), h.imag.to(self.D.dtype))

    def _output(self, h: Tensor, x: Tensor) -> Tensor:
        C = torch.view_as_complex(_wide(self.C))
        return 2 * (C * h).real.sum(dim=-1).to(x.dtype) + self.D * x

    def extra_repr(self) -> str:
        rule = getattr(self.rule, "__name__", repr(self.rule))
        return f"{self.d_model}, {self.d_state}, rule={rule}"


def _real(h: Tensor) -> torch.dtype:
    return torch.float64 if h.dtype == torch.complex128 else torch.float32


def _wide(x: Tensor) -> Tensor:
    # There are no complex numbers of half precision to compute with.
    return x if x.dtype == torch.float64 else x.float()


def _checked(
    layer: LTI, where: str, x: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    r"""Raise unless the inputs fit; zeros in their padding, and what is none of it."""
    check_shape(where, "x", x, layer._axes)
    check_like_parameters(where, "x", x, layer.D)
    x = x.to(layer.D.dtype)
    if lengths is None:
        return x, None
    check_lengths(where, lengths, *x.shape[:2])
    real = real_steps(lengths.to(x.device), x.shape[1])
    return blank_padding(x, real), real


def _read(layer: LTI, where: str, state: Any, batch: int) -> Tensor:
    r"""Raise unless the state fits; it as complex numbers, None as zeros."""
    # In a trace the number of rows is one of its values, not that of its example.
    if state is None:
        state = layer._zeros(batch)
    if not isinstance(state, LTIState):
        raise TypeError(
            f"{where}: `state` must be LTIState(real, imag), got "
            f"{type(state).__name__} (pass LTIState(real, imag))"
        )
    sizes = ("batch", batch), ("d_model", layer.d_model), ("d_state", layer.d_state)
    for name, value in zip(state._fields, state, strict=True):
        check_shape(where, f"state.{name}", value, sizes)
        check_like_parameters(where, f"state.{name}", value, layer.D)
    return torch.complex(*(_wide(part) for part in state))
