r"""What a window leaves: pairs of positions, kept keys, and how far a stack reaches.

Counted, without a clock. The pairs of queries and keys that a pattern allows, by
length: all, causal, a causal window, a window to both sides with global tokens, and the
strided pattern of sparse transformers. The bytes of the state and the multiplications
of one step, after n steps and after four times as many, of a layer that keeps its
window and of one that keeps all and masks. And gradients of the last output of a stack
of layers with residual sums and norms, before training: how far back they are not
zero, and within which distance almost all of them lie.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import layer_norm
from torch.utils.flop_counter import FlopCounterMode

from experiments import lab
from seqref import MultiHeadAttention, SlidingWindowAttention


@dataclass(frozen=True)
class Config:
    """Lengths, each four times the one before; windows, depths and seeds."""

    lengths: tuple[int, ...] = (256, 1024, 4096)
    half_width: int = 64
    global_tokens: int = 4
    window: int = 128
    steps: int = 512
    d_model: int = 64
    n_heads: int = 4
    stacks: tuple[tuple[int, int], ...] = ((1, 16), (2, 16), (4, 16), (8, 16), (4, 32))
    part: float = 0.95
    seeds: tuple[int, ...] = tuple(range(5))


# Patterns: True where query i sees key j.


def full(i: Tensor, j: Tensor, config: Config) -> Tensor:
    """Every key."""
    return (i == i) & (j == j)


def causal(i: Tensor, j: Tensor, config: Config) -> Tensor:
    """Every key up to the query's own position."""
    return j <= i


def window(i: Tensor, j: Tensor, config: Config) -> Tensor:
    """The query's own position and those before it, `window` in all."""
    return (j <= i) & (i - j < config.window)


def window_and_global(i: Tensor, j: Tensor, config: Config) -> Tensor:
    """`half_width` to each side; the first tokens see all and are seen by all."""
    near = (i - j).abs() <= config.half_width
    return near | (i < config.global_tokens) | (j < config.global_tokens)


def strided(i: Tensor, j: Tensor, config: Config) -> Tensor:
    """The last root of n positions, and every root-of-n-th before them."""
    stride = round(len(i) ** 0.5)
    return (j <= i) & ((i - j < stride) | ((i - j) % stride == 0))


PATTERNS: dict[str, Callable[[Tensor, Tensor, Config], Tensor]] = {
    "full": full,
    "causal": causal,
    "strided": strided,
    "window": window,
    "window_and_global": window_and_global,
}
TITLES = {
    "full": "all",
    "causal": "causal",
    "strided": "strided, causal",
    "window": "window, causal",
    "window_and_global": "window to both sides, global tokens",
}


def pairs(config: Config, name: str) -> dict[str, Any]:
    """How many pairs a pattern allows at each length, and the last growth."""
    counts = []
    for length in config.lengths:
        places = torch.arange(length)
        seen = PATTERNS[name](places[:, None], places, config)
        counts.append(int(seen.expand(length, length).sum()))
    return {
        "counts": counts,
        "growth": counts[-1] / counts[-2],
        "density": counts[-1] / config.lengths[-1] ** 2,
        "by_query": counts[-1] / config.lengths[-1],
    }


def kept(config: Config, layer: Any) -> dict[str, Any]:
    """The state and one step, after `steps` steps and after four times as many."""
    sizes, products = [], []
    for steps in (config.steps, 4 * config.steps):
        with lab.seeded(config.seeds[0]), torch.no_grad():
            _, state = layer(torch.randn(1, steps, config.d_model))
            counter = FlopCounterMode(display=False)
            # Of torch's kernels for CPUs only this one's products are counted.
            with sdpa_kernel(SDPBackend.MATH), counter:
                layer.step(torch.randn(1, config.d_model), state)
        sizes.append(state.k.nbytes + state.v.nbytes)
        products.append(counter.get_total_flops() // 2)
    return {
        "sizes": sizes,
        "products": products,
        "growth_state": sizes[1] / sizes[0],
        "growth_products": products[1] / products[0],
    }


def by_distance(config: Config, layers: Sequence[nn.Module], length: int) -> Tensor:
    """Norm of the last output's gradient by each input, the nearest first."""
    x = torch.randn(1, length, config.d_model, dtype=torch.float64).requires_grad_()
    y = x
    for layer in layers:
        y = y + layer(layer_norm(y, y.shape[-1:]))[0]
    loss = (y[0, -1] * torch.randn(config.d_model, dtype=torch.float64)).sum()
    (grad,) = torch.autograd.grad(loss, x)
    return grad[0].norm(dim=1).flip(0)


def stack(
    config: Config, depth: int, width: int, whole: bool, seed: int
) -> dict[str, Any]:
    """One stack: the reach, the distance that holds `part`, and the norms."""
    options: dict[str, Any] = {"dtype": torch.float64}
    formula = depth * (width - 1) + 1
    with lab.seeded(seed):
        layers = [
            MultiHeadAttention(config.d_model, config.n_heads, **options)
            if whole
            else SlidingWindowAttention(
                config.d_model, config.n_heads, width, **options
            )
            for _ in range(depth)
        ]
        norms = by_distance(config, layers, formula + width)
    reach = int((norms > 0).nonzero().max()) + 1
    # The own position is left out: the residual sum brings all of it.
    held = norms[1:].cumsum(0) / norms[1:].sum()
    near = int((held < config.part).sum()) + 1
    return {
        "reach": reach,
        "formula": formula,
        "near": near / reach,
        "last": (norms[reach - 1] / norms[1]).item(),
        "norms": norms[1:reach].div(norms[1]).log10().tolist(),
    }


def stacks(config: Config, whole: bool) -> dict[str, Any]:
    """Every stack: whether each reach is that of the formula, and where most lies."""
    rows = []
    for depth, width in config.stacks:
        drawn = [stack(config, depth, width, whole, seed) for seed in config.seeds]
        rows.append(
            {
                "depth": depth,
                "window": width,
                "formula": drawn[0]["formula"],
                "reaches": sorted({one["reach"] for one in drawn}),
                "near": lab.spread(one["near"] for one in drawn),
                "last": lab.spread(one["last"] for one in drawn),
                "norms": drawn[0]["norms"],
            }
        )
    deepest = max(rows, key=lambda row: row["depth"])
    return {
        "equal": sum(row["reaches"] == [row["formula"]] for row in rows),
        "of": len(rows),
        "near": deepest["near"],
        "last": deepest["last"],
        "rows": rows,
    }


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Every count; nothing here depends on the machine but the last digits."""
    sizes = config.d_model, config.n_heads
    layers = {
        "keeps_window": SlidingWindowAttention(*sizes, config.window),
        "keeps_all": MultiHeadAttention(*sizes, window=config.window),
    }
    reached = {
        name: stacks(config, whole)
        for name, whole in track(
            {"windowed_stack": False, "full_stack": True}.items(), "window_counts"
        )
    }
    series = {name: case.pop("rows") for name, case in reached.items()}
    found = {name: pairs(config, name) for name in PATTERNS}
    states = {name: kept(config, layer) for name, layer in layers.items()}
    rows = [{"pattern": TITLES[name], **case} for name, case in found.items()]
    return {
        "series": {"patterns": rows, **series},
        "cases": {**found, **states, **reached},
    }


def draw_reach(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Gradients by distance, of one window and more and more layers."""
    axes, ends = figure.subplots(), []
    rows = [row for row in record["series"]["windowed_stack"] if row["window"] == 16]
    for place, row in enumerate(rows):
        colour = theme.colours[place]
        distances = range(1, len(row["norms"]) + 1)
        axes.plot(distances, row["norms"], color=colour, linestyle=lab.DASHES[place])
        axes.plot(len(row["norms"]), row["norms"][-1], marker="o", color=colour)
        many = "layers" if row["depth"] > 1 else "layer"
        ends.append((row["norms"][-1], f"{row['depth']} {many}", colour))
    last = max(len(row["norms"]) for row in rows)
    axes.set_xlim(1, last)
    axes.set_xlabel("distance from the last position")
    axes.set_title("Gradient over that at distance 1; each ends at its reach")
    lab.power_ticks(axes, range(-12, 1, 3))
    lab.label_ends(axes, last, ends)


experiment = lab.Experiment(
    small=Config(
        lengths=(16, 64, 256),
        half_width=4,
        global_tokens=1,
        window=8,
        steps=32,
        d_model=16,
        n_heads=2,
        stacks=((1, 5), (4, 16)),
        seeds=(0, 1),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C90",
            "With a window to both sides and global tokens, the pairs of positions "
            "grow at most 4.6-fold with four times the length; those of full attention "
            "grow faster.",
            lab.below("growth", 4.6),
            case="window_and_global",
            control="full",
        ),
        lab.Claim(
            "C90.strided",
            "With the root of the length as its stride, the strided pattern has seven "
            "to nine times the pairs at four times the length.",
            lab.between("growth", 7, 9),
            case="strided",
            control="causal",
        ),
        lab.Claim(
            "C172",
            "After four times as many steps the state of a layer that keeps its window "
            "has the bytes that it had; a cache that keeps all has four times as many.",
            lab.exactly("growth_state", lambda case: case["growth_state"] == 1),
            case="keeps_window",
            control="keeps_all",
        ),
        lab.Claim(
            "C172.step",
            "Nor does a step take more multiplications; with a window that is a mask "
            "over a cache of all, it does.",
            lab.exactly("growth_products", lambda case: case["growth_products"] == 1),
            case="keeps_window",
            control="keeps_all",
        ),
        lab.Claim(
            "C173",
            "N layers with a window of w reach N (w - 1) + 1 positions, in every "
            "stack; without a window they reach all.",
            lab.exactly("equal", lambda case: case["equal"] == case["of"]),
            case="windowed_stack",
            control="full_stack",
        ),
        lab.Claim(
            "C173.near",
            "Before training 95 % of the gradient of the deepest stack lies within "
            "0.6 of its reach, the own position left out; without windows it does not.",
            lab.below("near.high", 0.6, lab.share),
            case="windowed_stack",
            control="full_stack",
        ),
    ],
    numbers=[
        lab.each("growth", cases=tuple(PATTERNS)),
        lab.each("density", cases=tuple(PATTERNS)),
        lab.each("by_query", cases=tuple(PATTERNS)),
        lab.each("growth_state"),
        lab.each("growth_products"),
        lab.each("near.median", "near"),
        lab.each("last.median", "last"),
        {
            "state_bytes": "keeps_window.sizes.0",
            "cache_short": "keeps_all.sizes.0",
            "cache_long": "keeps_all.sizes.1",
        },
    ],
    tables={
        "patterns": lab.Table(
            rows="series.patterns",
            columns={
                "pattern": lab.cell("pattern", str),
                "pairs, 1,024 positions": lab.cell("counts.1"),
                "4,096 positions": lab.cell("counts.2"),
                "times as many": lab.fixed("growth", 2),
                "keys a query": lab.fixed("by_query", 1),
                "share of all": lab.fixed("density", 4),
            },
        ),
        "reach": lab.Table(
            rows="series.windowed_stack",
            columns={
                "layers": "depth",
                "window": "window",
                "reach": lab.cell("reaches.0"),
                "N (w - 1) + 1": "formula",
                "95 % within, of the reach": lab.cell("near.median", lab.number, 2),
                "gradient at the end over that at 1": lab.cell(
                    "last.median", lab.number, 1
                ),
            },
        ),
    },
    figures={"reach": draw_reach},
)
