r"""What each part of the linear recurrent unit is for: its exponentials, and gamma.

Stability: layers learn to repeat white noise after some steps, with eigenvalues near
the unit circle. In one their sizes are exponentials of exponentials, in another they
are parameters themselves, in a third real and imaginary parts are. Counted is whether
an eigenvalue leaves the disc, and how large the loss becomes. Scale: before training,
how large the state is by the size of the eigenvalue, with gamma and without.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments import lab
from seqref import LRU


@dataclass(frozen=True)
class Config:
    """The task and its training; the layer of the scales; seeds."""

    d_state: int = 32
    lag: int = 10
    length: int = 512
    batch: int = 8
    updates: int = 150
    learning_rate: float = 0.05
    r_min: float = 0.95
    r_max: float = 0.999
    # Sizes of eigenvalues for the scales, and the rows of white noise.
    radii: tuple[float, ...] = (0.5, 0.9, 0.99, 0.999)
    rows: int = 200
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


class Free(nn.Module):
    """A pair of parameters for each eigenvalue, as LRU calls for them."""

    def __init__(
        self, poles: Tensor, write: Callable[[Tensor], Tensor], read: Callable
    ) -> None:
        super().__init__()
        self.values = nn.Parameter(write(poles))
        self.read = read

    def forward(self) -> Tensor:
        """The eigenvalues."""
        return self.read(self.values)


def polar(poles: Tensor) -> Tensor:
    """Size and angle."""
    return torch.stack([poles.abs(), poles.angle()])


PARAMETRISATIONS: dict[str, tuple[str, Any]] = {
    "exponentials": ("exponentials, `LRU`", None),
    "polar": ("size and angle", (polar, lambda v: torch.polar(v[0], v[1]))),
    "cartesian": (
        "real and imaginary part",
        (lambda p: torch.stack([p.real, p.imag]), lambda v: torch.complex(v[0], v[1])),
    ),
}
# A sequence so many times as long is tried after training.
LONGER = 8
LARGEST = float(torch.finfo(torch.float32).max)
SCALES = {"gamma": True, "no_gamma": False}


def layer_of(name: str, config: Config) -> Any:
    """An LRU of one input, with its eigenvalues in this parametrisation."""
    layer: Any = LRU(1, config.d_state, r_min=config.r_min, r_max=config.r_max)
    change = PARAMETRISATIONS[name][1]
    if change is not None:
        free = Free(layer.eigenvalues().detach(), *change)
        layer.free = free
        layer.eigenvalues = free.forward
    return layer


def loss_of(layer: Any, x: Tensor, lag: int) -> Tensor:
    """The mean square of what is said of the input so many steps ago."""
    y, _ = layer(x)
    return (y[:, lag:] - x[:, :-lag]).square().mean()


def trained(name: str, config: Config, seed: int) -> dict[str, float]:
    """The largest eigenvalue and loss in training; the loss at its end, and longer."""
    with lab.seeded(seed):
        layer = layer_of(name, config)
    random = lab.generator(seed + 1000)
    optimizer = torch.optim.Adam(layer.parameters(), lr=config.learning_rate)
    radius, losses = 0.0, []
    for _ in range(config.updates):
        x = torch.randn(config.batch, config.length, 1, generator=random)
        loss = loss_of(layer, x, config.lag)
        if not loss.isfinite():
            losses.append(float("inf"))
            break
        losses.append(loss.item())
        lab.descend(optimizer, loss, 1.0)
        radius = max(radius, layer.eigenvalues().abs().max().item())
    x = torch.randn(config.batch, LONGER * config.length, 1, generator=random)
    with torch.no_grad():
        losses.append(loss_of(layer, x, config.lag).item())
    # What is no number is as large as float32 goes.
    *losses, longer = (loss if loss < LARGEST else LARGEST for loss in losses)
    found = {"radius": radius, "largest": max(losses), "last": losses[-1]}
    return {**found, "longer": longer}


def stability(name: str, config: Config) -> dict[str, Any]:
    """Over all seeds."""
    runs = [trained(name, config, seed) for seed in config.seeds]
    values = {key: [run[key] for run in runs] for key in runs[0]}
    return {
        "radius": max(values["radius"]),
        "largest": max(values["largest"]),
        "last": lab.median(values["last"]),
        "longer": lab.median(values["longer"]),
        "left": sum(radius >= 1 for radius in values["radius"]),
        "runs": len(runs),
    }


def scale(with_gamma: bool, config: Config) -> dict[str, Any]:
    """The variance of a number of the state over that of what comes in, by radius."""
    variances = []
    for radius in config.radii:
        with lab.seeded(config.seeds[0]):
            layer = LRU(1, 1, r_min=radius * (1 - 1e-6), r_max=radius, max_phase=0.5)
        if not with_gamma:
            with torch.no_grad():
                layer.log_gamma.zero_()
        # Long enough for the state to forget where it began.
        steps = round(4 / (1 - radius))
        x = torch.randn(
            config.rows, steps, 1, generator=lab.generator(config.seeds[0] + 7)
        )
        with torch.no_grad():
            h_n = torch.complex(*layer(x)[1])
            coming = layer.B.square().sum()
        variances.append((h_n.abs().square().mean() / coming).item())
    return {
        "variances": variances,
        "largest": max(variances),
        "apart": max(variances) / min(variances),
    }


def loss_text(value: float) -> str:
    """A loss in three digits, unless it has overflowed."""
    return "overflows" if value > 1e38 else f"{value:.3g}"


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Train with each parametrisation, and measure both scales."""
    cases: dict[str, Any] = {}
    for name in track(list(PARAMETRISATIONS), "lru_parts"):
        cases[name] = stability(name, config)
    for name, with_gamma in SCALES.items():
        cases[name] = scale(with_gamma, config)
    rows = [
        {
            "radius": radius,
            "exact": 1 / (1 - radius**2),
            **{name: cases[name]["variances"][i] for name in SCALES},
        }
        for i, radius in enumerate(config.radii)
    ]
    return {"series": {"scales": rows}, "cases": cases}


experiment = lab.Experiment(
    small=Config(
        d_state=16,
        length=192,
        batch=4,
        updates=20,
        radii=(0.5, 0.9, 0.97),
        rows=300,
        seeds=(0, 1, 2),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C213",
            "With eigenvalues as exponentials none leaves the unit disc in any run; "
            "with sizes as parameters one does.",
            lambda case: lab.Outcome.at_most(case["left"], 0, case["runs"]),
            case="exponentials",
            control="polar",
        ),
        lab.Claim(
            "C214",
            "On white noise gamma keeps the variances of states within a factor of 2 "
            "of each other, whatever the eigenvalues; without it they lie apart.",
            lab.below("apart", 2.0),
            case="gamma",
            control="no_gamma",
        ),
    ],
    numbers=[
        *(
            lab.each(key, cases=PARAMETRISATIONS)
            for key in ("radius", "largest", "last", "longer", "left", "runs")
        ),
        *(lab.each(key, cases=SCALES) for key in ("apart",)),
    ],
    tables={
        "stability": lab.Table(
            labels={name: label for name, (label, _) in PARAMETRISATIONS.items()},
            heading="parameters",
            columns={
                "runs in which an eigenvalue left the disc": lambda case: (
                    f"{case['left']} of {case['runs']}"
                ),
                "largest size": lab.cell("radius", "{:.4f}".format),
                "largest loss": lab.cell("largest", loss_text),
                "last loss, median": lab.cell("last", loss_text),
                "over eight times the length": lab.cell("longer", loss_text),
            },
        ),
        "scales": lab.Table(
            rows="series.scales",
            columns={
                "size of the eigenvalue": lab.cell("radius", str),
                "with gamma": lab.cell("gamma", "{:.2f}".format),
                "without": lab.cell("no_gamma", "{:.3g}".format),
                "without, by the sum of a series": lab.cell("exact", "{:.3g}".format),
            },
        ),
    },
)
