r"""What a stack does to dropout and to gradients, before any training.

Dropout: two calls of `torch.nn.LSTM` in training mode on one input, with one layer and
with two; and the masks that `torch.nn.RNN` draws, made visible by two layers that copy
their input. Gradients: stacks as they are initialised, inputs without structure in
time, one random linear loss. How much of its gradient reaches the inputs through the
layers, with and without residual sums, and how much is left of it by the lag in time.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.lab.claim import Claim, Outcome, power, share
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import log10_summary, median
from experiments.lab.tables import power_of_ten
from experiments.models._stacked_pictures import MARKS, draw_by_lag, tables
from experiments.models._stacked_reach import reach
from seqref import LSTM, RNN, Stacked


@dataclass(frozen=True)
class Config:
    """Sizes, depths, lags and seeds of one run."""

    hidden_size: int
    batch_size: int
    steps: int
    dropout: float
    depths: tuple[int, ...]
    lag_depths: tuple[int, ...]
    lags: tuple[int, ...]
    warm_up: int
    forget_bias: float
    seeds: tuple[int, ...]


KINDS = {"RNN": RNN, "LSTM": LSTM}
SMALL = Config(
    hidden_size=16,
    batch_size=2,
    steps=20,
    dropout=0.5,
    depths=(1, 2, 4, 8),
    lag_depths=(1, 4),
    lags=(*range(10), 20, 50, 100),
    warm_up=10,
    forget_bias=5.0,
    seeds=(0, 1, 2),
)
FULL = Config(
    hidden_size=64,
    batch_size=4,
    steps=50,
    dropout=0.5,
    depths=(1, 2, 3, 4, 6, 8),
    lag_depths=(1, 2, 4, 8),
    lags=(*range(41), *range(45, 101, 5)),
    warm_up=600,  # about six half-lives of a cell with the raised bias
    forget_bias=5.0,
    seeds=tuple(range(10)),
)


def one_call_beside_another(config: Config, n_layers: int) -> dict[str, float]:
    """`torch.nn.LSTM` in training mode, called twice on one input."""
    width = config.hidden_size
    differences, raised = [], []
    for seed in config.seeds:
        with seeded(seed), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            layer = nn.LSTM(width, width, n_layers, dropout=config.dropout)
            x = torch.randn(config.steps, config.batch_size, width)
            with torch.no_grad():
                differences.append((layer(x)[0] - layer(x)[0]).abs().max().item())
            raised.append(sum("dropout" in str(each.message) for each in caught))
    return {
        "largest_difference": max(differences),
        "smallest_difference": min(differences),
        "warnings": min(raised),
    }


def masks_of_torch(
    width: int, steps: int, batch_size: int, dropout: float
) -> Float[Tensor, "time batch width"]:
    r"""What `torch.nn.RNN` multiplies the first layer's output by, entry by entry.

    Both layers are $h_t = \max(0, x_t)$, so ones come out as the mask.
    """
    copies = nn.RNN(width, width, 2, nonlinearity="relu", bias=False, dropout=dropout)
    with torch.no_grad():
        for name, parameter in copies.named_parameters():
            parameter.copy_(torch.eye(width) if "ih" in name else torch.zeros(()))
        return copies(torch.ones(steps, batch_size, width))[0]


def repeats(masks: Float[Tensor, "time batch width"]) -> float:
    """The share of entries that are the same at the next step."""
    return (masks[1:] == masks[:-1]).double().mean().item()


def masks(config: Config) -> dict[str, dict[str, float]]:
    """Masks of torch beside one that is drawn once for the sequence."""
    drawn, once = [], []
    for seed in config.seeds:
        with seeded(seed):
            found = masks_of_torch(
                config.hidden_size, config.steps, config.batch_size, config.dropout
            )
        drawn.append(found)
        once.append(found[:1].expand_as(found))
    share = median((found == 0).double().mean().item() for found in drawn)
    return {
        "mask_of_torch": {"repeats": median(map(repeats, drawn)), "zeros": share},
        "mask_for_the_sequence": {"repeats": median(map(repeats, once))},
    }


def build(
    kind: str, config: Config, n_layers: int, seed: int, *, residual: bool = False
) -> Stacked:
    """A stack of layers as they are initialised, in float64."""
    width = config.hidden_size
    with seeded(seed):
        layers = [
            KINDS[kind](width, width, dtype=torch.float64) for _ in range(n_layers)
        ]
    return Stacked(layers, residual=residual)


def kept_through_layers(
    kind: str, config: Config, n_layers: int, seed: int, residual: bool
) -> float:
    """Norm of the gradient at the inputs over that at the outputs of the stack."""
    stack = build(kind, config, n_layers, seed, residual=residual)
    random = generator(seed + 1000)
    size = (config.batch_size, config.steps, config.hidden_size)
    x = torch.randn(size, generator=random, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(size, generator=random, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(stack(x)[0], x, upstream)
    return (gradient.norm() / upstream.norm()).item()


def kept_by_lag(stack: Stacked, config: Config, seed: int) -> list[float]:
    """Norm of the gradient of a loss of the last output at the inputs before it."""
    random = generator(seed + 1000)
    size = (1, config.warm_up + max(config.lags) + 1, config.hidden_size)
    x = torch.randn(size, generator=random, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(config.hidden_size, generator=random, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(stack(x)[0][0, -1], x, upstream)
    by_step = gradient[0].flip(0).norm(dim=1) / upstream.norm()
    return [by_step[lag].item() for lag in config.lags]


def raise_forget_bias(stack: Stacked, bias: float) -> None:
    """Set the forget bias of every LSTM of a stack, in one of its two vectors."""
    for cell in (layer.get_submodule("cell") for layer in stack.layers):
        parameters = dict(cell.named_parameters())
        with torch.no_grad():
            for name, value in (("bias_ih", bias), ("bias_hh", 0.0)):
                parameters[name].chunk(4)[1].fill_(value)


def by_lag(config: Config, n_layers: int, bias: float | None = None) -> list[dict]:
    """Summaries over seeds, one for each lag, of stacks of LSTMs."""
    measured = []
    for seed in config.seeds:
        stack = build("LSTM", config, n_layers, seed)
        if bias is not None:
            raise_forget_bias(stack, bias)
        measured.append(kept_by_lag(stack, config, seed))
    return [log10_summary(values) for values in zip(*measured, strict=True)]


def lag_case(config: Config, series: list[dict]) -> dict[str, float]:
    """What is left at the marks of the largest gradient at any lag, and its reach."""
    medians = [row["median"] for row in series]
    top = max(medians)
    return {
        **{f"left_at_{m}": medians[config.lags.index(m)] - top for m in MARKS},
        "largest_at": config.lags[medians.index(top)],
        **reach(config.lags, medians),
    }


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Measure dropout, the gradient through the layers, the gradient by lag."""
    cases: dict[str, Any] = {
        f"dropout_{n}": one_call_beside_another(config, n) for n in (1, 2)
    } | masks(config)
    depth: dict[str, Any] = {}
    for kind in track(KINDS, "through layers"):
        for residual in (False, True):
            name = f"{kind}{' residual' if residual else ''}"
            depth[name] = [
                log10_summary(
                    kept_through_layers(kind, config, n, seed, residual)
                    for seed in config.seeds
                )
                for n in config.depths
            ]
            for n, found in zip(config.depths, depth[name], strict=True):
                cases[f"{name.lower().replace(' ', '_')}_{n}"] = {"kept": found}
    lags: dict[str, Any] = {}
    for n in track(config.lag_depths, "by lag"):
        lags[f"{n} layer{'s' if n > 1 else ''}"] = by_lag(config, n)
    lags["1 layer, bias"] = by_lag(config, 1, config.forget_bias)
    for name, found in lags.items():
        label = name.replace(", ", "_").replace(" ", "_")
        cases[f"lag_{label}"] = lag_case(config, found)
    series = {"depths": list(config.depths), "by_depth": depth}
    series |= {"lags": list(config.lags), "by_lag": lags}
    return {"numbers": summary(cases), "series": series, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars and ready-made text for sentences."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        if "kept" in case:
            found[f"{name}_kept"] = power_of_ten(case["kept"]["median"])
        for key, value in case.items():
            if key.startswith("left_at"):
                found[f"{name}_{key}"] = power_of_ten(value)
            elif key != "kept":
                found[f"{name}_{key}"] = value
    return found


def _nothing(case: Mapping[str, Any]) -> Outcome:
    found = case["largest_difference"]
    return Outcome.exactly(found, holds=found == 0 and case["warnings"] > 0)


def _anew(case: Mapping[str, Any]) -> Outcome:
    return Outcome.below(case["repeats"], 0.9, share)


def _vanishes_upwards(case: Mapping[str, Any]) -> Outcome:
    found = case["kept"]["median"]
    return Outcome.below(found, -2, power)


def _forgets(case: Mapping[str, Any]) -> Outcome:
    found = case["left_at_100"]
    return Outcome.below(found, -6, power)


CLAIMS = (
    Claim(
        "C109",
        "In training mode a `torch.nn.LSTM` of one layer with `dropout` returns the "
        "same numbers at each call, and it warns when it is made.",
        _nothing,
        case="dropout_1",
        control="dropout_2",
    ),
    Claim(
        "C110",
        "`torch.nn.RNN` draws a dropout mask of its own for each step: less than nine "
        "tenths of its entries are the same at the next step.",
        _anew,
        case="mask_of_torch",
        control="mask_for_the_sequence",
    ),
    Claim(
        "C111",
        "Of the largest gradient that four LSTM layers as initialised pass back to any "
        "step, less than a millionth is left 100 steps back.",
        _forgets,
        case="lag_4_layers",
        control="lag_1_layer_bias",
    ),
    Claim(
        "C112",
        "Eight LSTM layers as initialised pass less than a hundredth of the gradient "
        "at their outputs on to their inputs.",
        _vanishes_upwards,
        case="lstm_8",
        control="lstm_residual_8",
    ),
)


FIGURES = {"by_lag": draw_by_lag}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
