r"""The scan of a selective state space model: what it keeps depends on its input."""

import sys
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from seqref.errors import (
    check_choice,
    check_lengths,
    check_like_parameters,
    check_shape,
)
from seqref.ops._by_hand import why_not_differentiated
from seqref.ops._padding import blank_padding, real_steps
from seqref.ops.selective_scan import parallel, reference

__all__ = ["BACKENDS", "selective_scan"]

BACKENDS = ("reference", "parallel")
HALF = (torch.float16, torch.bfloat16)

# torch.compiler.disable(parallel.run), made where it is needed.
_hidden_from_compiler: Any = None


def selective_scan(
    x: Float[Tensor, "batch time channels"],
    dt: Float[Tensor, "batch time channels"],
    A: Float[Tensor, "channels state"],
    B: Float[Tensor, "batch time state"],
    C: Float[Tensor, "batch time state"],
    D: Float[Tensor, " channels"] | None = None,
    h_0: Float[Tensor, "batch channels state"] | None = None,
    *,
    lengths: Integer[Tensor, " batch"] | None = None,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch time channels"], Float[Tensor, "batch channels state"]]:
    r"""Outputs of a diagonal state space model whose step size and maps change.

    $$ h_t = e^{\Delta_t A} \odot h_{t-1} + (\Delta_t \odot x_t) B_t^\top \qquad
       y_t = h_t C_t + D \odot x_t $$

    Args:
        x: The inputs.
        dt: The step sizes, in the units that $A$ is a rate in. They enter as they are:
            a softplus and a bias belong to the layer.
        A: The rates, real; negative ones decay.
        B: What of an input is written to the state.
        C: What of the state is read.
        D: What of an input goes past the state; None for nothing.
        h_0: The state before the first step; None for zeros.
        lengths: Number of real steps of each row; the rest is padding on the right.
        backend: None for the default, or a name from the table below.

    Shapes:
        - `x`, `dt`: (batch, time, channels); `A`: (channels, state); `B`, `C`: (batch,
          time, state); `D`: (channels,); `h_0`: (batch, channels, state); `lengths`:
          (batch,)
        - returns: `y` (batch, time, channels), zero in the padding, and `h_n` (batch,
          channels, state), the state after each row's last real step

    Cost:
        O(T D N) time. The definition keeps several times T D N numbers for the
        backward pass; `"parallel"` keeps the inputs and a state for every chunk of
        steps, of which each has at least 16, and makes the states again.

    Backends:
        | backend | is | default |
        | --- | --- | --- |
        | `"reference"` | a Python loop over `selective_step` | empty input, other devices, `torch.func`, forward-mode differentiation, `torch.export`, `torch.jit.trace` |
        | `"parallel"` | chunks of steps, one after the other in the same memory, with a backward by hand | CPU, CUDA |

        All tensors but `lengths` get gradients, and those have gradients, which are
        computed by the definition. Half precision is computed in float32 and rounded
        once; `h_n` too. torch.compile leaves its graph for `"parallel"`.

    Raises:
        ValueError: a wrong shape, dtype, device, length or backend name.
        TypeError: `lengths` is not of an integer dtype, or `x` not of a floating one.
        RuntimeError: a backend was asked for that cannot run here.

    Source:
        Gu & Dao (2023), algorithm 2, with $A$ discretised by the exponential and $B$ by
        Euler's step, as their code has it; states made again: sec. 3.3.2.
        Differs: a state in; $\Delta$ as it enters the scan.
    """  # noqa: E501
    where = "selective_scan"
    if backend is not None:
        check_choice(where, "backend", backend, BACKENDS)
    h_0 = _checked(where, x, dt, A, B, C, D, h_0)
    real = None
    if lengths is not None:
        check_lengths(where, lengths, *x.shape[:2])
        real = real_steps(lengths.to(x.device), x.shape[1])
        # With a step of size 0 the state passes through the padding, which is not read.
        x, dt, B, C = (blank_padding(v, real) for v in (x, dt, B, C))
    wide = [v.float() if v.dtype in HALF else v for v in (x, dt, A, B, C, h_0)]
    y, h_n = _form(where, backend, wide)(*wide)
    if D is not None:
        y = y + D.to(y.dtype) * wide[0]
    if real is not None:
        y = blank_padding(y, real)
    return y.to(x.dtype), h_n.to(x.dtype)


def _form(where: str, backend: str | None, tensors: list[Tensor]) -> Any:
    reason = why_not_differentiated(tuple(tensors))
    if not reason and any(x.numel() == 0 for x in tensors):
        reason = "the input is empty"
    if backend == "parallel" and reason:
        raise RuntimeError(f"{where}: backend 'parallel' cannot run here: {reason}")
    other = tensors[0].device.type not in ("cpu", "cuda")
    if backend == "reference" or reason or (backend is None and other):
        return reference.run
    # The compiler would unroll the steps. It takes seconds to import: not before
    # somebody uses it.
    if "torch._dynamo" not in sys.modules:
        return parallel.run
    global _hidden_from_compiler  # noqa: PLW0603
    if _hidden_from_compiler is None:
        _hidden_from_compiler = torch.compiler.disable(parallel.run)
    return _hidden_from_compiler


def _checked(
    where: str,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    h_0: Tensor | None,
) -> Tensor:
    r"""Raise unless the arguments fit; the state before the first step."""
    check_shape(where, "x", x, (("batch", None), ("time", None), ("channels", None)))
    if not x.is_floating_point():
        raise TypeError(f"{where}: `x` must have a floating dtype, got {x.dtype}")
    batch, time, channels = zip(("batch", "time", "channels"), x.shape, strict=True)
    check_shape(where, "dt", dt, (batch, time, channels))
    check_shape(where, "A", A, (channels, ("state", None)))
    state = "state", A.shape[1]
    expected = {
        "dt": (dt, (batch, time, channels)),
        "A": (A, (channels, state)),
        "B": (B, (batch, time, state)),
        "C": (C, (batch, time, state)),
        "D": (D, (channels,)),
        "h_0": (h_0, (batch, channels, state)),
    }
    for name, (value, axes) in expected.items():
        if value is not None:
            check_shape(where, name, value, axes)
            check_like_parameters(where, name, value, x, "x's")
    return x.new_zeros(batch[1], channels[1], state[1]) if h_0 is None else h_0
