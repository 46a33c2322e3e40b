r"""A model under test: its copy, and calls that leave nothing behind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from seqref._contract.copies import copied, parameters_of
from seqref._contract.draws import Drawn
from seqref._contract.outputs import RETURN, Outputs, flatten

Inputs = tuple[Any, ...]

CALL = (
    "Where it is called in another way, pass `call`, which must use the model that it "
    "is given and add nothing of another dtype or size. Checks also try single rows, "
    "and other numbers of steps than `x` has."
)
FIXED = " A model that fixes float32 inside needs dtype=torch.float32."
SORTED = (
    " Rows that a model wants sorted by length must come so, the longest first: pass "
    "them in that order, or pack with enforce_sorted=False."
)


class Runs:
    r"""Calls a copy of a model in evaluation mode, or the function that is no module.

    Args:
        where: The check that the user called.
        model: A module, a method of one, or another callable.
        call: How the model is called: the model first, then the inputs.
        dtype: What the copy computes in; None is float64, and for a callable that is
            no module the dtype that comes.
    """

    def __init__(
        self,
        where: str,
        model: Callable[..., Any],
        call: Callable[..., Any],
        dtype: torch.dtype | None,
    ) -> None:
        self.where, self.dtype = where, dtype
        owner = getattr(model, "__self__", model)
        # None where the model is a function, which cannot be copied.
        self._owner = owner if isinstance(owner, nn.Module) else None
        self.copied = self._owner is not None
        if self.copied:
            self.dtype = dtype or torch.float64
        self._given = model
        self._model, self._call = self._fresh(), call
        self._names: list[str] = []
        self.devices: list[torch.device] = []
        self.raised: Exception | None = None

    def _fresh(self) -> Any:
        r"""The model as it was given: a new copy, or the function itself."""
        if self._owner is None or self.dtype is None:
            return self._given
        copy = copied(self.where, self._owner, self.dtype)
        method = getattr(self._given, "__func__", None)
        return MethodType(method, copy) if method else copy

    def keep_new_parameters(self) -> bool:
        r"""Whether calls made parameters, which are the model's from now on."""
        made = getattr(self._model, "__self__", self._model)
        if self._owner is None or parameters_of(self._owner) == parameters_of(made):
            return False
        self._owner = made
        return True

    @contextmanager
    def quiet(self, *inputs: Tensor) -> Iterator[None]:
        r"""Put random generators and torch's default dtype back as they were."""
        self.devices = sorted({t.device for t in inputs if t.is_cuda}, key=str)
        before, drawn = torch.get_default_dtype(), Drawn(self.devices)
        # With gradients, since torch.nn has faster ways without that pad differently.
        with (
            torch.inference_mode(mode=False),
            torch.enable_grad(),
            torch.random.fork_rng(self.devices),
        ):
            try:
                # What a model makes with torch.zeros must meet its parameters.
                torch.set_default_dtype(self.dtype or before)
                yield
            finally:
                torch.set_default_dtype(before)
                drawn.put_back()

    def call(self, *inputs: Any) -> Any:
        r"""What the model returns for copies of the inputs."""
        copies = [t.clone() if isinstance(t, Tensor) else t for t in inputs]
        try:
            return self._call(self._model, *copies)
        except Exception as error:
            self.raised = error
            error.add_note(f"{self.where} called {self._called(copies, error)}")
            raise

    def _called(self, inputs: list[Any], error: Exception) -> str:
        shapes = [tuple(t.shape) for t in inputs if isinstance(t, Tensor)]
        what = f"a copy of the model in {self.dtype}" if self.copied else "the model"
        fixes = FIXED if self.copied and self.dtype == torch.float64 else ""
        fixes += SORTED if wants_sorted_rows(error) else ""
        return f"{what} with inputs of shape {shapes}. {CALL}{fixes}"

    def run(self, *inputs: Any) -> Outputs:
        r"""All tensors that the model returns, by name."""
        result = self.call(*inputs)
        outputs = flatten(result)
        if not outputs:
            raise TypeError(
                f"{self.where}: the model returned no tensor, but "
                f"{type(result).__name__}; {RETURN}"
            )
        self._names = self._names or list(outputs)
        if list(outputs) != self._names:
            raise ValueError(
                f"{self.where}: the model returned {len(outputs)} tensors in one call "
                f"and {len(self._names)} in another; stack in `call` what has a "
                "tensor for each step"
            )
        return outputs

    def run_fresh(self, *calls: Inputs) -> Outputs:
        r"""The result of the last of several calls to a new copy."""
        kept, self._model = self._model, self._fresh()
        try:
            return [self.run(*inputs) for inputs in calls][-1]
        finally:
            self._model = kept


def wants_sorted_rows(error: Exception) -> bool:
    r"""Whether it is torch's error for rows that are packed and not sorted."""
    return "sorted in decreasing order" in str(error)
