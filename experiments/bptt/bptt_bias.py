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

from experiments import lab
from experiments.bptt._truncated import outputs_in_chunks
from seqref import LSTM, RNN
from seqref.recurrent import orthogonal_

NETWORKS = {
    "lstm": "LSTM as it comes",
    "lstm_bias_3": "LSTM, forget bias + 3",
    "rnn": "RNN as it comes",
    "rnn_orthogonal": "RNN, orthogonal",
}


@dataclass(frozen=True)
class Config:
    """Sizes, chunk sizes, and the draws that are averaged for chunks of `averaged`."""

    hidden_size: int = 32
    input_size: int = 4
    batch_size: int = 16
    steps: int = 128
    lag: int = 8
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)
    averaged: int = 16
    draws: tuple[int, ...] = (1, 4, 16, 64)
    seeds: tuple[int, ...] = tuple(range(10))


class Network(nn.Module):
    """A layer and a linear head, in float64."""

    def __init__(self, config: Config, name: str, seed: int) -> None:
        super().__init__()
        kind = LSTM if name.startswith("lstm") else RNN
        outside, width = config.input_size, config.hidden_size
        with lab.seeded(seed), torch.no_grad():
            self.layer: Any = kind(outside, width, dtype=torch.float64)
            self.head = nn.Linear(width, outside, dtype=torch.float64)
            if name == "lstm_bias_3":
                self.layer.cell.bias_ih.chunk(4)[1].add_(3)
            if name == "rnn_orthogonal":
                orthogonal_(self.layer)


def gradient(
    network: Network, x: Float[Tensor, "batch time input"], lag: int, size: int
) -> Float[Tensor, " parameters"]:
    """Of the layer's parameters, in one vector; the graph is cut every `size` steps."""
    predicted = network.head(outputs_in_chunks(network.layer, x, size)[:, lag:])
    loss = (predicted - x[:, :-lag]).square().mean()
    parts = torch.autograd.grad(loss, list(network.layer.parameters()))
    return torch.cat([part.flatten() for part in parts])


def draw(config: Config, seed: int) -> Float[Tensor, "batch time input"]:
    """Standard normal inputs."""
    return lab.normal(seed, config.batch_size, config.steps, config.input_size)


def by_size(config: Config, name: str, seed: int) -> dict[str, list[float]]:
    """Cosine and length of the truncated gradient against the true one."""
    network, x = Network(config, name, seed), draw(config, seed + 1000)
    true = gradient(network, x, config.lag, config.steps)
    cuts = [gradient(network, x, config.lag, size) for size in config.sizes]
    # Beyond nine decimals processors differ.
    return {
        "cosine": [round(torch.cosine_similarity(true, c, 0).item(), 9) for c in cuts],
        "length": [round((cut.norm() / true.norm()).item(), 9) for cut in cuts],
    }


def averages(config: Config, name: str, seed: int) -> dict[str, list[float]]:
    """Error of the average over 1, 4, ... draws, as a share of the true average."""
    network, quarter = Network(config, name, seed), config.batch_size // 4
    true, cut, noisy = [], [], []
    for number_of_draw in range(max(config.draws)):
        x = draw(config, 10_000 * (seed + 1) + number_of_draw)
        true.append(gradient(network, x, config.lag, config.steps))
        cut.append(gradient(network, x, config.lag, config.averaged))
        noisy.append(gradient(network, x[:quarter], config.lag, config.steps))
    expected = torch.stack(true).mean(0).norm()

    def errors(gradients: list[Tensor]) -> list[float]:
        off = torch.stack(gradients) - torch.stack(true)
        norms = [off[:n].mean(0).norm() / expected for n in config.draws]
        return [round(norm.item(), 9) for norm in norms]

    return {"truncated": errors(cut), "noisy": errors(noisy)}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Cosines for each network and chunk size; averages for each network."""
    series: dict[str, Any] = {"cosine": {}, "length": {}, "average": {}}
    cases: dict[str, Any] = {}
    for name in track(NETWORKS, "bptt_bias"):
        rows = [by_size(config, name, seed) for seed in config.seeds]
        for key, points in lab.by_place(rows, lab.spread).items():
            series[key][name] = points
        cosines = series["cosine"][name]
        # The last chunk size is the whole sequence.
        sizes = [*config.sizes, "whole"]
        for size, cosine in zip(sizes, [*cosines, cosines[-1]], strict=True):
            cases[f"{name}_{size}"] = {f"cosine_{k}": v for k, v in cosine.items()}
        rows = [averages(config, name, seed) for seed in config.seeds]
        for kind, errors in lab.by_place(rows, lab.median).items():
            series["average"][f"{name}_{kind}"] = errors
            case = {"first": errors[0], "last": errors[-1]}
            cases[f"{name}_{kind}"] = case | {"left": errors[-1] / errors[0]}
    return {"series": series, "cases": cases}


def cosine_table(record: Mapping[str, Any]) -> str:
    """Medians by chunk size."""
    points = record["series"]["cosine"]
    rows = [
        [text, *(f"{point['median']:.2f}" for point in points[name])]
        for name, text in NETWORKS.items()
    ]
    return lab.table(["cosine, K =", *map(str, record["run"]["config"]["sizes"])], rows)


def average_table(record: Mapping[str, Any]) -> str:
    """Errors of averages by number of draws."""
    config, errors = record["run"]["config"], record["series"]["average"]
    kinds = {
        "truncated": f"chunks of {config['averaged']}",
        "noisy": "a quarter of the rows, whole graph",
    }
    rows = [
        [f"{text}, {label}", *map(lab.number, errors[f"{name}_{kind}"])]
        for name, text in NETWORKS.items()
        for kind, label in kinds.items()
    ]
    draws = [f"{n} draw" + "s" * (n > 1) for n in config["draws"]]
    return lab.table(["error of the average of", *draws], rows)


def draw_cosine(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Cosine against the chunk size: medians, bands from lowest to highest."""
    axes, sizes = figure.subplots(), record["run"]["config"]["sizes"]
    places = range(len(sizes))
    for i, name in enumerate(NETWORKS):
        lab.band(axes, places, record["series"]["cosine"][name], theme, i, alpha=0.15)
    axes.set_xticks(places, map(str, sizes))
    axes.set_xlim(0, places[-1])
    axes.set_xlabel("chunk size K")
    axes.set_title("Cosine of the truncated to the true gradient")
    # All lines end at 1, so their names cannot stand at their ends.
    style = {"loc": "lower right", "frameon": False, "handlelength": 3.5}
    axes.legend(axes.lines, NETWORKS.values(), **style)


experiment = lab.Experiment(
    small=Config(
        hidden_size=8,
        input_size=2,
        batch_size=8,
        steps=32,
        sizes=(1, 4, 8, 16, 32),
        averaged=8,
        draws=(1, 4, 16),
        seeds=(0, 1),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C26",
            "With chunks of 8 steps the gradient of an LSTM with a forget bias of 3 "
            "has a cosine below 0.99 to the true gradient, in every network.",
            lab.all_of(
                lab.above(lambda case: 1 - case["cosine_high"], 0.01),
                number="cosine_high",
            ),
            case="lstm_bias_3_8",
            control="lstm_bias_3_whole",
        ),
        lab.Claim(
            "C26.bias",
            "In the average over many draws more than half of the truncated gradient's "
            "error is left: it is a bias.",
            lab.above("left", 0.5),
            case="lstm_bias_3_truncated",
            control="lstm_bias_3_noisy",
        ),
    ],
    numbers=[lab.everything],
    tables={"cosine": cosine_table, "average": average_table},
    figures={"cosine": draw_cosine},
)
