r"""A linear recurrence with a decay for each number, over a whole sequence."""

import importlib
import sys
from typing import Any

import torch
from jaxtyping import Inexact, Integer
from torch import Tensor

from seqref.errors import (
    check_choice,
    check_lengths,
    check_like_parameters,
    check_shape,
    check_tensor,
)
from seqref.ops._by_hand import why_not_differentiated
from seqref.ops._padding import real_steps
from seqref.ops.linear_scan import parallel, reference

__all__ = ["BACKENDS", "linear_scan"]

BACKENDS = ("reference", "parallel", "triton")
HALF = (torch.float16, torch.bfloat16)
DTYPES = (*HALF, torch.float32, torch.float64, torch.complex64, torch.complex128)

# torch.compiler.disable of a module's `run`, made where it is needed.
_hidden_from_compiler: dict[Any, Any] = {}


def linear_scan(
    a: Inexact[Tensor, "batch time *features"],
    b: Inexact[Tensor, "batch time *features"],
    h_0: Inexact[Tensor, "batch *features"] | None = None,
    *,
    lengths: Integer[Tensor, " batch"] | None = None,
    backend: str | None = None,
) -> tuple[Inexact[Tensor, "batch time *features"], Inexact[Tensor, "batch *features"]]:
    r"""All states of a linear recurrence whose matrix is diagonal.

    $$ h_t = a_t \odot h_{t-1} + b_t \qquad t = 1 \dots T $$

    Args:
        a: The decays, real or complex, of any size.
        b: The inputs.
        h_0: The state before the first step; None for zeros.
        lengths: Number of real steps of each row; the rest is padding on the right.
        backend: None for the default, or a name from the table below.

    Shapes:
        - `a`, `b`: (batch, time, ...), one shape (a decay that is the same at all steps
          is given by `expand`); `h_0`: (batch, ...); `lengths`: (batch,)
        - returns: `h` (batch, time, ...), zero in the padding, and `h_n` (batch, ...),
          the state after each row's last real step

    Cost:
        O(T D) time. `"parallel"` reads its inputs twice, the decays up to four times, and
        keeps `a` and `h` for the backward pass, which is another scan.

    Backends:
        | backend | is | default |
        | --- | --- | --- |
        | `"reference"` | a Python loop over `linear_step` | empty input, other devices, `torch.func`, forward-mode differentiation, `torch.export`, `torch.jit.trace` |
        | `"parallel"` | chunks side by side, then from the right starts, with a backward by hand | CPU, CUDA |
        | `"triton"` | one kernel for each direction that reads each number once; needs Triton and CUDA | never: no GPU has run it yet |

        All tensors but `lengths` get gradients, and those have gradients. Half precision
        is computed in float32 and rounded once; `h_n` too. torch.compile leaves its graph
        for `"parallel"`. The tensor `h` may be kept for the backward pass, which then
        refuses to run where it was written to.

        Where states overflow, `"parallel"` need not do so at the same steps: it carries
        from chunk to chunk in double precision. A chunk whose decays multiply to more
        than double precision holds, or whose inputs overflow without the state before
        it, gives infinity or NaN where the loop may not; of `"triton"` that holds for
        64 steps and the dtype of the states.

    Raises:
        ValueError: a wrong shape, dtype, device, length or backend name.
        TypeError: `lengths` is not of an integer dtype, or `a` of none of half, single
            or double precision.
        RuntimeError: a backend was asked for that cannot run here.

    Source:
        Blelloch (1990): recurrences as scans; Martin & Cundy (2017): in recurrent layers.
        Differs: chunks in sequence and not a tree, so that no product of decays is
        longer than a chunk.
    """  # noqa: E501
    where = "linear_scan"
    if backend is not None:
        check_choice(where, "backend", backend, BACKENDS)
    h_0 = _checked(where, a, b, h_0)
    real = None
    if lengths is not None:
        check_lengths(where, lengths, *b.shape[:2])
        real = real_steps(lengths.to(b.device), b.shape[1])
        real = real.view(*real.shape, *[1] * (b.dim() - 2))
        # The state passes through the padding, which is not read.
        a, b = a.masked_fill(~real, 1.0), b.masked_fill(~real, 0.0)
    wide = [x.float() if x.dtype in HALF else x for x in (a, b, h_0)]
    flat = [_flat(x, axis) for x, axis in zip(wide, (2, 2, 1), strict=True)]
    h, h_n = _form(where, backend, flat)(*flat)
    h, h_n = h.reshape(b.shape), h_n.reshape(h_0.shape)
    if real is not None:
        h = h.masked_fill(~real, 0.0)
    return h.to(b.dtype), h_n.to(b.dtype)


def _flat(x: Tensor, axis: int) -> Tensor:
    r"""With the features as one axis, the last."""
    return x.flatten(axis) if x.dim() > axis else x.unsqueeze(axis)


def _form(where: str, backend: str | None, tensors: list[Tensor]) -> Any:
    reason = why_not_differentiated(tuple(tensors))
    if not reason and tensors[1].numel() == 0:
        reason = "the input is empty"
    chosen = parallel
    if backend == "triton" and not reason:
        chosen, reason = _triton(tensors)
    if backend in ("parallel", "triton") and reason:
        raise RuntimeError(f"{where}: backend {backend!r} cannot run here: {reason}")
    other = tensors[1].device.type not in ("cpu", "cuda")
    if backend == "reference" or reason or (backend is None and other):
        return reference.run
    # The compiler would unroll the steps. It takes seconds to import: not before
    # somebody uses it.
    if "torch._dynamo" not in sys.modules:
        return chosen.run
    if chosen not in _hidden_from_compiler:
        _hidden_from_compiler[chosen] = torch.compiler.disable(chosen.run)
    return _hidden_from_compiler[chosen]


def _triton(tensors: list[Tensor]) -> tuple[Any, str]:
    r"""The module, which needs a package that not everybody has; why it cannot run."""
    try:
        module = importlib.import_module("seqref.ops.linear_scan.triton")
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        return None, "it needs Triton, which is not installed (`seqref[gpu]`)"
    return module, module.why_not(tensors)


def _checked(where: str, a: Tensor, b: Tensor, h_0: Tensor | None) -> Tensor:
    r"""Raise unless the arguments fit; the state before the first step."""
    check_tensor(where, "a", a)
    names = ("batch", "time", *(f"axis_{i}" for i in range(2, a.dim())))
    check_shape(where, "a", a, [(name, None) for name in names])
    if a.dtype not in DTYPES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise TypeError(f"{where}: `a` must have one of {known}, got {a.dtype}")
    axes = list(zip(names, a.shape, strict=True))
    check_shape(where, "b", b, axes)
    check_like_parameters(where, "b", b, a, "a's")
    if h_0 is None:
        return b.new_zeros(b.shape[:1] + b.shape[2:])
    check_shape(where, "h_0", h_0, [axes[0], *axes[2:]])
    check_like_parameters(where, "h_0", h_0, a, "a's")
    return h_0
