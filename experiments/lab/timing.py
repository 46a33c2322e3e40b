r"""The one timer: contestants in rounds, on one thread, in ratios to one of them.

Every contestant is called once in each round, and the order of a round is that of the
one before, reversed: what runs after its like finds its numbers in the cache. A ratio
is the time of a contestant over that of the base in the same round. The base runs twice
in each, and its second time over its first says what such a ratio is worth.
"""

import statistics
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from experiments.lab import timer
from seqref.testing import LiveBytes

Run = Callable[[], Any]
# The base once more: what differs there from 1 is noise.
AGAIN = "again"
# By setting, whether torch may use oneDNN.
SETTINGS = {"as_it_comes": True, "without_onednn": False}
LABELS = {"as_it_comes": "as it comes", "without_onednn": "without oneDNN"}


@contextmanager
def setting(threads: int = 1, onednn: bool = True) -> Iterator[None]:
    """This number of threads, and oneDNN on or off, inside; both put back after."""
    before = torch.get_num_threads()
    with warnings.catch_warnings():
        # torch warns that the setting of Intel's GPUs, which comes along, is idle here,
        warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN")
        # and once that oneDNN has no LSTM with a projection.
        warnings.filterwarnings("ignore", "LSTM with projections is not supported")
        with torch.backends.mkldnn.flags(enabled=onednn):
            torch.set_num_threads(threads)
            try:
                yield
            finally:
                torch.set_num_threads(before)


def forward_of(call: Callable[[], Tensor]) -> Run:
    """One forward pass without gradients."""

    def run() -> None:
        with torch.no_grad():
            call()

    return run


def training_of(call: Callable[[], Tensor], inputs: Iterable[Tensor]) -> Run:
    """One forward and one backward pass, to all of `inputs`."""
    wanted = list(inputs)

    def run() -> None:
        torch.autograd.grad(call().square().sum(), wanted)

    return run


def seconds(run: Run, device: str = "cpu") -> float:
    r"""Time of one call.

    Processor time on one thread of a CPU, time by the wall anywhere else: on several
    threads processor time adds up what runs at once, and on a GPU the processor only
    hands work on.
    """
    if device != "cpu":
        torch.cuda.synchronize()
    alone = device == "cpu" and torch.get_num_threads() == 1
    clock = timer.processor if alone else timer.wall
    began = clock()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - began


def rounds_of(
    runs: Mapping[str, Run], base: str, rounds: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of every contestant and of the base once more, round by round."""
    contestants = {**runs, AGAIN: runs[base]}
    for run in runs.values():
        run()
    took: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    for _ in range(rounds):
        for name in order:
            took[name].append(seconds(contestants[name], device))
        order.reverse()
    return took


def compare(
    runs: Mapping[str, Run], base: str, rounds: int, device: str = "cpu"
) -> dict[str, dict[str, float]]:
    r"""Time over that of `base` in the same round, by contestant.

    Args:
        runs: What is timed, by name.
        base: The one whose time the others are divided by.
        rounds: Number of rounds, of at least two; before them each is called once.
        device: Where it runs; on "cuda" a call ends when the device has ended.

    Returns:
        Median and quartiles (`median`, `low`, `high`) for every contestant but the
        base, and under `AGAIN` those of the base over itself.
    """
    took = rounds_of(runs, base, rounds, device)
    return {
        name: quartiles([a / b for a, b in zip(times, took[base], strict=True)])
        for name, times in took.items()
        if name != base
    }


def peaks(runs: Mapping[str, Run], outside: Iterable[Tensor] = ()) -> dict[str, int]:
    """The most bytes of tensors that are alive at one time in a call, by contestant."""
    found = {}
    for name, run in runs.items():
        run()
        with LiveBytes(outside) as live:
            run()
        found[name] = live.peak
    return found


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "low": low, "high": high}
