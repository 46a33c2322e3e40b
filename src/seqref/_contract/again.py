r"""Whether the same call gives the same result: else nothing can be compared."""

from seqref._contract.compare import same_or_nan
from seqref._contract.draws import Drawn, at_extreme
from seqref._contract.outputs import Outputs
from seqref._contract.runs import Inputs, Runs

# How often the first call is made again before a difference is believed. A fair coin
# in the model stays unseen in one of 2^8 cases.
REPEATS = 8

TWO_RESULTS = (
    "dropout without training=self.training, a random initial state, a state kept on "
    "the module from one call to the next"
)
DRAWN = (
    "dropout without training=self.training, a random initial state, a mask that is "
    "drawn at the first call and kept"
)
KEPT = (
    "a state, a mask or a mean that is kept on the module from one call to the next, "
    "a cache that is not emptied"
)
IN_TRAINING = (
    ", a function around a module in training mode (call `eval()` first, or pass the "
    "module)"
)
FIRST_CALL = (
    "the function draws random numbers in its first call and none after it, so what it "
    "has kept of them cannot be looked at. Pass the module itself, or, where it makes "
    "its weights in its first call, call it once before"
)


class Again:
    r"""Holds a model's first result to be the same whatever was drawn or called.

    Args:
        name: The property, with which each message begins.
        runs: The model.
        atol: The difference that may be left; None is what rounding may leave.
    """

    def __init__(self, name: str, runs: Runs, atol: float | None) -> None:
        self._name, self._runs, self._atol = name, runs, atol
        self._first: tuple[Inputs, Outputs] | None = None

    def twice(self, inputs: Inputs, others: Inputs) -> tuple[Outputs, Outputs]:
        r"""Results for two inputs, after a look whether the first can be had again."""
        runs, before = self._runs, Drawn(self._runs.devices)
        first = runs.run(*inputs)
        # Weights that the first call made are no result of it.
        drew_first = before.from_torch() and not runs.keep_new_parameters()
        self._first, after = (inputs, first), Drawn(runs.devices)
        second = runs.run(*others)
        self.once_more()
        drew_later = after.from_torch()
        if drew_first or drew_later:
            self._draws_do_not_matter(inputs)
        if before.from_elsewhere():
            self.often()
        if drew_first and not drew_later and not runs.copied:
            raise AssertionError(f"{self._name}: {FIRST_CALL}")
        if runs.copied:
            later = runs.run_fresh(others, inputs)
            self._must_agree(first, later, "depends on the calls before", KEPT)
        return first, second

    def often(self) -> None:
        r"""The first call again, as often as shows a coin in the model."""
        for _ in range(REPEATS):
            self.once_more()

    def once_more(self) -> None:
        if self._first:
            inputs, first = self._first
            what = "differs between two calls with the same arguments"
            self._must_agree(first, self._runs.run(*inputs), what, TWO_RESULTS)

    def _draws_do_not_matter(self, inputs: Inputs) -> None:
        try:
            with at_extreme(high=False):
                low = self._runs.run_fresh(inputs)
            with at_extreme(high=True):
                high = self._runs.run_fresh(inputs)
        except Exception:
            # Not every model can do with such numbers; others may show it.
            self.often()
            return
        what = "depends on random numbers that the model draws"
        self._must_agree(low, high, what, DRAWN)

    def _must_agree(self, one: Outputs, two: Outputs, what: str, causes: str) -> None:
        for key, value in one.items():
            if not same_or_nan(value, two[key], self._atol):
                copied = self._runs.copied
                mode = " in evaluation mode" if copied else ""
                raise AssertionError(
                    f"{self._name}: {key} {what}{mode}, so nothing can be compared.\n"
                    f"Usual causes: {causes}{'' if copied else IN_TRAINING}"
                )
