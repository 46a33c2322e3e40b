r"""A claim: a sentence, an assertion that tests it, and a control that must fail."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from experiments.lab.quantity import Case, Quantity, value_of

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Outcome:
    r"""What an assertion says: the number it rests on, and how far from turning.

    `margin` is the signed distance to the threshold, and the verdict is its sign, so
    the two cannot disagree. It has no unit. Of positive quantities it is the natural
    logarithm of the factor between number and threshold (0.05: some five per cent); of
    shares and cosines, which have a range of their own, the difference. An assertion
    about whole things, such as equal bits, has no distance: its margin is infinite.

    `step` is the least by which a count can change, as a part of its margin: one run
    of ten is 0.1. Zero where the number is no count.
    """

    number: float
    margin: float
    step: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether the number lies on the side of its threshold that was asserted."""
        return self.margin > 0

    @classmethod
    def above(cls, number: float, bound: float, on: Scale | None = None) -> Self:
        """That `number` is greater than `bound`, at a distance on the scale `on`."""
        return cls(number, _distance(number, bound, on or ratio))

    @classmethod
    def below(cls, number: float, bound: float, on: Scale | None = None) -> Self:
        """That `number` is less than `bound`, at a distance on the scale `on`."""
        return cls(number, -_distance(number, bound, on or ratio))

    @classmethod
    def between(
        cls, number: float, low: float, high: float, on: Scale | None = None
    ) -> Self:
        """That `number` lies between `low` and `high`, both excluded."""
        ends = cls.above(number, low, on), cls.below(number, high, on)
        return cls.all_of(number, *ends)

    @classmethod
    def at_least(cls, count: int, least: int, of: int) -> Self:
        """That `count` of `of` is no less than `least`; half a count is between."""
        return cls(float(count), (count - least + 0.5) / of, 1 / of)

    @classmethod
    def at_most(cls, count: int, most: int, of: int) -> Self:
        """That `count` of `of` is no more than `most`; half a count is between."""
        return cls(float(count), (most - count + 0.5) / of, 1 / of)

    @classmethod
    def exactly(cls, number: float, *, holds: bool) -> Self:
        """What has no distance: equal bits, integers, a refusal."""
        return cls(number, math.inf if holds else -math.inf)

    @classmethod
    def all_of(cls, number: float, *parts: "Outcome") -> Self:
        """That every part holds; the part nearest to failing gives the margin."""
        nearest = min(parts, key=lambda part: part.margin)
        return cls(number, nearest.margin, nearest.step)


Check = Callable[[Case], Outcome]


@dataclass(frozen=True)
class Claim:
    r"""One statement that a run can refute.

    A run measures several *cases* and stores the same quantities for each. `check`
    sees the quantities of one case and nothing else. It must hold for `case` and fail
    for `control`, where the cause that the statement names has been taken away. A
    check that also holds for its control tests nothing.

    Args:
        id: Row of the claims ledger, with a suffix where a row has several checks:
            `C14`, `C14.orthogonal`.
        sentence: What the check asserts, in words.
        check: From the quantities of one case to an `Outcome`.
        case: Name of the case that the statement is about.
        control: Name of the case without the cause.
        timed: Whether the check rests on a clock. Such a claim is judged in the tests
            from the stored record, and measured again by `nox -s bench` alone.
    """

    id: str
    sentence: str
    check: Check
    case: str
    control: str
    timed: bool = False

    @property
    def row(self) -> str:
        """Row of the ledger that this claim belongs to."""
        return self.id.split(".", 1)[0]


def ratio(value: float) -> float:
    """The scale of positive quantities: equal factors are equally far apart."""
    return math.log(value) if value > 0 else -math.inf


def power(value: float) -> float:
    """The scale of decimal logarithms: that of the quantities behind them."""
    return value * math.log(10)


def share(value: float) -> float:
    """The scale of what has a range of about 1: shares, scores, cosines."""
    return value


def _distance(number: float, bound: float, on: Callable[[float], float]) -> float:
    # Two that are not positive have no difference of logarithms.
    return 0.0 if number == bound else on(number) - on(bound)


# What follows makes the check of a claim from quantities of its case.


def above(quantity: Quantity, bound: float, on: Scale = ratio) -> Check:
    """That a quantity is greater than `bound`, at a distance on the scale `on`."""
    return lambda case: Outcome.above(value_of(case, quantity), bound, on)


def below(quantity: Quantity, bound: float, on: Scale = ratio) -> Check:
    """That a quantity is less than `bound`, at a distance on the scale `on`."""
    return lambda case: Outcome.below(value_of(case, quantity), bound, on)


def between(quantity: Quantity, low: float, high: float, on: Scale = ratio) -> Check:
    """That a quantity lies between `low` and `high`, both excluded."""
    return all_of(above(quantity, low, on), below(quantity, high, on))


def at_least(count: Quantity, least: int, of: Quantity) -> Check:
    """That a count, of so many, is no less than `least`."""
    return lambda case: Outcome.at_least(
        value_of(case, count), least, value_of(case, of)
    )


def at_most(count: Quantity, most: int, of: Quantity) -> Check:
    """That a count, of so many, is no more than `most`."""
    return lambda case: Outcome.at_most(value_of(case, count), most, value_of(case, of))


def exactly(number: Quantity, holds: Callable[[Case], bool]) -> Check:
    """That something holds which has no distance: equal bits, integers, a refusal."""
    return lambda case: Outcome.exactly(
        float(value_of(case, number)), holds=holds(case)
    )


def all_of(*checks: Check, number: Quantity | None = None) -> Check:
    r"""That every check holds; the one nearest to failing gives the margin.

    The number is that of the first check, or `number`.
    """

    def check(case: Case) -> Outcome:
        parts = [part(case) for part in checks]
        found = parts[0].number if number is None else value_of(case, number)
        return Outcome.all_of(found, *parts)

    return check


def outcomes(
    claim: Claim, cases: Mapping[str, Mapping[str, Any]]
) -> tuple[Outcome, Outcome]:
    r"""What a claim's check says of its case and of its control.

    Raises:
        ValueError: A case that the claim names was not measured.
    """
    for role, name in (("case", claim.case), ("control", claim.control)):
        if name not in cases:
            raise ValueError(
                f"judge: claim {claim.id}: `{role}` must be one of the measured cases "
                f"{sorted(cases)}, got {name!r}"
            )
    return claim.check(cases[claim.case]), claim.check(cases[claim.control])


def nearest(claim: Claim, cases: Mapping[str, Mapping[str, Any]]) -> Outcome:
    r"""How far a claim is from falling: by its case or by its control.

    The nearer of the two, with a negative margin where the case fails or the control
    holds.
    """
    case, control = outcomes(claim, cases)
    against = Outcome(control.number, -control.margin, control.step)
    return min(case, against, key=lambda outcome: outcome.margin)


def judge(claim: Claim, cases: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Apply a claim's check to its case and to its control; see `outcomes`."""
    outcome, control = outcomes(claim, cases)
    return {
        "sentence": claim.sentence,
        "case": claim.case,
        "holds": outcome.holds,
        "number": outcome.number,
        "control": claim.control,
        "control_holds": control.holds,
        "control_number": control.number,
    }
