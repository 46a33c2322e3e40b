r"""Numbers, tables and lines of the memory experiments: runs that solved a task."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from experiments import lab
from experiments.memory._networks import CATALOGUE
from experiments.memory._sweep import Row, groups, pool

NO_BREAK = "\N{NO-BREAK SPACE}"
LAYER = {"layer, initialisation": lambda row: CATALOGUE[row["recipe"]].label}
RATE = {"learning rate": lab.cell("learning_rate", lab.number, 1)}


def percent(share: float) -> str:
    """A share as a whole number of per cent: 100, 97."""
    return f"{100 * share:.0f}"


# Runs, those that solved the task, and their share with its interval.
COUNTS = (
    lab.each("runs"),
    lab.each("good"),
    *(lab.each(f"share.{end}", end, percent) for end in ("share", "low", "high")),
)


def interval(share: Mapping[str, float]) -> str:
    """The interval of a share in per cent: 84 to 100 %."""
    ends = percent(share["low"]), percent(share["high"])
    return NO_BREAK.join((ends[0], "to", ends[1], "%"))


def count(good: int, runs: int) -> str:
    """So many of how many, on one line."""
    return NO_BREAK.join((str(good), "of", str(runs)))


def counted(row: Row) -> str:
    """Runs that solved the task, of how many."""
    return count(row["good"], row["runs"])


def solved(row: Row) -> str:
    """Runs that solved the task, of how many; below it the interval of the share."""
    # One below the other: four such cells beside each other would not fit a page.
    return f"{counted(row)}<br>({interval(row['share'])})"


def mean_score(row: Row) -> str:
    """Mean score with its interval: 0.52 (0.50 to 0.55)."""
    return lab.with_span("score", "{:.2f}".format)(row).replace(" ", NO_BREAK)


def pooled(
    *keys: str, part: str = "rows", recipes: Collection[str] = tuple(CATALOGUE)
) -> Callable[[Mapping[str, Any]], list[Row]]:
    """For a table: rows of a record that agree in these quantities, pooled."""
    return lambda record: [
        {**dict(zip(keys, values, strict=True)), **pool(some)}
        for values, some in groups(record["series"][part], *keys).items()
        if some[0]["recipe"] in recipes
    ]


def headed(word: str) -> Callable[[int], str]:
    """The header of a column: a word and a value."""
    return lambda value: f"{word} {lab.number(value)}"


def by_lag(
    cell: Callable[[Row], str] = solved, word: str = "lag", **rows: Any
) -> lab.Pivot:
    """One line for each recipe, one column for each lag; the rest is pooled."""
    return lab.Pivot(LAYER, "lag", headed(word), cell, pooled("recipe", "lag", **rows))


def settings(word: str = "lag") -> lab.Pivot:
    """Runs that solved the task for each width and learning rate by itself."""
    return lab.Pivot(
        lines={**LAYER, "width": "hidden_size", **RATE},
        across="lag",
        columns=headed(word),
        cell=counted,
        rows=pooled("recipe", "hidden_size", "learning_rate", "lag"),
    )


def share_axis(axes: Any, top: float) -> None:
    """A y axis of shares, in per cent."""
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylim(-0.03, top)


@dataclass(frozen=True)
class ByLag:
    r"""Share of the runs that solved the task against the lag, intervals as bars."""

    title: str
    word: str = "lag"
    recipes: Collection[str] = tuple(CATALOGUE)

    def __call__(
        self, figure: Any, record: Mapping[str, Any], theme: lab.Theme
    ) -> None:
        axes, ends = figure.subplots(), []
        rows = pooled("recipe", "lag", recipes=self.recipes)(record)
        lags, lines = list(groups(rows, "lag")), groups(rows, "recipe")
        for i, ((recipe,), points) in enumerate(lines.items()):
            # Beside each other, so that bars at one lag can be told apart.
            aside, colour = 0.06 * (i - (len(lines) - 1) / 2), theme.colours[i]
            shares = [point["share"] for point in points]
            bars = [
                [share["share"] - share["low"] for share in shares],
                [share["high"] - share["share"] for share in shares],
            ]
            axes.errorbar(
                [place + aside for place in range(len(lags))],
                [share["share"] for share in shares],
                yerr=bars,
                color=colour,
                linestyle=lab.DASHES[i],
                marker="o",
                markersize=4,
                capsize=3,
                elinewidth=1,
            )
            ends.append((shares[-1]["share"], CATALOGUE[recipe].label, colour))
        axes.set_xticks(range(len(lags)), [lab.number(lag) for (lag,) in lags])
        share_axis(axes, 1.03)
        axes.set_xlabel(f"{self.word} (steps)")
        axes.set_title(self.title)
        end = len(lags) - 1 + 0.06 * len(lines) / 2
        # The frame ends where the names begin, or its lower edge runs through them.
        axes.set_xlim(-0.25, end)
        lab.label_ends(axes, end, ends)
