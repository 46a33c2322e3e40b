r"""What is asserted of slopes, overflow and clipping."""

from collections.abc import Mapping
from typing import Any

from experiments.lab.claim import Claim, Outcome


def _open_interval(case: Mapping[str, Any]) -> Outcome:
    found = case["lowest_to_8_5"]
    return Outcome.exactly(found, holds=found > 0 and case["highest"] == 1)


def _slope_is_lost(case: Mapping[str, Any]) -> Outcome:
    found = case["lowest_to_10"]
    return Outcome.exactly(found, holds=found == 0)


def _gradient_first(case: Mapping[str, Any]) -> Outcome:
    runs = case["runs"]
    fine = case["state_bounded"] == runs and case["loss_finite"] == runs
    found = float(case["gradient_finite"])
    return Outcome.exactly(found, holds=fine and found == 0)


def _loss_is_lost(case: Mapping[str, Any]) -> Outcome:
    found = float(case["loss_after_finite"])
    return Outcome.exactly(found, holds=found == 0)


def _state_is_lost(case: Mapping[str, Any]) -> Outcome:
    found = float(case["loss_finite"])
    return Outcome.exactly(found, holds=found == 0)


def _long_range(case: Mapping[str, Any]) -> Outcome:
    found = float(case["first_infinite_lag"])
    return Outcome.exactly(found, holds=found == 128)


def _direction_kept(case: Mapping[str, Any]) -> Outcome:
    found = case["cosine"]
    return Outcome.all_of(found, Outcome.below(1 - found, 1e-8))


def _still_vanished(case: Mapping[str, Any]) -> Outcome:
    found = case["share_of_first_half"]
    return Outcome.below(found, 1e-5)


def _lost_in_clipping(case: Mapping[str, Any]) -> Outcome:
    found = case["entry_after"]
    return Outcome.exactly(found, holds=found == 0)


def _small_updates(case: Mapping[str, Any]) -> Outcome:
    found = case["largest_update"]
    return Outcome.below(found, 0.1)


CLAIMS = (
    Claim(
        "C12.range",
        "In float64 the slope of tanh is above 0 for every input up to 8.5 in size, "
        "and its largest value is 1.",
        _open_interval,
        case="slope_float64",
        control="slope_relu",
    ),
    Claim(
        "C12.float32",
        "In float32 the computed slope of tanh is exactly 0 for some input up to 10.",
        _slope_is_lost,
        case="slope_float32",
        control="slope_float64",
    ),
    Claim(
        "C13.gradient",
        "In every run in float32 the states of a tanh network stay within 1 and the "
        "loss is finite, and the gradient is not.",
        _gradient_first,
        case="update_float32",
        control="update_float64",
    ),
    Claim(
        "C13.loss",
        "After one clipped update from such a gradient the loss is not finite.",
        _loss_is_lost,
        case="update_float32",
        control="update_skipped",
    ),
    Claim(
        "C13.relu",
        "With a ReLU in the place of tanh the first loss itself is not finite.",
        _state_is_lost,
        case="update_relu",
        control="update_float32",
    ),
    Claim(
        "C13.range",
        "A gradient that doubles at each step leaves bfloat16 at lag 128.",
        _long_range,
        case="lag_bfloat16",
        control="lag_float16",
    ),
    Claim(
        "C20.direction",
        "Clipping by norm keeps the direction of an exploding gradient.",
        _direction_kept,
        case="clip_norm",
        control="clip_value",
    ),
    Claim(
        "C20.vanishing",
        "After clipping, what comes from the first half of the inputs is still less "
        "than a hundred-thousandth of the gradient.",
        _still_vanished,
        case="clipped_default",
        control="clipped_orthogonal",
    ),
    Claim(
        "C20.overflow",
        "In float32 four entries of 1e20 are clipped to nothing.",
        _lost_in_clipping,
        case="huge_float32",
        control="huge_float64",
    ),
    Claim(
        "C20.update",
        "With clipping no update of a unit near its bifurcation is larger than 0.1.",
        _small_updates,
        case="limit_1",
        control="unclipped",
    ),
)
