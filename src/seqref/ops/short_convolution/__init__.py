r"""A causal convolution of a few steps, each channel by itself."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from seqref.errors import (
    check_choice,
    check_lengths,
    check_like_parameters,
    check_shape,
    is_exporting,
)
from seqref.ops._padding import blank_padding, real_steps
from seqref.ops.short_convolution import parallel, reference

__all__ = ["BACKENDS", "short_convolution"]

BACKENDS = ("reference", "parallel", "torch")
HALF = (torch.float16, torch.bfloat16)


def short_convolution(
    x: Float[Tensor, "batch time channels"],
    weight: Float[Tensor, "channels width"],
    bias: Float[Tensor, " channels"] | None = None,
    state: Float[Tensor, "batch past channels"] | None = None,
    *,
    lengths: Integer[Tensor, " batch"] | None = None,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch time channels"], Float[Tensor, "batch past channels"]]:
    r"""A causal convolution over time, each channel by itself.

    $$ y_t = b + \sum_{k=1}^{K} w_k \odot x_{t - K + k} $$

    Args:
        x: The inputs.
        weight: The weights; the last one is that of the step itself.
        bias: Added to each output; None for none.
        state: The $K - 1$ inputs before the first, the oldest first; None for zeros.
        lengths: Number of real steps of each row; the rest is padding on the right.
        backend: None for the default, or a name from the table below.

    Shapes:
        - `x`: (batch, time, channels); `weight`: (channels, width); `bias`:
          (channels,); `state`: (batch, width - 1, channels); `lengths`: (batch,)
        - returns: `y` (batch, time, channels), zero in the padding, and the state after
          each row's last real step, (batch, width - 1, channels)

    Cost:
        O(T D K) time.

    Backends:
        | backend | is | default |
        | --- | --- | --- |
        | `"reference"` | a Python loop over `short_convolution_step` | |
        | `"parallel"` | K sums of the whole sequence, moved by a step each, with a backward by hand where autograd alone is at work | CPU |
        | `"torch"` | `torch.nn.functional.conv1d`, with time as the last axis | elsewhere |

        All tensors but `lengths` get gradients, and those have gradients. Half precision
        is computed in float32 and rounded once, except by `"torch"`, whose kernels see
        to it themselves.

    Raises:
        ValueError: a wrong shape, dtype, device, length or backend name.
        TypeError: `lengths` is not of an integer dtype, or `x` not of a floating one.

    Source:
        The layer before the state space model: Gu & Dao (2023), sec. 3.4.
        Differs: weights (channels, width), without conv1d's axis of 1; a state in and
        out; no activation.
    """  # noqa: E501
    where = "short_convolution"
    if backend is not None:
        check_choice(where, "backend", backend, BACKENDS)
    state = _checked(where, x, weight, bias, state)
    real = None
    if lengths is not None:
        check_lengths(where, lengths, *x.shape[:2])
        lengths = lengths.to(x.device, torch.int64)
        real = real_steps(lengths, x.shape[1])
        x = blank_padding(x, real)
    y = _form(backend, x)(x, weight, bias, state)
    return y if real is None else blank_padding(y, real), _last(x, state, lengths)


def _form(backend: str | None, x: Tensor) -> Any:
    if backend == "torch" or (backend is None and x.device.type != "cpu"):
        return _torch
    run = reference.run if backend == "reference" else parallel.run
    return _widened(run) if x.dtype in HALF else run


def _widened(run: Any) -> Any:
    def widened(x: Tensor, *others: Tensor | None) -> Tensor:
        wide = (None if other is None else other.float() for other in others)
        return run(x.float(), *wide).to(x.dtype)

    return widened


def _torch(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor) -> Tensor:
    padded = torch.cat([state, x], dim=1).mT
    if x.numel() == 0:
        # torch refuses to convolve nothing; the sums of nothing have gradients too.
        return parallel.moved_sums(padded.mT, weight, bias)
    y = F.conv1d(padded, weight[:, None], bias, groups=weight.shape[0]).mT
    # Under autocast torch returns half precision.
    return y.to(x.dtype)


def _last(x: Tensor, state: Tensor, lengths: Tensor | None) -> Tensor:
    r"""The inputs that the next step would still see, of a row's real ones."""
    past, time = state.shape[1], x.shape[1]
    if lengths is None and not (is_exporting() or torch.jit.is_tracing()):  # pyright: ignore[reportPrivateImportUsage]
        # Of a long sequence only the end is copied.
        new = x[:, max(0, time - past) :]
        return torch.cat([state[:, new.shape[1] :], new], dim=1)
    padded = torch.cat([state, x], dim=1)
    if lengths is None:
        # A graph would keep the choice of the larger number for every length.
        return padded[:, time:]
    # Row's step t stands at t + past, so its last steps begin at its length.
    at = lengths[:, None] + torch.arange(past, device=x.device)
    return padded.gather(1, at[..., None].expand_as(state))


def _checked(
    where: str, x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None
) -> Tensor:
    r"""Raise unless the arguments fit; the state before the first step."""
    check_shape(where, "x", x, (("batch", None), ("time", None), ("channels", None)))
    if not x.is_floating_point():
        raise TypeError(f"{where}: `x` must have a floating dtype, got {x.dtype}")
    batch, _, channels = x.shape
    check_shape(where, "weight", weight, (("channels", channels), ("width", None)))
    width = weight.shape[1]
    if width == 0:
        raise ValueError(f"{where}: `weight` must have a width of at least 1, got 0")
    check_like_parameters(where, "weight", weight, x, "x's")
    if bias is not None:
        check_shape(where, "bias", bias, (("channels", channels),))
        check_like_parameters(where, "bias", bias, x, "x's")
    if state is None:
        return x.new_zeros(batch, width - 1, channels)
    axes = (("batch", batch), ("width - 1", width - 1), ("channels", channels))
    check_shape(where, "state", state, axes)
    check_like_parameters(where, "state", state, x, "x's")
    return state.to(x.dtype)
