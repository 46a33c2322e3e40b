r"""Mamba: a state space model whose step size, input and output depend on its input."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.functional import linear, silu, softplus

from seqref.errors import check_lengths, check_like_parameters, check_shape, check_size
from seqref.ops._padding import blank_padding, real_steps
from seqref.ops.selective_scan import selective_scan
from seqref.ops.selective_scan.reference import selective_step
from seqref.ops.short_convolution import short_convolution
from seqref.ops.short_convolution.reference import short_convolution_step

# The step sizes that the layer begins with, in steps of the input.
DT_MIN, DT_MAX = 0.001, 0.1


class MambaState(NamedTuple):
    r"""What Mamba keeps of the steps before: a few inputs, and the state.

    `conv` (batch, d_conv - 1, inner) has the last inputs of the convolution, the oldest
    first, zero before the first step; `h` (batch, inner, state). No field changes its
    shape.
    """

    conv: Float[Tensor, "batch past inner"]
    h: Float[Tensor, "batch inner state"]


class Mamba(nn.Module):
    r"""A selective state space model between two projections, with a gate.

    $$ [u_t; z_t] = W_{in} x_t + b_{in} \qquad
       v_t = \mathrm{silu}\Bigl(b_c + \sum_{k=1}^{K} w_k \odot u_{t-K+k}\Bigr) \qquad
       [\delta_t; B_t; C_t] = W_x v_t $$

    $$ \Delta_t = \mathrm{softplus}(W_\Delta \delta_t + b_\Delta) \qquad
       h_t = e^{\Delta_t A} \odot h_{t-1} + (\Delta_t \odot v_t) B_t^\top \qquad
       A = -e^{A_{log}} $$

    $$ y_t = W_{out} \bigl((h_t C_t + D \odot v_t) \odot \mathrm{silu}(z_t)\bigr)
       + b_{out} $$

    $\Delta_t$, $B_t$ and $C_t$ depend on the input; $A$ and $D$ are parameters. There
    is no $b_{in}$ and $b_{out}$ without `bias`, and no $b_c$ without `conv_bias`.

    Args:
        d_model: Width of inputs and outputs.
        d_state: Numbers of the state for each inner channel, N.
        d_conv: Steps that the convolution sees, $K$: its own and those before it.
        expand: Inner channels, as a multiple of `d_model`.
        dt_rank: Width of $\delta_t$; None for `d_model / 16`, rounded up.
        bias: Whether `in_proj` and `out_proj` have biases.
        conv_bias: Whether the convolution has one.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x_t`: (batch, model); `x`: (batch, time, model); `lengths`: (batch,)
        - `state`: `MambaState(conv, h)` with `conv` (batch, d_conv - 1, inner) and `h`
          (batch, inner, state)
        - returns: outputs shaped as the input, and the new state, of the same shapes

    Units:
        $\Delta_t$ in steps of the input, $A$ in 1 / steps.

    Cost:
        O(E D^2 + E D N) time a step at E = `expand`, O(T (E D^2 + E D N)) a sequence;
        a state of E D (N + K - 1) numbers for each row at any time.

    Forms:
        `step`, `scan`, and `forward`: the ops `short_convolution` and `selective_scan`.

    Initialisation:
        $A_{log}$ is the logarithm of 1 to N in every channel, so $A = -1, \dots, -N$;
        D is 1. $b_\Delta$ is such that $\mathrm{softplus}(b_\Delta)$ is
        log-uniform in (0.001, 0.1); $W_\Delta$ uniform in $(-r^{-1/2}, r^{-1/2})$ for
        r = `dt_rank`. The others as `torch.nn.Linear` and `torch.nn.Conv1d`: uniform in
        $(-n^{-1/2}, n^{-1/2})$ for n inputs.

    Raises:
        ValueError: a wrong shape, dtype, device, length or size.
        TypeError: `state` is no `MambaState`; `lengths` is not of an integer dtype; a
            size is no int.

    Source:
        Gu & Dao (2023), algorithm 2 and sec. 3.4 to 3.6; real diagonal A: Gu et al.
        (2022). Names and shapes of parameters are those of the authors' code, so that
        its layers load.
        Differs from the paper's eq. 4: $\bar B_t = \Delta_t B_t$ in place of the
        zero-order hold, as in their code.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        *,
        bias: bool = False,
        conv_bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_size("Mamba", "d_model", d_model)
        dt_rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        sizes = {"d_state": d_state, "d_conv": d_conv, "expand": expand}
        for name, size in {**sizes, "dt_rank": dt_rank}.items():
            check_size("Mamba", name, size)
        self.input_size = self.output_size = self.d_model = d_model
        self.d_state, self.d_conv, self.expand = d_state, d_conv, expand
        self.dt_rank, self.bias, self.conv_bias = dt_rank, bias, conv_bias
        self.d_inner = inner = expand * d_model
        made = {"device": device, "dtype": dtype}
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias, **made)
        self.conv1d = nn.Conv1d(
            inner, inner, d_conv, groups=inner, bias=conv_bias, **made
        )
        self.x_proj = nn.Linear(inner, dt_rank + 2 * d_state, bias=False, **made)
        self.dt_proj = nn.Linear(dt_rank, inner, **made)
        self.A_log = nn.Parameter(torch.empty(inner, d_state, **made))
        self.D = nn.Parameter(torch.empty(inner, **made))
        self.out_proj = nn.Linear(inner, d_model, bias=bias, **made)
        self._reset_recurrence()

    def reset_parameters(self) -> None:
        r"""Draw every parameter anew."""
        for part in (self.in_proj, self.conv1d, self.x_proj, self.out_proj):
            part.reset_parameters()
        self._reset_recurrence()

    @torch.no_grad()
    def _reset_recurrence(self) -> None:
        rates = torch.arange(1, self.d_state + 1, dtype=torch.float64)
        self.A_log.copy_(rates.log().expand_as(self.A_log))
        self.D.fill_(1.0)
        bound = self.dt_rank**-0.5
        self.dt_proj.weight.uniform_(-bound, bound)
        low, high = math.log(DT_MIN), math.log(DT_MAX)
        dt = self.dt_proj.bias.uniform_(low, high).exp_()
        # The inverse of softplus, without the loss of digits of log(exp(dt) - 1).
        dt.add_(torch.log(-torch.expm1(-dt)))

    def initial_state(self, batch_size: int) -> MambaState:
        r"""Zeros: no inputs before the first, and an empty state.

        Shapes:
            - returns: `conv` (batch, d_conv - 1, inner), `h` (batch, inner, state)

        Raises:
            ValueError: `batch_size` is below 0.
            TypeError: `batch_size` is no int.
        """
        check_size("Mamba.initial_state", "batch_size", batch_size, minimum=0)
        zeros = self.A_log.new_zeros
        return MambaState(
            zeros(batch_size, self.d_conv - 1, self.d_inner),
            zeros(batch_size, self.d_inner, self.d_state),
        )

    def step(
        self, x_t: Float[Tensor, "batch {self.d_model}"], state: MambaState
    ) -> tuple[Float[Tensor, "batch {self.d_model}"], MambaState]:
        r"""One step, the definition of the layer.

        Shapes:
            - as the class
        """
        _check_call(self, "Mamba.step", "x_t", x_t, (("batch", None),), state)
        u_t, z_t = self._inward(x_t)
        v_t, conv = short_convolution_step(u_t, *self._kernel, state.conv)
        v_t = silu(v_t)
        dt_t, B_t, C_t = self._selected(v_t)
        y_t, h = selective_step(v_t, dt_t, self.A, B_t, C_t, self.D, state.h)
        return self._outward(y_t, z_t), MambaState(conv, h)

    def forward(
        self,
        x: Float[Tensor, "batch time {self.d_model}"],
        state: MambaState | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.d_model}"], MambaState]:
        where = "Mamba.forward"
        axes = ("batch", None), ("time", None)
        _check_call(self, where, "x", x, axes, state)
        conv, h = (None, None) if state is None else state
        real = None
        if lengths is not None:
            check_lengths(where, lengths, *x.shape[:2])
            real = real_steps(lengths.to(x.device), x.shape[1])
            x = blank_padding(x, real)
        u, z = self._inward(x)
        v, conv = short_convolution(u, *self._kernel, conv, lengths=lengths)
        v = silu(v)
        dt, B, C = self._selected(v)
        y, h = selective_scan(v, dt, self.A, B, C, self.D, h, lengths=lengths)
        y = self._outward(y, z)
        return y if real is None else blank_padding(y, real), MambaState(conv, h)

    @property
    def A(self) -> Float[Tensor, "inner state"]:
        r"""The rates, all below 0: a state that is not written to decays."""
        return -torch.exp(self.A_log)

    @property
    def _kernel(self) -> tuple[Tensor, Tensor | None]:
        return self.conv1d.weight[:, 0], self.conv1d.bias

    def _inward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""What goes through convolution and scan, and what becomes the gate."""
        # Under autocast a projection is in half precision, and what is kept is not.
        u, z = self.in_proj(x).to(self.D.dtype).chunk(2, dim=-1)
        return u, z

    def _selected(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""What depends on the input: step sizes, and what is written and read."""
        sizes = [self.dt_rank, self.d_state, self.d_state]
        delta, B, C = self.x_proj(v).to(self.D.dtype).split(sizes, dim=-1)
        dt_pre = linear(delta, self.dt_proj.weight).to(self.D.dtype)
        return softplus(dt_pre + self.dt_proj.bias), B, C

    def _outward(self, y: Tensor, z: Tensor) -> Tensor:
        return self.out_proj(y * silu(z)).to(self.D.dtype)

    def extra_repr(self) -> str:
        return f"{self.d_model}, {self.d_state}, {self.d_conv}, {self.expand}"


def _check_call(
    layer: Mamba,
    where: str,
    name: str,
    x: Tensor,
    axes: tuple[tuple[str, int | None], ...],
    state: MambaState | None,
) -> None:
    r"""Raise unless inputs and state are of the layer's kinds and sizes."""
    check_shape(where, name, x, (*axes, ("d_model", layer.d_model)))
    check_like_parameters(where, name, x, layer.D)
    if state is None:
        return
    if not isinstance(state, MambaState):
        raise TypeError(
            f"{where}: `state` must be a MambaState, got {type(state).__name__} "
            "(layer.initial_state(batch_size) makes one)"
        )
    sizes = {
        "conv": (("d_conv - 1", layer.d_conv - 1), ("d_inner", layer.d_inner)),
        "h": (("d_inner", layer.d_inner), ("d_state", layer.d_state)),
    }
    for field, tensor in zip(state._fields, state, strict=True):
        shape = (("batch", len(x)), *sizes[field])
        check_shape(where, f"state.{field}", tensor, shape)
        check_like_parameters(where, f"state.{field}", tensor, layer.D)
