r"""Which rows go on from where: the state of a search over caches in place."""

import itertools
from typing import Any, NamedTuple

import torch
from jaxtyping import Integer
from torch import Tensor

from seqref.decoding.kv_cache._parts import Place
from seqref.decoding.kv_cache._rows import LayerCache
from seqref.errors import check_shape, check_size


class CacheTicket(NamedTuple):
    r"""Says which rows of a `CachedDecoder` a step goes on from, and from which step.

    Both (batch,), integers. Keys and values are no part of it: it can be used once.
    """

    row: Integer[Tensor, " batch"]
    turn: Integer[Tensor, " batch"]


class Tickets:
    r"""The newest ticket, and how far its rows have come.

    Args:
        caches: Those of all layers, whose rows change places together.
        order: The numbers of all rows, where the caches are.
        capacity: How many steps a row may have; None for no end.
    """

    # One count for all decoders, so that none takes the ticket of another.
    turns = itertools.count(1)

    def __init__(
        self, caches: list[LayerCache], order: Tensor, capacity: int | None
    ) -> None:
        self.caches, self.order, self.capacity = caches, order, capacity
        self.turn = self.batch = 0
        self.place = Place(0, 0)

    def begin(self, where: str, batch: int, place: Place) -> CacheTicket:
        r"""A first ticket; those of before are void."""
        self._check_batch(where, batch)
        self.batch, self.place = batch, place
        return self._next()

    def claim(self, where: str, state: Any, batch: int) -> Place:
        r"""Check a ticket, put the rows in its order, and say where they stand."""
        if not isinstance(state, CacheTicket):
            raise TypeError(
                f"{where}: `state` must be a CacheTicket, got {type(state).__name__} "
                "(pass what initial_state, read or the step before returned)"
            )
        for name, value in zip(state._fields, state, strict=True):
            check_shape(where, f"state.{name}", value, (("batch", batch),))
        self._check_batch(where, batch)
        # Of no rows all turns are the newest.
        old = bool((state.turn != self.turn).any()) or (batch == 0 and self.batch)
        if old:
            raise RuntimeError(
                f"{where}: `state` must be the newest one, and another step was made "
                "since: caches in place cannot go back (the model's own `step` can)"
            )
        self.check_room(where, self.place.longest + 1)
        if not torch.equal(state.row, self.order[:batch]):
            self._reorder(where, state.row)
        self.batch = batch
        return self.place

    def advance(self) -> CacheTicket:
        r"""The ticket after one more step of all rows."""
        self.place = Place(self.place.position + 1, self.place.longest + 1)
        return self._next()

    def rewind(self, where: str, length: int) -> CacheTicket:
        r"""The ticket after `length` steps."""
        check_size(where, "length", length, minimum=0)
        at, longest = self.place.position, self.place.longest
        shortest = at if isinstance(at, int) else min(at.tolist(), default=length)
        if length > shortest:
            raise ValueError(
                f"{where}: `length` must be at most {shortest}, the steps that each "
                f"row has, got {length}"
            )
        smallest = min((cache.size for cache in self.caches), default=length)
        if longest > max(smallest, length):
            raise ValueError(
                f"{where}: `length` must be {longest} where a cache keeps the last "
                f"{smallest} steps alone, got {length}"
            )
        self.place = Place(length, length)
        return self._next()

    def kept(self) -> dict[str, Any]:
        r"""What a copy of the decoder goes on from."""
        return {
            "caches": [(cache.k, cache.v) for cache in self.caches],
            "turn": self.turn,
            "batch": self.batch,
            "place": (self.place.position, self.place.longest),
        }

    def restore(self, kept: dict[str, Any]) -> None:
        r"""Go on from what another decoder kept; nothing is shared with it."""
        with torch.no_grad():
            for cache, (k, v) in zip(self.caches, kept["caches"], strict=True):
                cache.k.copy_(k)
                cache.v.copy_(v)
        self.turn, self.batch = kept["turn"], kept["batch"]
        self.place = Place(*kept["place"])
        # One from a file may be ahead of what this process has counted.
        Tickets.turns = itertools.count(max(next(Tickets.turns), self.turn + 1))

    def check_room(self, where: str, steps: int) -> None:
        r"""Raise `ValueError` where a row would have more steps than there is room."""
        if self.capacity is not None and steps > self.capacity:
            raise ValueError(
                f"{where}: there is room for capacity={self.capacity} steps a row, "
                f"got {steps}"
            )

    def _check_batch(self, where: str, batch: int) -> None:
        if batch > len(self.order):
            raise ValueError(
                f"{where}: there are rows={len(self.order)} rows, got a batch of "
                f"{batch}"
            )

    def _next(self) -> CacheTicket:
        self.turn = next(Tickets.turns)
        rows = self.order[: self.batch]
        return CacheTicket(rows, torch.full_like(rows, self.turn))

    def _reorder(self, where: str, rows: Tensor) -> None:
        if rows.dtype != torch.int64:
            raise TypeError(
                f"{where}: `state.row` must have dtype int64, got {rows.dtype}"
            )
        low, high = int(rows.min()), int(rows.max())
        if low < 0 or high >= self.batch:
            raise ValueError(
                f"{where}: `state.row` must be from 0 to {self.batch - 1}, the rows of "
                f"the step before, got {low} to {high}"
            )
        for cache in self.caches:
            cache.reorder(rows, self.place.longest)
        if isinstance(self.place.position, Tensor):
            self.place = Place(self.place.position[rows], self.place.longest)
