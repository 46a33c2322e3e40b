r"""How far a gradient reaches back in layers before training, by initialisation.

A random gradient $\bar h_T$ arrives at the last output of an untrained layer, which has
read standard normal inputs. Two things are measured of its way back, both over the norm
of $\bar h_T$: the norm of the gradient by the state $k$ steps earlier, and that of the
gradient by the input $k$ steps earlier. Beside them stands what the biases of the gates
alone would leave between 1 and $k$ steps back: the root mean square of $f^{k-1}$ over
the units, $f$ being $\sigma$ of a gate's bias.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.gradients import _initialisation_pictures as pictures
from experiments.gradients._initialisation_layers import (
    NAMES,
    build,
    measure_layer,
)
from experiments.gradients._initialisation_pictures import at
from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.statistics import log10_summary, median, spread

MARKS = (1, 10, 20, 50, 100, 500, 1000)
CONSTANT_GATES = (0.99, 0.995, 0.999)
# Below this float64 has no more digits to lose, and a logarithm needs a number.
FLOOR = 1e-300


@dataclass(frozen=True)
class Config:
    """Which layers, their sizes, the lags to record and the seeds."""

    cases: tuple[str, ...]
    input_size: int
    hidden_size: int
    batch_size: int
    warm_up: int
    lags: tuple[int, ...]
    seeds: tuple[int, ...]


LAGS = (1, 2, 3, 5, 7, 10, 14, 20, 30, 50, 70, 100, 140, 200, 300, 500, 700, 1000)
SMALL = Config(
    cases=("rnn_default", "lstm_default", "lstm_bias_5", "lstm_chrono_1000"),
    input_size=8,
    hidden_size=32,
    batch_size=2,
    warm_up=50,
    lags=(1, 10, 20, 100, 500, 1000),
    seeds=(0,),
)
FULL = Config(
    cases=tuple(NAMES),
    input_size=16,
    hidden_size=64,
    batch_size=4,
    warm_up=200,
    lags=LAGS,
    seeds=tuple(range(16)),
)


def measure(config: Config, case: str) -> dict[str, Any]:
    """Medians and extremes over seeds, as decimal logarithms where they are small."""
    seeds = []
    for seed in config.seeds:
        layer = build(case, config.input_size, config.hidden_size, seed)
        size = (config.batch_size, config.warm_up, config.lags)
        seeds.append(measure_layer(layer, *size, seed + 1000))
    found: dict[str, Any] = {"lags": list(config.lags)}
    for part in ("state", "input", "biases"):
        if part in seeds[0]:
            columns = zip(*[seed[part] for seed in seeds], strict=True)
            clipped = [[max(v, FLOOR) for v in column] for column in columns]
            rows = [log10_summary(column) for column in clipped]
            found[part] = {k: [row[k] for row in rows] for k in rows[0]}
    last = max(config.lags) + 1.0
    reached = [min(float(seed["one_percent"]), last) for seed in seeds]
    found["one_percent"] = spread(reached)
    for part in ("slope", "cell"):
        if part in seeds[0]:
            found[part] = round(median(seed[part] for seed in seeds), 6)
    return found


def constant(gate: float, lags: tuple[int, ...]) -> dict[str, Any]:
    """What a constant gate leaves, in closed form."""
    left = [round(lag * math.log10(gate), 9) for lag in lags]
    return {"gate": gate, "lags": list(lags), "state": {"median": left}}


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Measure every case, and evaluate constant gates beside them."""
    cases = {case: measure(config, case) for case in track(config.cases, "layers")}
    for gate in CONSTANT_GATES:
        name = f"gate_{gate:g}".replace(".", "_")
        cases[name] = constant(gate, config.lags)
    return {"numbers": summary(cases), "series": {}, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Ready-made text for sentences."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        for part in ("state", "input"):
            for lag in MARKS:
                if part in case and lag in case["lags"]:
                    text = pictures.text_of(at(case, part, lag))
                    found[f"{name}_{part}_{lag}"] = text
        if "one_percent" in case:
            text = pictures.length_text(case["one_percent"], case["lags"])
            found[f"{name}_one_percent"] = text
        if "slope" in case:
            found[f"{name}_slope"] = case["slope"]
    return found


def _gone(case: Mapping[str, Any]) -> Outcome:
    found = 10 ** at(case, "state", 500)
    return Outcome.below(found, 0.01)


def _gone_early(case: Mapping[str, Any]) -> Outcome:
    found = 10 ** at(case, "state", 20)
    return Outcome.below(found, 0.01)


def _kept(case: Mapping[str, Any]) -> Outcome:
    found = 10 ** at(case, "state", 1000)
    return Outcome.above(found, 0.01)


def _as_the_biases_say(case: Mapping[str, Any]) -> Outcome:
    measured = at(case, "state", 1000) - at(case, "state", 1)
    found = 10 ** (measured - at(case, "biases", 1000))
    return Outcome.between(found, 0.5, 2)


CLAIMS = (
    Claim(
        "C34",
        "A forget gate of 0.99 at every step leaves less than 1 % of a cell state "
        "after 500 steps.",
        _gone,
        case="gate_0_99",
        control="gate_0_999",
    ),
    Claim(
        "C34.default",
        "In an LSTM with torch's default law less than 1 % of a gradient is left after "
        "20 steps.",
        _gone_early,
        case="lstm_default",
        control="lstm_chrono_1000",
    ),
    Claim(
        "C34.chrono",
        "In an LSTM with chrono biases of horizon 1,000 more than 1 % of a gradient is "
        "left after 1,000 steps.",
        _kept,
        case="lstm_chrono_1000",
        control="lstm_default",
    ),
    Claim(
        "C34.biases",
        "Between 1 and 1,000 steps back, an LSTM with chrono biases of horizon 1,000 "
        "leaves of a gradient what the biases alone predict, within a factor of 2.",
        _as_the_biases_say,
        case="lstm_chrono_1000",
        control="lstm_bias_5",
    ),
)


tables = pictures.tables
FIGURES = {"lstm": pictures.draw_lstm, "others": pictures.draw_others}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
