r"""What two directions cost, what they give away, and what padding does to them.

Four measurements. A next-token model over independent random tokens, where no model can
beat the uniform guess unless it reads its target. Models that predict a token from both
sides, in one layer, in two that mix the directions, in two that do not, and with masked
inputs. The final states of a padded batch with and without packing. And the number of
parameters by depth.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import nn

from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.statistics import median, spread
from experiments.models import _bidirectional_leak as leak
from experiments.models import _bidirectional_padding as padding
from experiments.models import _bidirectional_tables as presentation


@dataclass(frozen=True)
class Config:
    """Sizes of the models that are trained, of the padded batches and of the counts."""

    vocab: int
    time: int
    width: int
    batch_size: int
    updates: int
    every: int
    learning_rate: float
    curve_rows: int
    test_rows: int
    padding_width: int
    padding_rows: int
    padded_to: int
    lengths: tuple[int, ...]
    depths: tuple[int, ...]
    input_size: int
    hidden_size: int
    seeds: tuple[int, ...]


SMALL = Config(
    vocab=8,
    time=10,
    width=16,
    batch_size=32,
    updates=150,
    every=50,
    learning_rate=0.02,
    curve_rows=64,
    test_rows=512,
    padding_width=8,
    padding_rows=4,
    padded_to=12,
    lengths=(1, 4, 10),
    depths=(1, 2, 4),
    input_size=128,
    hidden_size=256,
    seeds=(0,),
)
FULL = Config(
    vocab=8,
    time=16,
    width=32,
    batch_size=64,
    updates=600,
    every=20,
    learning_rate=0.01,
    curve_rows=256,
    test_rows=16384,
    padding_width=64,
    padding_rows=16,
    padded_to=40,
    lengths=(1, 2, 4, 8, 16, 32),
    depths=(1, 2, 3, 4, 8),
    input_size=128,
    hidden_size=256,
    seeds=(0, 1, 2),
)
# Name: model, tokens, loss in training, loss in testing.
TRAINED = {
    "one_way": (leak.one_way, "random", leak.next_token, leak.next_token),
    "two_ways": (leak.two_ways, "random", leak.next_token, leak.next_token),
    "around": (leak.two_ways, "random", leak.from_neighbours, leak.from_neighbours),
    "mixed": (leak.mixed, "random", leak.from_neighbours, leak.from_neighbours),
    "separate": (leak.separate, "random", leak.from_neighbours, leak.from_neighbours),
    "masked": (leak.mixed, "random", leak.masked, leak.one_masked),
    "chain_one_way": (leak.one_way, "chain", leak.next_token, leak.next_token),
    "chain_masked": (leak.mixed, "chain", leak.masked, leak.one_masked),
}


def train_all(config: Config, track: Track) -> dict[str, Any]:
    """Every model of `TRAINED`, over the seeds."""
    names = ("vocab", "time", "width", "batch_size", "updates", "every")
    names += ("learning_rate", "curve_rows", "test_rows")
    sizes = leak.Sizes(**{name: getattr(config, name) for name in names})
    draws = {"random": leak.random_tokens(sizes), "chain": leak.chain_tokens(sizes)}
    found = {}
    for name in track(list(TRAINED), "training"):
        build, tokens, loss, test_loss = TRAINED[name]
        runs = [
            leak.train(build, draws[tokens], loss, test_loss, sizes, seed)
            for seed in config.seeds
        ]
        by_position = [
            [median(at) for at in zip(*(run[part] for run in runs), strict=True)]
            for part in ("curve", "by_position")
        ]
        ends = spread(fmean(run["by_position"]) for run in runs)
        found[name] = {
            "curve": by_position[0],
            "by_position": by_position[1],
            "loss": ends,
        }
    return found


def losses(found: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The cases about leaks: a loss beside the uniform guess, or the chain's bounds."""
    uniform = math.log(config.vocab)
    bounds = leak.chain_bounds()

    def case(loss: float) -> dict[str, float]:
        return {"loss": loss, "uniform": uniform, **bounds}

    cases = {name: case(result["loss"]["median"]) for name, result in found.items()}
    for name in ("one_way", "two_ways"):
        *read, last = found[name]["by_position"]
        cases[f"{name}_read"] = case(fmean(read))
        cases[f"{name}_last"] = case(last)
    return cases


def count(module: nn.Module) -> int:
    """Number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def parameters(config: Config, depth: int) -> dict[str, Any]:
    """Parameters of torch.nn.LSTM by depth: one direction, two, two at half width."""
    sizes = (config.input_size, config.hidden_size)
    # On the device "meta" a parameter takes no memory.
    with torch.device("meta"):
        one = count(nn.LSTM(*sizes, num_layers=depth))
        two = count(nn.LSTM(*sizes, num_layers=depth, bidirectional=True))
        half = count(
            nn.LSTM(sizes[0], sizes[1] // 2, num_layers=depth, bidirectional=True)
        )
    return {
        "layers": depth,
        "one": one,
        "two": two,
        "half": half,
        "ratio": two / one,
        "half_ratio": half / one,
    }


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Train, pad and count."""
    trained = train_all(config, track)
    padded = {
        name: padding.over_seeds(kind, forget_bias, config)
        for name, (kind, forget_bias, _) in presentation.PADDED.items()
    }
    counts = [parameters(config, depth) for depth in config.depths]
    cases = losses(trained, config)
    for way in padding.WAYS:
        cases[way] = padding.case_of(padded["lstm"], way)
    cases |= {f"layers_{row['layers']}": row for row in counts}
    series = {"trained": trained, "padded": padded, "counts": counts}
    return {"numbers": summary(cases, padded, config), "series": series, "cases": cases}


def summary(
    cases: Mapping[str, Any], padded: Mapping[str, Any], config: Config
) -> dict[str, Any]:
    """Scalars for sentences."""
    bounds = leak.chain_bounds()
    found: dict[str, Any] = {
        "uniform": math.log(config.vocab),
        "chain_past": bounds["past"],
        "chain_both": bounds["both"],
    }
    for name, case in cases.items():
        found |= {
            f"{name}_{key}": case[key] for key in ("loss", "ratio") if key in case
        }
    found["half_ratio_1"] = cases["layers_1"]["half_ratio"]
    for row in (cases["layers_1"], cases["layers_2"]):
        found |= {f"layers_{row['layers']}_{key}": row[key] for key in ("one", "two")}
    for name, ways in padded.items():
        for way in padding.WAYS:
            for length, error in zip(config.lengths, ways[way], strict=True):
                found[f"{name}_{way}_{length}"] = error
    found["lengths_worst"] = max(max(w["backward_lengths"]) for w in padded.values())
    found["gathered_worst"] = max(max(w["forward_gathered"]) for w in padded.values())
    return found


def _knows(case: Mapping[str, Any]) -> Outcome:
    found = case["loss"] / case["uniform"]
    return Outcome.below(found, 0.1)


def _guesses(case: Mapping[str, Any]) -> Outcome:
    found = case["loss"] / case["uniform"]
    return Outcome.above(found, 0.95)


def _beats_the_past(case: Mapping[str, Any]) -> Outcome:
    found = case["loss"]
    return Outcome.between(found, case["both"] - 0.05, case["past"] - 0.05)


def _not_double(case: Mapping[str, Any]) -> Outcome:
    return Outcome.exactly(case["ratio"], holds=case["ratio"] > 2.01)


def _wrong(case: Mapping[str, Any]) -> Outcome:
    return Outcome.above(case["error"], 0.05)


CLAIMS = (
    Claim(
        "C52",
        "A bidirectional LSTM of 4 layers has more than twice the parameters of one "
        "direction.",
        _not_double,
        case="layers_4",
        control="layers_1",
    ),
    Claim(
        "C53",
        "Trained to predict the next of independent random tokens, a bidirectional "
        "LSTM comes below a tenth of the uniform guess, since it reads the target.",
        _knows,
        case="two_ways_read",
        control="one_way_read",
    ),
    Claim(
        "C53.last",
        "At the last position, whose target it cannot read, the same model is no "
        "better than the uniform guess; that is where generation would use it.",
        _guesses,
        case="two_ways_last",
        control="two_ways_read",
    ),
    Claim(
        "C54",
        "Of two bidirectional layers on top of each other the outputs beside a token "
        "tell it: predicted from them, random tokens cost less than a tenth of the "
        "uniform guess.",
        _knows,
        case="mixed",
        control="separate",
    ),
    Claim(
        "C54.masked",
        "With the token masked in the input the same stack is back at the uniform "
        "guess.",
        _guesses,
        case="masked",
        control="mixed",
    ),
    Claim(
        "C54.chain",
        "On a chain with something to learn a masked stack uses both sides: its loss "
        "lies below the entropy given the past, and not below that given both sides.",
        _beats_the_past,
        case="chain_masked",
        control="chain_one_way",
    ),
    Claim(
        "C77",
        "Run over zero padding without packing, an LSTM of torch.nn returns for its "
        "shortest rows backward final states that are wrong by more than a twentieth "
        "of their norm.",
        _wrong,
        case="backward_final",
        control="backward_lengths",
    ),
    Claim(
        "C77.gather",
        "Taking the output at length - 1 gives the forward direction's final state, "
        "and not the backward direction's.",
        _wrong,
        case="backward_gathered",
        control="forward_gathered",
    ),
)


tables = presentation.tables
FIGURES = {"losses": presentation.draw_losses}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
