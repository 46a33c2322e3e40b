r"""A record: the result of one run with everything needed to repeat it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.lab import timer
from experiments.lab.claim import judge
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.files import write_whole
from experiments.lab.provenance import provenance
from experiments.lab.sources import hash_of

SIGNIFICANT_DIGITS = 6


def measure(
    experiment: Experiment, *, full: bool = False, track: Track = untracked
) -> dict[str, Any]:
    r"""Run an experiment and return its record.

    Floats are rounded to `SIGNIFICANT_DIGITS` before the claims are judged, so the
    verdicts can be recomputed from the stored record.

    Raises:
        TypeError: The run did not return the three parts, or holds another kind.
        ValueError: A result is not finite.
    """
    config = experiment.full if full else experiment.small
    started = timer.wall()
    result = experiment.result(config, track)
    seconds = timer.wall() - started
    result = rounded(result, experiment.name)
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "run": {
            "size": "full" if full else "small",
            "config": rounded(asdict(config), "config"),
            "seconds": rounded(seconds, "seconds"),
            "significant_digits": SIGNIFICANT_DIGITS,
            **provenance(),
            "sources": hash_of(experiment.module),
        },
        **result,
        "claims": judgements(experiment, result["cases"]),
    }


def judgements(experiment: Experiment, cases: Mapping[str, Any]) -> dict[str, Any]:
    """Every claim of an experiment judged on its measured cases."""
    judged = {claim.id: judge(claim, cases) for claim in experiment.claims}
    return rounded(judged, "claims")


def rounded(value: Any, path: str) -> Any:
    r"""`value` as JSON data, floats rounded to `SIGNIFICANT_DIGITS`.

    Raises:
        TypeError: A value has no form in JSON.
        ValueError: A float is not finite.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"record: `{path}` must be finite, got {value}")
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    if isinstance(value, Mapping):
        return {str(key): rounded(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, f"{path}[{i}]") for i, item in enumerate(value)]
    raise TypeError(
        f"record: `{path}` must be a number, text, list or dict, "
        f"got {type(value).__name__}"
    )


def path_of(name: str, folder: Path) -> Path:
    """Where the record of an experiment lies in a folder."""
    return folder / f"{name}.json"


def save(record: Mapping[str, Any], folder: Path) -> Path:
    """Write a record to `folder`."""
    path = path_of(record["experiment"], folder)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(path, text + "\n")
    return path


def load(name: str, folder: Path) -> dict[str, Any]:
    r"""Read a record from `folder`.

    Raises:
        ValueError: There is no such file, or it is not the record of `name`.
    """
    path = path_of(name, folder)
    if not path.is_file():
        raise ValueError(f"record.load: `folder` must hold {path.name}, got {folder}")
    record = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(record, dict) or record.get("experiment") != name:
        raise ValueError(f"record.load: {path} must be the record of {name!r}")
    return record
