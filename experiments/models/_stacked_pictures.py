r"""Tables and the figure of the experiment `stacked`."""

from collections.abc import Mapping
from typing import Any

from experiments.lab.drawing import DASHES, Theme, label_ends, power_ticks
from experiments.lab.tables import number, power_of_ten, table

MARKS = (50, 100)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Gradient through the layers by depth; gradient by lag."""
    config, series = record["run"]["config"], record["series"]
    depths = [
        [name, *(power_of_ten(row["median"]) for row in rows)]
        for name, rows in series["by_depth"].items()
    ]
    headers = ["stack, by layers", *(number(n) for n in series["depths"])]
    lags = [
        [
            _label(name, config),
            number(record["cases"][case]["largest_at"]),
            _from(record["cases"][case]),
            *(power_of_ten(record["cases"][case][f"left_at_{m}"]) for m in MARKS),
        ]
        for name, case in _lag_cases(series)
    ]
    columns = ["LSTM stack", "largest at lag", "below a tenth from lag"]
    columns += [f"left at lag {m}" for m in MARKS]
    return {"depth": table(headers, depths), "lag": table(columns, lags)}


def _lag_cases(series: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = list(series["by_lag"])
    return [(n, "lag_" + n.replace(", ", "_").replace(" ", "_")) for n in names]


def _from(case: Mapping[str, Any]) -> str:
    return number(case["tenth_from"]) if "tenth_from" in case else "none"


def _label(name: str, config: Mapping[str, Any]) -> str:
    return name.replace("bias", f"forget bias {config['forget_bias']:g}")


def draw_by_lag(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Gradient at the inputs against the lag, for several depths."""
    axes = figure.subplots()
    series, config = record["series"], record["run"]["config"]
    lags, ends = series["lags"], []
    for i, (name, rows) in enumerate(series["by_lag"].items()):
        values = [row["median"] for row in rows]
        colour = theme.colours[i]
        axes.plot(lags, values, color=colour, linestyle=DASHES[i])
        ends.append((values[-1], _label(name, config), colour))
    axes.set_xlim(0, lags[-1])
    low = int(min(end[0] for end in ends) // 10) * 10
    power_ticks(axes, range(low, 1, 10))
    axes.set_xlabel("lag in steps")
    axes.set_title("Gradient at an input, of a loss of the last output")
    label_ends(axes, lags[-1], ends)
