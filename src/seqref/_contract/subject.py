r"""The layer under test: its copy, states that it can reach, runs and comparisons."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from seqref._contract.compare import worst_of
from seqref._contract.copies import converted, in_dtype
from seqref.recurrence import map_state, scan

Values = dict[str, Tensor]
Form = Callable[[Tensor, Any, Tensor | None], tuple[Tensor, Any]]

WARM_UP_STEPS = 3


class Subject:
    r"""A copy of the reader's layer in one dtype, with inputs and reachable states.

    `state` and `other_state` are what the layer's own step makes of random inputs, so
    that they are valid for every kind of state, and not zero.
    """

    def __init__(
        self, layer: nn.Module, x: Tensor, atol: float, rtol: float, dtype: torch.dtype
    ) -> None:
        self.layer: Any = converted(layer, dtype)
        self.dtype = dtype
        self.atol, self.rtol = atol, rtol
        self._x = in_dtype(x.detach().clone(), dtype)
        self.batch, self.time = x.shape[:2]
        self.chunk_invariant = getattr(layer, "chunk_invariant", True)
        self.differentiable_state = getattr(layer, "differentiable_state", True)
        self.supports_lengths = getattr(layer, "supports_lengths", True)
        self._states: dict[int, Any] = {}

    @property
    def x(self) -> Tensor:
        r"""A fresh copy of the input: no call can spoil it for the next."""
        return self._x.clone()

    @property
    def state(self) -> Any:
        r"""A fresh copy of a state that the layer can reach."""
        return copy_state(self._reachable(seed=1))

    @property
    def other_state(self) -> Any:
        r"""A fresh copy of another such state."""
        return copy_state(self._reachable(seed=2))

    def _reachable(self, seed: int) -> Any:
        if seed not in self._states:
            with torch.no_grad():
                state = self.layer.initial_state(self.batch)
                for t in range(WARM_UP_STEPS):
                    _, state = self.layer.step(
                        self.noise(self._x[:, 0].shape, 10 * seed + t), state
                    )
            self._states[seed] = copy_state(map_state(Tensor.detach, state))
        return self._states[seed]

    def noise(
        self, shape: torch.Size, seed: int, dtype: torch.dtype | None = None
    ) -> Tensor:
        r"""Normal noise from a generator of its own, the same for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(shape, generator=generator, dtype=dtype or self.dtype)
        return drawn.to(self._x.device)

    def call(
        self, x: Tensor, state: Any, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        r"""The whole-sequence form; a layer without lengths need not take them."""
        if lengths is None:
            return self.layer(x, state)
        return self.layer(x, state, lengths)

    def by_step(
        self, x: Tensor, state: Any, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        r"""The definition: the loop over `step`."""
        return scan(self.layer, x, state, lengths)

    def leaf_names(self) -> list[str]:
        r"""What gradients are taken of: input, state, parameters."""
        fields = [n for n, t in flatten(self.state).items() if is_smooth(t)]
        return ["x", *fields, *dict(self.layer.named_parameters())]

    def loss(self, values: Values) -> Tensor:
        r"""A random linear function of outputs and, where it counts, final state."""
        total = torch.zeros((), dtype=self.dtype, device=self._x.device)
        for seed, (name, value) in enumerate(values.items()):
            counts = name == "y" or self.differentiable_state
            if counts and is_smooth(value):
                weight = self.noise(value.shape, 100 + seed, value.dtype)
                total = total + (value * weight).real.sum()
        return total

    def values(
        self, form: Form, x: Tensor, state: Any, lengths: Tensor | None = None
    ) -> Values:
        r"""Outputs and final state by name, without gradients."""
        with torch.no_grad():
            return named(*form(x.clone(), copy_state(state), lengths))

    def gradients(
        self, form: Form, x: Tensor, state: Any, lengths: Tensor | None = None
    ) -> tuple[Values, Values]:
        r"""Outputs and final state, and the gradients of a random loss of both."""
        x = x.clone().requires_grad_()
        state = map_state(as_leaf, state)
        results = named(*form(x, state, lengths))
        smooth = {n: t for n, t in flatten(state).items() if is_smooth(t)}
        leaves = {"x": x, **smooth}
        parameters = dict(self.layer.named_parameters())
        leaves |= {n: p for n, p in parameters.items() if p.requires_grad}
        # A loss without a graph would refuse to give even zeros.
        loss = self.loss(results) + 0 * x.masked_fill(~x.isfinite(), 0).sum()
        grads = torch.autograd.grad(
            loss, list(leaves.values()), allow_unused=True, materialize_grads=True
        )
        of = {f"gradient of `{n}`": g for n, g in zip(leaves, grads, strict=True)}
        return {n: t.detach() for n, t in results.items()}, of

    def same(self, name: str, what: str, expected: Values, got: Values) -> None:
        r"""Raise `AssertionError` unless both hold the same values."""
        if list(expected) != list(got):
            raise AssertionError(
                f"{name}: {what} has {', '.join(got)}, expected {', '.join(expected)}"
            )
        for key, want in expected.items():
            where = f"{name}: {key} of {what}"
            same_tensor(where, want, got[key], self.atol, self.rtol)


def same_tensor(
    where: str, want: Tensor, got: Tensor, atol: float, rtol: float
) -> None:
    r"""Raise `AssertionError` unless two tensors agree within the tolerances."""
    if want.shape != got.shape or want.dtype != got.dtype:
        raise AssertionError(
            f"{where} has shape {tuple(got.shape)} and dtype {got.dtype}, "
            f"expected {tuple(want.shape)} and {want.dtype}"
        )
    if not is_smooth(want):
        want, got = want.to(torch.float64), got.to(torch.float64)
    error = (got - want).abs()
    bad = ~(error <= atol + rtol * want.abs())
    if not bad.any():
        return
    index = worst_of(error, bad)
    raise AssertionError(
        f"{where} differs by {error[index].item():.3g} at {list(index)}: expected "
        f"{want[index].item():.6g}, got {got[index].item():.6g} "
        f"({int(bad.sum())} of {bad.numel()} differ; "
        f"atol={atol:g}, rtol={rtol:g})"
    )


def is_smooth(tensor: Tensor) -> bool:
    r"""Whether a tensor can have a gradient."""
    return tensor.is_floating_point() or tensor.is_complex()


def as_leaf(tensor: Tensor) -> Tensor:
    copied = tensor.detach().clone()
    return copied.requires_grad_() if is_smooth(copied) else copied


def copy_state(state: Any) -> Any:
    return map_state(torch.clone, state)


def flatten(state: Any, prefix: str = "state") -> Values:
    r"""The tensors of a state by name: `state.h`, `state[0].k`, ..."""
    if isinstance(state, Tensor):
        return {prefix: state}
    if not isinstance(state, tuple):
        raise TypeError(
            f"`{prefix}` must be a tensor, a NamedTuple of tensors or a tuple of "
            f"states, got {type(state).__name__}"
        )
    fields = getattr(state, "_fields", None)
    tensors: Values = {}
    for i, part in enumerate(state):
        tensors |= flatten(
            part, f"{prefix}.{fields[i]}" if fields else f"{prefix}[{i}]"
        )
    return tensors


def named(y: Tensor, state: Any) -> Values:
    return {"y": y, **flatten(state, "final state")}


def rows_of(state: Any, start: int, stop: int) -> Any:
    return map_state(lambda tensor: tensor[start:stop].clone(), state)


DTYPE_HINT = (
    " (a copy runs in float64, or in the `dtype` that was passed: `initial_state` and "
    "all that the layer makes must follow the dtype of its parameters)"
)


@contextmanager
def property_named(name: str) -> Any:
    r"""Put the property's name before whatever the layer raises while it is checked."""
    try:
        yield
    except AssertionError as error:
        if str(error).startswith(f"{name}: "):
            raise
        raise AssertionError(f"{name}: the layer raised {error!r}") from error
    except Exception as error:
        hint = DTYPE_HINT if "dtype" in str(error) else ""
        raise AssertionError(f"{name}: the layer raised {error!r}{hint}") from error
