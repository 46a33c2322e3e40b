r"""The one timer: contestants in rounds, on one thread, in ratios to one of them.

Every contestant is called once in each round, and the order of a round is that of the
one before, reversed: what runs after its like finds its numbers in the cache. A ratio
is the time of a contestant over that of the base in the same round. The base runs twice
in each, and its second time over its first says what such a ratio is worth. After the
rounds every contestant is called once more, and its memory is counted.
"""

import statistics
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.lab import timer
from seqref.testing import LiveBytes

# The base once more: what differs there from 1 is noise.
AGAIN = "again"
# By setting, whether torch may use oneDNN.
SETTINGS = {"as_it_comes": True, "without_onednn": False}
LABELS = {"as_it_comes": "as it comes", "without_onednn": "without oneDNN"}


@dataclass(frozen=True)
class Contestant:
    r"""A call that is timed.

    Args:
        run: The call.
        outside: Tensors that are there before it, such as inputs and parameters; they
            are no part of its memory.
        units: How much work a call is; its time is divided by it.
        counted: Whether its memory is counted. That of compiled code is not: it runs as
            plain code under `LiveBytes`.
    """

    run: Callable[[], Any]
    outside: Sequence[Tensor] = ()
    units: int = 1
    counted: bool = True


def passes(
    call: Callable[[], Tensor],
    inputs: Iterable[Tensor],
    *,
    train: bool = True,
    others: Iterable[Tensor] = (),
) -> Contestant:
    r"""A forward pass without gradients, or one with a backward pass to all `inputs`.

    Args:
        call: The forward pass.
        inputs: What gets a gradient: the input and the parameters.
        train: Whether there is a backward pass.
        others: Further tensors that are there before it.
    """
    wanted = list(inputs)

    def forward() -> None:
        with torch.no_grad():
            call()

    def training() -> None:
        torch.autograd.grad(call().square().sum(), wanted)

    return Contestant(training if train else forward, [*wanted, *others])


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


def settings_on(device: str) -> list[str]:
    """Names of the settings; on a GPU there is no oneDNN to switch off."""
    return [name for name, onednn in SETTINGS.items() if onednn or device == "cpu"]


def seconds(run: Callable[[], Any], device: str = "cpu") -> float:
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
    contestants: Mapping[str, Contestant], base: str, rounds: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds a unit of every contestant, and of the base once more, by round."""
    runners = {**contestants, AGAIN: contestants[base]}
    for contestant in contestants.values():
        contestant.run()
    times: dict[str, list[float]] = {name: [] for name in runners}
    order = list(runners)
    for _ in range(rounds):
        for name in order:
            took = seconds(runners[name].run, device)
            times[name].append(took / runners[name].units)
        order.reverse()
    return times


def peak_of(contestant: Contestant, device: str = "cpu") -> int | None:
    """The most bytes that its tensors take at one time in a call; None: not counted."""
    if not contestant.counted:
        return None
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        contestant.run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with LiveBytes(contestant.outside) as live:
        contestant.run()
    return live.peak


def compare(
    contestants: Mapping[str, Contestant], base: str, rounds: int, device: str = "cpu"
) -> dict[str, Any]:
    r"""Time over that of `base` in the same round, and memory, by contestant.

    Args:
        contestants: What is timed, by name.
        base: The one whose time the others are divided by.
        rounds: Number of rounds, of at least two; before them each is called once.
        device: Where it runs; on "cuda" a call ends when the device has ended.

    Returns:
        `seconds`, the median of the base's; `peak`, the most bytes that it takes at one
        time; `ratios` with median and quartiles (`median`, `low`, `high`) and `peak` of
        every other contestant, and under `AGAIN` of the base over itself.
    """
    times = rounds_of(contestants, base, rounds, device)
    ratios: dict[str, dict[str, Any]] = {
        name: quartiles([a / b for a, b in zip(values, times[base], strict=True)])
        for name, values in times.items()
        if name != base
    }
    peaks = {name: peak_of(runner, device) for name, runner in contestants.items()}
    for name, ratio in ratios.items():
        ratio["peak"] = peaks[base if name == AGAIN else name]
    seconds_of_base = statistics.median(times[base])
    return {"seconds": seconds_of_base, "peak": peaks[base], "ratios": ratios}


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "low": low, "high": high}


def medians(rows: Iterable[Mapping[str, Any]], name: str, **where: Any) -> list[float]:
    r"""The median ratios of a contestant, in the order of the rows.

    Args:
        rows: Each what `compare` returned, with quantities that tell the rows apart.
        name: The contestant; rows without it are left out.
        where: The rows that have these values alone.
    """
    return [
        row["ratios"][name]["median"]
        for row in rows
        if name in row["ratios"] and all(row[key] == v for key, v in where.items())
    ]


def ranges(
    rows: Iterable[Mapping[str, Any]], stem: Callable[[Any, str], str | None]
) -> dict[str, float]:
    r"""The lowest and the highest median ratio, `<stem>_low` and `<stem>_high`.

    Args:
        rows: Each what `compare` returned, with quantities that tell the rows apart.
        stem: Of a row and a contestant's name; what has one stem is put together, and
            what has none is left out.
    """
    groups: dict[str, list[float]] = {}
    for row in rows:
        for name, ratio in row["ratios"].items():
            key = stem(row, name)
            if key is not None:
                groups.setdefault(key, []).append(ratio["median"])
    return {
        f"{key}_{word}": end(medians)
        for key, medians in groups.items()
        for word, end in (("low", min), ("high", max))
    }
