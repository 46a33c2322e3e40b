r"""What every causal layer promises, and the loop over the steps of any layer.

A causal layer has three members: `initial_state`, `step` and the call over a whole
sequence. `step` is the definition; `scan` loops it. A state is a NamedTuple of tensors
with the batch as first axis, or a tuple of such states. It is passed in and returned,
never stored on the module and never written in place. A cache is a state whose tensors
grow with the steps; `match_states` brings two of different size together.

Beside `scan` stands the loop in an op's `reference.py`. An op knows no layers and is
below this module, and its loop is a part of its definition, to be read alone: inputs
have three axes, the states are a flat tuple, and the first of them is the output.
`scan` takes inputs with any number of axes, states of any structure, and outputs that
are no part of the state; with `lengths` that costs time in each step, which a narrow
layer notices. So layers without an op of their own run the reference's loop too.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from seqref.errors import check_lengths, check_shape, check_tensor, read_bounds
from seqref.ops._padding import real_steps

State = TypeVar("State")


@runtime_checkable
class Recurrent(Protocol[State]):
    r"""A causal layer: anything with these three members can be scanned and tested.

    What a layer returns may share memory: `y_t` with a field of the new state, and the
    new state with the one passed in where there was no step. So write to neither in
    place.

    Shapes:
        - `x_t`: (batch, input); `x`: (batch, time, input); `lengths`: (batch,)
        - `step` returns `y_t` (batch, output) and the new state
        - the call returns `y` (batch, time, output) and the state after the last step
    """

    def initial_state(self, batch_size: int) -> State: ...

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]: ...

    def __call__(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]: ...


def width_of(layer: object, name: str) -> int | None:
    r"""A layer's attribute `name` where it is a whole number, or None."""
    width = getattr(layer, name, None)
    return width if isinstance(width, int) else None


def output_width(layer: object) -> int | None:
    r"""Width of a layer's outputs: its `output_size`, or else its `hidden_size`.

    None where it tells neither. The two differ where outputs are projected, or where
    those of two directions stand side by side.
    """
    width = width_of(layer, "output_size")
    return width_of(layer, "hidden_size") if width is None else width


def map_state(function: Callable[..., Tensor], state: State, *others: State) -> State:
    r"""Apply `function` to each tensor of a state, or to those of several in step.

    Args:
        function: Takes one tensor from each state, returns the new tensor.
        state: A tensor, a NamedTuple of tensors, or a tuple of states.
        others: States of the same structure.

    Shapes:
        - returns: a state of the same structure; shapes are those `function` returns.

    Raises:
        TypeError: something in the state is neither a tensor nor a tuple, or the
            states differ in structure.
    """
    if isinstance(state, Tensor):
        for other in others:
            check_tensor("map_state", "others", other)
        return function(state, *others)
    if not isinstance(state, tuple):
        raise TypeError(
            "map_state: `state` must be a tensor, a NamedTuple of tensors or a tuple "
            f"of states, got {type(state).__name__}"
        )
    _check_structure("map_state", state, others)
    parts = [
        map_state(function, *each)
        for each in zip(state, *others, strict=True)  # pyright: ignore
    ]
    make: Any = getattr(type(state), "_make", tuple)
    return make(parts)


def match_states(state: State, *others: State) -> tuple[State, ...]:
    r"""States of one structure in one size, so that rows can be chosen among them.

    Most states never change their size and come back as they are. One that grows, such
    as a cache, says how it is brought to the size of another: its type has a static
    method `matched`, which takes such states and returns them in the size of the
    largest.

    Shapes:
        - returns: as many states

    Raises:
        TypeError: a part is neither a tensor nor a tuple, or the states differ in
            structure.
    """
    states = (state, *others)
    if not isinstance(state, tuple):
        for each in states:
            check_tensor("match_states", "state", each)
        return states
    matched = getattr(type(state), "matched", None)
    _check_structure("match_states", state, others)
    if matched is not None:
        return matched(*states)
    parts = [match_states(*each) for each in zip(*states, strict=True)]  # pyright: ignore
    make: Any = getattr(type(state), "_make", tuple)
    return tuple(make([part[i] for part in parts]) for i in range(len(states)))


def grows(state: Any) -> bool:
    r"""Whether a part of a state changes its size and says how it is matched.

    Shapes:
        - any
    """
    if isinstance(state, Tensor) or not isinstance(state, tuple):
        return False
    return hasattr(type(state), "matched") or any(grows(part) for part in state)


def _check_structure(where: str, state: Any, others: tuple[Any, ...]) -> None:
    for other in others:
        if type(other) is not type(state) or len(other) != len(state):
            raise TypeError(
                f"{where}: all states must have one structure, got "
                f"{type(state).__name__} of {len(state)} and {type(other).__name__}"
            )


def detach_state(state: State) -> State:
    r"""The same state, cut off from the graph: for truncated BPTT.

    Shapes:
        - returns: as `state`; the tensors share memory with the old ones.
    """
    return map_state(Tensor.detach, state)


def select_rows(state: State, rows: Integer[Tensor, " selected"]) -> State:
    r"""Take rows of the batch, in the order given and with repeats: for beam search.

    Where values cannot be read (`torch.func.vmap` over the rows, `torch.export`, the
    device "meta") only kind and shape of `rows` are checked.

    Shapes:
        - each tensor of `state`: (batch, ...); `rows`: (selected,), integers
        - returns: each tensor (selected, ...)

    Raises:
        TypeError: `rows` is no tensor of integers.
        ValueError: `rows` has not one axis, or a row is outside the batch.
    """
    check_tensor("select_rows", "rows", rows)
    if rows.dtype not in (torch.int64, torch.int32):
        raise TypeError(
            f"select_rows: `rows` must have dtype int64 or int32, got {rows.dtype}"
        )
    check_shape("select_rows", "rows", rows, (("selected", None),))

    def take(tensor: Tensor) -> Tensor:
        batch = tensor.shape[0]
        bounds = read_bounds("select_rows", "rows", rows, 0, batch - 1)
        if bounds is not None and not 0 <= bounds[0] <= bounds[1] < batch:
            raise ValueError(
                f"select_rows: `rows` must be from 0 to {batch - 1}, "
                f"got {bounds[0]} to {bounds[1]}"
            )
        return tensor.index_select(0, rows.to(tensor.device))

    return map_state(take, state)


def reset_rows(state: State, fresh: State, mask: Bool[Tensor, " batch"]) -> State:
    r"""Replace the rows of `state` where `mask` is True by those of `fresh`.

    For streams that start anew inside a batch:
    ``state = reset_rows(state, layer.initial_state(batch_size), is_first_chunk)``.
    A state that grows is first brought to the size of the larger of the two, as
    `match_states` does.

    Shapes:
        - each tensor of `state` and `fresh`: (batch, ...); `mask`: (batch,)
        - returns: as `state`

    Raises:
        TypeError: `mask` is not of dtype bool, or the states differ in structure.
        ValueError: `mask` has another batch size, or two tensors differ in shape,
            dtype or device.
    """
    check_tensor("reset_rows", "mask", mask)
    if mask.dtype != torch.bool:
        raise TypeError(f"reset_rows: `mask` must have dtype bool, got {mask.dtype}")

    def choose(old: Tensor, new: Tensor) -> Tensor:
        check_shape("reset_rows", "mask", mask, (("batch", old.shape[0]),))
        axes = [(f"axis {axis}", size) for axis, size in enumerate(old.shape)]
        check_shape("reset_rows", "fresh", new, axes)
        if new.dtype != old.dtype or new.device != old.device:
            raise ValueError(
                f"reset_rows: `fresh` must have the state's dtype {old.dtype} and "
                f"device {old.device}, got {new.dtype} and {new.device}"
            )
        return torch.where(_like_rows(mask, old), new, old)

    if grows(state):
        state, fresh = match_states(state, fresh)
    return map_state(choose, state, fresh)


def scan(
    layer: Recurrent[State],
    x: Float[Tensor, "batch time ..."],
    state: State | None = None,
    lengths: Integer[Tensor, " batch"] | None = None,
) -> tuple[Tensor, State]:
    r"""Run `layer.step` along time: what each whole-sequence form must equal.

    Args:
        layer: A causal layer.
        x: The inputs, padded on the right where `lengths` is given.
        state: The state before the first step; None for `layer.initial_state`.
        lengths: Number of real steps of each row.

    Shapes:
        - `x`: (batch, time, ...); `lengths`: (batch,)
        - returns: `y` (batch, time, output), zero in the padding, and the state after
          each row's last real step

    Cost:
        T calls of `step`, one after the other.

    Raises:
        ValueError: `x` has fewer than two axes, or a length is below 0 or above T.
        TypeError: `lengths` is not of an integer dtype.
    """
    check_tensor("scan", "x", x)
    if x.dim() < 2:
        raise ValueError(
            f"scan: `x` must have shape (batch, time, ...), got {tuple(x.shape)}"
        )
    batch, time = x.shape[:2]
    if state is None:
        state = layer.initial_state(batch)
    real = None
    if lengths is not None:
        check_lengths("scan", lengths, batch, time)
        real = real_steps(lengths.to(x.device), time)
        # Blank the input too: zero times NaN is NaN in the backward pass.
        x = x.masked_fill(~real.view(batch, time, *[1] * (x.dim() - 2)), 0)
    if time == 0:
        # One step on a blank input tells the output's width and dtype.
        y_t, _ = layer.step(x.new_zeros(batch, *x.shape[2:]), state)
        return y_t[:, None][:, :0], state
    outputs = []
    for t, x_t in enumerate(x.unbind(1)):
        y_t, following = layer.step(x_t, state)
        if real is not None:
            keep = real[:, t]
            y_t = y_t.masked_fill(~_like_rows(keep, y_t), 0)
            following = _held(keep, following, state)
        state = following
        outputs.append(y_t)
    return torch.stack(outputs, dim=1), state


def _held(keep: Tensor, new: State, old: State) -> State:
    r"""`new` in the rows that go on, `old` in those that have ended."""
    if grows(new):
        new, old = match_states(new, old)

    def choose(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(_like_rows(keep, new), new, old)

    return map_state(choose, new, old)


def _like_rows(mask: Tensor, tensor: Tensor) -> Tensor:
    return mask.to(tensor.device).view(-1, *[1] * (tensor.dim() - 1))
