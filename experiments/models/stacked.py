r"""What a stack does to dropout and to gradients, before any training.

Dropout: two calls of `torch.nn.LSTM` in training mode on one input, with one layer and
with two; and the masks that `torch.nn.RNN` draws, made visible by two layers that copy
their input. Gradients: stacks as they are initialised, inputs without structure in
time, one random linear loss. How much of its gradient reaches the inputs through the
layers, with and without residual sums, and how much is left of it by the lag in time.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments import lab
from seqref import LSTM, RNN, Stacked
from seqref.recurrent import forget_bias_

MARKS = (50, 100)


@dataclass(frozen=True)
class Config:
    """Sizes, depths, lags and seeds of one run."""

    hidden_size: int = 64
    batch_size: int = 4
    steps: int = 50
    dropout: float = 0.5
    depths: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    lag_depths: tuple[int, ...] = (1, 2, 4, 8)
    lags: tuple[int, ...] = (*range(41), *range(45, 101, 5))
    warm_up: int = 600  # about six half-lives of a cell with the raised bias
    forget_bias: float = 5.0
    seeds: tuple[int, ...] = tuple(range(10))


def one_call_beside_another(config: Config, n_layers: int) -> dict[str, float]:
    """`torch.nn.LSTM` in training mode, called twice on one input."""
    width = config.hidden_size
    differences, raised = [], []
    for seed in config.seeds:
        with lab.seeded(seed), warnings.catch_warnings(record=True) as caught:
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


@torch.no_grad()
def masks_of_torch(config: Config, seed: int) -> Float[Tensor, "time batch width"]:
    r"""What `torch.nn.RNN` multiplies the first layer's output by, entry by entry.

    Both layers are $h_t = \max(0, x_t)$, so ones come out as the mask.
    """
    width = config.hidden_size
    with lab.seeded(seed):
        copies = nn.RNN(
            width, width, 2, nonlinearity="relu", bias=False, dropout=config.dropout
        )
        for name, parameter in copies.named_parameters():
            parameter.copy_(torch.eye(width) if "ih" in name else torch.zeros(()))
        return copies(torch.ones(config.steps, config.batch_size, width))[0]


def repeats(masks: Float[Tensor, "time batch width"]) -> float:
    """The share of entries that are the same at the next step."""
    return (masks[1:] == masks[:-1]).double().mean().item()


def mask_cases(config: Config) -> dict[str, dict[str, float]]:
    """Masks of torch beside one that is drawn once for the sequence."""
    drawn = [masks_of_torch(config, seed) for seed in config.seeds]
    once = [masks[:1].expand_as(masks) for masks in drawn]
    zeros = lab.median((masks == 0).double().mean().item() for masks in drawn)
    return {
        "mask_of_torch": {"repeats": lab.median(map(repeats, drawn)), "zeros": zeros},
        "mask_for_the_sequence": {"repeats": lab.median(map(repeats, once))},
    }


def build(
    config: Config,
    n_layers: int,
    seed: int,
    kind: type[RNN] | type[LSTM] = LSTM,
    residual: bool = False,
    forget_bias: float | None = None,
) -> Stacked:
    """A stack of layers in float64, as they are initialised but for the bias."""
    width = config.hidden_size
    with lab.seeded(seed):
        layers = [kind(width, width, dtype=torch.float64) for _ in range(n_layers)]
    stack = Stacked(layers, residual=residual)
    if forget_bias is not None:
        forget_bias_(stack, forget_bias)
    return stack


def gradient_of(
    stack: Stacked, size: Sequence[int], seed: int, steps: int | slice = slice(None)
) -> tuple[Tensor, Tensor]:
    """At random inputs, of a random linear loss of some steps; its norm at these."""
    random = lab.generator(seed + 1000)
    x = torch.randn(size, generator=random, dtype=torch.float64, requires_grad=True)
    y = stack(x)[0][:, steps]
    y_bar = torch.randn(y.shape, generator=random, dtype=torch.float64)
    return torch.autograd.grad(y, x, y_bar)[0], y_bar.norm()


def kept_through_layers(
    config: Config, n_layers: int, kind: type[RNN] | type[LSTM], residual: bool
) -> dict[str, float]:
    """Norm of the gradient at the inputs over that at the outputs, over the seeds."""
    size = (config.batch_size, config.steps, config.hidden_size)
    kept = []
    for seed in config.seeds:
        stack = build(config, n_layers, seed, kind, residual)
        gradient, norm = gradient_of(stack, size, seed)
        kept.append((gradient.norm() / norm).item())
    return lab.log10_summary(kept)


def kept_by_lag(stack: Stacked, config: Config, seed: int) -> list[float]:
    """Norm of the gradient of a loss of the last output at the inputs before it."""
    size = (1, config.warm_up + max(config.lags) + 1, config.hidden_size)
    gradient, norm = gradient_of(stack, size, seed, steps=-1)
    by_step = gradient[0].flip(0).norm(dim=1) / norm
    return by_step[list(config.lags)].tolist()


def lag_case(config: Config, points: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What is left at the marks of the largest gradient at any lag, and its reach.

    `tenth_from` is the first lag after the largest gradient with less than a tenth of
    it left; absent where a tenth is left at all of them.
    """
    by_lag = dict(zip(config.lags, (point["median"] for point in points), strict=True))
    largest_at = max(by_lag, key=lambda lag: by_lag[lag])
    left = {lag: log10 - by_lag[largest_at] for lag, log10 in by_lag.items()}
    below = [lag for lag in config.lags if lag > largest_at and left[lag] < -1]
    return {
        **{f"left_at_{mark}": left[mark] for mark in MARKS},
        "largest_at": largest_at,
        **({"tenth_from": below[0]} if below else {}),
    }


def case_name(text: str) -> str:
    """The text in small letters and one word: that of `1 layer, bias` 1_layer_bias."""
    return text.lower().replace(", ", "_").replace(" ", "_")


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Measure dropout, the gradient through the layers, the gradient by lag."""
    by_depth = {
        kind.__name__ + " residual" * residual: [
            kept_through_layers(config, n, kind, residual) for n in config.depths
        ]
        for kind in track((RNN, LSTM), "through layers")
        for residual in (False, True)
    }
    stacks: dict[str, tuple[int, float | None]] = {
        f"{n} layer{'s' if n > 1 else ''}": (n, None) for n in config.lag_depths
    }
    stacks["1 layer, bias"] = (1, config.forget_bias)
    by_lag = {
        name: lab.log10_summaries(
            kept_by_lag(build(config, n, seed, forget_bias=bias), config, seed)
            for seed in config.seeds
        )
        for name, (n, bias) in track(list(stacks.items()), "by lag")
    }
    cases: dict[str, Any] = {
        f"dropout_{n}": one_call_beside_another(config, n) for n in (1, 2)
    }
    cases |= mask_cases(config)
    for name, points in by_depth.items():
        for n, kept in zip(config.depths, points, strict=True):
            cases[case_name(f"{name}_{n}")] = {"kept": kept}
    for name, points in by_lag.items():
        cases[case_name(f"lag_{name}")] = lag_case(config, points)
    series = {"depths": list(config.depths), "by_depth": by_depth}
    series |= {"lags": list(config.lags), "by_lag": by_lag}
    return {"series": series, "cases": cases}


def depth_table(record: Mapping[str, Any]) -> str:
    """Gradient through the layers by depth."""
    series = record["series"]
    return lab.table(
        ["stack, by layers", *map(lab.number, series["depths"])],
        [
            [name, *(lab.power_of_ten(point["median"]) for point in points)]
            for name, points in series["by_depth"].items()
        ],
    )


def lag_labels(record: Mapping[str, Any]) -> dict[str, str]:
    """The stacks whose gradient by lag was measured, and how they are written."""
    bias = f"forget bias {record['run']['config']['forget_bias']:g}"
    return {name: name.replace("bias", bias) for name in record["series"]["by_lag"]}


def lag_table(record: Mapping[str, Any]) -> lab.Table:
    """Gradient by lag."""
    labels = lag_labels(record)
    return lab.Table(
        labels={case_name(f"lag_{name}"): text for name, text in labels.items()},
        heading="LSTM stack",
        columns={
            "largest at lag": "largest_at",
            "below a tenth from lag": lambda case: (
                lab.number(case["tenth_from"]) if "tenth_from" in case else "none"
            ),
            **{
                f"left at lag {mark}": lab.cell(f"left_at_{mark}", lab.power_of_ten)
                for mark in MARKS
            },
        },
    )


experiment = lab.Experiment(
    small=Config(
        hidden_size=16,
        batch_size=2,
        steps=20,
        depths=(1, 2, 4, 8),
        lag_depths=(1, 4),
        lags=(*range(10), 20, 50, 100),
        warm_up=10,
        seeds=(0, 1, 2),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C109",
            "In training mode a `torch.nn.LSTM` of one layer with `dropout` returns "
            "the same numbers at each call, and it warns when it is made.",
            lab.exactly(
                "largest_difference",
                lambda case: case["largest_difference"] == 0 and case["warnings"] > 0,
            ),
            case="dropout_1",
            control="dropout_2",
        ),
        lab.Claim(
            "C110",
            "`torch.nn.RNN` draws a dropout mask of its own for each step: less than "
            "nine tenths of its entries are the same at the next step.",
            lab.below("repeats", 0.9, lab.share),
            case="mask_of_torch",
            control="mask_for_the_sequence",
        ),
        lab.Claim(
            "C111",
            "Of the largest gradient that four LSTM layers as initialised pass back to "
            "any step, less than a millionth is left 100 steps back.",
            lab.below("left_at_100", -6, lab.power),
            case="lag_4_layers",
            control="lag_1_layer_bias",
        ),
        lab.Claim(
            "C112",
            "Eight LSTM layers as initialised pass less than a hundredth of the "
            "gradient at their outputs on to their inputs.",
            lab.below("kept.median", -2, lab.power),
            case="lstm_8",
            control="lstm_residual_8",
        ),
    ],
    numbers=[
        lab.all_but(*(f"left_at_{mark}" for mark in MARKS)),
        lab.each("kept.median", "kept", lab.power_of_ten),
        *(lab.each(f"left_at_{mark}", write=lab.power_of_ten) for mark in MARKS),
    ],
    tables={"depth": depth_table, "lag": lag_table},
    figures={
        "by_lag": lab.Lines(
            x="series.lags",
            y=lambda record: {
                label: record["series"]["by_lag"][name]
                for name, label in lag_labels(record).items()
            },
            xlabel="lag in steps",
            title="Gradient at an input, of a loss of the last output",
            draw=lab.line,
            ticks=range(-30, 1, 10),
        )
    },
)
