r"""What additive scores keep for the backward pass, beside scores by a product.

The bytes of tensors that are alive after the forward pass of attention, for each
score, by the width of queries and keys: additive scores through autograd, the same with
a backward pass that makes tanh again, and scores that are inner products. Inputs are
there in any case and are not counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from seqref.ops.additive_attention import additive_attention
from seqref.testing import LiveBytes


@dataclass(frozen=True)
class Config:
    """Sizes; the width of the values is one, so that contexts count little."""

    n_queries: int = 64
    n_sources: int = 64
    widths: tuple[int, ...] = (16, 64, 256)
    seeds: tuple[int, ...] = (0,)


def additive(backend: str) -> Callable[..., Any]:
    """The op by one of its backends."""

    def run(query: Tensor, keys: Tensor, values: Tensor, weight: Tensor) -> Any:
        return additive_attention(query, keys, values, weight, backend=backend)

    return run


def product(query: Tensor, keys: Tensor, values: Tensor, weight: Tensor) -> Any:
    """Scores by inner products; no weights of their own."""
    weights = torch.softmax(query @ keys.mT, dim=-1)
    return weights @ values, weights


WAYS = {
    "additive": ("additive, autograd", additive("reference")),
    "by_hand": ("additive, tanh made again", additive("parallel")),
    "product": ("inner product", product),
}


def kept_per_score(config: Config, run: Callable[..., Any], width: int) -> float:
    """Bytes alive after the forward pass, over the number of scores."""
    torch.manual_seed(config.seeds[0])
    time, source = config.n_queries, config.n_sources
    shapes = [(1, time, width), (1, source, width), (1, source, 1), (width,)]
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    with LiveBytes(inputs) as live:
        outputs = run(*inputs)
        size = live.now
    # Held until here: what a graph keeps goes with it.
    del outputs
    return size / (time * source)


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Count everything; nothing here depends on the machine's speed."""
    cases = {}
    for way, (_, attention) in track(WAYS.items(), "additive_memory"):
        sizes = [kept_per_score(config, attention, width) for width in config.widths]
        rise = (sizes[-1] - sizes[0]) / (config.widths[-1] - config.widths[0])
        cases[way] = {"rise": rise, "widest": sizes[-1], "sizes": sizes}
    for case in cases.values():
        case["of_product"] = case["widest"] / cases["product"]["widest"]
    rows = [
        {"width": width, **{way: case["sizes"][i] for way, case in cases.items()}}
        for i, width in enumerate(config.widths)
    ]
    return {"numbers": {}, "series": {"kept": rows}, "cases": cases}


experiment = lab.Experiment(
    small=Config(n_queries=32, n_sources=48, widths=(16, 128)),
    run=run,
    claims=[
        lab.Claim(
            "C148",
            "Through autograd, additive attention keeps at least 4 bytes more for each "
            "score with each unit of width: all of tanh, in float32.",
            lab.exactly("rise", lambda case: case["rise"] >= 3.99),
            case="additive",
            control="by_hand",
        ),
        lab.Claim(
            "C148.again",
            "Where the backward pass makes tanh again, at most four times the bytes of "
            "inner products are kept.",
            lab.below("of_product", 4),
            case="by_hand",
            control="additive",
        ),
    ],
    numbers=[lab.each("rise"), lab.each("widest"), lab.each("of_product")],
    tables={
        "kept": lab.Table(
            rows="series.kept",
            columns={
                "width D": "width",
                **{text: lab.fixed(way, 1) for way, (text, _) in WAYS.items()},
            },
        )
    },
)
