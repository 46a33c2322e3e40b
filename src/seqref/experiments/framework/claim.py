r"""A claim: a sentence, an assertion that tests it, and a control that must fail."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    r"""What an assertion found: whether it holds, and the number it rests on."""

    holds: bool
    number: float


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
    """

    id: str
    sentence: str
    check: Callable[[Mapping[str, Any]], Outcome]
    case: str
    control: str

    @property
    def row(self) -> str:
        """Row of the ledger that this claim belongs to."""
        return self.id.split(".", 1)[0]


def judge(claim: Claim, cases: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    r"""Apply a claim's check to its case and to its control.

    Raises:
        ValueError: A case that the claim names was not measured.
    """
    for role, name in (("case", claim.case), ("control", claim.control)):
        if name not in cases:
            raise ValueError(
                f"judge: claim {claim.id}: `{role}` must be one of the measured cases "
                f"{sorted(cases)}, got {name!r}"
            )
    outcome = claim.check(cases[claim.case])
    control = claim.check(cases[claim.control])
    return {
        "sentence": claim.sentence,
        "case": claim.case,
        "holds": outcome.holds,
        "number": outcome.number,
        "control": claim.control,
        "control_holds": control.holds,
        "control_number": control.number,
    }
