"""No test of an experiment reads a real clock, and small runs are made once."""

from copy import deepcopy
from typing import Any, NamedTuple

import pytest

from experiments.lab import timer
from experiments.lab.experiment import Experiment, find
from experiments.lab.record import measure
from experiments.lab.wanted import only

REAL = {name: getattr(timer, name) for name in ("processor", "wall")}


class Clock:
    """Moves when it is told to, and by `tick` whenever it is read."""

    def __init__(self, tick):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now

    def taking(self, *seconds):
        """A function whose calls take so long, the last of them ever after."""
        left = list(seconds)

        def run(*arguments):
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return arguments

        return run


@pytest.fixture(scope="session", autouse=True)
def _ticking():
    """By this clock all things take equally long, to the last bit."""
    with pytest.MonkeyPatch.context() as patch:
        for name in REAL:
            patch.setattr(timer, name, Clock(tick=2.0**-10))
        yield


@pytest.fixture
def real_clock(monkeypatch):
    """For what a person starts on a GPU to measure it there; no suite has it."""
    for name, function in REAL.items():
        monkeypatch.setattr(timer, name, function)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless a function of its own is called."""
    standing = Clock(tick=0.0)
    monkeypatch.setattr(timer, "processor", standing)
    return standing


class Small(NamedTuple):
    """An experiment's small run: what it returned, to the bit, and its record."""

    result: dict[str, Any]
    record: dict[str, Any]


@pytest.fixture(scope="session")
def small_run():
    """The small run of the experiment of that name; pageblocks.plugin has those who
    ask for the same one run in the same worker.
    """
    made = {}
    original = Experiment.result

    def run(name):
        def result(*arguments):
            value = original(*arguments)
            kept.append(deepcopy(value))
            return value

        if name not in made:
            kept = []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Experiment, "result", result)
                experiment = find(name)
                judged = {c for k in experiment.claims for c in (k.case, k.control)}
                # `shortest` in test_all.py has every case, if with less training.
                with only(judged):
                    record = measure(experiment)
            made[name] = Small(*kept, record)
        return deepcopy(made[name])

    return run
