r"""Bytes that a graph keeps, and bytes that are alive at once."""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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


class LiveBytes(TorchDispatchMode):
    r"""Counts the memory of tensors that operations make, while it is alive.

    `now` is what is alive, `peak` the most that ever was. Memory that was there before
    is not seen until an operation returns it, so pass it as `outside`.
    """

    def __init__(self, outside: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, Any] = {}
        # Held for as long as the count goes on.
        self._outside = [tensor.untyped_storage() for tensor in outside]
        self._known = {storage._cdata for storage in self._outside}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._alive or key in self._known:
            return
        size = storage.nbytes()

        def gone(_: object) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)
