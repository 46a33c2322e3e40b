r"""The time of one decoding step by the length of the context.

One row, one thread, no gradient: a step of an LSTM after so many steps, a step of a
transformer layer of equal width over a cache of so many keys, and the same layer
without a cache, which runs over the whole context for its last output. The cache is
allocated once and written in place. What is stored are ratios to the LSTM's step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, relu, scaled_dot_product_attention

from experiments import lab
from experiments.lab import ratio_cells, timing
from seqref import LSTM


@dataclass(frozen=True)
class Config:
    """Sizes; without a cache contexts above `whole` are left out."""

    width: int = 256
    head: int = 64
    contexts: tuple[int, ...] = (16, 256, 1024, 4096, 16384)
    whole: int = 1024
    rounds: int = 15
    steps: int = 20
    seeds: tuple[int, ...] = (0,)


class Block:
    """A transformer layer, norm first, with a cache that is allocated once."""

    def __init__(self, config: Config, context: int) -> None:
        width = config.width
        self.heads = width // config.head
        shapes = (3 * width, width), (width, width), (4 * width, width)
        self.qkv, self.out, self.wide = (torch.randn(s) / width**0.5 for s in shapes)
        self.narrow = torch.randn(width, 4 * width) / (2 * width**0.5)
        size = 1, self.heads, context, config.head
        self.keys, self.values = torch.randn(size), torch.randn(size)

    def heads_of(self, x: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values (1, heads, steps, head)."""
        both = linear(layer_norm(x, x.shape[-1:]), self.qkv)
        return both.unflatten(-1, (3 * self.heads, -1)).transpose(-2, -3).chunk(3, 1)

    def ends(self, x: Tensor, y: Tensor) -> Tensor:
        """From the heads' means to the output."""
        x = x + linear(y.transpose(-2, -3).flatten(-2), self.out)
        inner = relu(linear(layer_norm(x, x.shape[-1:]), self.wide))
        return x + linear(inner, self.narrow)

    def cached(self, x: Tensor) -> Tensor:
        """A step at the last place of the context; x (1, 1, width)."""
        q, k, v = self.heads_of(x)
        self.keys[:, :, -1:], self.values[:, :, -1:] = k, v
        y = scaled_dot_product_attention(q, self.keys, self.values)
        return self.ends(x, y)

    def whole(self, x: Tensor) -> Tensor:
        """The last output of a causal pass over all of x (1, context, width)."""
        q, k, v = self.heads_of(x)
        y = scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.ends(x, y)[:, -1:]


def repeated(call: Callable[[], Any], steps: int) -> timing.Contestant:
    """A call so many times, without gradients."""

    def run() -> None:
        with torch.no_grad():
            for _ in range(steps):
                call()

    return timing.Contestant(run, units=steps, counted=False)


def contestants(config: Config) -> dict[str, timing.Contestant]:
    """An LSTM's step, early and late, and steps of the layer at each context."""
    layer = LSTM(config.width, config.width)
    x_t = torch.randn(1, config.width)
    late = layer.initial_state(1)
    with torch.no_grad():
        _, late = layer(torch.randn(1, max(config.contexts), config.width), late)
    early = layer.initial_state(1)
    runs = {
        "lstm": repeated(lambda: layer.step(x_t, early), config.steps),
        "lstm_late": repeated(lambda: layer.step(x_t, late), config.steps),
        "lstm_torch": repeated(torch_step(config, x_t), config.steps),
    }
    for context in config.contexts:
        block = Block(config, context)
        token = torch.randn(1, 1, config.width)
        runs[f"cached_{context}"] = repeated(
            lambda block=block, token=token: block.cached(token), config.steps
        )
        if context <= config.whole:
            tokens = torch.randn(1, context, config.width)
            runs[f"whole_{context}"] = repeated(
                lambda block=block, tokens=tokens: block.whole(tokens), 2
            )
    return runs


def torch_step(config: Config, x_t: Tensor) -> Callable[[], Any]:
    """A step of torch's cell."""
    cell = nn.LSTMCell(config.width, config.width)
    return lambda: cell(x_t)


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every contestant in one run."""
    with timing.setting(), lab.seeded(config.seeds[0]):
        compared = timing.compare(contestants(config), "lstm", config.rounds)
    ratios = {name: ratio["median"] for name, ratio in compared["ratios"].items()}
    first, last = min(config.contexts), max(config.contexts)
    rows = [
        {
            "context": context,
            "cached": compared["ratios"][f"cached_{context}"],
            "whole": compared["ratios"].get(f"whole_{context}"),
            "lstm_state": 2 * config.width,
            "cache": 2 * context * config.width,
        }
        for context in config.contexts
    ]
    cases = {
        "lstm": {"growth": ratios["lstm_late"]},
        "cached": {"growth": ratios[f"cached_{last}"] / ratios[f"cached_{first}"]},
        "whole": {
            "growth": ratios[f"whole_{config.whole}"] / ratios[f"whole_{first}"],
            "over_cached": ratios[f"whole_{config.whole}"]
            / ratios[f"cached_{config.whole}"],
        },
    }
    numbers = ratios | {"microseconds": compared["seconds"] * 1e6}
    series = {"rows": rows, "ratios": compared["ratios"]}
    return {"numbers": numbers, "series": series, "cases": cases}


def of_ratio(name: str) -> lab.Cell:
    """A ratio with its quartiles, or that there is none."""

    def write(row: dict[str, Any]) -> str:
        found = row[name]
        return ratio_cells.NONE if found is None else lab.quartiles_text(found)

    return write


def draw_context(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Time of a step by context, both on logarithms."""
    axes, rows = figure.subplots(), record["series"]["rows"]
    last = rows[-1]["context"]
    curves = {
        "with a cache": [(r["context"], r["cached"]["median"]) for r in rows],
        "without a cache": [
            (r["context"], r["whole"]["median"]) for r in rows if r["whole"]
        ],
        "LSTM": [(rows[0]["context"], 1.0), (last, 1.0)],
    }
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for place, (name, points) in enumerate(curves.items()):
        colour = theme.colours[place]
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=colour, linestyle=lab.DASHES[place], marker="o")
        lab.label_line(axes, x[-1], y[-1], name, colour)
    ticks = [row["context"] for row in rows]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_yticks([1, 10, 100], ["1", "10", "100"])
    axes.minorticks_off()
    axes.set_xlabel("context")
    axes.set_title("Time of a decoding step, in steps of an LSTM")


experiment = lab.Experiment(
    small=Config(contexts=(16, 1024, 4096), rounds=5, steps=5),
    run=run,
    claims=[
        lab.Claim(
            "C86.flat",
            "A step of an LSTM after the longest context takes less than 1.2 times as "
            "long as its first; one of a transformer layer over a cache of that length "
            "takes longer than over the shortest.",
            lab.below("growth", 1.2),
            case="lstm",
            control="cached",
            timed=True,
        ),
        lab.Claim(
            "C86.cache",
            "Without a cache the step grows more than ten times as long from the "
            "shortest context to 1,024; an LSTM's does not.",
            lab.above("growth", 10.0),
            case="whole",
            control="lstm",
            timed=True,
        ),
    ],
    numbers=[lab.each("growth", "growth"), {"over_cached": "whole.over_cached"}],
    tables={
        "steps": lab.Table(
            rows="series.rows",
            columns={
                "context": "context",
                "layer with a cache": of_ratio("cached"),
                "layer without": of_ratio("whole"),
                "numbers in the LSTM's state": "lstm_state",
                "in the cache": "cache",
            },
        ),
    },
    figures={"context": draw_context},
)
