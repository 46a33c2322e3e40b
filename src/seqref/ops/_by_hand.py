r"""Where a backward pass by hand cannot run, and what changes it where it can."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd.forward_ad import unpack_dual

from seqref.errors import autocast_is_on, is_exporting


def why_not_differentiated(tensors: tuple[Tensor, ...]) -> str:
    r"""Why autograd cannot take a backward by hand for these; empty if it can.

    Shapes:
        - any
    """
    # torch has no public question for "am I inside vmap, grad or jvp?".
    if torch._C._are_functorch_transforms_active():
        return "torch.func cannot transform it in every way"
    if any(unpack_dual(tensor).tangent is not None for tensor in tensors):
        return "it has no rule for forward-mode differentiation"
    if is_exporting():
        return "torch.export takes the operations one by one"
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return "torch.jit.trace cannot record a backward pass by hand"
    return ""


def is_batched(upstream: Sequence[Tensor]) -> bool:
    r"""Whether vmap runs over these, which has no rule for writing into given memory.

    Shapes:
        - any
    """
    return torch._C._are_functorch_transforms_active() or any(
        is_legacy_batchedtensor(x) for x in upstream
    )


def takes_operations(upstream: Sequence[Tensor]) -> bool:
    r"""Whether a backward pass must be made of operations that have gradients.

    Shapes:
        - any
    """
    return torch.is_grad_enabled() or is_batched(upstream)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    r"""No product in half precision, which autocast would make of one in float32.

    Shapes:
        - any
    """
    if autocast_is_on(x.device):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()
