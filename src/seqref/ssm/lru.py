r"""The linear recurrent unit: complex, diagonal, with eigenvalues in the unit disc."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Integer
from torch import Tensor, nn
from torch.nn.functional import linear

from seqref.errors import (
    check_lengths,
    check_like_parameters,
    check_number,
    check_shape,
    check_size,
    check_tensor,
)
from seqref.ops._padding import blank_padding, real_steps
from seqref.ops.linear_scan import linear_scan
from seqref.ops.linear_scan.reference import linear_step

__all__ = ["LRU", "LRUState"]


class LRUState(NamedTuple):
    r"""What an `LRU` carries: real and imaginary parts of h, each (batch, state)."""

    real: Float[Tensor, "batch state"]
    imag: Float[Tensor, "batch state"]


class LRU(nn.Module):
    r"""A linear recurrent unit over a sequence.

    $$ h_t = \lambda \odot h_{t-1} + \gamma \odot (B x_t) \qquad
       y_t = \operatorname{Re}(C h_t) + D \odot x_t $$

    $$ \lambda = \exp(-e^{\nu} + i \, e^{\theta}) \qquad \gamma = e^{g} $$

    with `log_nu` $\nu$, `log_theta` $\theta$, `log_gamma` $g$, complex $B$ and $C$, and
    a state that is complex too. $|\lambda| < 1$ for every value of $\nu$, up to
    rounding.

    Args:
        d_model: Width of inputs and outputs.
        d_state: Numbers of the state, each complex.
        r_min: The least size of an eigenvalue that is drawn.
        r_max: The largest.
        max_phase: The largest angle that is drawn, in radians.
        device: Where the parameters are made.
        dtype: Their dtype, a real one.

    Shapes:
        - `x_t`: (batch, model); `x`: (batch, time, model); `lengths`: (batch,)
        - `state`: `LRUState(real, imag)`, each (batch, state), or None for zeros
        - returns: outputs shaped as the input, zero in the padding, and the `LRUState`
          after each row's last real step

    Cost:
        O(D N) time for a step, O(T D N) in two products for a sequence and O(T N) in
        the scan between them; O(N) state.

    Forms:
        `step`, `scan`, and `forward`: the products over all steps at once, and
        `linear_scan` between them.

    Initialisation:
        $|\lambda|^2$ uniform in ($r_{min}^2$, $r_{max}^2$) and the angle uniform in
        (0, max_phase): uniform by area on a ring. $\gamma = \sqrt{1 - |\lambda|^2}$.
        Real and imaginary parts of `B` normal with variance 1 / (2 model), of `C` with
        1 / state, `D` with 1.

    Raises:
        ValueError: a wrong shape, dtype, device, length or size; `r_min` and `r_max`
            are not in order within 0 and 1.
        TypeError: `state` is no `LRUState`; `lengths` is not of an integer dtype.

    Source:
        Orvieto et al. (2023), sec. 3 and appendix A.
        Differs: real and imaginary parts stand in the last axis of `B` and `C`; half
        precision has a state in single precision.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int,
        *,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 2 * math.pi,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_size("LRU", "d_model", d_model)
        check_size("LRU", "d_state", d_state)
        check_number("LRU", "r_min", r_min, minimum=0)
        check_number("LRU", "r_max", r_max, above=r_min, maximum=1)
        check_number("LRU", "max_phase", max_phase, above=0, maximum=2 * math.pi)
        self.input_size = self.output_size = self.d_model = d_model
        self.d_state = d_state
        self.r_min, self.r_max, self.max_phase = r_min, r_max, max_phase
        empty = torch.empty((), device=device, dtype=dtype).new_empty
        self.log_nu = nn.Parameter(empty(d_state))
        self.log_theta = nn.Parameter(empty(d_state))
        self.log_gamma = nn.Parameter(empty(d_state))
        self.B = nn.Parameter(empty(d_state, d_model, 2))
        self.C = nn.Parameter(empty(d_model, d_state, 2))
        self.D = nn.Parameter(empty(d_model))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        r"""Draw every parameter anew, by the laws of the class."""
        tiny = torch.finfo(torch.float32).eps
        # In double precision: near the circle 1 - |λ|² has few digits of its own.
        wide = self.log_nu.double()
        drawn = torch.rand_like(wide), torch.rand_like(wide)
        share, turn = (u.clamp(tiny, 1 - tiny) for u in drawn)
        squared = self.r_min**2 + share * (self.r_max**2 - self.r_min**2)
        self.log_nu.copy_((-0.5 * squared.log()).log())
        self.log_theta.copy_((self.max_phase * turn).log())
        self.log_gamma.copy_(0.5 * torch.log1p(-squared))
        nn.init.normal_(self.B, std=1 / math.sqrt(2 * self.d_model))
        nn.init.normal_(self.C, std=1 / math.sqrt(self.d_state))
        nn.init.normal_(self.D)

    def eigenvalues(self) -> Complex[Tensor, " state"]:
        r"""$\lambda = \exp(-e^\nu + i e^\theta)$, what a number of the state keeps."""
        nu, theta = (self._wide(log).exp() for log in (self.log_nu, self.log_theta))
        return torch.polar((-nu).exp(), theta)

    def initial_state(self, batch_size: int) -> LRUState:
        r"""Zeros, on the device of the parameters.

        Shapes:
            - returns: `real` and `imag`, each (batch, state)

        Raises:
            ValueError: `batch_size` is below 0.
            TypeError: `batch_size` is no int.
        """
        check_size("LRU.initial_state", "batch_size", batch_size, minimum=0)
        return self._zeros(batch_size)

    def step(
        self, x_t: Float[Tensor, "batch {self.d_model}"], state: LRUState | None = None
    ) -> tuple[Float[Tensor, "batch {self.d_model}"], LRUState]:
        r"""One step, the layer's definition; None starts from zeros.

        Shapes:
            - as the class
        """
        where = "LRU.step"
        check_tensor(where, "x_t", x_t)
        hint = "a whole sequence? call the layer, not the step"
        axes = (("batch", None), self._model)
        check_shape(where, "x_t", x_t, axes, hint if x_t.dim() == 3 else "")
        check_like_parameters(where, "x_t", x_t, self.D)
        h = _checked(where, state, self._zeros(x_t.shape[0]))
        b_t = self._into(x_t)
        h_t = linear_step(self.eigenvalues().expand_as(b_t), b_t, h)
        return self._out_of(h_t, x_t), LRUState(h_t.real, h_t.imag)

    def forward(
        self,
        x: Float[Tensor, "batch time {self.d_model}"],
        state: LRUState | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.d_model}"], LRUState]:
        where = "LRU.forward"
        check_tensor(where, "x", x)
        hint = "one step? call step; one sequence? pass x.unsqueeze(0)"
        axes = (("batch", None), ("time", None), self._model)
        check_shape(where, "x", x, axes, hint if x.dim() == 2 else "")
        check_like_parameters(where, "x", x, self.D)
        h_0 = _checked(where, state, self._zeros(x.shape[0]))
        if lengths is not None:
            check_lengths(where, lengths, *x.shape[:2])
            lengths = lengths.to(x.device)
            x = blank_padding(x, real_steps(lengths, x.shape[1]))
        b = self._into(x)
        h, h_n = linear_scan(
            self.eigenvalues().expand(b.shape), b, h_0, lengths=lengths
        )
        return self._out_of(h, x), LRUState(h_n.real, h_n.imag)

    @property
    def _model(self) -> tuple[str, int]:
        return "d_model", self.d_model

    def _wide(self, x: Tensor) -> Tensor:
        r"""In single precision at least, as complex numbers are."""
        return x.to(torch.promote_types(self.D.dtype, torch.float32))

    def _zeros(self, batch: int) -> LRUState:
        wide = torch.promote_types(self.D.dtype, torch.float32)
        real, imag = self.D.new_zeros(2, batch, self.d_state, dtype=wide)
        return LRUState(real, imag)

    def _into(self, x: Tensor) -> Tensor:
        r"""$\gamma \odot (B x)$, complex, of one step or of all."""
        weight = self._wide(self.B) * self._wide(self.log_gamma).exp()[:, None, None]
        # Rows of the real and of the imaginary part of a number beside each other.
        rows = weight.movedim(-1, 1).flatten(0, 1)
        parts = self._wide(linear(x, rows.to(self.D.dtype)))
        return torch.view_as_complex(parts.unflatten(-1, (self.d_state, 2)))

    def _out_of(self, h: Tensor, x: Tensor) -> Tensor:
        r"""$\operatorname{Re}(C h) + D \odot x$, of one step or of all."""
        real, imaginary = self.C.unbind(-1)
        columns = torch.stack([real, -imaginary], dim=-1).flatten(1)
        parts = torch.view_as_real(h).flatten(-2).to(self.D.dtype)
        return (linear(parts, columns) + self.D * x).to(self.D.dtype)

    def extra_repr(self) -> str:
        return f"{self.d_model}, {self.d_state}"


def _checked(where: str, state: LRUState | None, fresh: LRUState) -> Tensor:
    r"""Raise unless the state is like the initial one, which stands for None."""
    if state is None:
        state = fresh
    if not isinstance(state, LRUState):
        raise TypeError(
            f"{where}: `state` must be LRUState(real, imag), got "
            f"{type(state).__name__} (pass LRUState(real, imag))"
        )
    axes = tuple(zip(("batch", "d_state"), fresh.real.shape, strict=True))
    for name, value in zip(state._fields, state, strict=True):
        check_shape(where, f"state.{name}", value, axes)
        whose = "the initial state's"
        check_like_parameters(where, f"state.{name}", value, fresh.real, whose)
    return torch.complex(*state)
