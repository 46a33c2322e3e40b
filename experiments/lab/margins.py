r"""How far the claims of the small runs are from turning, on other arithmetic.

`SMALL` of each experiment runs once in each setting, and at the default with other
seeds. A setting is a process of its own, since switches are read when torch is loaded.
What is kept of a run is the margin of each claim that rests on no clock.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO, Any

import torch

from experiments.lab.claim import Claim, nearest, outcomes
from experiments.lab.experiment import Experiment, find
from experiments.lab.files import write_whole
from experiments.lab.record import rounded

# Added to every seed. The committed seeds are small, so no draw is used twice.
SHIFTS = (100, 200, 300, 400, 500)
# Not `__name__`: that is `__main__` in the child.
MODULE = "experiments.lab.margins"
ROOT = Path(__file__).resolve().parents[2]
# Threads that wait spin, and starve one another where cores are few.
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@dataclass(frozen=True)
class Setting:
    """The environment and the number of threads of a run, and what to add to seeds."""

    name: str
    environment: Mapping[str, str]
    threads: int = 1
    shift: int = 0


SETTINGS = (
    Setting("default", {}),
    Setting("oneDNN: AVX2", {"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    Setting("oneDNN: SSE4.1", {"ONEDNN_MAX_CPU_ISA": "SSE41"}),
    Setting("ATen: AVX2", {"ATEN_CPU_CAPABILITY": "avx2"}),
    Setting("ATen: default", {"ATEN_CPU_CAPABILITY": "default"}),
    Setting("MKL: compatible", {"MKL_CBWR": "COMPATIBLE"}),
    Setting("oneDNN: bfloat16", {"DNNL_DEFAULT_FPMATH_MODE": "BF16"}),
    Setting("2 threads", {}, threads=2),
    Setting("4 threads", {}, threads=4),
)
SEEDED = tuple(Setting(f"seeds + {shift}", {}, shift=shift) for shift in SHIFTS)


def with_other_seeds(config: Any, shift: int) -> Any:
    """With `shift` added to each field `seed` or `..._seeds`; None if there is none."""
    seeds = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if field.name.rpartition("_")[2] in ("seed", "seeds")
    }
    if not seeds:
        return None
    moved = {
        name: value + shift
        if isinstance(value, int)
        else tuple(seed + shift for seed in value)
        for name, value in seeds.items()
    }
    return replace(config, **moved)


def settings_of(experiment: Experiment) -> list[Setting]:
    """The settings that an experiment is run in; none where all claims are timed."""
    if all(claim.timed for claim in experiment.claims):
        return []
    seeded = with_other_seeds(experiment.small, 1) is not None
    return [*SETTINGS, *(SEEDED if seeded else ())]


def margins_of(claims: Sequence[Claim], cases: Mapping[str, Any]) -> dict[str, Any]:
    """By claim: verdict, margin (None where it is not finite) and step."""
    judged: dict[str, Any] = {}
    for claim in claims:
        if not claim.timed:
            case, control = outcomes(claim, cases)
            outcome = nearest(claim, cases)
            finite = math.isfinite(outcome.margin)
            judged[claim.id] = {
                "holds": case.holds and not control.holds,
                "margin": outcome.margin if finite else None,
                "step": outcome.step,
            }
    return rounded(judged, "margins")


def run_here(name: str, threads: int, shift: int) -> dict[str, Any]:
    """One run in this process: what is stored of it."""
    experiment = find(name)
    config = experiment.small
    if shift:
        config = with_other_seeds(config, shift)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    try:
        result = rounded(experiment.result(config), name)
        return {"claims": margins_of(experiment.claims, result["cases"])}
    # Whatever it is, it is the result of this run, and the others go on.
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}


def run_apart(
    names: Sequence[str], setting: Setting
) -> Iterator[tuple[str, dict[str, Any]]]:
    r"""Runs of several experiments in one process of this setting, as each one ends.

    A run that ends its process has that for its result, and the others get a new one.
    """
    left = list(names)
    while left:
        with (
            tempfile.TemporaryFile("w+") as errors,
            _worker(left, setting, errors) as child,
        ):
            for line in child.stdout or ():
                yield left.pop(0), json.loads(line)
            status = child.wait()
            if left:
                errors.seek(0)
                words = errors.read().strip().splitlines() or [""]
                error = f"the process ended with status {status}: {words[-1]}"
                yield left.pop(0), {"error": error[:300]}


class Runs:
    """The runs of several jobs, one after another; its length is that of the bar."""

    def __init__(self, jobs: Sequence[tuple[Setting, list[Experiment]]]) -> None:
        self.jobs = jobs

    def __len__(self) -> int:
        return sum(len(experiments) for _, experiments in self.jobs)

    def __iter__(self) -> Iterator[tuple[Experiment, Setting, dict[str, Any]]]:
        for setting, experiments in self.jobs:
            runs = run_apart([experiment.name for experiment in experiments], setting)
            for experiment, (_, run) in zip(experiments, runs, strict=True):
                yield experiment, setting, run


def _worker(
    names: Sequence[str], setting: Setting, errors: IO[str]
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", MODULE, *names]
    command += [f"--threads={setting.threads}", f"--shift={setting.shift}"]
    environment = {**os.environ, **QUIET, **setting.environment}
    # The child finds this folder wherever the parent was started.
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
    )


def config_of(experiment: Experiment) -> Any:
    """The small config as it is stored."""
    return rounded(asdict(experiment.small), "config")


def jobs_of(
    experiments: Sequence[Experiment], stored: Mapping[str, Any]
) -> list[tuple[Setting, list[Experiment]]]:
    """By setting, what is to be run: nothing of this config is stored, or it failed."""

    def lacks(experiment: Experiment, setting: Setting) -> bool:
        kept = stored.get(experiment.name, {"config": None, "runs": {}})
        run = kept["runs"].get(setting.name, {})
        return kept["config"] != config_of(experiment) or "claims" not in run

    return [
        (setting, chosen)
        for setting in (*SETTINGS, *SEEDED)
        if (
            chosen := [
                experiment
                for experiment in experiments
                if setting in settings_of(experiment) and lacks(experiment, setting)
            ]
        )
    ]


def keep(
    stored: dict[str, Any], experiment: Experiment, setting: Setting, run: Any
) -> None:
    """Put one run among those stored; those of another config are dropped."""
    config = config_of(experiment)
    entry = stored.get(experiment.name)
    if entry is None or entry["config"] != config:
        entry = stored[experiment.name] = {"config": config, "runs": {}}
    entry["runs"][setting.name] = run


def place(machines: list[dict[str, Any]], origin: Mapping[str, Any]) -> int:
    """The number of the machine and versions of a run, which join those known."""
    here = {key: origin[key] for key in ("device", "versions")}
    for number, machine in enumerate(machines):
        if {key: machine[key] for key in here} == here:
            machine["date"] = origin["date"]
            return number
    machines.append({**here, "date": origin["date"]})
    return len(machines) - 1


def load(path: Path) -> dict[str, Any]:
    """What is stored; empty where there is no file yet."""
    if not path.is_file():
        return {"machines": [], "experiments": {}}
    return json.loads(path.read_text(encoding="utf-8"))


def save(data: Mapping[str, Any], path: Path) -> None:
    """Write the file whole, a line for each run, so that a stopped one is taken up."""
    experiments = [
        f'  {_line(name)}: {{\n   "config": {_line(entry["config"])},\n'
        f'   "runs": {{\n    '
        + ",\n    ".join(f"{_line(k)}: {_line(v)}" for k, v in entry["runs"].items())
        + "\n   }\n  }"
        for name, entry in sorted(data["experiments"].items())
    ]
    rest = {key: value for key, value in data.items() if key != "experiments"}
    head = "".join(f" {_line(key)}: {_line(value)},\n" for key, value in rest.items())
    body = ",\n".join(experiments)
    write_whole(path, f'{{\n{head} "experiments": {{\n{body}\n }}\n}}\n')


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def main(argv: Sequence[str] | None = None) -> int:
    """The child: run the experiments named, and print a line of what each one gave."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shift", type=int, default=0)
    given = parser.parse_args(argv)
    # What an experiment prints must not be taken for its result.
    out, sys.stdout = sys.stdout, sys.stderr
    for name in given.names:
        print(
            json.dumps(run_here(name, given.threads, given.shift)), file=out, flush=True
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
