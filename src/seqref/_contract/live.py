r"""How much memory is alive at one time."""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    r"""The most memory that tensors take at one time, inside a `with` block.

    Counted is the memory of what operations return, views and results in place once,
    for as long as it is alive; on a CPU, where torch has no counter of its own. What a
    kernel takes for itself and gives back is not seen.

    Args:
        outside: Tensors that are there already, such as inputs and parameters; they do
            not count when an operation returns them.

    Source:
        `TorchDispatchMode` of torch, in a module that torch keeps private.
    """

    now: int
    peak: int

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
