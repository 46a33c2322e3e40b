r"""Whether a model's result hangs on random numbers that it draws."""

import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Drawn:
    r"""The states of the random generators: of torch, and of Python and NumPy."""

    def __init__(self, devices: list[torch.device]) -> None:
        self._devices = devices
        self._python, self._numpy = random.getstate(), _numpy_state()
        self._torch = self._states()

    def _states(self) -> list[Tensor]:
        states = [torch.cuda.get_rng_state(device) for device in self._devices]
        return [torch.random.get_rng_state(), *states]

    def from_torch(self) -> bool:
        r"""Whether torch's generators have been drawn from since."""
        pairs = zip(self._torch, self._states(), strict=True)
        return not all(torch.equal(one, two) for one, two in pairs)

    def from_elsewhere(self) -> bool:
        r"""The same of those of Python and NumPy."""
        # Whole: text of arrays leaves out what NumPy is told not to print.
        numpy = pickle.dumps(self._numpy) != pickle.dumps(_numpy_state())
        return self._python != random.getstate() or numpy

    def put_back(self) -> None:
        r"""Set the generators of Python and NumPy to these states."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002


def _numpy_state() -> Any:
    # The generator that models draw from without naming one.
    return np.random.get_state()  # noqa: NPY002


class Extremes(TorchDispatchMode):
    r"""Within it, each random number that torch draws is 0, or just below 1.

    A dropout of one value in a thousand then drops all values or none, so that two
    runs tell whether a draw matters however seldom it does. Whole numbers are drawn,
    and an event of probability 0 or 1 stays what it is.
    """

    def __init__(self, high: bool) -> None:
        super().__init__()
        self._high = high

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        bernoulli = func.overloadpacket is torch.ops.aten.bernoulli
        bernoulli |= func.overloadpacket is torch.ops.aten.bernoulli_
        p = _probability(func, args, kwargs) if bernoulli else 0.5
        result = func(*args, **kwargs)
        if torch.Tag.nondeterministic_seeded in func.tags:
            for tensor in result if isinstance(result, tuple) else (result,):
                if tensor.is_floating_point():
                    below_one = 1 - torch.finfo(tensor.dtype).eps / 2
                    end = (1.0 if bernoulli else below_one) if self._high else 0.0
                    # Of a certain event there is no other end.
                    open_ = torch.as_tensor((p > 0) & (p < 1), device=tensor.device)
                    tensor.copy_(torch.where(open_, end, tensor))
        return result


def _probability(func: Any, args: Any, kwargs: Any) -> Any:
    if len(args) > 1 or "p" in kwargs:
        p = args[1] if len(args) > 1 else kwargs["p"]
    else:
        # In place the default is one half; else the probabilities are the argument.
        p = 0.5 if func.overloadpacket is torch.ops.aten.bernoulli_ else args[0]
    return p.clone() if isinstance(p, Tensor) else p


@contextmanager
def at_extreme(high: bool) -> Iterator[None]:
    r"""`Extremes`, with a seed of its own for what is drawn all the same."""
    before = torch.random.get_rng_state()
    torch.default_generator.manual_seed(int(high))
    try:
        with Extremes(high):
            yield
    finally:
        torch.random.set_rng_state(before)
