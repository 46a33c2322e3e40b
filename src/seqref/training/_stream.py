r"""Batches of pass after pass, and the place in them where training stands."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from seqref.training import _generators

END = object()


@dataclass
class Place:
    r"""How many passes are over, and how many batches of the next were taken.

    `begun` and `now` are the states of the random generators: at the start of the
    pass, from which a shuffled order is drawn again, and at this moment.
    """

    passes: int = 0
    taken: int = 0
    begun: Any = None
    now: Any = None


def stream(
    batches: Iterable[Any], place: Place, own: _generators.Own | None = None
) -> Iterator[tuple[bool, Any]]:
    r"""From `place` on: whether a batch is the first of its pass, and the batch.

    `place` is moved along. Batches that were taken before are read again and dropped:
    that serves every iterable that gives the same batches from the same generators,
    the global ones and those of `own`.

    Raises:
        ValueError: a pass has no batch, or fewer than were taken before.
    """
    while True:
        dropped = place.taken
        if dropped:
            _generators.restore(place.begun, own)
        else:
            place.begun = _generators.read(own)
        iterator = iter(batches)
        for number in range(dropped):
            if next(iterator, END) is END:
                raise ValueError(
                    f"fit: `batches` must be those of the run that is resumed, which "
                    f"took {dropped} in this pass; got only {number}"
                )
        if dropped:
            _generators.restore(place.now, own)
        for batch in iterator:
            place.taken += 1
            yield place.taken == 1, batch
        if place.taken == 0:
            hint = "" if place.passes == 0 else ": an iterator gives its items once"
            raise ValueError(
                "fit: `batches` must hold at least one batch in each pass, got none "
                f"in pass {place.passes + 1}{hint}"
            )
        place.passes, place.taken = place.passes + 1, 0
