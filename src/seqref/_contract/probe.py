r"""A model under test: its copy, runs that leave nothing behind, and comparisons."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from seqref._contract.compare import differ, same_or_nan, sentence
from seqref._contract.copies import copied, unbuilt
from seqref._contract.draws import Drawn, at_extreme
from seqref._contract.outputs import RETURN, Outputs, flatten

Inputs = tuple[Any, ...]
DTYPES = (torch.float64, torch.float32)
# How often the first call is made again before a difference is believed. A fair coin
# in the model stays unseen in one of 2^8 cases.
REPEATS = 8

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
TWO_RESULTS = (
    "dropout without training=self.training, a random initial state, a state kept on "
    "the module from one call to the next"
)
DRAWN = (
    "dropout without training=self.training, a random initial state, a mask that is "
    "drawn at the first call and kept"
)
KEPT = (
    "a state, a mask or a mean that is kept on the module from one call to the next, "
    "a cache that is not emptied"
)
IN_TRAINING = (
    ", a function around a module in training mode (call `eval()` first, or pass the "
    "module)"
)
FIRST_CALL = (
    "the function draws random numbers in its first call and none after it, so what it "
    "has kept of them cannot be looked at. Pass the module itself, or, where it makes "
    "its weights in its first call, call it once before"
)
DEAF = (
    "weights that are zero, a `call` that does not hand its inputs on, ids of which "
    "`x` holds too few"
)


class Probe:
    r"""Runs a copy of a model in evaluation mode, and says what differs between runs.

    Args:
        name: The property, with which each message begins.
        model: A module, a method of one, or another callable.
        call: How the model is called: the model first, then the inputs.
        dtype: What the copy computes in; None is float64, and for a callable that is
            no module the dtype that comes.
        atol: The difference that may be left; None is what rounding may leave.
    """

    def __init__(
        self,
        name: str,
        model: Callable[..., Any],
        call: Callable[..., Any],
        dtype: torch.dtype | None,
        atol: float | None = None,
    ) -> None:
        where = "check_" + name.replace(" ", "_")
        _check_arguments(where, model, dtype, atol)
        self.name, self.where, self.dtype, self.atol = name, where, dtype, atol
        owner = getattr(model, "__self__", model)
        # None where the model is a function, which cannot be copied.
        self._owner = owner if isinstance(owner, nn.Module) else None
        self._copied = self._owner is not None
        if self._copied:
            self.dtype = dtype or torch.float64
        self._given = model
        self._model, self._call = self._fresh(), call
        self._first: tuple[Inputs, Outputs] | None = None
        self.raised: Exception | None = None

    def _fresh(self) -> Any:
        r"""The model as it was given: a new copy, or the function itself."""
        if self._owner is None or self.dtype is None:
            return self._given
        copy = copied(self.where, self._owner, self.dtype)
        method = getattr(self._given, "__func__", None)
        return MethodType(method, copy) if method else copy

    def cast(self, tensor: Tensor) -> Tensor:
        r"""A copy for the model: floating values in its dtype, the rest as it came."""
        copied = tensor.detach().clone()
        floats = copied.is_floating_point() and self.dtype is not None
        return copied.to(self.dtype) if floats else copied

    @contextmanager
    def quiet(self, *inputs: Tensor) -> Iterator[None]:
        r"""Put random generators and torch's default dtype back as they were."""
        self._devices = sorted({t.device for t in inputs if t.is_cuda}, key=str)
        before, drawn = torch.get_default_dtype(), Drawn(self._devices)
        # With gradients, since torch.nn has faster ways without that pad differently.
        with torch.enable_grad(), torch.random.fork_rng(self._devices):
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
        what = f"a copy of the model in {self.dtype}" if self._copied else "the model"
        fixes = FIXED if self._copied and self.dtype == torch.float64 else ""
        fixes += SORTED if wants_sorted_rows(error) else ""
        return f"{what} with inputs of shape {shapes}. {CALL}{fixes}"

    def run(self, *inputs: Any) -> Outputs:
        r"""All tensors that the model returns, by name."""
        result = self.call(*inputs)
        found = flatten(result)
        if not found:
            raise TypeError(
                f"{self.where}: the model returned no tensor, but "
                f"{type(result).__name__}; {RETURN}"
            )
        if self._first and list(found) != list(self._first[1]):
            raise ValueError(
                f"{self.where}: the model returned {len(found)} tensors in one call "
                f"and {len(self._first[1])} in another; stack in `call` what has a "
                "tensor for each step"
            )
        return found

    def run_twice(self, inputs: Inputs, others: Inputs) -> tuple[Outputs, Outputs]:
        r"""Results for two inputs, after a look whether the first can be had again.

        It must not change with random numbers, nor with the calls before it.
        """
        parameters = unbuilt(self._owner) if self._owner is not None else None
        drawn = Drawn(self._devices)
        first = self.run(*inputs)
        drew_first = drawn.from_torch()
        # The wrapped model of a function or method has built itself as well.
        copy = getattr(self._model, "__self__", self._model)
        if parameters and parameters != unbuilt(copy):
            # Weights that the first call made are no result of it.
            self._owner, drew_first = copy, False
        self._first, again = (inputs, first), Drawn(self._devices)
        second = self.run(*others)
        self._repeat()
        drew_later = again.from_torch()
        if drew_first or drew_later:
            self._draws_do_not_matter(inputs)
        if drawn.from_elsewhere():
            for _ in range(REPEATS):
                self._repeat()
        if drew_first and not drew_later and not self._copied:
            raise AssertionError(f"{self.name}: {FIRST_CALL}")
        if self._copied:
            again_first = self._of_a_fresh_copy(others, inputs)
            self._must_agree(first, again_first, "depends on the calls before", KEPT)
        return first, second

    def _of_a_fresh_copy(self, *calls: Inputs) -> Outputs:
        r"""The result of the last of several calls."""
        kept, self._model = self._model, self._fresh()
        try:
            return [self.run(*inputs) for inputs in calls][-1]
        finally:
            self._model = kept

    def _draws_do_not_matter(self, inputs: Inputs) -> None:
        try:
            with at_extreme(high=False):
                low = self._of_a_fresh_copy(inputs)
            with at_extreme(high=True):
                high = self._of_a_fresh_copy(inputs)
        except Exception:
            # Not every model can do with such numbers; others may show it.
            for _ in range(REPEATS):
                self._repeat()
            return
        what = "depends on random numbers that the model draws"
        self._must_agree(low, high, what, DRAWN)

    def _repeat(self) -> None:
        if self._first:
            inputs, first = self._first
            what = "differs between two calls with the same arguments"
            self._must_agree(first, self.run(*inputs), what, TWO_RESULTS)

    def _must_agree(self, one: Outputs, two: Outputs, what: str, causes: str) -> None:
        for key, value in one.items():
            if not same_or_nan(value, two[key], self.atol):
                mode = " in evaluation mode" if self._copied else ""
                raise AssertionError(
                    f"{self.name}: {key} {what}{mode}, so nothing can be compared.\n"
                    f"Usual causes: {causes}{'' if self._copied else IN_TRAINING}"
                )

    def sequence(self, *inputs: Any) -> Tensor:
        r"""The first tensor that the model returns."""
        return next(iter(self.run(*inputs).values()))

    def must_react(self, one: Outputs, two: Outputs) -> None:
        r"""Raise if other inputs gave the same outputs: a check would pass for that."""
        if all(torch.equal(value, two[key]) for key, value in one.items()):
            raise AssertionError(
                f"{self.name}: the outputs do not depend on the inputs, so there is "
                f"nothing to check.\nUsual causes: {DEAF}"
            )

    def same(
        self,
        what: Callable[[tuple[int, ...]], str],
        when: str,
        want: Tensor,
        got: Tensor,
        causes: str,
    ) -> None:
        r"""Raise `AssertionError` with place and size where two tensors differ."""
        if want.shape != got.shape:
            raise ValueError(
                f"{self.where}: {what(())} has shape {tuple(want.shape)} and "
                f"{tuple(got.shape)} {when}; `call` must return outputs of shape "
                "(batch, time, ...) or (batch, ...), or a scalar"
            )
        if not differ(want, got, self.atol).any():
            return
        for _ in range(REPEATS):
            self._repeat()
        found = sentence(what, when, want, got, causes, self.atol)
        raise AssertionError(f"{self.name}: {found}")


def wants_sorted_rows(error: Exception) -> bool:
    r"""Whether it is torch's error for rows that are packed and not sorted."""
    return "sorted in decreasing order" in str(error)


def rather_a_finding(check: Callable[[], None]) -> None:
    r"""Raise what a check finds, which says more than an error of the model does."""
    try:
        check()
    except AssertionError:
        raise
    except Exception:
        return


def _check_arguments(
    where: str, model: Any, dtype: torch.dtype | None, atol: float | None
) -> None:
    if not callable(model):
        raise TypeError(
            f"{where}: `model` must be a torch.nn.Module or another callable, "
            f"got {type(model).__name__}"
        )
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(
            f"{where}: `dtype` must be torch.float64 or torch.float32, got {dtype}"
        )
    if atol is None:
        return
    if isinstance(atol, bool) or not isinstance(atol, int | float):
        raise TypeError(
            f"{where}: `atol` must be a float or None, got {type(atol).__name__}"
        )
    if not (atol >= 0 and math.isfinite(atol)):
        raise ValueError(f"{where}: `atol` must be finite and at least 0, got {atol}")
