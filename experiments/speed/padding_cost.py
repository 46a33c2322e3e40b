r"""What padding costs, what packing saves on a CPU, and in which order rows come back.

Timed are training steps (forward and backward) of `torch.nn.LSTM` over the same batch,
padded and packed, in interleaved rounds of one process; what is stored is the ratio of
their times in the same round. The orders of rows and the padding are exact counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.lab.claim import Claim, Outcome, share
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.statistics import median
from experiments.speed import _padding_batching as batching
from experiments.speed import _padding_order as order
from experiments.speed import _padding_packing as packing
from experiments.speed import _padding_tables as presentation
from experiments.speed._timing import SETTINGS, Size


@dataclass(frozen=True)
class Config:
    """Sizes as (batch, time, hidden), shares of real steps; rows that are batched."""

    sizes: tuple[Size, ...]
    shares: tuple[float, ...]
    rounds: int
    threads: int
    updates: int
    rows: int
    batch_size: int
    max_tokens: int
    bucket_widths: tuple[int, ...]
    seeds: tuple[int, ...]
    device: str = "cpu"


SMALL = Config(
    sizes=((32, 32, 256),),
    shares=(0.5, 0.1),
    rounds=5,
    threads=1,
    updates=60,
    rows=1000,
    batch_size=32,
    max_tokens=800,
    bucket_widths=(5, 50),
    seeds=(0,),
)
FULL = Config(
    sizes=((32, 128, 64), (32, 128, 256), (32, 64, 512)),
    shares=(1.0, 0.97, 0.75, 0.5, 0.25, 0.1),
    rounds=7,
    threads=1,
    updates=100,
    rows=4000,
    batch_size=32,
    max_tokens=800,
    bucket_widths=(1, 2, 5, 10, 20, 50),
    seeds=(0, 1, 2, 3, 4),
)


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Time, train and count."""
    jobs = [
        (size, share, name)
        for size in config.sizes
        for share in config.shares
        for name in SETTINGS
        # On a GPU there is no oneDNN to switch off.
        if config.device == "cpu" or SETTINGS[name]
    ]
    timed = [packing.measure(config, *job) for job in track(jobs, "packing")]
    batched = batching.over_seeds(config)
    cases = orders(config) | summaries(config)
    for row in timed:
        # The sizes ascend: what stays is the widest layer.
        cases[f"{row['setting']}_{share_name(row['share'])}"] = {
            "ratio": row["packed"]["median"]
        }
    cases |= {way: batching.case_of(batched, way) for way in batched}
    series = {"packing": timed, "batching": batched}
    return {"numbers": numbers(cases, timed, batched), "series": series, "cases": cases}


def share_name(share: float) -> str:
    """0.25 as a part of a name."""
    return f"{round(100 * share)}"


def orders(config: Config) -> dict[str, Any]:
    """By packer: refused or not, rows at their place, accuracy of a classifier."""
    found: dict[str, Any] = {}
    for name, packer in order.PACKERS.items():
        runs = [order.places(packer, seed) for seed in config.seeds]
        case = {
            "refused": max(run["refused"] for run in runs),
            "at_their_place": median(run["at_their_place"] for run in runs),
        }
        if not case["refused"]:
            case["accuracy"] = median(
                order.accuracy(packer, config.updates, seed) for seed in config.seeds
            )
        found[name] = case
    return found


def summaries(config: Config) -> dict[str, Any]:
    """By what is read of two bidirectional layers: the largest error over the seeds."""
    runs = [order.readings(2, seed) for seed in config.seeds]
    return {way: {"error": max(run[way] for run in runs)} for way in runs[0]}


def numbers(
    cases: Mapping[str, Any], timed: list[dict[str, Any]], batched: Mapping[str, Any]
) -> dict[str, Any]:
    """Scalars for sentences."""
    found: dict[str, Any] = {}
    for row in timed:
        stem = f"{row['setting']}_d{row['size'][2]}_{share_name(row['share'])}"
        found[stem] = row["packed"]["median"]
    again = [row["again"]["median"] for row in timed]
    found["noise_low"], found["noise_high"] = min(again), max(again)
    for name in order.PACKERS:
        found |= {f"{name}_{key}": value for key, value in cases[name].items()}
    for way in ("packed", "not_packed", "first_entries"):
        found[f"{way}_error"] = cases[way]["error"]
    for way, values in batched.items():
        found |= {f"{way}_{key}": values[key] for key in ("padding", "between")}
        found |= {
            f"{way}_{key}": round(values[key])
            for key in ("batches", "fewest_rows", "most_rows", "most_steps")
        }
    return found


def _rows_come_back(case: Mapping[str, Any]) -> Outcome:
    found = case["at_their_place"]
    return Outcome.exactly(found, holds=not case["refused"] and found == 1)


def _misplaced(case: Mapping[str, Any]) -> Outcome:
    return Outcome.below(case["at_their_place"], 0.5, share)


def _learns_little(case: Mapping[str, Any]) -> Outcome:
    return Outcome.below(case["accuracy"], 0.6, share)


def _slower(case: Mapping[str, Any]) -> Outcome:
    return Outcome.above(case["ratio"], 1.2)


def _faster(case: Mapping[str, Any]) -> Outcome:
    return Outcome.below(case["ratio"], 0.9)


def _right(case: Mapping[str, Any]) -> Outcome:
    return Outcome.below(case["error"], 1e-10)


def _little_padding(case: Mapping[str, Any]) -> Outcome:
    found = case["padding"] / case["random_padding"]
    return Outcome.below(found, 0.25)


def _alike(case: Mapping[str, Any]) -> Outcome:
    return Outcome.above(case["between"], 0.8, share)


CLAIMS = (
    Claim(
        "C74",
        "With `enforce_sorted=False` torch packs rows in any order and gives every row "
        "back at its place; with its default it refuses them.",
        _rows_come_back,
        case="unsorted_told",
        control="unsorted_default",
    ),
    Claim(
        "C75",
        "Of rows that were sorted by hand before packing fewer than half come back at "
        "the place of their labels.",
        _misplaced,
        case="sorted_by_hand",
        control="unsorted_told",
    ),
    Claim(
        "C75.training",
        "A classifier that is trained on such rows with labels in the first order is "
        "right on less than 0.6 of the test rows, where chance is 0.25.",
        _learns_little,
        case="sorted_by_hand",
        control="unsorted_told",
    ),
    Claim(
        "C76",
        "On this CPU a training step of the widest LSTM over a packed batch, half of "
        "it real, takes more than 1.2 times as long as over the padded one; without "
        "oneDNN it does not.",
        _slower,
        case="as_it_comes_50",
        control="without_onednn_50",
        timed=True,
    ),
    Claim(
        "C76.few",
        "With a tenth of the steps real the packed batch takes less than 0.9 of the "
        "padded one's time.",
        _faster,
        case="as_it_comes_10",
        control="as_it_comes_50",
        timed=True,
    ),
    Claim(
        "C78",
        "The last two entries of `h_n` of a packed batch are each row's own final "
        "states, whatever stands in the padding; without packing they are not.",
        _right,
        case="packed",
        control="not_packed",
    ),
    Claim(
        "C78.entries",
        "In two layers the first two entries of `h_n` are not the last layer's.",
        lambda case: Outcome.above(case["error"], 0.1),
        case="first_entries",
        control="packed",
    ),
    Claim(
        "C79",
        "Buckets 5 wide leave less than a quarter of the padding of random batches; "
        "buckets 50 wide do not.",
        _little_padding,
        case="width_5",
        control="width_50",
    ),
    Claim(
        "C79.chance",
        "Of the lengths' variance more than 0.8 then lies between the batches.",
        _alike,
        case="width_5",
        control="random",
    ),
)

tables = presentation.tables
FIGURES: dict[str, Any] = {"packing": presentation.draw_packing}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
