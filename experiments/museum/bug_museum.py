r"""Bugs that run: which checks catch which, and what six of them cost.

Each specimen is a small model with one fault that raises nothing. Every check of
`seqref.testing` that applies to its kind is run on it, on its mended twin, and on
models of torch.nn. Six faults are measured further: the state of an encoder after
padding, a loss whose labels are the inputs, a scan that divides by a product, a large
number in the place of minus infinity, a mask of the other meaning, and weights that are
returned after their dropout.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from experiments import lab
from experiments.museum import _attention as attention
from experiments.museum._cabinet import CABINET
from experiments.museum._checks import messages, sound
from experiments.museum._files import future, numbers, padding


@dataclass(frozen=True)
class Config:
    """Sizes of the six measurements, and their seeds."""

    vocab_size: int = 16
    hidden_size: int = 32
    rows: int = 32
    steps: int = 12
    pads: tuple[int, ...] = (1, 5, 20)
    updates: int = 600
    learning_rate: float = 0.01
    decays: tuple[float, ...] = (0.5, 0.9, 0.99, 1.0)
    scan_rows: int = 8
    scan_steps: int = 10_000
    keys: tuple[int, ...] = (4, 16, 64)
    dropout: float = 0.2
    seeds: tuple[int, ...] = tuple(range(5))


# Those of the claims.
PADS, DECAY, DTYPE, KEYS = 5, 0.5, "float32", 16
ENCODERS = {"broken": padding.Encoder, "mended": padding.PackedEncoder}
PACKED = {"broken": "not packed", "mended": "packed"}
MODELS = {"broken": future.LanguageModel, "mended": future.Shifted}
SCANS = {"broken": numbers.closed_form, "mended": numbers.by_pairs}
DTYPES = {"float32": torch.float32, "float64": torch.float64}
CHECKS = (
    "padding_invariance",
    "row_order",
    "causality",
    "state_carry",
    "state_fork",
    "source_dependence",
    "target_shift",
    "nonlinearity",
    "attention",
    "own",
)


def matrix(track: lab.Track) -> list[dict[str, Any]]:
    """Each specimen by each check that applies: whether it is caught."""
    rows = []
    for name, specimen in track(CABINET.items(), "specimens"):
        broken, mended = specimen.messages()
        rows.append(
            {
                "name": name,
                "label": specimen.label,
                "page": specimen.page,
                "own": specimen.caught_by,
                "caught": {check: bool(text) for check, text in broken.items()},
                "mended_caught": {check: bool(text) for check, text in mended.items()},
            }
        )
    return rows


def sound_models() -> list[dict[str, Any]]:
    """Each model of torch.nn by each check that applies to it."""
    return [
        {"model": name, "caught": {n: bool(t) for n, t in messages(*pair).items()}}
        for name, pair in sound().items()
    ]


@torch.no_grad()
def moved_by_padding(config: Config, kind: str, pads: int, seed: int) -> float:
    """Change of an encoder's summary by padding, over its norm: median of the rows."""
    with lab.seeded(seed):
        encoder = ENCODERS[kind](config.vocab_size, config.hidden_size).double()
    size, random = (config.rows, config.steps), lab.generator(seed + 1000)
    # Id 0 is padding.
    tokens = torch.randint(1, config.vocab_size, size, generator=random)
    lengths = torch.full((config.rows,), config.steps)
    more = torch.cat([tokens, tokens.new_zeros(config.rows, pads)], dim=1)
    before, after = encoder(tokens, lengths), encoder(more, lengths)
    return ((after - before).norm(dim=1) / before.norm(dim=1)).median().item()


def loss_on_noise(config: Config, kind: str, seed: int) -> float:
    """The loss that a language model ends with on independent, uniform tokens."""
    with lab.seeded(seed):
        model = MODELS[kind](config.vocab_size, config.hidden_size)
    size, random = (config.rows, config.steps), lab.generator(seed + 2000)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)

    def loss() -> Tensor:
        tokens = torch.randint(config.vocab_size, size, generator=random)
        predictions, labels = model.predictions_and_labels(tokens)
        return cross_entropy(predictions.transpose(1, 2), labels)

    for _ in range(config.updates):
        lab.descend(optimiser, loss())
    with torch.no_grad():
        return torch.stack([loss() for _ in range(10)]).mean().item()


@torch.no_grad()
def scan_error(config: Config, kind: str, dtype: str, decay: float) -> dict[str, Any]:
    r"""The first step that is not finite, or 0; the largest error before it.

    Steps are counted from 1, errors relative to the largest state of the loop in
    float64.
    """
    size = (config.scan_rows, config.scan_steps)
    b = torch.randn(size, generator=lab.generator(0), dtype=torch.float64)
    a = torch.full_like(b, decay)
    want = numbers.loop(a, b)
    got = SCANS[kind](a.to(DTYPES[dtype]), b.to(DTYPES[dtype])).double()
    bad = (~got.isfinite()).any(dim=0).nonzero()
    first = int(bad[0]) + 1 if len(bad) else 0
    stop = first - 1 if first else config.scan_steps
    error = (got - want)[:, :stop].abs().max() / want.abs().max()
    return {"first_not_finite": first, "error_before": error.item()}


def run(config: Config, track: lab.Track = lab.untracked) -> dict[str, Any]:
    """The matrix and the six measurements."""
    series = {
        "specimens": matrix(track),
        "sound": sound_models(),
        "moved": [
            {
                "pads": pads,
                "kind": kind,
                "moved": lab.median(
                    moved_by_padding(config, kind, pads, seed) for seed in config.seeds
                ),
            }
            for pads in config.pads
            for kind in ENCODERS
        ],
        "noise": [
            {"kind": kind}
            | lab.spread(loss_on_noise(config, kind, seed) for seed in config.seeds)
            for kind in track(MODELS, "losses")
        ],
        "scans": [
            {"decay": decay, "dtype": dtype, "kind": kind}
            | scan_error(config, kind, dtype, decay)
            for decay in config.decays
            for dtype in DTYPES
            for kind in SCANS
        ],
    } | attention.measured(
        config.rows, config.steps, config.keys, config.dropout, config.seeds
    )
    cases = cases_of(series, math.log(config.vocab_size))
    return {"numbers": numbers_of(series, cases), "series": series, "cases": cases}


def cases_of(series: dict[str, Any], uniform: float) -> dict[str, Any]:
    """What the claims are checked on."""
    cases: dict[str, Any] = {}
    for row in series["moved"]:
        if row["pads"] == PADS:
            cases[f"padding_{row['kind']}"] = {"moved": row["moved"]}
    for row in series["noise"]:
        cases[f"shift_{row['kind']}"] = {"loss": row["median"], "uniform": uniform}
    for row in series["scans"]:
        if (row["decay"], row["dtype"]) == (DECAY, DTYPE):
            first = row["first_not_finite"]
            cases[f"scan_{row['kind']}"] = {"first_not_finite": first}
    return cases | attention.cases_of(series, KEYS)


def numbers_of(series: dict[str, Any], cases: dict[str, Any]) -> dict[str, Any]:
    """Counts of the two matrices, and each measurement by its settings."""
    specimens, models = series["specimens"], series["sound"]
    values: dict[str, Any] = {
        "specimens": len(specimens),
        "by_own_test": sum(row["own"] == "own" for row in specimens),
        "trials": sum(len(row["caught"]) for row in specimens),
        "missed": sum(not row["caught"][row["own"]] for row in specimens),
        "mended_caught": sum(sum(row["mended_caught"].values()) for row in specimens),
        "sound": len(models),
        "sound_caught": sum(map(raised, models)),
        "uniform": cases["shift_broken"]["uniform"],
    }
    for row in series["moved"]:
        values[f"moved_{row['kind']}_{row['pads']}"] = row["moved"]
    for row in series["noise"]:
        values[f"loss_{row['kind']}"] = row["median"]
    for row in series["scans"]:
        key = f"scan_{row['kind']}_{row['decay']:g}_{row['dtype']}".replace(".", "_")
        values[f"{key}_first"] = row["first_not_finite"]
        values[f"{key}_error"] = lab.number(row["error_before"], 2)
    return values | attention.numbers_of(series)


def raised(model: dict[str, Any]) -> int:
    """How many checks raise on a model."""
    return sum(model["caught"].values())


def words(checks: Iterable[str]) -> str:
    """Names of checks, as they stand in their messages, or a test of the bug's own."""
    return ", ".join(
        "its own test" if check == "own" else check.replace("_", " ")
        for check in CHECKS
        if check in checks
    )


def main_check(row: dict[str, Any]) -> str:
    """The check that is to catch a specimen, or that it does not."""
    own = row["own"]
    return f"**{words([own])}**" if row["caught"][own] else f"not by {words([own])}"


def others(caught: bool) -> Callable[[dict[str, Any]], str]:
    """The other checks that catch a specimen, or those that pass."""
    return lambda row: words(
        [k for k, v in row["caught"].items() if v == caught and k != row["own"]]
    )


def breakdown(row: dict[str, Any]) -> str:
    """From which step on a scan is not finite, or its error."""
    first = row["first_not_finite"]
    return f"not finite from {first:,}" if first else lab.number(row["error_before"], 2)


experiment = lab.Experiment(
    small=Config(
        pads=(1, 5),
        updates=120,
        decays=(0.5, 1.0),
        scan_rows=4,
        scan_steps=200,
        keys=(4, 16),
        seeds=(0,),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C61.padding",
            "Five steps of padding move the summary of an encoder that is not packed "
            "by more than a fifth of its norm; packed, they do not move it.",
            lab.above("moved", 0.2),
            case="padding_broken",
            control="padding_mended",
        ),
        lab.Claim(
            "C61.shift",
            "Trained on labels that are its inputs, a language model falls below half "
            "of the lowest possible loss on independent uniform tokens; with labels "
            "one step ahead it does not.",
            lambda case: lab.Outcome.below(case["loss"], 0.5 * case["uniform"]),
            case="shift_broken",
            control="shift_mended",
        ),
        lab.Claim(
            "C106",
            "At a decay of one half the closed form of a linear recurrence, a product "
            "of decays times a sum of quotients, is not finite in float32 before 200 "
            "steps; a scan over pairs is.",
            lab.all_of(
                lab.exactly(
                    "first_not_finite", lambda case: case["first_not_finite"] > 0
                ),
                lab.below("first_not_finite", 200),
            ),
            case="scan_broken",
            control="scan_mended",
        ),
        lab.Claim(
            "C197",
            "Where a query's 16 keys all get minus 1e9, its output has more than half "
            "the norm of the mean of their values, and torch's default CPU kernel "
            "makes the gradient of these more than eight times that of the mean; with "
            "minus infinity both are zero.",
            lab.all_of(lab.above("output", 0.5), lab.above("gradient", 8.0)),
            case="mask_finite",
            control="mask_infinite",
        ),
        lab.Claim(
            "C198",
            "Of the weights of `nn.MultiheadAttention` less than a tenth lies where a "
            "boolean mask is True; of those of `scaled_dot_product_attention` all do.",
            lab.below("share", 0.1),
            case="true_mha",
            control="true_sdpa",
        ),
        lab.Claim(
            "C199",
            "In training, the weights that `nn.MultiheadAttention` returns with a "
            "dropout of 0.2 add up to sums that are on average further than 0.05 from "
            "1; in evaluation they add up to 1.",
            lab.above("off", 0.05),
            case="returned_training",
            control="returned_evaluation",
        ),
    ],
    tables={
        "matrix": lab.Table(
            rows="series.specimens",
            columns={
                "bug": lambda row: f"[{row['label']}]({row['page']}.md#{row['name']})",
                "caught by": main_check,
                "and by": others(caught=True),
                "passes": others(caught=False),
            },
            words=("caught by", "and by", "passes"),
        ),
        "sound": lab.Table(
            rows="series.sound",
            columns={
                "model": lambda row: f"`{row['model']}`",
                "checks that apply": lambda row: words(row["caught"]),
                "raised": lab.cell(raised),
            },
            words=("checks that apply", "raised"),
        ),
        "moved": lab.Pivot(
            rows="series.moved",
            lines={"change of the summary": lambda row: PACKED[row["kind"]]},
            across="pads",
            columns=lambda pads: f"pads: {pads}",
            cell=lambda row: f"{row['moved']:.0%}" if row["moved"] else "0",
        ),
        "keyless": lab.Pivot(
            rows="series.keyless",
            lines={"keys, all masked": lambda row: f"{row['keys']}"},
            across="mask",
            columns={
                "finite": "gradient, $-10^9$",
                "infinite": r"gradient, $-\infty$",
            },
            cell=lambda row: lab.number(row["gradient"], 3),
        ),
        "scans": lab.Pivot(
            rows="series.scans",
            lines={"decay": lambda row: f"{row['decay']:g}"},
            across=lambda row: (row["kind"], row["dtype"]),
            columns={
                (kind, dtype): f"{label}, {dtype}"
                for kind, label in (("broken", "closed form"), ("mended", "by pairs"))
                for dtype in DTYPES
            },
            cell=breakdown,
        ),
    },
)
