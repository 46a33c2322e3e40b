r"""Bytes that a graph keeps."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def kept_bytes(run: Callable[[], Any], outside: Iterable[Tensor] = ()) -> int:
    r"""Bytes of the tensors that autograd keeps for the backward pass of `run`.

    Several nodes may keep the same memory, as views or as it is; it counts once. Memory
    of `outside`, such as inputs and parameters, is there anyway and does not count.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in outside}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        # Held here until the end, so that no address is used a second time.
        found[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor.detach()

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    count = sum(
        tensor.untyped_storage().nbytes()
        for address, tensor in found.items()
        if address not in known
    )
    del result
    return count
