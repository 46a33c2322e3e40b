r"""What a head costs: parameters, multiplications, weights, and the cache.

`MultiHeadAttention` of one width, counted and not timed. First with more and more
heads, whose width shrinks so that their total stays, and with heads of one width, whose
total grows. Then with fewer heads of keys than of queries. Multiplications are those of
matrix products in a forward pass, by torch's counter; the cache is the bytes of the
state that the layer returns.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from experiments import lab
from seqref import MultiHeadAttention


@dataclass(frozen=True)
class Config:
    """Width, steps, and numbers of heads."""

    d_model: int = 512
    time: int = 256
    heads: tuple[int, ...] = (1, 2, 4, 8, 16)
    kv_heads: tuple[int, ...] = (8, 4, 2, 1)
    seeds: tuple[int, ...] = (0,)


def counted(config: Config, n_heads: int, **options: Any) -> dict[str, Any]:
    """Everything that is counted of one layer."""
    with lab.seeded(config.seeds[0]):
        layer = MultiHeadAttention(config.d_model, n_heads, **options)
        x = torch.randn(1, config.time, config.d_model)
    counter = FlopCounterMode(display=False)
    # Of torch's kernels for CPUs only this one's products are counted.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        _, state = layer(x)
    parameters = sum(p.numel() for p in layer.parameters())
    return {
        "n_heads": n_heads,
        "n_kv_heads": layer.n_kv_heads,
        "d_head": layer.d_head,
        "parameters": parameters,
        # A multiplication and an addition are two operations of the counter.
        "products": counter.get_total_flops() // 2,
        "weights": n_heads * config.time**2,
        "cache": (state.k.nbytes + state.v.nbytes) // config.time,
    }


def spread_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Each quantity of the most heads over that of the fewest."""
    first, last = rows[0], rows[-1]
    names = ("parameters", "products", "weights", "cache", "n_kv_heads")
    return {name: last[name] / first[name] for name in names}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Count every layer; nothing here depends on the machine."""
    narrowest = config.d_model // config.heads[-1]
    most = config.kv_heads[0]
    ways: dict[str, list[tuple[int, dict[str, Any]]]] = {
        "split": [(n, {}) for n in config.heads],
        "added": [(n, {"d_head": narrowest}) for n in config.heads],
        "shared": [(most, {"n_kv_heads": n}) for n in config.kv_heads],
        "all": [(n, {}) for n in config.kv_heads],
    }
    series = {
        name: [counted(config, n_heads, **options) for n_heads, options in way]
        for name, way in track(ways.items(), "attention_heads")
    }
    cases = {name: spread_of(rows) for name, rows in series.items()}
    return {"numbers": {}, "series": series, "cases": cases}


COUNTS = {
    "parameters": "parameters",
    "products": "products",
    "weights": "weights",
    "bytes of cache a step": "cache",
}

experiment = lab.Experiment(
    small=Config(d_model=64, time=16, heads=(1, 4), kv_heads=(4, 1)),
    run=run,
    claims=[
        lab.Claim(
            "C168",
            "At one total width, more heads cost neither parameters nor products.",
            lab.exactly(
                "products",
                lambda case: case["products"] == case["parameters"] == 1,
            ),
            case="split",
            control="added",
        ),
        lab.Claim(
            "C169",
            "With one head of keys for all, the cache shrinks by the number of heads; "
            "with fewer and wider heads it does not shrink.",
            lab.exactly("cache", lambda case: case["cache"] == case["n_kv_heads"]),
            case="shared",
            control="all",
        ),
        lab.Claim(
            "C169.products",
            "With one head of keys for all, the share of products that is left is at "
            "least twice that of the heads of keys; where heads of queries go too, "
            "the shares are equal.",
            lab.exactly(
                "products",
                lambda case: case["products"] >= 2 * case["n_kv_heads"],
            ),
            case="shared",
            control="added",
        ),
    ],
    numbers=[
        lab.each("parameters"),
        lab.each("products"),
        lab.each("weights"),
        lab.each("cache"),
    ],
    tables={
        "split": lab.Table(
            rows="series.split",
            columns={"heads": "n_heads", "width of a head": "d_head", **COUNTS},
        ),
        "shared": lab.Table(
            rows="series.shared",
            columns={"heads": "n_heads", "heads of keys": "n_kv_heads", **COUNTS},
        ),
    },
)
