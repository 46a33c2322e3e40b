r"""Keys and values of the past: the state of attention that is causal."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import pad

from seqref.errors import check_lengths, check_like_parameters, check_shape


class KVState(NamedTuple):
    r"""Keys and values of all steps so far, and how many each row has.

    `k` and `v` (batch, kv_heads, cached, head), `length` (batch,), an integer. The keys
    of a row stand at 0 to its length, and what is beyond is zero. Every step adds one
    position to the tensors, for all rows; a row that has ended keeps its length.
    """

    k: Float[Tensor, "batch kv_heads cached head"]
    v: Float[Tensor, "batch kv_heads cached head"]
    length: Integer[Tensor, " batch"]

    @staticmethod
    def matched(*states: "KVState") -> "tuple[KVState, ...]":
        r"""The same states with caches of one size: the shorter get zeros behind.

        By this `scan` and `reset_rows` choose rows from two states of different size.

        Shapes:
            - returns: as many states; `k` and `v` as large as the largest of them
        """
        size = max(state.k.shape[2] for state in states)
        return tuple(
            state._replace(
                k=pad(state.k, (0, 0, 0, size - state.k.shape[2])),
                v=pad(state.v, (0, 0, 0, size - state.v.shape[2])),
            )
            for state in states
        )


def empty_cache(batch: int, sizes: tuple[int, int], parameter: Tensor) -> KVState:
    r"""A cache without a step, for so many heads of such a width."""
    kv_heads, head = sizes
    k, v = (parameter.new_zeros(batch, kv_heads, 0, head) for _ in "kv")
    return KVState(k, v, k.new_zeros(batch, dtype=torch.int64))


def extended(
    state: KVState, k: Tensor, v: Tensor, count: int | Integer[Tensor, " batch"]
) -> KVState:
    r"""A new state with further keys and values, behind those of each row.

    Shapes:
        - `k`, `v`: (batch, kv_heads, time, head), zero where a row has ended; `count`:
          how many of them are real, for all rows or (batch,)
    """
    time = k.shape[2]
    steps = torch.arange(time, device=k.device)
    # (batch, 1, time, 1)
    places = (state.length[:, None] + steps)[:, None, :, None]

    def put(cache: Tensor, new: Tensor) -> Tensor:
        larger = torch.cat([cache, torch.zeros_like(new)], dim=2)
        # Each row at its own end, and out of place: the old state stays as it was.
        return larger.scatter(2, places.expand_as(new), new)

    return KVState(put(state.k, k), put(state.v, v), state.length + count)


def check_cache(
    where: str,
    state: Any,
    batch: int,
    sizes: tuple[int, int],
    parameter: Tensor,
) -> KVState:
    r"""The state, checked, with its lengths in int64: a narrow dtype would wrap.

    Raises:
        TypeError: it is no `KVState`, or its lengths are no integers.
        ValueError: a wrong shape, dtype or device, or a length beyond the cache.
    """
    check_kept(where, state, KVState, (batch, *sizes, None), parameter)
    named: Any = {"axis": "cached", "name": "state.length"}
    check_lengths(where, state.length, batch, state.k.shape[2], **named)
    return state._replace(length=state.length.to(state.k.device, torch.int64))


def check_kept(
    where: str,
    state: Any,
    kind: Any,
    sizes: tuple[int, int, int, int | None],
    parameter: Tensor,
) -> Any:
    r"""A state whose kind, keys and values are checked; its lengths are not.

    `sizes` are those of batch, heads of keys, width of a head, and positions, which
    may be any where that is None.

    Raises:
        TypeError: it is not of this kind.
        ValueError: a wrong shape, dtype or device of `k` or `v`.
    """
    if not isinstance(state, kind):
        call = f"{kind.__name__}({', '.join(kind._fields)})"
        raise TypeError(
            f"{where}: `state` must be {call}, got {type(state).__name__} (pass {call})"
        )
    batch, kv_heads, head, cached = sizes
    name = "cached" if cached is None else "kept"
    axes = ("batch", batch), ("kv_heads", kv_heads), (name, cached), ("head", head)
    check_shape(where, "state.k", state.k, axes)
    axes = (*axes[:2], (name, state.k.shape[2]), axes[3])
    check_shape(where, "state.v", state.v, axes)
    for field, value in (("state.k", state.k), ("state.v", state.v)):
        check_like_parameters(where, field, value, parameter)
    return state
