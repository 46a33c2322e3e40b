r"""Scalars and ready-made texts that sentences take from a record."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.lab.quantity import Quantity, has, value_of


@dataclass(frozen=True)
class Each:
    r"""A number of each case that has it, called `<case>_<word>`, or `<case>`."""

    quantity: Quantity
    word: str
    write: Callable[[Any], Any]
    cases: Collection[str] | None

    def of(self, cases: Mapping[str, Any]) -> dict[str, Any]:
        return {
            f"{name}_{self.word}".rstrip("_"): self.write(value_of(case, self.quantity))
            for name, case in cases.items()
            if (self.cases is None or name in self.cases) and has(case, self.quantity)
        }


def each(
    quantity: Quantity,
    word: str | None = None,
    write: Callable[[Any], Any] = lambda value: value,
    cases: Collection[str] | None = None,
) -> Each:
    r"""This quantity of each case that has it.

    Args:
        quantity: A path, or a function of the case.
        word: What follows the name of the case, if anything; by default the path, dots
            as `_`.
        write: From the value to a number or a text.
        cases: Names of those that are asked; by default all.
    """
    if word is None:
        if callable(quantity):
            raise TypeError("each: `word` must be given where `quantity` is a function")
        word = quantity.replace(".", "_")
    return Each(quantity, word, write, cases)


def everything(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Every scalar of every case, `<case>_<key>`."""
    return {
        f"{name}_{key}": value
        for name, case in cases.items()
        for key, value in case.items()
        if isinstance(value, int | float | str)
    }


def all_but(*names: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """`everything` but these: a number's whole name, or a key of every case."""

    def numbers(cases: Mapping[str, Any]) -> dict[str, Any]:
        kept = {
            name: {k: v for k, v in case.items() if k not in names}
            for name, case in cases.items()
        }
        return {k: v for k, v in everything(kept).items() if k not in names}

    return numbers


# Numbers of each case, numbers by name from all the cases (those of `series` begin
# with that word), or a function of the cases.
Numbers = Sequence[
    Each | Mapping[str, Quantity] | Callable[[Mapping[str, Any]], dict[str, Any]]
]


def numbers_of(
    declared: Numbers, cases: Mapping[str, Any], series: Mapping[str, Any]
) -> dict[str, Any]:
    r"""What is declared, taken from the cases and the series.

    Raises:
        ValueError: A name is declared twice.
    """
    numbers: dict[str, Any] = {}
    whole = {**cases, "series": series}
    for part in declared:
        if isinstance(part, Each):
            more = part.of(cases)
        elif isinstance(part, Mapping):
            more = {name: value_of(whole, path) for name, path in part.items()}
        else:
            more = part(cases)
        twice = sorted(numbers.keys() & more.keys())
        if twice:
            raise ValueError(f"numbers: declared twice: {', '.join(twice)}")
        numbers |= more
    return numbers
