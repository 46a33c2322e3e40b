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

from experiments import lab
from experiments.models import _bidirectional_leak as leak
from experiments.models import _bidirectional_padding as padding


@dataclass(frozen=True)
class Config:
    """Sizes of the models that are trained, of the padded batches and of the counts."""

    vocab: int = 8
    time: int = 16
    width: int = 32
    batch_size: int = 64
    updates: int = 600
    every: int = 20
    learning_rate: float = 0.01
    curve_rows: int = 256
    test_rows: int = 16384
    padding_width: int = 64
    padding_rows: int = 16
    padded_to: int = 40
    lengths: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    depths: tuple[int, ...] = (1, 2, 3, 4, 8)
    input_size: int = 128
    hidden_size: int = 256
    seeds: tuple[int, ...] = (0, 1, 2)


NEXT = (leak.next_token, leak.next_token)
AROUND = (leak.from_neighbours, leak.from_neighbours)
MASKED = (leak.masked, leak.one_masked)
# By name a layer, tokens, and the losses in training and in testing.
TRAINED = {
    "one_way": (leak.one_way, leak.random_tokens, NEXT),
    "two_ways": (leak.two_ways, leak.random_tokens, NEXT),
    "around": (leak.two_ways, leak.random_tokens, AROUND),
    "mixed": (leak.mixed, leak.random_tokens, AROUND),
    "separate": (leak.separate, leak.random_tokens, AROUND),
    "masked": (leak.mixed, leak.random_tokens, MASKED),
    "chain_one_way": (leak.one_way, leak.chain_tokens, NEXT),
    "chain_masked": (leak.mixed, leak.chain_tokens, MASKED),
}
PADDED = {
    "rnn": ("RNN", nn.RNN, 0.0),
    "gru": ("GRU", nn.GRU, 0.0),
    "lstm": ("LSTM", nn.LSTM, 0.0),
    "lstm_3": ("LSTM, forget bias + 3", nn.LSTM, 3.0),
}


def over_seeds(config: Config, name: str) -> dict[str, Any]:
    """Medians of the losses on unseen tokens, and the spread of their mean."""
    runs = [leak.train(config, seed, *TRAINED[name]) for seed in config.seeds]
    loss = lab.spread(fmean(run["by_position"]) for run in runs)
    return {**lab.by_place(runs, lab.median), "loss": loss}


def losses(trained: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The cases about leaks: a loss beside the uniform guess, or the chain's bounds."""
    values = {name: result["loss"]["median"] for name, result in trained.items()}
    for name in ("one_way", "two_ways"):
        *read, last = trained[name]["by_position"]
        values |= {f"{name}_read": fmean(read), f"{name}_last": last}
    bounds = {"uniform": math.log(config.vocab), **leak.chain_bounds()}
    return {name: {"loss": loss, **bounds} for name, loss in values.items()}


def parameters(config: Config, depth: int) -> dict[str, Any]:
    """Parameters of torch.nn.LSTM by depth: one direction, two, two at half width."""
    size, width = config.input_size, config.hidden_size
    # On the device "meta" a parameter takes no memory.
    with torch.device("meta"):
        one, two, half = (
            lab.parameter_count(nn.LSTM(size, hidden, depth, bidirectional=both))
            for hidden, both in ((width, False), (width, True), (width // 2, True))
        )
    counts = {"layers": depth, "one": one, "two": two, "half": half}
    return {**counts, "ratio": two / one, "half_ratio": half / one}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Train, pad and count."""
    names = track(TRAINED, "bidirectional")
    trained = {name: over_seeds(config, name) for name in names}
    padded = {}
    for name, (_, kind, forget_bias) in PADDED.items():
        rows = [padding.errors(kind, forget_bias, config, s) for s in config.seeds]
        padded[name] = lab.by_place(rows, lab.median)
    counts = [parameters(config, depth) for depth in config.depths]
    cases = losses(trained, config)
    # The largest error over all lengths.
    cases |= {way: {"error": max(errors)} for way, errors in padded["lstm"].items()}
    cases |= {f"layers_{row['layers']}": row for row in counts}
    numbers = {
        f"{name}_{way}_{length}": error
        for name, ways in padded.items()
        for way, errors in ways.items()
        for length, error in zip(config.lengths, errors, strict=True)
    }
    for way in ("backward_lengths", "forward_gathered"):
        worst = max(max(ways[way]) for ways in padded.values())
        numbers[f"{way.partition('_')[2]}_worst"] = worst
    series = {"trained": trained, "padded": padded, "counts": counts}
    return {"numbers": numbers, "series": series, "cases": cases}


def over_uniform(case: Mapping[str, Any]) -> float:
    """The loss as a share of that of the uniform guess."""
    return case["loss"] / case["uniform"]


def beats_the_past(case: Mapping[str, Any]) -> lab.Outcome:
    """Below what can be known from the past, and not below what can be known."""
    bounds = case["both"] - 0.05, case["past"] - 0.05
    return lab.Outcome.between(case["loss"], *bounds)


def trained_rows(record: Mapping[str, Any]) -> dict[str, Any]:
    """By model its losses, and the best one without the target."""
    best = {"chain_one_way": "past", "chain_masked": "both"}
    return {
        name: {**result, "best": record["cases"][name][best.get(name, "uniform")]}
        for name, result in record["series"]["trained"].items()
    }


def padding_table(record: Mapping[str, Any]) -> str:
    """Errors of the backward final state, by length."""
    headers = [f"length {length}" for length in record["run"]["config"]["lengths"]]
    rows = [
        [PADDED[name][0], *map(lab.number, ways["backward_final"])]
        for name, ways in record["series"]["padded"].items()
    ]
    return lab.table(["layer", *headers], rows)


def parameters_table(record: Mapping[str, Any]) -> str:
    """Counts by depth, and their ratios to one direction."""
    headers = ["layers", "one direction", "two", "ratio", "two, half width", "ratio"]
    rows = [
        [lab.number(row[key]) for key in ("layers", "one", "two")]
        + [f"{row['ratio']:.2f}", lab.number(row["half"]), f"{row['half_ratio']:.2f}"]
        for row in record["series"]["counts"]
    ]
    return lab.table(headers, rows)


def draw_losses(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Test loss against updates, for the models over random tokens."""
    axes, every = figure.subplots(), record["run"]["config"]["every"]
    labels = {
        "one_way": "LSTM",
        "two_ways": "bidirectional",
        "mixed": "two layers, mixed",
        "separate": "not mixed",
        "masked": "mixed, masked",
    }
    curves = {
        label: [{"median": loss} for loss in record["series"]["trained"][name]["curve"]]
        for name, label in labels.items()
    }
    updates = [every * i for i in range(len(curves["LSTM"]))]
    ends = lab.lines(axes, updates, curves, theme, lab.line)
    axes.set_ylim(0, 1.15 * record["numbers"]["uniform"])
    axes.set_xlim(0, updates[-1])
    axes.set_xlabel("updates")
    axes.set_title("Test loss on independent random tokens, nats per token")
    lab.label_ends(axes, updates[-1], ends)


experiment = lab.Experiment(
    small=Config(
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
        seeds=(0,),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C52",
            "A bidirectional LSTM of 4 layers has more than twice the parameters of "
            "one direction.",
            lab.exactly("ratio", lambda case: case["ratio"] > 2.01),
            case="layers_4",
            control="layers_1",
        ),
        lab.Claim(
            "C53",
            "Trained to predict the next of independent random tokens, a bidirectional "
            "LSTM comes below a tenth of the uniform guess, since it reads the target.",
            lab.below(over_uniform, 0.1),
            case="two_ways_read",
            control="one_way_read",
        ),
        lab.Claim(
            "C53.last",
            "At the last position, whose target it cannot read, the same model is no "
            "better than the uniform guess; that is where generation would use it.",
            lab.above(over_uniform, 0.95),
            case="two_ways_last",
            control="two_ways_read",
        ),
        lab.Claim(
            "C54",
            "Of two bidirectional layers on top of each other the outputs beside a "
            "token tell it: predicted from them, random tokens cost less than a tenth "
            "of the uniform guess.",
            lab.below(over_uniform, 0.1),
            case="mixed",
            control="separate",
        ),
        lab.Claim(
            "C54.masked",
            "With the token masked in the input the same stack is back at the uniform "
            "guess.",
            lab.above(over_uniform, 0.95),
            case="masked",
            control="mixed",
        ),
        lab.Claim(
            "C54.chain",
            "On a chain with something to learn a masked stack uses both sides: its "
            "loss lies below the entropy given the past, and not below that given both "
            "sides.",
            beats_the_past,
            case="chain_masked",
            control="chain_one_way",
        ),
        lab.Claim(
            "C77",
            "Run over zero padding without packing, an LSTM of torch.nn returns for "
            "its shortest rows backward final states that are wrong by more than a "
            "twentieth of their norm.",
            lab.above("error", 0.05),
            case="backward_final",
            control="backward_lengths",
        ),
        lab.Claim(
            "C77.gather",
            "Taking the output at length - 1 gives the forward direction's final "
            "state, and not the backward direction's.",
            lab.above("error", 0.05),
            case="backward_gathered",
            control="forward_gathered",
        ),
    ],
    numbers=[
        {
            "uniform": "one_way.uniform",
            "chain_past": "one_way.past",
            "chain_both": "one_way.both",
            "half_ratio_1": "layers_1.half_ratio",
        },
        lab.each("loss"),
        lab.each("ratio"),
        {f"layers_{d}_{k}": f"layers_{d}.{k}" for d in (1, 2) for k in ("one", "two")},
    ],
    tables={
        "losses": lab.Table(
            rows=trained_rows,
            labels={
                "one_way": "LSTM, next token",
                "two_ways": "bidirectional LSTM, next token",
                "around": "one bidirectional layer, token between its neighbours",
                "mixed": "two bidirectional layers, mixed, the same",
                "separate": "two layers a direction, not mixed, the same",
                "masked": "two bidirectional layers, masked token",
                "chain_one_way": "chain: LSTM, next token",
                "chain_masked": "chain: two bidirectional layers, masked token",
            },
            heading="model and task",
            columns={
                "test loss": "loss.median",
                "over seeds": lab.span("loss"),
                "best without the target": "best",
            },
        ),
        "padding": padding_table,
        "parameters": parameters_table,
    },
    figures={"losses": draw_losses},
)
