r"""Sentences and tables of the bug museum."""

from collections.abc import Mapping
from typing import Any

from experiments.lab.tables import number, table

# Heads of columns, short: the table has nine.
SHORT = {
    "padding_invariance": "padding",
    "row_order": "rows",
    "causality": "causal",
    "state_carry": "carry",
    "source_dependence": "source",
    "target_shift": "shift",
    "nonlinearity": "nonlinear",
    "own": "own",
}


def summary(cases: Mapping[str, Any], series: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars and ready-made text for sentences."""
    specimens = series["specimens"]
    found: dict[str, Any] = {
        "specimens": len(specimens),
        "by_own_test": sum(row["own"] == "own" for row in specimens),
        "trials": sum(len(row["caught"]) for row in specimens),
        "missed": sum(not row["caught"][row["own"]] for row in specimens),
        "mended_caught": sum(sum(row["mended_caught"].values()) for row in specimens),
        "sound": len(series["sound"]),
        "sound_caught": sum(sum(row["caught"].values()) for row in series["sound"]),
        "uniform": cases["shift_broken"]["uniform"],
    }
    for row in series["moved"]:
        found[f"moved_{row['kind']}_{row['pads']}"] = row["moved"]
    for row in series["noise"]:
        found[f"loss_{row['kind']}"] = row["median"]
    for row in series["scans"]:
        key = f"scan_{row['kind']}_{row['decay']:g}_{row['dtype']}".replace(".", "_")
        found[f"{key}_first"] = row["first_not_finite"]
        found[f"{key}_error"] = number(row["error_before"], 2)
    return found


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """The matrix, the sound models, and where the scan breaks down."""
    series = record["series"]
    return {
        "matrix": _matrix(series["specimens"]),
        "sound": _sound(series["sound"]),
        "moved": _moved(series["moved"]),
        "scans": _scans(series["scans"]),
    }


def _matrix(specimens: list[dict[str, Any]]) -> str:
    rows = []
    for row in specimens:
        cells = [f"[{row['label']}]({row['page']}.md#{row['name']})"]
        for check in SHORT:
            word = {True: "caught", False: "silent", None: ""}[row["caught"].get(check)]
            cells.append(f"**{word}**" if check == row["own"] and word else word)
        rows.append(cells)
    return table(["bug", *SHORT.values()], rows)


def _sound(models: list[dict[str, Any]]) -> str:
    rows = []
    for row in models:
        names = ", ".join(SHORT[check] for check in row["caught"])
        raised = sum(row["caught"].values())
        rows.append([f"`{row['model']}`", names, number(raised)])
    return table(["model", "checks that apply", "raised"], rows)


def _moved(moved: list[dict[str, Any]]) -> str:
    pads = sorted({row["pads"] for row in moved})
    rows = []
    for kind, label in (("broken", "not packed"), ("mended", "packed")):
        of = {row["pads"]: row["moved"] for row in moved if row["kind"] == kind}
        rows.append([label, *(f"{of[n]:.0%}" if of[n] else "0" for n in pads)])
    return table(["change of the summary", *(f"pads: {n}" for n in pads)], rows)


def _scans(scans: list[dict[str, Any]]) -> str:
    dtypes = list(dict.fromkeys(row["dtype"] for row in scans))
    rows = []
    for decay in dict.fromkeys(row["decay"] for row in scans):
        cells = [f"{decay:g}"]
        for kind in ("broken", "mended"):
            for dtype in dtypes:
                (row,) = (
                    r
                    for r in scans
                    if (r["decay"], r["kind"], r["dtype"]) == (decay, kind, dtype)
                )
                first = row["first_not_finite"]
                error = number(row["error_before"], 2)
                cells.append(f"not finite from {first:,}" if first else error)
        rows.append(cells)
    names = [f"{n}, {d}" for n in ("closed form", "by pairs") for d in dtypes]
    return table(["decay", *names], rows)
