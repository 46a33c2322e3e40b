r"""What a check of any model has: runs of it, and comparisons with words for them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

from seqref._contract.again import Again
from seqref._contract.compare import differ, sentence
from seqref._contract.copies import check_dtype
from seqref._contract.expected import check_expected, holds_after_all
from seqref._contract.outputs import Outputs
from seqref._contract.runs import Inputs, Runs
from seqref.errors import check_number

DEAF = (
    "weights that are zero, a `call` that does not hand its inputs on, ids of which "
    "`x` holds too few"
)


class Probe:
    r"""Runs a model, and says in the name of one property what differs between runs.

    Args:
        name: The property, with which each message begins.
        model: A module, a method of one, or another callable.
        call: How the model is called: the model first, then the inputs.
        dtype: What the copy computes in; None is float64, and for a callable that is
            no module the dtype that comes.
        atol: The difference that may be left; None is what rounding may leave.
        expected: The reason why the property must fail, by its name, if it must.
    """

    def __init__(
        self,
        name: str,
        model: Callable[..., Any],
        call: Callable[..., Any],
        dtype: torch.dtype | None,
        atol: float | None = None,
        expected: Mapping[str, str] | None = None,
    ) -> None:
        where = "check_" + name.replace(" ", "_")
        _check_arguments(where, model, dtype, atol)
        expected = {} if expected is None else expected
        check_expected(where, expected, [name])
        self.name, self.where, self.atol = name, where, atol
        self._reason, self._undecided = expected.get(name), False
        self._runs = Runs(where, model, call, dtype)
        self._again = Again(name, self._runs, atol)

    def cast(self, tensor: Tensor) -> Tensor:
        r"""A copy for the model: floating values in its dtype, the rest as it came."""
        copied, dtype = tensor.detach().clone(), self._runs.dtype
        floats = copied.is_floating_point() and dtype is not None
        return copied.to(dtype) if floats else copied

    def quiet(self, *inputs: Tensor) -> AbstractContextManager[None]:
        r"""Put random generators and torch's default dtype back as they were."""
        return self._runs.quiet(*inputs)

    @contextmanager
    def expecting(self) -> Iterator[None]:
        r"""Let the failure pass that is expected, and raise if it does not come.

        An error that the model raises is none, nor is a model of which nothing can be
        told.
        """
        try:
            yield
        except AssertionError as error:
            if self._reason is None or self._undecided or self.raised(error):
                raise
            print(f"{self.where}: {self.name} fails, as expected: {self._reason}")
        else:
            if self._reason is not None:
                raise holds_after_all(self.name, self._reason)

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        r"""What fails here leaves open whether the property holds."""
        try:
            yield
        except AssertionError:
            self._undecided = True
            raise

    def call(self, *inputs: Any) -> Any:
        r"""What the model returns for copies of the inputs."""
        return self._runs.call(*inputs)

    def run(self, *inputs: Any) -> Outputs:
        r"""All tensors that the model returns, by name."""
        return self._runs.run(*inputs)

    def sequence(self, *inputs: Any) -> Tensor:
        r"""The first tensor that the model returns."""
        return next(iter(self.run(*inputs).values()))

    def raised(self, error: Exception) -> bool:
        r"""Whether an error came out of the model, and not of a look at its result."""
        return self._runs.raised is error

    def run_twice(self, inputs: Inputs, others: Inputs) -> tuple[Outputs, Outputs]:
        r"""Results for two inputs, if the first is the same whatever came between."""
        with self._deciding():
            return self._again.twice(inputs, others)

    def must_react(self, one: Outputs, two: Outputs) -> None:
        r"""Raise if other inputs gave the same outputs: a check would pass for that."""
        if all(torch.equal(value, two[key]) for key, value in one.items()):
            self._undecided = True
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
        if differ(want, got, self.atol).any():
            with self._deciding():
                self._again.often()
            message = sentence(what, when, want, got, causes, self.atol)
            raise AssertionError(f"{self.name}: {message}")


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
    if dtype is not None:
        check_dtype(where, dtype)
    if atol is not None:
        check_number(where, "atol", atol, minimum=0, finite_in=torch.float64)
