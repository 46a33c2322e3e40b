r"""How fast the gradient of a plain recurrent network falls with the lag.

For $h_t = \phi(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})$ the Jacobian of one step
is $J_t = \operatorname{diag}(\phi'_t) W_{hh}$, where $\phi'_t = 1 - h_t^2$ for tanh.
Over a lag it is the product $J_T J_{T-1} \cdots J_{T-\text{lag}+1}$. This module takes
that product and measures two things of it: its largest singular value, the most that
any gradient can keep, and what the gradient of one random linear loss of $h_T$ keeps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.gradients._networks import (
    CASES,
    Case,
    products_by_lag,
)
from experiments.lab.claim import Claim, Outcome, power
from experiments.lab.drawing import DASHES, Theme, label_ends, power_ticks
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import log10_summary, median
from experiments.lab.tables import number, power_of_ten, table
from seqref import RNN


@dataclass(frozen=True)
class Config:
    """Sizes, lags and seeds of one run."""

    hidden_size: int
    input_size: int
    warm_up: int
    lags: tuple[int, ...]
    small_input: float
    widths: tuple[int, ...]
    width_seeds: tuple[int, ...]
    seeds: tuple[int, ...]


MARKS = (10, 20, 50, 100, 200)
SMALL = Config(
    hidden_size=32,
    input_size=32,
    warm_up=20,
    lags=(0, 1, 2, 5, 10, 20, 50, 100, 200),
    small_input=0.1,
    widths=(32, 64),
    width_seeds=(0, 1),
    seeds=(0, 1, 2),
)
FULL = Config(
    hidden_size=128,
    input_size=128,
    warm_up=50,
    lags=(*range(0, 20, 2), *range(20, 201, 10)),
    small_input=0.1,
    widths=(64, 256, 1024),
    width_seeds=(0, 1, 2, 3, 4),
    seeds=tuple(range(10)),
)


def build(case: Case, config: Config, seed: int) -> RNN:
    """The layer of a case; a linear one is a tanh layer whose slope is not used."""
    phi = "relu" if case.nonlinearity == "relu" else "tanh"
    with seeded(seed):
        layer = RNN(
            config.input_size,
            config.hidden_size,
            nonlinearity=phi,
            dtype=torch.float64,
        )
    with torch.no_grad():
        case.initialise(layer, seed)
    return layer


def norms_by_lag(case: Case, config: Config, seed: int) -> tuple[list[float], ...]:
    """For each lag: the spectral norm, and what a random linear loss keeps."""
    layer = build(case, config, seed)
    random = generator(seed + 1000)
    size = (1, config.warm_up + max(config.lags), config.input_size)
    std = config.small_input if case.small_inputs else 1.0
    x = std * torch.randn(size, generator=random, dtype=torch.float64)
    loss = torch.randn(config.hidden_size, generator=random, dtype=torch.float64)
    with torch.no_grad():
        h = layer(x)[0][0]
        products = products_by_lag(
            h, layer.cell.weight_hh, case.nonlinearity, config.lags
        )
    spectral = [torch.linalg.matrix_norm(p, 2).item() for p in products.values()]
    kept = [(loss @ p).norm().item() / loss.norm().item() for p in products.values()]
    return spectral, kept


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Measure every case over all seeds, and the default matrix by width."""
    series: dict[str, Any] = {"lags": list(config.lags), "by_lag": {}}
    cases: dict[str, Any] = {}
    for name, case in track(CASES.items(), "gradient_by_lag"):
        measured = [norms_by_lag(case, config, seed) for seed in config.seeds]
        spectral, kept = (
            [log10_summary(values) for values in zip(*lists, strict=True)]
            for lists in zip(*measured, strict=True)
        )
        series["by_lag"][name] = {"spectral": spectral, "loss": kept}
        at = {mark: config.lags.index(mark) for mark in MARKS}
        cases[name] = {
            "log10_spectral": {
                f"lag_{m}": spectral[i]["median"] for m, i in at.items()
            },
            "log10_loss": {f"lag_{m}": kept[i]["median"] for m, i in at.items()},
            **spectrum([build(case, config, s).cell.weight_hh for s in config.seeds]),
        }
    series["by_width"] = by_width(config, track)
    return {"numbers": summary(series, cases), "series": series, "cases": cases}


def spectrum(matrices: list[Tensor]) -> dict[str, float]:
    """Eigenvalues and singular values of recurrent matrices: medians over seeds."""
    eigenvalues = [torch.linalg.eigvals(matrix.detach()) for matrix in matrices]
    return {
        "spectral_radius": median(e.abs().max().item() for e in eigenvalues),
        "largest_singular_value": median(
            torch.linalg.matrix_norm(m.detach(), 2).item() for m in matrices
        ),
        "modulus_farthest_from_1": _clean(
            max((e.abs() - 1).abs().max().item() for e in eigenvalues)
        ),
        "eigenvalue_farthest_from_1": _clean(
            max((e - 1).abs().max().item() for e in eigenvalues)
        ),
    }


def _clean(value: float) -> float:
    # What is left of rounding in float64 would differ between processors.
    return round(value, 9)


def by_width(config: Config, track: Track) -> list[dict[str, Any]]:
    """Spectral radius and largest singular value of the default matrix by width."""
    rows = []
    for width in track(config.widths, "default matrix by width"):
        matrices = []
        for seed in config.width_seeds:
            with seeded(seed):
                matrices.append(RNN(1, width, dtype=torch.float64).cell.weight_hh)
        found = spectrum(matrices)
        rows.append(
            {
                "hidden_size": width,
                "spectral_radius": found["spectral_radius"],
                "largest_singular_value": found["largest_singular_value"],
            }
        )
    return rows


def summary(series: Mapping[str, Any], cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars and ready-made text for sentences."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        for mark in MARKS:
            value = case["log10_spectral"][f"lag_{mark}"]
            found[f"{name}_at_{mark}"] = power_of_ten(value)
            kept = case["log10_loss"][f"lag_{mark}"]
            found[f"{name}_loss_at_{mark}"] = power_of_ten(kept)
    sigma = [row["largest_singular_value"] for row in series["by_width"]]
    radius = [row["spectral_radius"] for row in series["by_width"]]
    found["default_largest_singular_value_low"] = min(sigma)
    found["default_largest_singular_value_high"] = max(sigma)
    found["default_spectral_radius_low"] = min(radius)
    found["default_spectral_radius_high"] = max(radius)
    return found


def _vanishes_above_one(case: Mapping[str, Any]) -> Outcome:
    found = case["log10_spectral"]["lag_100"]
    return Outcome.all_of(
        found,
        Outcome.above(case["largest_singular_value"], 1),
        Outcome.below(found, -10, power),
    )


def _on_the_circle(case: Mapping[str, Any]) -> Outcome:
    farthest = case["eigenvalue_farthest_from_1"]
    return Outcome.all_of(
        farthest,
        Outcome.below(case["modulus_farthest_from_1"], 1e-6),
        Outcome.above(farthest, 1),
    )


def _loses_nothing(case: Mapping[str, Any]) -> Outcome:
    found = case["log10_loss"]["lag_200"]
    return Outcome.all_of(found, Outcome.below(abs(found), 1e-6))


CLAIMS = (
    Claim(
        "C11",
        "A default tanh network has a largest singular value above 1 and still keeps "
        "less than 10⁻¹⁰ of any gradient over 100 steps.",
        _vanishes_above_one,
        case="default_tanh",
        control="expanding_linear",
    ),
    Claim(
        "C14.default",
        "At default initialisation a tanh network keeps less than a thousandth of any "
        "gradient over 20 steps.",
        lambda case: Outcome.below(case["log10_spectral"]["lag_20"], -3, power),
        case="default_tanh",
        control="orthogonal_tanh_small",
    ),
    Claim(
        "C14.initialisation",
        "The same network with an orthogonal recurrent matrix and small inputs keeps "
        "more than a hundredth over 100 steps.",
        lambda case: Outcome.above(case["log10_spectral"]["lag_100"], -2, power),
        case="orthogonal_tanh_small",
        control="default_tanh_small",
    ),
    Claim(
        "C19.eigenvalues",
        "The eigenvalues of a random orthogonal matrix lie on the unit circle; some "
        "are farther than 1 from the number 1.",
        _on_the_circle,
        case="orthogonal_linear",
        control="identity_relu",
    ),
    Claim(
        "C19.linear",
        "A linear network with an orthogonal matrix loses nothing of a gradient over "
        "200 steps.",
        _loses_nothing,
        case="orthogonal_linear",
        control="orthogonal_tanh",
    ),
    Claim(
        "C19.tanh",
        "A tanh network with an orthogonal matrix and inputs of unit variance keeps "
        "less than 10⁻¹⁰ over 200 steps.",
        lambda case: Outcome.below(case["log10_spectral"]["lag_200"], -10, power),
        case="orthogonal_tanh",
        control="orthogonal_linear",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Norms at five lags, for any gradient and for one loss; the matrix by width."""
    headers = ["network", *[f"lag {mark}" for mark in MARKS]]
    rows: dict[str, list[list[str]]] = {"log10_spectral": [], "log10_loss": []}
    for name, case in CASES.items():
        for key, lines in rows.items():
            values = record["cases"][name][key]
            cells = [power_of_ten(values[f"lag_{mark}"]) for mark in MARKS]
            lines.append([case.label, *cells])
    widths = [
        [
            number(row["hidden_size"]),
            number(row["spectral_radius"]),
            number(row["largest_singular_value"]),
        ]
        for row in record["series"]["by_width"]
    ]
    return {
        "spectral": table(headers, rows["log10_spectral"]),
        "loss": table(headers, rows["log10_loss"]),
        "width": table(
            ["hidden size", "spectral radius", "largest singular value"], widths
        ),
    }


def draw_by_lag(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Largest singular value of the product of Jacobians against the lag."""
    axes = figure.subplots()
    lags = record["series"]["lags"]
    drawn = [name for name in CASES if name != "expanding_linear"]
    labels = []
    for i, name in enumerate(drawn):
        points = record["series"]["by_lag"][name]["spectral"]
        colour = theme.colours[i]
        low, high = ([p[key] for p in points] for key in ("low", "high"))
        axes.fill_between(lags, low, high, color=colour, alpha=0.2, linewidth=0)
        middle = [p["median"] for p in points]
        axes.plot(lags, middle, color=colour, linestyle=DASHES[i])
        labels.append((middle[-1], CASES[name].label, colour))
    power_ticks(axes, range(-70, 1, 10))
    axes.set_xlim(0, lags[-1])
    axes.set_xlabel("lag (steps)")
    axes.set_title("What the gradient can keep, at most")
    label_ends(axes, lags[-1], labels)


FIGURES = {"by_lag": draw_by_lag}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
