r"""A model under test: its copy, runs that leave nothing behind, and comparisons."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from seqref._contract.compare import differ, same_or_nan, sentence
from seqref._contract.subject import COMPLEX
from seqref.errors import check_tensor

Outputs = dict[str, Tensor]
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
RETURN = "return tensors from `call`, or tuples, lists, dicts or dataclasses of them"
TWO_RESULTS = (
    "dropout without training=self.training, a random initial state, a state kept on "
    "the module from one call to the next"
)
IN_TRAINING = (
    ", a function around a module in training mode (call `eval()` first, or pass the "
    "module)"
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
    """

    def __init__(
        self,
        name: str,
        model: Callable[..., Any],
        call: Callable[..., Any],
        dtype: torch.dtype | None,
    ) -> None:
        where = "check_" + name.replace(" ", "_")
        _check_arguments(where, model, dtype)
        owner = getattr(model, "__self__", model)
        self._copied, self.dtype = False, dtype
        if isinstance(owner, nn.Module):
            self._copied, self.dtype = True, dtype or torch.float64
            copied = _copied(where, owner, self.dtype)
            method = getattr(model, "__func__", None)
            model = MethodType(method, copied) if method else copied
        self.name, self.where = name, where
        self._model, self._call = model, call
        self._first: tuple[tuple[Any, ...], Outputs] | None = None

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
            error.add_note(f"{self.where} called {self._called(copies)}")
            raise

    def _called(self, inputs: list[Any]) -> str:
        shapes = [tuple(t.shape) for t in inputs if isinstance(t, Tensor)]
        what = f"a copy of the model in {self.dtype}" if self._copied else "the model"
        fixes = FIXED if self._copied and self.dtype == torch.float64 else ""
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

    def run_twice(self, *inputs: Any) -> Outputs:
        r"""The same, after a look whether the same call gives the same result."""
        first = self.run(*inputs)
        self._first = inputs, first
        self._repeat()
        return first

    def _repeat(self) -> None:
        if not self._first:
            return
        inputs, first = self._first
        again = self.run(*inputs)
        for key, value in first.items():
            if not same_or_nan(value, again[key]):
                mode = " in evaluation mode" if self._copied else ""
                raise AssertionError(
                    f"{self.name}: {key} differs between two calls with the same "
                    f"arguments{mode}, so nothing can be compared.\n"
                    f"Usual causes: {TWO_RESULTS}{'' if self._copied else IN_TRAINING}"
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
        bad = differ(want, got)
        if not bad.any():
            return
        for _ in range(REPEATS):
            self._repeat()
        raise AssertionError(f"{self.name}: " + sentence(what, when, want, got, causes))


def _check_arguments(where: str, model: Any, dtype: torch.dtype | None) -> None:
    if not callable(model):
        raise TypeError(
            f"{where}: `model` must be a torch.nn.Module or another callable, "
            f"got {type(model).__name__}"
        )
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(
            f"{where}: `dtype` must be torch.float64 or torch.float32, got {dtype}"
        )


def _copied(where: str, module: nn.Module, dtype: torch.dtype) -> nn.Module:
    try:
        return _converted(module, dtype)
    except Exception as error:
        error.add_note(
            f"{where} could not copy the model. As a function, `lambda x: model(x)`, "
            "it is taken as it is, in its own dtype and mode: call `eval()` first."
        )
        raise


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
    if dataclasses.is_dataclass(value) and not isinstance(value, dict | type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
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


def other(x: Tensor, seed: int = 0, without: int | float | None = None) -> Tensor:
    r"""Values of the same kind that differ from `x` everywhere.

    Floating values are drawn anew and wider than those of `x`; of whole numbers each
    becomes another that stands in `x`, so that ids stay within the vocabulary, and
    none becomes the one that is given.
    """
    if x.is_floating_point():
        generator = torch.Generator().manual_seed(seed)
        # The generator's own device, whatever the default.
        noise = torch.randn(
            x.shape, generator=generator, dtype=torch.float64, device="cpu"
        )
        spread = 2 * x.std() + 1
        return x.mean() + spread * noise.to(x)
    ids = x.unique()
    ids = ids[ids != without] if without is not None else ids
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
