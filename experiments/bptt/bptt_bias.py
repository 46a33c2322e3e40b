r"""How far the gradient of truncated BPTT is from the true one, and that it is biased.

The task is to repeat the input from some steps before; the loss is a mean of squared
errors over all steps from there on. Gradients of a layer's parameters before training,
for the same data: by the whole graph, and with the graph cut between chunks of K steps.
First their cosine, against K. Then the average of many draws of the data: an error that
is noise goes away in it, a bias stays. For comparison a gradient that is noisy and not
biased: the true one from a quarter of the rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.lab.claim import Claim, Outcome
from experiments.lab.drawing import DASHES, Theme
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import median, spread
from experiments.lab.tables import number, table
from seqref import LSTM, RNN
from seqref.recurrence import detach_state
from seqref.recurrent.bptt import truncated_chunks


@dataclass(frozen=True)
class Config:
    """Sizes, chunk sizes, and the draws that are averaged for chunks of `averaged`."""

    hidden_size: int
    input_size: int
    batch_size: int
    steps: int
    lag: int
    sizes: tuple[int, ...]
    averaged: int
    draws: tuple[int, ...]
    seeds: tuple[int, ...]


SMALL = Config(
    hidden_size=8,
    input_size=2,
    batch_size=8,
    steps=32,
    lag=8,
    sizes=(1, 4, 8, 16, 32),
    averaged=8,
    draws=(1, 4, 16),
    seeds=(0, 1),
)
FULL = Config(
    hidden_size=32,
    input_size=4,
    batch_size=16,
    steps=128,
    lag=8,
    sizes=(1, 2, 4, 8, 16, 32, 64, 128),
    averaged=16,
    draws=(1, 4, 16, 64),
    seeds=tuple(range(10)),
)
NETWORKS = {
    "lstm": "LSTM as it comes",
    "lstm_bias_3": "LSTM, forget bias + 3",
    "rnn": "RNN as it comes",
    "rnn_orthogonal": "RNN, orthogonal",
}


class Network(nn.Module):
    """A layer and a linear head, in float64."""

    def __init__(self, config: Config, name: str) -> None:
        super().__init__()
        kind = LSTM if name.startswith("lstm") else RNN
        width = config.hidden_size
        self.layer: Any = kind(config.input_size, width, dtype=torch.float64)
        self.head = nn.Linear(width, config.input_size, dtype=torch.float64)
        with torch.no_grad():
            if name == "lstm_bias_3":
                self.layer.cell.bias_ih[width : 2 * width].add_(3)
            if name == "rnn_orthogonal":
                nn.init.orthogonal_(self.layer.cell.weight_hh)


def gradient(
    network: Network, x: Float[Tensor, "batch time input"], lag: int, size: int
) -> Float[Tensor, " parameters"]:
    """Of the layer's parameters, in one vector; the graph is cut every `size` steps."""
    outputs, state = [], network.layer.initial_state(len(x))
    for chunk, _ in truncated_chunks(x, size):
        y, state = network.layer(chunk, detach_state(state))
        outputs.append(y)
    predicted = network.head(torch.cat(outputs, dim=1)[:, lag:])
    loss = (predicted - x[:, :-lag]).square().mean()
    found = torch.autograd.grad(loss, list(network.layer.parameters()))
    return torch.cat([part.flatten() for part in found])


def draw(config: Config, seed: int) -> Float[Tensor, "batch time input"]:
    """Standard normal inputs."""
    size = (config.batch_size, config.steps, config.input_size)
    return torch.randn(size, generator=generator(seed), dtype=torch.float64)


def by_size(config: Config, name: str, seed: int) -> list[dict[str, float]]:
    """Cosine and length of the truncated gradient against the true one."""
    with seeded(seed):
        network = Network(config, name)
    x = draw(config, seed + 1000)
    true = gradient(network, x, config.lag, config.steps)
    rows = []
    for size in config.sizes:
        cut = gradient(network, x, config.lag, size)
        cosine = torch.cosine_similarity(true, cut, dim=0).item()
        length = (cut.norm() / true.norm()).item()
        # Beyond nine decimals processors differ.
        rows.append({"cosine": round(cosine, 9), "length": round(length, 9)})
    return rows


def averages(config: Config, name: str, seed: int) -> dict[str, list[float]]:
    """Error of the average over 1, 4, ... draws, as a share of the true average."""
    with seeded(seed):
        network = Network(config, name)
    quarter = config.batch_size // 4
    true, cut, noisy = [], [], []
    for number_of_draw in range(max(config.draws)):
        x = draw(config, 10_000 * (seed + 1) + number_of_draw)
        true.append(gradient(network, x, config.lag, config.steps))
        cut.append(gradient(network, x, config.lag, config.averaged))
        noisy.append(gradient(network, x[:quarter], config.lag, config.steps))
    expected = torch.stack(true).mean(0)

    def errors(found: list[Tensor]) -> list[float]:
        off = torch.stack(found) - torch.stack(true)
        return [
            round((off[:n].mean(0).norm() / expected.norm()).item(), 9)
            for n in config.draws
        ]

    return {"truncated": errors(cut), "noisy": errors(noisy)}


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Cosines for each network and chunk size; averages for each network."""
    series: dict[str, Any] = {"cosine": {}, "length": {}, "average": {}}
    cases: dict[str, Any] = {}
    for name in track(NETWORKS, "bptt_bias"):
        found = [by_size(config, name, seed) for seed in config.seeds]
        for key in ("cosine", "length"):
            series[key][name] = [
                spread(rows[i][key] for rows in found) for i in range(len(config.sizes))
            ]
        for size, cosine in zip(config.sizes, series["cosine"][name], strict=True):
            cases[f"{name}_{size}"] = {f"cosine_{k}": v for k, v in cosine.items()}
        # The last chunk size is the whole sequence.
        cases[f"{name}_whole"] = cases[f"{name}_{config.sizes[-1]}"]
        averaged = [averages(config, name, seed) for seed in config.seeds]
        for kind in ("truncated", "noisy"):
            columns = zip(*(each[kind] for each in averaged), strict=True)
            errors = [median(column) for column in columns]
            series["average"][f"{name}_{kind}"] = errors
            cases[f"{name}_{kind}"] = {
                "first": errors[0],
                "last": errors[-1],
                "left": errors[-1] / errors[0],
            }
    return {"numbers": summary(cases), "series": series, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, float]:
    """Every number of every case under one name."""
    return {
        f"{name}_{key}": value
        for name, case in cases.items()
        for key, value in case.items()
    }


def _points_elsewhere(case: Mapping[str, Any]) -> Outcome:
    found = case["cosine_high"]
    return Outcome.all_of(found, Outcome.above(1 - found, 0.01))


def _stays(case: Mapping[str, Any]) -> Outcome:
    return Outcome.above(case["left"], 0.5)


CLAIMS = (
    Claim(
        "C26",
        "With chunks of 8 steps the gradient of an LSTM with a forget bias of 3 has a "
        "cosine below 0.99 to the true gradient, in every network.",
        _points_elsewhere,
        case="lstm_bias_3_8",
        control="lstm_bias_3_whole",
    ),
    Claim(
        "C26.bias",
        "In the average over many draws more than half of the truncated gradient's "
        "error is left: it is a bias.",
        _stays,
        case="lstm_bias_3_truncated",
        control="lstm_bias_3_noisy",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Cosines by chunk size; errors of averages by number of draws."""
    config, series = record["run"]["config"], record["series"]
    cosines = [
        [text, *[f"{row['median']:.2f}" for row in series["cosine"][name]]]
        for name, text in NETWORKS.items()
    ]
    kinds = {
        "truncated": f"chunks of {config['averaged']}",
        "noisy": "a quarter of the rows, whole graph",
    }
    errors = [
        [f"{text}, {label}", *map(number, series["average"][f"{name}_{kind}"])]
        for name, text in NETWORKS.items()
        for kind, label in kinds.items()
    ]
    return {
        "cosine": table(["cosine, K =", *map(str, config["sizes"])], cosines),
        "average": table(
            ["error of the average of", *[f"{n} draws" for n in config["draws"]]],
            errors,
        ).replace("| 1 draws", "| 1 draw"),
    }


def draw_cosine(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Cosine against the chunk size: medians, bands from lowest to highest."""
    axes = figure.subplots()
    sizes = record["run"]["config"]["sizes"]
    places = list(range(len(sizes)))
    for i, (name, text) in enumerate(NETWORKS.items()):
        rows = record["series"]["cosine"][name]
        middle = [row["median"] for row in rows]
        colour = theme.colours[i]
        axes.fill_between(
            places,
            [row["low"] for row in rows],
            [row["high"] for row in rows],
            color=colour,
            alpha=0.15,
            linewidth=0,
        )
        axes.plot(places, middle, color=colour, linestyle=DASHES[i], label=text)
    axes.set_xticks(places, [str(size) for size in sizes])
    axes.set_xlim(0, places[-1])
    axes.set_xlabel("chunk size K")
    axes.set_title("Cosine of the truncated to the true gradient")
    # All lines end at 1, so their names cannot stand at their ends.
    axes.legend(loc="lower right", frameon=False, handlelength=3.5)


FIGURES = {"cosine": draw_cosine}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
