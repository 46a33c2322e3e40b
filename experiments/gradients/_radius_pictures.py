r"""Tables and the figure of `spectral_radius`."""

from collections.abc import Mapping
from typing import Any

from experiments.gradients._radius_examples import MARKS
from experiments.lab.drawing import DASHES, Theme
from experiments.lab.tables import number, power_of_ten, table

LABELS = {
    "small_radius_driven": "2 units, driven",
    "small_radius_rest": "2 units, at rest",
    "blocks_noise_1": "128 units, noise in all",
    "blocks_driven": "128 units, half of them held in saturation",
    "blocks_rest": "128 units, at rest",
    "blocks_normal": "128 units, normal matrix, noise in all",
    "large_radius_driven": "2 other units, driven",
    "large_radius_rest": "2 other units, at rest",
}


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """The examples; growth of the blocks; where growth starts in random ones."""
    cases = record["cases"]
    starts = [
        [
            f"inputs of standard deviation {case['input_std']:g}"
            if name != "at_rest"
            else "no input, at rest",
            number(case["crossing_median"]),
            f"{number(case['crossing_low'])} to {number(case['crossing_high'])}",
        ]
        for name, case in cases.items()
        if "input_std" in case
    ]
    headers = ["network", "spectral radius", "largest singular value"]
    return {
        "examples": table(
            [*headers, *[f"norm after {mark} steps" for mark in MARKS]],
            _of_examples(cases),
        ),
        "blocks": table(
            [
                "std of the noise",
                "factor for each step",
                "radius × root mean square of the slopes",
                "norm after 60 steps",
            ],
            _of_blocks(cases),
        ),
        "crossing": table(
            ["random networks", "growth starts at a radius of", "over the seeds"],
            starts,
        ),
    }


def _of_examples(cases: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            label,
            number(cases[name]["spectral_radius"]),
            number(cases[name]["largest_singular_value"]),
            *[power_of_ten(cases[name][f"log10_at_{mark}"]) for mark in MARKS],
        ]
        for name, label in LABELS.items()
    ]


def _of_blocks(cases: Mapping[str, Any]) -> list[list[str]]:
    return [
        [
            f"{case['input_std_of_blocks']:g}",
            f"{number(case['factor_median'])} "
            f"({number(case['factor_low'])} to {number(case['factor_high'])})",
            number(case["slope_rule"]),
            power_of_ten(case["log10_at_60"]),
        ]
        for name, case in cases.items()
        if name.startswith("blocks_noise")
    ]


def draw_growth(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Factor of one more step of lag against the spectral radius, by input."""
    axes = figure.subplots()
    radii = record["series"]["radii"]
    axes.axhline(1, color=theme.ink, linewidth=0.9)
    for i, (name, points) in enumerate(record["series"]["factor"].items()):
        colour = theme.colours[i]
        low, high = ([p[key] for p in points] for key in ("low", "high"))
        axes.fill_between(radii, low, high, color=colour, alpha=0.2, linewidth=0)
        std = record["cases"][name]["input_std"]
        label = f"inputs of std {std:g}" if std else "no input, at rest"
        middle = [p["median"] for p in points]
        axes.plot(radii, middle, color=colour, linestyle=DASHES[i], label=label)
    axes.set_xlim(radii[0], radii[-1])
    axes.set_ylim(0.3, 2.0)
    axes.set_xlabel("spectral radius of the recurrent matrix")
    axes.set_title("Factor by which one more step of lag multiplies the norm")
    axes.legend(frameon=False, loc="upper right")
