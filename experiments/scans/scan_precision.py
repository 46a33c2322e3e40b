r"""What forms of a linear recurrence lose in float32, by the size of the decays.

All start from zero and have equal inputs, and the truth is the loop in float64. The
error of a form is the largest over a sequence, over the largest state of it. The loop;
the op, which cuts the sequence into chunks; a tree, which doubles the span of each map
at every level; the scan of mamba.py; the closed form, which divides by the product of
all decays so far; and the closed form in logarithms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from experiments.scans._forms import (
    Form,
    chunks,
    closed,
    logarithms,
    loop,
    of_mambapy,
    tree,
)


@dataclass(frozen=True)
class Config:
    """Sizes of one seed's sequences, and the seeds."""

    steps: int = 4096
    rows: int = 16
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


CASES: dict[str, Form] = {
    "loop": loop,
    "chunks": chunks,
    "tree": tree,
    "mambapy": of_mambapy,
    "closed": closed,
    "logarithms": logarithms,
}
LABELS = {
    "loop": "loop",
    "chunks": "`linear_scan`, chunks",
    "tree": "tree",
    "mambapy": "`mambapy`",
    "closed": "products divided out",
    "logarithms": "the same in logarithms",
}
# Bounds of uniform decays, and the words for them.
DECAYS = {
    "any": (0.0, 1.0, "0 to 1"),
    "signed": (-1.0, 1.0, "-1 to 1"),
    "near": (0.99, 1.0, "0.99 to 1"),
    "nearer": (0.9999, 1.0, "0.9999 to 1"),
    "one": (1.0, 1.0, "1"),
    "minus": (-1.0, -0.9999, "-1 to -0.9999"),
}


def drawn(name: str, config: Config, seed: int) -> tuple[Tensor, Tensor]:
    """Decays and inputs."""
    low, high, _ = DECAYS[name]
    generator = lab.generator(seed)
    shape = 1, config.steps, config.rows
    a = low + (high - low) * torch.rand(shape, generator=generator)
    return a, torch.randn(shape, generator=generator)


def measure(case: Form, config: Config) -> dict[str, Any]:
    """The error by decays, over the loop's, and the share that is no number."""
    values: dict[str, Any] = {}
    for name in DECAYS:
        errors, ratios, lost = [], [], []
        for seed in config.seeds:
            a, b = drawn(name, config, seed)
            truth = loop(a.double(), b.double())
            ours, its = case(a, b), loop(a, b)
            largest = truth.abs().max()
            error = ((ours - truth).abs().max() / largest).item()
            errors.append(error)
            ratios.append(error / ((its - truth).abs().max() / largest).item())
            lost.append(1 - ours.isfinite().double().mean().item())
        share = sum(lost) / len(lost)
        # Of what is no number there is no error.
        kept = share == 0
        values[name] = {
            "lost": share,
            "error": lab.median(errors) if kept else None,
            "ratio": lab.median(ratios) if kept else None,
        }
    return values


def cell_of(name: str) -> lab.Cell:
    """A cell: the error and how many of the loop's it is, or what is lost."""

    def write(case: Mapping[str, Any]) -> str:
        value = case[name]
        if value["error"] is None:
            return f"{value['lost']:.0%} no number"
        return f"{value['error']:.1e} ({value['ratio']:.2g})"

    return write


experiment = lab.Experiment(
    small=Config(steps=1024, rows=8, seeds=(0, 1, 2)),
    cases=CASES,
    measure=measure,
    claims=[
        lab.Claim(
            "C203.closed",
            "Dividing by the product of all decays leaves more than half of the states "
            "no number where decays are uniform between 0 and 1; chunks leave none.",
            lab.above("any.lost", 0.5, on=lab.share),
            case="closed",
            control="chunks",
        ),
        lab.Claim(
            "C202",
            "With decays between 0.9999 and 1 chunks are at most as far from float64 "
            "as the loop; a tree is farther.",
            lab.below("nearer.ratio", 1.0),
            case="chunks",
            control="tree",
        ),
        lab.Claim(
            "C203",
            "In logarithms the error is more than ten times the loop's where decays "
            "are uniform between 0 and 1; in chunks it is not.",
            lab.above("any.ratio", 10.0),
            case="logarithms",
            control="chunks",
        ),
    ],
    numbers=[
        *(
            lab.each(f"{name}.{key}", f"{name}_{key}")
            for name in DECAYS
            for key in ("error", "ratio", "lost")
        ),
    ],
    tables={
        "errors": lab.Table(
            labels=LABELS,
            heading="form",
            columns={text: cell_of(name) for name, (_, _, text) in DECAYS.items()},
        )
    },
)
