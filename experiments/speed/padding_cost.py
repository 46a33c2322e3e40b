r"""What padding costs, what packing saves on a CPU, and in which order rows come back.

Timed are training steps (forward and backward) of `torch.nn.LSTM` over the same batch,
padded and packed, in interleaved rounds of one process; what is stored is the ratio of
their times in the same round. The orders of rows and the padding are exact counts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from experiments import lab
from experiments.lab import ratio_cells, timing
from experiments.speed import _padding_batching as batching
from experiments.speed import _padding_order as order
from experiments.speed._layers import (
    Size,
    lengths_of,
    normal_input,
    over,
    over_packed,
)
from experiments.speed._presentation import TICKS, by_setting


@dataclass(frozen=True)
class Config:
    """Sizes as (batch, time, hidden), shares of real steps; rows that are batched."""

    sizes: tuple[Size, ...] = ((32, 128, 64), (32, 128, 256), (32, 64, 512))
    shares: tuple[float, ...] = (1.0, 0.97, 0.75, 0.5, 0.25, 0.1)
    rounds: int = 7
    threads: int = 1
    updates: int = 100
    rows: int = 4000
    batch_size: int = 32
    max_tokens: int = 800
    bucket_widths: tuple[int, ...] = (1, 2, 5, 10, 20, 50)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    device: str = "cpu"


def compare(config: Config, size: Size, share: float, place: str) -> dict[str, Any]:
    """A training step over a batch with this share of real steps, padded and packed."""
    seed, device = config.seeds[0], config.device
    with timing.setting(config.threads, timing.SETTINGS[place]):
        with lab.seeded(seed):
            layer = nn.LSTM(size[2], size[2], batch_first=True).to(device)
        x, lengths = normal_input(size, seed, device), lengths_of(share, *size[:2])
        runs = {"padded": over(layer, x), "packed": over_packed(layer, x, lengths)}
        compared = timing.compare(runs, "padded", config.rounds, device)
    real = lengths.float().mean().item() / size[1]
    return {"size": size, "share": share, "real": real, "setting": place, **compared}


def orders(config: Config) -> dict[str, Any]:
    """By packer whether rows keep their place; by what is read the largest error."""
    cases: dict[str, Any] = {}
    for name, packer in order.PACKERS.items():
        runs = [order.places(packer, seed) for seed in config.seeds]
        cases[name] = {
            "refused": max(run["refused"] for run in runs),
            "at_their_place": lab.median(run["at_their_place"] for run in runs),
        }
        if not cases[name]["refused"]:
            cases[name]["accuracy"] = lab.median(
                order.accuracy(packer, config.updates, seed) for seed in config.seeds
            )
    errors = [order.readings(2, seed) for seed in config.seeds]
    for way in errors[0]:
        cases[way] = {"error": max(error[way] for error in errors)}
    return cases


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time, train and count."""
    jobs = [
        (size, share, place)
        for size in config.sizes
        for share in config.shares
        for place in timing.settings_on(config.device)
    ]
    rows = [compare(config, *job) for job in track(jobs, "packing")]
    cases = orders(config) | batching.over_seeds(config)
    again = timing.medians(rows, timing.AGAIN)
    numbers = {"noise_low": min(again), "noise_high": max(again)}
    for row in rows:
        place, share = row["setting"], round(100 * row["share"])
        ratio = row["ratios"]["packed"]["median"]
        # The sizes ascend: what stays is the widest layer.
        cases[f"{place}_{share}"] = {"ratio": ratio}
        numbers[f"{place}_d{row['size'][2]}_{share}"] = ratio
    return {"numbers": numbers, "series": {"packing": rows}, "cases": cases}


def batching_table(record: Mapping[str, Any]) -> lab.Table:
    """One line for a way of putting rows together."""
    widths = record["run"]["config"]["bucket_widths"]
    return lab.Table(
        labels={
            "random": "at random",
            **{f"width_{width}": f"buckets {width} wide" for width in widths},
            "sorted": "sorted, then cut",
            "tokens": "sorted, bounded in steps",
        },
        heading="batches",
        columns={
            "padding": lambda way: f"{100 * way['padding']:.1f} %",
            "number": "batches",
            "rows": lambda way: f"{way['fewest_rows']} to {way['most_rows']}",
            "most steps": "most_steps",
            "variance between": lambda way: f"{100 * way['between']:.0f} %",
        },
    )


def draw_packing(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Packed over padded against the share of real steps, one panel for a setting."""
    rows = record["series"]["packing"]
    sizes = record["run"]["config"]["sizes"]
    panels = figure.subplots(1, len(timing.SETTINGS), sharey=True)
    for axes, (place, title) in zip(panels, timing.LABELS.items(), strict=True):
        for size, colour, dash in zip(sizes, theme.colours, lab.DASHES, strict=False):
            line = [r for r in rows if (r["size"], r["setting"]) == (size, place)]
            shares = [100 * row["real"] for row in line]
            heights = [math.log2(ratio) for ratio in timing.medians(line, "packed")]
            label = f"B {size[0]}, T {size[1]}, D {size[2]}"
            axes.plot(shares, heights, "o", linestyle=dash, color=colour, label=label)
        axes.axhline(0, color=theme.muted, linewidth=1)
        axes.set_title(title)
        axes.set_xlabel("real steps in the batch, %")
    panels[0].set_ylabel("time, padded = 1")
    panels[0].set_yticks(range(-3, 4), TICKS[:-1])
    panels[-1].legend(loc="upper left", frameon=False)


experiment = lab.Experiment(
    small=Config(
        sizes=((4, 8, 16),),
        shares=(0.5, 0.1),
        rounds=2,
        updates=60,
        rows=1000,
        bucket_widths=(5, 50),
        seeds=(0,),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C74",
            "With `enforce_sorted=False` torch packs rows in any order and gives every "
            "row back at its place; with its default it refuses them.",
            lab.exactly(
                "at_their_place",
                lambda case: not case["refused"] and case["at_their_place"] == 1,
            ),
            case="unsorted_told",
            control="unsorted_default",
        ),
        lab.Claim(
            "C75",
            "Of rows that were sorted by hand before packing fewer than half come back "
            "at the place of their labels.",
            lab.below("at_their_place", 0.5, lab.share),
            case="sorted_by_hand",
            control="unsorted_told",
        ),
        lab.Claim(
            "C75.training",
            "A classifier that is trained on such rows with labels in the first order "
            "is right on less than 0.6 of the test rows, where chance is 0.25.",
            lab.below("accuracy", 0.6, lab.share),
            case="sorted_by_hand",
            control="unsorted_told",
        ),
        lab.Claim(
            "C76",
            "On this CPU a training step of the widest LSTM over a packed batch, half "
            "of it real, takes longer than over the padded one; without oneDNN it does "
            "not.",
            lab.above("ratio", 1),
            case="as_it_comes_50",
            control="without_onednn_50",
            timed=True,
        ),
        lab.Claim(
            "C76.few",
            "With a tenth of the steps real the packed batch takes less than 0.9 of "
            "the padded one's time.",
            lab.below("ratio", 0.9),
            case="as_it_comes_10",
            control="as_it_comes_50",
            timed=True,
        ),
        lab.Claim(
            "C78",
            "The last two entries of `h_n` of a packed batch are each row's own final "
            "states, whatever stands in the padding; without packing they are not.",
            lab.below("error", 1e-10),
            case="packed",
            control="not_packed",
        ),
        lab.Claim(
            "C78.entries",
            "In two layers the first two entries of `h_n` are not the last layer's.",
            lab.above("error", 0.1),
            case="first_entries",
            control="packed",
        ),
        lab.Claim(
            "C79",
            "Buckets 5 wide leave less than a quarter of the padding of random "
            "batches; buckets 50 wide do not.",
            lab.below("padding_over_random", 0.25),
            case="width_5",
            control="width_50",
        ),
        lab.Claim(
            "C79.chance",
            "Of the lengths' variance more than 0.8 then lies between the batches.",
            lab.above("between", 0.8, lab.share),
            case="width_5",
            control="random",
        ),
    ],
    numbers=[lab.everything],
    tables={
        "packing": by_setting(
            "series.packing",
            {
                **ratio_cells.SIZE,
                "real steps": lambda row: f"{100 * row['real']:.0f} %",
            },
            "packed",
        ),
        "batching": batching_table,
    },
    figures={"packing": draw_packing},
)
