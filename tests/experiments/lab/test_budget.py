"""Hours that a run may take."""

import pytest

from experiments.lab import timer
from experiments.lab.budget import Budget, BudgetSpentError


def test_a_part_may_begin_until_the_hours_are_over(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(timer, "wall", lambda: now[0])
    budget = Budget(0.5, "toy")
    now[0] += 1799
    budget.check(3)
    now[0] += 1
    with pytest.raises(
        BudgetSpentError,
        match=r"^toy: the budget of `hours`=0\.5 is spent, and 2 parts",
    ):
        budget.check(2)
