r"""Tables and lines of the memory experiments: runs that solved a task, by lag."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.lab.drawing import DASHES, Theme, label_ends
from experiments.lab.tables import number, table
from experiments.memory._networks import CATALOGUE
from experiments.memory._sweep import Row, pool, select

NO_BREAK = "\N{NO-BREAK SPACE}"


def percent(share: float) -> str:
    """A share as a whole number of per cent: 100, 97."""
    return f"{100 * share:.0f}"


def interval(low: float, high: float) -> str:
    """Two shares as an interval in per cent: 84 to 100 %."""
    return f"{percent(low)} to {percent(high)}{NO_BREAK}%".replace(" ", NO_BREAK)


def solved(rows: Sequence[Row]) -> str:
    """Runs that solved the task, of how many; below it the interval of the share."""
    found = pool(rows)
    share = found["share"]
    count = f"{found['good']} of {found['runs']}".replace(" ", NO_BREAK)
    # One below the other: four such cells beside each other would not fit a page.
    return f"{count}<br>({interval(share['low'], share['high'])})"


def mean_score(rows: Sequence[Row]) -> str:
    """Mean score with its interval: 0.52 (0.50 to 0.55)."""
    score = pool(rows)["score"]
    text = f"{score['mean']:.2f} ({score['low']:.2f} to {score['high']:.2f})"
    return text.replace(" ", NO_BREAK)


def table_by_lag(
    rows: Sequence[Row],
    recipes: Sequence[str],
    lags: Sequence[int],
    cell: Any = solved,
    word: str = "lag",
) -> str:
    """One line for each recipe, one column for each lag; the rest is pooled."""
    headers = ["layer, initialisation", *[f"{word} {number(lag)}" for lag in lags]]
    lines = [
        [
            CATALOGUE[recipe].label,
            *[cell(select(rows, recipe=recipe, lag=lag)) for lag in lags],
        ]
        for recipe in recipes
    ]
    return table(headers, lines)


def table_of_settings(
    rows: Sequence[Row],
    recipes: Sequence[str],
    lags: Sequence[int],
    word: str = "lag",
) -> str:
    """Runs that solved the task for each width and learning rate by itself."""
    settings = sorted({(row["hidden_size"], row["learning_rate"]) for row in rows})
    headers = ["layer, initialisation", "width", "learning rate"]
    lines = [
        [
            CATALOGUE[recipe].label,
            number(width),
            number(rate, 1),
            *[_count(rows, recipe, width, rate, lag) for lag in lags],
        ]
        for recipe in recipes
        for width, rate in settings
    ]
    return table([*headers, *[f"{word} {number(lag)}" for lag in lags]], lines)


def _count(rows: Sequence[Row], recipe: str, width: int, rate: float, lag: int) -> str:
    found = pool(
        select(rows, recipe=recipe, hidden_size=width, learning_rate=rate, lag=lag)
    )
    return f"{found['good']} of {found['runs']}".replace(" ", NO_BREAK)


def draw_by_lag(
    figure: Any,
    rows: Sequence[Row],
    recipes: Sequence[str],
    lags: Sequence[int],
    theme: Theme,
    title: str,
    word: str = "lag",
) -> None:
    """Share of the runs that solved the task against the lag, intervals as bars."""
    axes = figure.subplots()
    places = range(len(lags))
    labels = []
    for i, recipe in enumerate(recipes):
        shares = [pool(select(rows, recipe=recipe, lag=lag))["share"] for lag in lags]
        # Beside each other, so that bars at one lag can be told apart.
        x = [place + 0.06 * (i - (len(recipes) - 1) / 2) for place in places]
        colour = theme.colours[i]
        axes.errorbar(
            x,
            [share["share"] for share in shares],
            yerr=_bars(shares),
            color=colour,
            linestyle=DASHES[i],
            marker="o",
            markersize=4,
            capsize=3,
            elinewidth=1,
        )
        labels.append((shares[-1]["share"], CATALOGUE[recipe].label, colour))
    axes.set_xticks(list(places), [number(lag) for lag in lags])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(f"{word} (steps)")
    axes.set_title(title)
    end = len(lags) - 1 + 0.06 * len(recipes) / 2
    # The frame ends where the names begin, or its lower edge runs through them.
    axes.set_xlim(-0.25, end)
    label_ends(axes, end, labels)


def _bars(shares: Sequence[Mapping[str, float]]) -> list[list[float]]:
    """Distances from each share down and up to its limits."""
    below = [share["share"] - share["low"] for share in shares]
    above = [share["high"] - share["share"] for share in shares]
    return [below, above]
