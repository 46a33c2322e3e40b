r"""Contestants in interleaved rounds, and the clock that times them."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from experiments.lab import timer
from experiments.speed.gru_speed import one_setting

Run = Callable[[], None]
Size = tuple[int, int, int]
# By setting, whether torch may use oneDNN.
SETTINGS = {"as_it_comes": True, "without_onednn": False}
LABELS = {"as_it_comes": "as it comes", "without_onednn": "without oneDNN"}


@contextmanager
def setting(name: str, threads: int, device: str) -> Iterator[None]:
    """One setting and number of threads inside; both put back after."""
    if device != "cpu":
        yield
        return
    with one_setting(threads, SETTINGS[name]):
        yield


def training(forward: Callable[[], Tensor], inputs: Iterable[Tensor]) -> Run:
    """One forward and one backward pass, to all of `inputs`."""
    wanted = list(inputs)

    def run() -> None:
        torch.autograd.grad(forward().square().sum(), wanted)

    return run


def seconds(run: Run, threads: int, device: str) -> float:
    r"""Processor time on one thread of a CPU, time by the wall anywhere else.

    On several threads processor time adds up what runs at once, and on a GPU the
    processor only hands work on.
    """
    if device != "cpu":
        torch.cuda.synchronize()
    clock = timer.processor if (threads, device) == (1, "cpu") else timer.wall
    began = clock()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - began


def ratios(
    runs: Mapping[str, Run], base: str, rounds: int, threads: int, device: str
) -> dict[str, dict[str, float]]:
    """Time over that of `base` in the same round: median and quartiles."""
    for run in runs.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in runs if name != base}
    order = list(runs)
    for _ in range(rounds):
        took = {name: seconds(runs[name], threads, device) for name in order}
        # What runs after its like finds its numbers in the cache: take turns.
        order.reverse()
        for name, values in found.items():
            values.append(took[name] / took[base])
    return {name: quartiles(values) for name, values in found.items()}


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "low": low, "high": high}
