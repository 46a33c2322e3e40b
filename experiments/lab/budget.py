r"""Hours that a long run may take from its start; what is kept by then is not lost."""

from experiments.lab import timer


class BudgetSpentError(RuntimeError):
    """A run has used its hours; started again, it goes on with what it kept."""


class Budget:
    r"""Hours by the wall from now on, asked before each part of a run.

    Args:
        hours: How long parts may be begun; a part that has begun is finished.
        where: Name of the run, for the message.
    """

    def __init__(self, hours: float, where: str) -> None:
        self.hours, self.where = hours, where
        self.began = timer.wall()

    def check(self, left: int) -> None:
        r"""Ask whether one more part may begin.

        Args:
            left: How many parts there are to do, for the message.

        Raises:
            BudgetSpentError: The hours are over.
        """
        if timer.wall() - self.began >= self.hours * 3600:
            raise BudgetSpentError(
                f"{self.where}: the budget of `hours`={self.hours:g} is spent, and "
                f"{left} parts are left; start the run again to go on with what was "
                "kept, or raise `hours`"
            )
