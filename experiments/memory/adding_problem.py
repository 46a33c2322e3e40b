r"""The adding problem: which layers learn it, by initialisation and length.

Two marked numbers of a sequence are to be summed at its end. Layers of `torch.nn` are
initialised in several ways and trained with a fixed number of updates at most, at two
widths and two learning rates. The score is the share of the targets' variance that is
explained, 1 - 6 times the mean squared error: 0 for a constant, 1/2 where one of the
two numbers is known, 1 for the sum. What is counted is the runs that reach 0.9.
"""

from dataclasses import dataclass

from torch import Tensor

from experiments import lab
from experiments.memory._sweep import at_least, fewer_than_half, grid, swept
from experiments.memory._tables import COUNTS, ByLag, by_lag, mean_score, settings
from experiments.memory._training import Problem
from seqref.tasks.adding import Adding


@dataclass(frozen=True)
class Config:
    """Recipes and the grid: lengths, widths, learning rates, seeds; updates at most."""

    recipes: tuple[str, ...] = (
        *("rnn", "rnn_orthogonal", "irnn"),
        *("lstm", "lstm_chrono", "gru"),
    )
    lengths: tuple[int, ...] = (20, 40, 80)
    hidden_sizes: tuple[int, ...] = (16, 32)
    learning_rates: tuple[float, ...] = (0.01, 0.02)
    updates: int = 600
    batch_size: int = 32
    tests: int = 512
    seeds: tuple[int, ...] = tuple(range(5))


def squared_error(outputs: Tensor, sums: Tensor) -> Tensor:
    """Mean squared error of the last step's output."""
    return (outputs[:, -1, 0] - sums).square().mean()


def explained(outputs: Tensor, sums: Tensor) -> float:
    """Share of the variance of the targets, 1/6, that the answers explain."""
    return 1 - 6 * squared_error(outputs, sums).item()


PROBLEM = Problem(
    input_size=2,
    output_size=1,
    task=Adding,
    loss=squared_error,
    score=explained,
    enough=0.01,
    solved=0.9,
)


def run(config: Config, track: lab.Track) -> dict:
    """Train every cell of the grid with every seed; chrono is told the length."""
    return swept(PROBLEM, grid(config, config.lengths), config, track)


experiment = lab.Experiment(
    small=Config(
        recipes=("lstm", "lstm_chrono", "gru"),
        lengths=(80,),
        hidden_sizes=(16,),
        learning_rates=(0.02,),
        updates=450,
        tests=128,
        seeds=(0, 1),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C126",
            "Of the LSTMs as they come, fewer than half learn to add over 80 steps; of "
            "those with chrono biases, half or more do.",
            fewer_than_half,
            case="lstm_80",
            control="lstm_chrono_80",
        ),
        lab.Claim(
            "C127",
            "Half or more of the GRUs as they come learn to add over 80 steps; of the "
            "LSTMs as they come, not half do.",
            at_least(0.5),
            case="gru_80",
            control="lstm_80",
        ),
    ],
    numbers=[
        lambda cases: {"runs": sum(case["runs"] for case in cases.values())},
        *COUNTS,
        lab.each("score.mean", "explained"),
    ],
    tables={
        "solved": by_lag(word="length"),
        "explained": by_lag(mean_score, "length"),
        "settings": settings("length"),
    },
    figures={"solved": ByLag("Runs that learned to add two marked numbers", "length")},
)
