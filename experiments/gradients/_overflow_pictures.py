r"""Tables of `gradient_overflow`, and the names of its cases."""

from collections.abc import Mapping
from typing import Any

from experiments.lab.tables import number, table

DTYPES = ("float16", "bfloat16", "float32", "float64")
LIMITS = {"unclipped": None, "limit_1": 1.0, "limit_0_1": 0.1}
UPDATES = {
    "float32": "tanh, `float32`",
    "float64": "tanh, `float64`",
    "skipped": "tanh, `float32`, step skipped",
    "relu": "ReLU, `float32`",
}


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Where each dtype ends, what one update does, and the descents."""
    cases = record["cases"]
    dtypes = [
        [
            f"`{name}`",
            number(cases[f"slope_{name}"]["zero_from"]),
            number(cases[f"lag_{name}"]["first_infinite_lag"]),
        ]
        for name in DTYPES
    ]
    columns = ("state_bounded", "loss_finite", "gradient_finite", "loss_after_finite")
    updates = [
        [label, *[f"{cases[f'update_{name}'][c]} of {runs}" for c in columns]]
        for name, label in UPDATES.items()
        for runs in [cases[f"update_{name}"]["runs"]]
    ]
    descents = [
        [
            "none" if limit is None else number(limit, 1),
            number(cases[name]["largest_update"], 2),
            f"{cases[name]['solved']:.0%}",
        ]
        for name, limit in LIMITS.items()
    ]
    return {
        "dtypes": table(
            ["dtype", "slope of tanh first 0 at", "first infinite lag"], dtypes
        ),
        "updates": table(
            [
                "network",
                "states within 1",
                "loss finite",
                "gradient finite",
                "loss after the update finite",
            ],
            updates,
        ),
        "descents": table(["limit", "largest update", "runs that arrive"], descents),
    }
