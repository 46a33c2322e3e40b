"""The suite holds no clock: what is measured in seconds is measured by the bench."""

import ast
from pathlib import Path

import pytest

from experiments.lab import timer
from experiments.lab.experiment import discover
from experiments.lab.sources import files_of

ROOT = Path(__file__).resolve().parents[1]
CLOCKS = {"time", "perf_counter", "process_time", "thread_time", "monotonic"}
CLOCKS |= {f"{name}_ns" for name in CLOCKS}
MODULES = {"time", "timeit", "torch.utils.benchmark"}
# Each waits for another process or for the limit of a page, and gives up at last;
# nothing rests on how long it took.
WAITING = {
    "tests/site/conftest.py",
    "tests/tools/test_pageblocks_run.py",
    "tests/training/test_loop.py",
    "tests/training/test_train_lm.py",
}


def clocks_in(source):
    """Names of the clocks that a module reads: of `time`, or modules that time."""
    tree = ast.parse(source)
    clocks = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            clocks |= {name for name in names if name.partition(".")[2] in CLOCKS}
            clocks |= {node.module} & (MODULES - {"time"})
        elif isinstance(node, ast.Import):
            clocks |= {alias.name for alias in node.names} & (MODULES - {"time"})
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "time" and node.attr in CLOCKS:
                clocks.add(f"time.{node.attr}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Code for another process, as text.
            clocks |= {n for n in (f"time.{c}(" for c in CLOCKS) if n in node.value}
    return clocks


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time\ntime.perf_counter()", {"time.perf_counter"}),
        ("from time import monotonic", {"time.monotonic"}),
        ("import timeit", {"timeit"}),
        ("from timeit import timeit", {"timeit"}),
        ("import torch.utils.benchmark", {"torch.utils.benchmark"}),
        ("run('import time; time.process_time()')", {"time.process_time("}),
        ("import time\ntime.sleep(1)\nbatch, time = x.shape\ntime.numel()", set()),
    ],
)
def test_a_clock_is_found(source, found):
    assert clocks_in(source) == found


def modules(*folders):
    """Path from the root and text of each Python file, but for this one."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path != Path(__file__).resolve():
                name = path.relative_to(ROOT).as_posix()
                yield name, path.read_text(encoding="utf-8")


def test_no_test_reads_a_clock():
    readers = {name for name, source in modules("tests") if clocks_in(source)}
    assert readers <= WAITING


def test_only_what_a_person_starts_on_a_gpu_has_the_real_clock():
    users = {name for name, source in modules("tests") if "real_clock" in source}
    assert users == {
        "tests/experiments/conftest.py",
        "tests/experiments/speed/test_fused_recurrence_speed.py",
    }


def test_experiments_read_the_clock_in_one_place():
    readers = {name for name, source in modules("experiments") if clocks_in(source)}
    assert readers == {"experiments/lab/timer.py"}
    assert timer.wall() <= timer.wall()
    assert timer.processor() <= timer.processor()


def test_the_timer_is_read_by_one_module_the_record_and_the_budget():
    readers = {
        name
        for name, source in modules("experiments")
        if "timer.processor" in source or "timer.wall" in source
    }
    # The record's own seconds, those that claims rest on, and the hours of a run.
    assert readers == {
        "experiments/lab/budget.py",
        "experiments/lab/record.py",
        "experiments/lab/timer.py",
        "experiments/lab/timing.py",
    }


def test_claims_on_time_are_those_of_modules_that_time():
    """Directly or by their parts: a claim cannot rest on a clock and not say so."""
    timed = {experiment.name for experiment in discover() if experiment.timed}
    assert timed == {
        "bahdanau_speed",
        "beam_speed",
        "bptt_checkpoint_time",
        "cpu_speed",
        "decoding_context",
        "fused_recurrence_speed",
        "gru_speed",
        "kv_cache_speed",
        "language_models_speed",
        "linear_scan_speed",
        "long_convolution_speed",
        "lstm_variants_speed",
        "minimal_speed",
        "padding_cost",
        "segment_growth",
        "selective_scan_speed",
        "short_convolution_speed",
        "softmax_attention_speed",
        "step_speed",
        "training_length",
        "window_growth",
    }
    timing = ROOT / "experiments" / "lab" / "timing.py"
    assert timed == {
        experiment.name
        for experiment in discover()
        if timing in files_of(experiment.module)
    }
