r"""A model under test: its copy, runs that leave nothing behind, and comparisons."""

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pad_packed_sequence,
)

from seqref._contract.subject import COMPLEX
from seqref.errors import check_tensor

Outputs = dict[str, Tensor]

# What rounding may leave, relative to the largest value (or 1).
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


class Probe:
    r"""Runs a copy of a model in evaluation mode, and says what differs between runs.

    Args:
        name: The property, with which each message begins.
        model: A module, a method of one, or another callable.
        call: How the model is called: the model first, then the inputs.
        dtype: What the copy computes in; None is float64, and for a callable that is
            no module the dtype that comes.
    """

    def __init__(
        self,
        name: str,
        model: Callable[..., Any],
        call: Callable[..., Any],
        dtype: torch.dtype | None,
    ) -> None:
        where = "check_" + name.replace(" ", "_")
        if not callable(model):
            raise TypeError(
                f"{where}: `model` must be a torch.nn.Module or another callable, "
                f"got {type(model).__name__}"
            )
        if dtype is not None and dtype not in TOLERANCE:
            raise ValueError(
                f"{where}: `dtype` must be torch.float64 or torch.float32, got {dtype}"
            )
        owner = getattr(model, "__self__", model)
        is_module = isinstance(owner, nn.Module)
        self.dtype = dtype or (torch.float64 if is_module else None)
        if is_module:
            copied = _converted(owner, self.dtype or torch.float64)
            method = getattr(model, "__func__", None)
            model = MethodType(method, copied) if method else copied
        self.name, self.where = name, where
        self._model, self._call = model, call

    def cast(self, tensor: Tensor) -> Tensor:
        r"""A copy for the model: floating values in its dtype, the rest as it came."""
        copied = tensor.detach().clone()
        floats = copied.is_floating_point() and self.dtype is not None
        return copied.to(self.dtype) if floats else copied

    @contextmanager
    def quiet(self, *inputs: Tensor) -> Iterator[None]:
        r"""Put torch's generators and default dtype back as they were."""
        devices = sorted({t.device for t in inputs if t.is_cuda}, key=str)
        before = torch.get_default_dtype()
        # With gradients, since torch.nn has faster ways without that pad differently.
        with torch.enable_grad(), torch.random.fork_rng(devices):
            try:
                # What a model makes with torch.zeros must meet its parameters.
                torch.set_default_dtype(self.dtype or before)
                yield
            finally:
                torch.set_default_dtype(before)

    def call(self, *inputs: Any) -> Any:
        r"""What the model returns for copies of the inputs."""
        copies = [t.clone() if isinstance(t, Tensor) else t for t in inputs]
        try:
            return self._call(self._model, *copies)
        except Exception as error:
            error.add_note(
                f"{self.where} called a copy of the model in {self.dtype} with inputs "
                f"of shape {[tuple(t.shape) for t in copies if isinstance(t, Tensor)]}."
                " What `call` adds must have that dtype and these sizes."
            )
            raise

    def run(self, *inputs: Any) -> Outputs:
        r"""All tensors that the model returns, by name."""
        found = flatten(self.call(*inputs))
        if not found:
            raise TypeError(f"{self.where}: the model returned no tensor")
        return found

    def run_twice(self, *inputs: Any) -> Outputs:
        r"""The same, after a look whether the same call gives the same result."""
        first, again = self.run(*inputs), self.run(*inputs)
        for key, value in first.items():
            if not _same(value, again[key], self.tolerance(value)):
                raise AssertionError(
                    f"{self.name}: {key} differs between two calls with the same "
                    "arguments in evaluation mode, so nothing can be compared.\n"
                    "Usual causes: dropout without training=self.training, a random "
                    "initial state, a state kept on the module from one call to "
                    "the next"
                )
        return first

    def sequence(self, *inputs: Any) -> Tensor:
        r"""The first tensor that the model returns."""
        return next(iter(self.run(*inputs).values()))

    def must_react(self, one: Outputs, two: Outputs) -> None:
        r"""Raise if other inputs gave the same outputs: a check would pass for that."""
        if all(torch.equal(value, two[key]) for key, value in one.items()):
            raise AssertionError(
                f"{self.name}: the outputs do not depend on the inputs, so there is "
                "nothing to check"
            )

    def tolerance(self, want: Tensor) -> float:
        r"""What two values may differ by."""
        relative = TOLERANCE.get(want.dtype, 1e-4 if want.is_floating_point() else 0)
        finite = want[want.isfinite()].abs()
        return relative * max(1.0, float(finite.max()) if finite.numel() else 1.0)

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
        bad = _differ(want, got, self.tolerance(want))
        if not bad.any():
            return
        error = (got.double() - want.double()).abs().nan_to_num(nan=torch.inf)
        worst = error.masked_fill(~bad, -1).argmax()
        index = tuple(int(i) for i in torch.unravel_index(worst, error.shape))
        raise AssertionError(
            f"{self.name}: {what(index)} changes by {float(error[index]):.3g} {when} "
            f"(from {float(want[index]):.6g} to {float(got[index]):.6g}; "
            f"{int(bad.sum())} of {bad.numel()} values differ).\nUsual causes: {causes}"
        )


def _converted(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    held = {id(t) for t in (*module.parameters(), *module.buffers())}
    # Tensors that are plain attributes: a state that was kept, a table of positions.
    loose = [t for child in module.modules() for t in _tensors(vars(child))]
    memo: dict[int, Any] = {
        id(t): _in_dtype(t.detach().clone(), dtype) for t in loose if id(t) not in held
    }
    copied = copy.deepcopy(module, memo).eval()
    for tensor in (*copied.parameters(), *copied.buffers()):
        tensor.data = _in_dtype(tensor.data, dtype)
    return copied


def _in_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if tensor.is_complex():
        return tensor.to(COMPLEX[dtype])
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    return []


def _differ(want: Tensor, got: Tensor, tolerance: float) -> Tensor:
    # Equal infinities have no difference that is a number.
    near = (got.double() - want.double()).abs() <= tolerance
    return ~(near | (got == want))


def _same(want: Tensor, got: Tensor, tolerance: float) -> bool:
    if want.shape != got.shape:
        return False
    both_nan = want.isnan() & got.isnan()
    return not (_differ(want, got, tolerance) & ~both_nan).any()


def flatten(value: Any, name: str = "`output`") -> Outputs:
    r"""The tensors of what a model returned, by name; anything else is left out."""
    if isinstance(value, PackedSequence):
        raise TypeError(
            "a model under test must return padded tensors, got a PackedSequence "
            "(call pad_packed_sequence in `call`)"
        )
    if isinstance(value, Tensor):
        value = torch.view_as_real(value) if value.is_complex() else value
        return {name: value.detach().clone()}
    fields = getattr(value, "_fields", None)
    if isinstance(value, dict):
        parts = {f".{key}": part for key, part in value.items()}
    elif isinstance(value, tuple | list):
        parts = {
            f".{fields[i]}" if fields else f"[{i}]": p for i, p in enumerate(value)
        }
    else:
        return {}
    found: Outputs = {}
    for suffix, part in parts.items():
        found |= flatten(part, f"{name[:-1]}{suffix}`")
    return found


def other(x: Tensor, seed: int = 0) -> Tensor:
    r"""Values of the same kind that differ from `x` everywhere.

    Floating values are drawn anew and wider than those of `x`; of whole numbers each
    becomes another that stands in `x`, so that ids stay within the vocabulary.
    """
    if x.is_floating_point():
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        spread = 2 * x.std() + 1
        return x.mean() + spread * noise.to(x)
    ids = x.unique()
    shift = 1 + seed % max(1, len(ids) - 1)
    return ids[(torch.searchsorted(ids, x) + shift) % len(ids)]


def check_batch(where: str, name: str, x: Tensor, batch: int = 2) -> None:
    r"""Raise unless `x` is a batch of sequences that differ."""
    check_tensor(where, name, x)
    if x.dim() < 2 or x.shape[0] < batch or x.shape[1] < 2:
        raise ValueError(
            f"{where}: `{name}` must have shape (batch, time, ...) with batch at least "
            f"{batch} and time at least 2, got {tuple(x.shape)}"
        )
    if x.is_complex() or x.dtype == torch.bool:
        raise TypeError(
            f"{where}: `{name}` must hold real values or ids, got {x.dtype}"
        )
    if x.is_floating_point() and not x.isfinite().all():
        raise ValueError(f"{where}: `{name}` must be finite, got NaN or infinity in it")
    if len(x.unique()) < 2 or (batch > 1 and len(x.unique(dim=0)) < len(x)):
        raise ValueError(
            f"{where}: `{name}` must hold different values, and no row twice"
        )


def plain_call(model: Any, *inputs: Any) -> Any:
    r"""The model on the inputs, its batch first."""
    if not isinstance(model, nn.RNNBase):
        return model(*inputs)
    _needs_batch_first(model)
    y, state = model(*inputs)
    # Without an initial state, hand it out batch first; the other axes stay.
    return y, _batch_first(state)


def call_with_state(model: Any, x: Tensor, state: Any) -> Any:
    if isinstance(model, nn.RNNBase):
        _needs_batch_first(model)
    return model(x, state)


def call_with_lengths(model: Any, x: Tensor, lengths: Tensor) -> Any:
    r"""torch.nn's recurrent layers on a packed batch; others with `lengths`."""
    if isinstance(model, nn.RNNBase):
        _needs_batch_first(model)
        packed = pack_padded_sequence(
            x, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        y, state = model(packed)
        return pad_packed_sequence(y, batch_first=True)[0], _batch_first(state)
    function = model.forward if isinstance(model, nn.Module) else model
    if "lengths" in inspect.signature(function).parameters:
        return model(x, lengths=lengths)
    return model(x, lengths)


def _batch_first(state: Any) -> Any:
    parts = state if isinstance(state, tuple) else (state,)
    return tuple(part.transpose(0, 1) for part in parts)


def _needs_batch_first(model: nn.RNNBase) -> None:
    if not model.batch_first:
        raise ValueError(
            f"{type(model).__name__} has batch_first=False, and these checks put the "
            "batch first: build it with batch_first=True, or transpose in `call`"
        )
