r"""What a token costs with a cache: the package beside `generate` of transformers.

One GPT-2 with random weights, greedy, one row, after prompts of several lengths. A time
is that of a call which writes many tokens, less that of one which writes one, so that
neither the prompt nor what a call costs once is in it. Ratios are of such times in the
same round, on one thread. All must write the same tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from experiments import lab
from experiments.lab import ratio_cells, timing
from experiments.speed import _cache_peers as peers
from seqref.interop import from_transformers

# What the sizes are called, in order.
LABELS = ("narrow_short", "narrow", "narrow_long", "wide_short", "wide")
NAMES = {
    "ours": "`CachedDecoder`",
    "loop": "plain loop",
    "step": "the model's `step`",
}


@dataclass(frozen=True)
class Config:
    """Sizes as (width, layers, heads, context), rounds of each, tokens, beams, seed."""

    sizes: tuple[peers.Size, ...] = (
        (256, 4, 4, 128),
        (256, 4, 4, 1024),
        (256, 4, 4, 4096),
        (768, 12, 12, 128),
        (768, 12, 12, 1024),
    )
    rounds: tuple[int, ...] = (15, 15, 9, 7, 7)
    vocab: int = 50257
    tokens: int = 24
    # (width, layers, heads, context), rows and beams of the search.
    search: peers.Size = (256, 4, 4, 128)
    rows: int = 4
    beams: int = 4
    threads: int = 1
    seeds: tuple[int, ...] = (0,)


def per_token(
    writers: Mapping[str, peers.Writer], tokens: int, rounds: int
) -> dict[str, list[float]]:
    """Seconds a token after the first of a call, by round; those of generate twice."""
    calls = {}
    for name, write in writers.items():
        calls[name] = timing.Contestant(partial(write, tokens + 1))
        calls[f"{name} once"] = timing.Contestant(partial(write, 1))
    times = timing.rounds_of(calls, "generate", rounds)
    once = {name: times[f"{name} once"] for name in writers}
    once[timing.AGAIN] = once["generate"]
    return {
        name: [
            (whole - first) / tokens
            for whole, first in zip(times[name], row, strict=True)
        ]
        for name, row in once.items()
    }


def compared(
    writers: Mapping[str, peers.Writer], tokens: int, rounds: int
) -> dict[str, Any]:
    """Ratios to `generate`, its milliseconds a token, and whether all wrote alike."""
    expected = writers["generate"](tokens)
    same = {
        name: float(torch.equal(write(tokens), expected))
        for name, write in writers.items()
    }
    values = per_token(writers, tokens, rounds)
    base = values["generate"]
    ratios = {
        name: timing.quartiles(
            # No time at all: by a clock by which all calls take equally long.
            [a / b if b else 0.0 for a, b in zip(row, base, strict=True)]
        )
        for name, row in values.items()
        if name != "generate"
    }
    millis = {
        name: 1e3 * timing.quartiles(row)["median"] for name, row in values.items()
    }
    return {"ratios": ratios, "millis": millis, "same": same}


def searched(config: Config) -> dict[str, Any]:
    """Beam search, the whole call with its prompt, beside that of `generate`."""
    context, seed = config.search[3], config.seeds[0]
    positions = context + config.tokens + 1
    model = peers.gpt2(config.search, positions, config.vocab, seed)
    prompts = torch.randint(
        config.vocab, (config.rows, context), generator=lab.generator(seed + 2)
    )
    most = config.tokens + 1
    ours = from_transformers(model)
    writers = {
        "generate": peers.beams_of_transformers(model, prompts, config.beams),
        "ours": peers.beams_of_package(ours, prompts, config.beams, most),
    }
    return compared(writers, config.tokens, config.rounds[0])


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time everything."""
    rows, cases = [], {}
    parts = list(zip(LABELS, config.sizes, config.rounds, strict=False))
    with timing.setting(config.threads):
        for label, size, rounds in track(parts, "kv_cache_speed"):
            writers = peers.contestants(
                size, config.vocab, config.tokens + 1, config.seeds[0]
            )
            row = {"size": size, **compared(writers, config.tokens, rounds)}
            rows.append(row)
            for name, ratio in row["ratios"].items():
                same = row["same"].get(name, 1.0)
                cases[f"{name}_{label}"] = {"time": ratio["median"], "same": same}
        beams = searched(config)
    cases["ours_beams"] = {
        "time": beams["ratios"]["ours"]["median"],
        "same": beams["same"]["ours"],
    }
    return {"numbers": {}, "series": {"rows": rows, "beams": beams}, "cases": cases}


def millis(name: str) -> lab.Cell:
    """A cell: milliseconds a token."""
    return lambda row: lab.number(row["millis"][name], digits=3)


experiment = lab.Experiment(
    small=Config(
        sizes=((32, 1, 4, 12), (32, 1, 4, 20), (32, 1, 4, 28), *[(48, 2, 4, 12)] * 2),
        rounds=(2, 2, 2, 2, 2),
        vocab=101,
        tokens=4,
        search=(32, 2, 4, 12),
        rows=2,
        beams=2,
    ),
    run=run,
    claims=[
        lab.Claim(
            "C193",
            "At width 256 and a context of 128 a token costs less than half of the "
            "time of `generate`; that of `generate` once more does not.",
            lab.below("time", 0.5),
            case="ours_narrow_short",
            control="again_narrow_short",
            timed=True,
        ),
        lab.Claim(
            "C193.long",
            "At a context of 4,096 it costs less than 0.73, too.",
            lab.below("time", 0.73),
            case="ours_narrow_long",
            control="again_narrow_long",
            timed=True,
        ),
        lab.Claim(
            "C193.wide",
            "At width 768, 12 layers and a context of 1,024 it costs less than 0.75.",
            lab.below("time", 0.75),
            case="ours_wide",
            control="again_wide",
            timed=True,
        ),
        lab.Claim(
            "C193.equal",
            "The tokens are those of `generate`; after the last token of the prompt "
            "alone they are not.",
            lab.exactly("same", lambda case: case["same"] == 1),
            case="ours_narrow_short",
            control="blind_narrow_short",
        ),
        lab.Claim(
            "C193.beams",
            "Beam search over such a cache writes the best hypotheses of `generate`.",
            lab.exactly("same", lambda case: case["same"] == 1),
            case="ours_beams",
            control="blind_narrow_short",
        ),
    ],
    numbers=[lab.each("time")],
    tables={
        "tokens": lab.Table(
            rows="series.rows",
            columns={
                "D": "size.0",
                "layers": "size.1",
                "context": "size.3",
                "ms, `generate`": millis("generate"),
                **{text: ratio_cells.ratio(name) for name, text in NAMES.items()},
                "`generate` again": ratio_cells.ratio(timing.AGAIN),
            },
        ),
    },
)
