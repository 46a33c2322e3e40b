r"""What the margins of the small runs show: tables and numbers for the page."""

import math
from collections.abc import Mapping
from typing import Any

from experiments.lab.margins import SEEDED, SETTINGS
from experiments.lab.tables import MINUS, table

# Nearer than a factor of 1.02, or two hundredths of a share, is near.
NEAR = 0.02
ROWS = 20
BY_SWITCH = {setting.name for setting in SETTINGS}
BY_SEED = {setting.name for setting in SEEDED}

Row = dict[str, Any]


def rows_of(data: Mapping[str, Any]) -> list[Row]:
    """Each claim in each run that ended, with its margin (infinite where exact)."""
    return [
        {
            "experiment": experiment,
            "setting": setting,
            "claim": claim,
            "margin": _margin(verdict),
            "step": verdict["step"],
        }
        for experiment, entry in data["experiments"].items()
        for setting, run in entry["runs"].items()
        for claim, verdict in run.get("claims", {}).items()
    ]


def _margin(verdict: Mapping[str, Any]) -> float:
    if verdict["margin"] is not None:
        return verdict["margin"]
    return math.inf if verdict["holds"] else -math.inf


def lowest_by_claim(data: Mapping[str, Any]) -> list[dict[str, Row]]:
    """For each claim its lowest row of all, by switch and by seed; narrowest first."""
    by_claim: dict[str, list[Row]] = {}
    for row in rows_of(data):
        by_claim.setdefault(row["claim"], []).append(row)
    by_part = []
    for rows in by_claim.values():
        parts = {
            "all": rows,
            "switch": [row for row in rows if row["setting"] in BY_SWITCH],
            "seed": [row for row in rows if row["setting"] in BY_SEED],
        }
        by_part.append(
            {key: min(some, key=_by_margin) for key, some in parts.items() if some}
        )
    return sorted(by_part, key=lambda parts: _by_margin(parts["all"]))


def _by_margin(row: Row) -> float:
    return row["margin"]


def failures(data: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Experiment, setting and error of each run that did not end."""
    return [
        (experiment, setting, run["error"])
        for experiment, entry in data["experiments"].items()
        for setting, run in entry["runs"].items()
        if "error" in run
    ]


def numbers(data: Mapping[str, Any]) -> dict[str, Any]:
    """Counts for sentences."""
    lowest = [parts["all"] for parts in lowest_by_claim(data)]
    runs = [entry["runs"] for entry in data["experiments"].values()]
    return {
        "settings": len(SETTINGS),
        "shifts": len(SEEDED),
        "bound": NEAR,
        "experiments": len(runs),
        "runs": sum(len(by_setting) for by_setting in runs),
        "claims": len(lowest),
        "exact": sum(row["margin"] == math.inf for row in lowest),
        "near": sum(0 < row["margin"] < NEAR for row in lowest),
        "turned": sum(row["margin"] <= 0 for row in lowest),
        "failed": len(failures(data)),
    }


def tables(data: Mapping[str, Any]) -> dict[str, str]:
    """Markdown by name: the narrowest margins, the runs that failed, the machines."""
    rows = [
        [
            parts["all"]["claim"],
            f"`{parts['all']['experiment']}`",
            *_cells(parts.get("switch")),
            *_cells(parts.get("seed")),
        ]
        for parts in lowest_by_claim(data)[:ROWS]
    ]
    headers = ["claim", "experiment", "lowest", "in", "other seeds", "with"]
    failed = [[f"`{name}`", *rest] for name, *rest in failures(data)]
    return {
        "narrowest": table(headers, rows),
        "settings": table(
            ["setting", "claims", "margin moved", "lowest", "claim"], by_setting(data)
        ),
        "failed": table(["experiment", "setting", "error"], failed)
        if failed
        else "None did.\n",
        "run": caption(data),
    }


def by_setting(data: Mapping[str, Any]) -> list[list[str]]:
    """Each setting: claims judged, those whose margin is not the default's, lowest."""
    rows = rows_of(data)
    default = {
        row["claim"]: row["margin"]
        for row in rows
        if row["setting"] == SETTINGS[0].name
    }
    lines = []
    for setting in (*SETTINGS, *SEEDED):
        here = [row for row in rows if row["setting"] == setting.name]
        # Only where there is a default to compare with.
        moved = sum(
            row["margin"] != default.get(row["claim"], row["margin"]) for row in here
        )
        lowest = min(here, key=_by_margin, default=None)
        cells = [setting.name, str(len(here)), str(moved)]
        lines.append([*cells, _cells(lowest)[0], lowest["claim"] if lowest else ""])
    return lines


def _cells(row: Row | None) -> list[str]:
    if row is None:
        return ["", ""]
    if math.isinf(row["margin"]):
        return ["exact" if row["margin"] > 0 else "turned", row["setting"]]
    text = f"{row['margin']:.3f}".replace("-", MINUS)
    if row["margin"] <= 0:
        text = f"**{text}**"
    if row["step"]:
        # Half of one run is the least distance that a count can have.
        text += f", {row['margin'] / row['step']:.3g} of {round(1 / row['step'])} runs"
    return [text, row["setting"]]


def caption(data: Mapping[str, Any]) -> str:
    """One line that says where the numbers come from."""
    runs = [
        run["on"] for e in data["experiments"].values() for run in e["runs"].values()
    ]
    places = []
    for number, machine in enumerate(data["machines"]):
        device, versions = machine["device"], machine["versions"]
        if count := runs.count(number):
            words = "1 run" if count == 1 else f"{count} runs"
            places.append(
                f"{words} on {device['name']}, {', '.join(device['instructions'])}, "
                f"with Python {versions['python']} and torch {versions['torch']}, the "
                f"last on {machine['date']}"
            )
    return f"Measured by `python -m experiments margins`: {'; '.join(places)}.\n"
