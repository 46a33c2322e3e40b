r"""A causal convolution with a kernel as long as the sequence."""

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
from seqref.ops.long_convolution import parallel, reference

__all__ = ["BACKENDS", "long_convolution"]

BACKENDS = ("reference", "parallel")
HALF = (torch.float16, torch.bfloat16)
DTYPES = (*HALF, torch.float32, torch.float64)

# torch.compiler.disable(parallel.run), made where it is needed.
_hidden_from_compiler: Any = None


def long_convolution(
    x: Float[Tensor, "batch time channels"],
    kernel: Float[Tensor, "channels taps"],
    *,
    lengths: Integer[Tensor, " batch"] | None = None,
    backend: str | None = None,
) -> Float[Tensor, "batch time channels"]:
    r"""Each channel under a causal kernel of its own.

    $$ y_t = \sum_{s = 0}^{t} k_s \odot x_{t - s} \qquad t = 0 \dots T - 1 $$

    There is no state to start from or to hand on: a convolution begins with nothing
    before its first step. What a sequence before it adds is the business of whoever
    knows what the kernel came from.

    Args:
        x: The inputs.
        kernel: Of each channel, from the tap of its own step on.
        lengths: Number of real steps of each row; the rest is padding on the right.
        backend: None for the default, or a name from the table below.

    Shapes:
        - `x`: (batch, time, channels); `kernel`: (channels, taps), of which more than
          time are not read; `lengths`: (batch,)
        - returns: `y` (batch, time, channels), zero in the padding

    Cost:
        `"parallel"`: O(T log T) time a channel; it keeps `x` and `kernel` alone for the
        backward pass. `"reference"`: O(T K) for K taps.

    Backends:
        | backend | is | default |
        | --- | --- | --- |
        | `"reference"` | a shift and a product for each tap | empty input, other devices, `torch.func`, forward-mode differentiation, `torch.export`, `torch.jit.trace` |
        | `"parallel"` | Fourier transforms of some channels at a time, with a backward by hand | CPU, CUDA |

        Both tensors get gradients, and those have gradients. Half precision is computed
        in float32 and rounded once. torch.compile leaves its graph for `"parallel"`.

        A Fourier transform mixes all steps: at every step an error of rounding has the
        size of eps times the norms of a row and of its kernel, also before the step that
        is large, and where all that is large lies beyond the end; and one input that is
        not finite leaves no finite output in its row and channel.

    Raises:
        ValueError: a wrong shape, dtype, device, length or backend name.
        TypeError: `lengths` is not of an integer dtype, or `x` of none of half, single
            or double precision.
        RuntimeError: a backend was asked for that cannot run here.

    Source:
        Gu, Goel & Ré (2022): a state space model as a convolution by Fourier transforms.
        Differs: in blocks of channels.
    """  # noqa: E501
    where = "long_convolution"
    if backend is not None:
        check_choice(where, "backend", backend, BACKENDS)
    check_shape(where, "x", x, [("batch", None), ("time", None), ("channels", None)])
    if x.dtype not in DTYPES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise TypeError(f"{where}: `x` must have one of {known}, got {x.dtype}")
    check_shape(where, "kernel", kernel, [("channels", x.shape[2]), ("taps", None)])
    check_like_parameters(where, "kernel", kernel, x, "x's")
    real = None
    if lengths is not None:
        check_lengths(where, lengths, *x.shape[:2])
        real = real_steps(lengths.to(x.device), x.shape[1])
        x = blank_padding(x, real)
    dtype = x.dtype
    if dtype in HALF:
        x, kernel = x.float(), kernel.float()
    kernel = kernel[:, : x.shape[1]]
    y = _form(where, backend, x, kernel)(x, kernel)
    if real is not None:
        y = blank_padding(y, real)
    return y.to(dtype)


def _form(where: str, backend: str | None, x: Tensor, kernel: Tensor) -> Any:
    reason = why_not_differentiated((x, kernel))
    if not reason and 0 in (x.numel(), kernel.numel()):
        reason = "the input is empty"
    if backend == "parallel" and reason:
        raise RuntimeError(f"{where}: backend 'parallel' cannot run here: {reason}")
    other = x.device.type not in ("cpu", "cuda")
    if backend == "reference" or reason or (backend is None and other):
        return reference.run
    # The compiler has no rule for the buffers. It takes seconds to import: not before
    # somebody uses it.
    if "torch._dynamo" not in sys.modules:
        return parallel.run
    global _hidden_from_compiler  # noqa: PLW0603
    if _hidden_from_compiler is None:
        _hidden_from_compiler = torch.compiler.disable(parallel.run)
    return _hidden_from_compiler
