r"""Which cases a run makes: all of them, or those that somebody is going to judge.

Training is long, and where a case does not depend on the others, a test of claims can
do without those that no claim names. A record, and its margins, are of all.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_WANTED: ContextVar[frozenset[str] | None] = ContextVar("wanted", default=None)


@contextmanager
def only(names: Collection[str]) -> Iterator[None]:
    """Inside, runs that ask leave out other cases than these."""
    token = _WANTED.set(frozenset(names))
    try:
        yield
    finally:
        _WANTED.reset(token)


def wanted(name: str) -> bool:
    """Whether the case of this name is to be made."""
    names = _WANTED.get()
    return names is None or name in names
