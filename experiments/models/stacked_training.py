r"""Does depth help at equal parameters? Stacks on a task that is made of layers.

The task is the running parity of the running parity: with bits $x_t$ and
$u_t = u_{t-1} + x_t$, $v_t = v_{t-1} + u_t$, both modulo 2, the target at each step is
$v_t$. Two layers could each do one of the two sums. Stacks of LSTMs and of plain
networks of different depth get the widest layers that keep them within one number of
parameters, and, as a check on the narrowness that this brings, the width of the single
layer as well. For each stack the learning rate is the best of the same few. What is
counted is updates until the network is right on held-out sequences.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import spread
from experiments.lab.tables import number, table
from seqref import LSTM, RNN, Stacked


@dataclass(frozen=True)
class Config:
    """Depths, the budget of parameters, the task and the training of one run."""

    depths: tuple[int, ...]
    parameters: int
    equal_width_depth: int
    steps: int
    batch_size: int
    heldout_size: int
    learning_rates: tuple[float, ...]
    max_norm: float
    check_every: int
    longest: int
    accuracy: float
    seeds: tuple[int, ...]
    control_seeds: tuple[int, ...]


KINDS = {"LSTM": (LSTM, 4), "RNN": (RNN, 1)}
SMALL = Config(
    depths=(1, 4),
    parameters=3000,
    equal_width_depth=4,
    steps=8,
    batch_size=64,
    heldout_size=256,
    learning_rates=(0.01,),
    max_norm=1.0,
    check_every=10,
    longest=400,
    accuracy=0.99,
    seeds=(0, 1, 2),
    control_seeds=(20, 21, 22),
)
FULL = Config(
    depths=(1, 2, 4),
    parameters=6000,
    equal_width_depth=4,
    steps=12,
    batch_size=64,
    heldout_size=500,
    learning_rates=(0.003, 0.01, 0.03, 0.1),
    max_norm=1.0,
    check_every=5,
    longest=600,
    accuracy=0.99,
    seeds=tuple(range(7)),
    control_seeds=tuple(range(20, 27)),
)


def parameters(kind: str, depth: int, width: int) -> int:
    """Parameters of a stack over inputs of width 1, without the head."""
    _, blocks = KINDS[kind]
    return sum(
        blocks * (width**2 + width * (1 if layer == 0 else width) + 2 * width)
        for layer in range(depth)
    )


def width_for(kind: str, depth: int, budget: int) -> int:
    """The largest width with at most `budget` parameters."""
    width = 1
    while parameters(kind, depth, width + 1) <= budget:
        width += 1
    return width


def batch(
    size: int, steps: int, random: torch.Generator
) -> tuple[Float[Tensor, "batch time 1"], Float[Tensor, "batch time"]]:
    """Random bits as -1 and 1, and the running parity of their running parity."""
    bits = torch.randint(2, (size, steps), generator=random)
    targets = bits.cumsum(1).remainder(2).cumsum(1).remainder(2)
    return (2.0 * bits - 1)[..., None], targets.float()


class Network(nn.Module):
    """A stack and a linear head with one output, the log odds of a 1."""

    def __init__(self, kind: str, depth: int, width: int):
        super().__init__()
        make, _ = KINDS[kind]
        self.stack = Stacked(
            make(1 if layer == 0 else width, width) for layer in range(depth)
        )
        self.head = nn.Linear(width, 1)

    def forward(self, x: Float[Tensor, "batch time 1"]) -> Float[Tensor, "batch time"]:
        return self.head(self.stack(x)[0])[..., 0]


def updates_needed(
    config: Config, kind: str, depth: int, width: int, learning_rate: float, seed: int
) -> int:
    """Updates until the held-out accuracy is reached; `config.longest` if it is not."""
    with seeded(seed):
        network = Network(kind, depth, width)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    random = generator(seed + 1000)
    x_heldout, wanted = batch(config.heldout_size, config.steps, generator(seed + 2000))
    for update in range(1, config.longest + 1):
        x, targets = batch(config.batch_size, config.steps, random)
        loss = binary_cross_entropy_with_logits(network(x), targets)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.max_norm)
        optimiser.step()
        if update % config.check_every == 0:
            with torch.no_grad():
                right = (network(x_heldout) > 0) == (wanted > 0.5)
            if right.double().mean().item() >= config.accuracy:
                return update
    return config.longest


def measure_stack(
    config: Config, kind: str, depth: int, width: int, seeds: tuple[int, ...]
) -> dict[str, Any]:
    """Updates over seeds, at the learning rate with the lowest median."""
    found = {}
    for rate in config.learning_rates:
        found[rate] = [
            updates_needed(config, kind, depth, width, rate, seed) for seed in seeds
        ]
    best = min(found, key=lambda rate: spread(found[rate])["median"])
    return {
        "kind": kind,
        "depth": depth,
        "width": width,
        "parameters": parameters(kind, depth, width),
        "learning_rate": best,
        "updates": spread(found[best]),
        "capped": sum(each == config.longest for each in found[best]),
    }


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Train every stack at every learning rate and seed."""
    jobs: dict[str, tuple[str, int, int, tuple[int, ...]]] = {}
    for kind in KINDS:
        stem, first = kind.lower(), width_for(kind, 1, config.parameters)
        for depth in config.depths:
            width = width_for(kind, depth, config.parameters)
            jobs[f"{stem}_{depth}"] = (kind, depth, width, config.seeds)
        deep = config.equal_width_depth
        jobs[f"{stem}_{deep}_wide"] = (kind, deep, first, config.seeds)
        jobs[f"{stem}_1_again"] = (kind, 1, first, config.control_seeds)
    rows = {
        name: measure_stack(config, *job)
        for name, job in track(jobs.items(), "stacked_training")
    }
    cases = {
        name: {**row, "times_one_layer": _times(row, rows[f"{row['kind'].lower()}_1"])}
        for name, row in rows.items()
    }
    return {
        "numbers": summary(cases),
        "series": {"rows": list(cases.values())},
        "cases": cases,
    }


def _times(row: Mapping[str, Any], shallow: Mapping[str, Any]) -> float:
    return row["updates"]["median"] / shallow["updates"]["median"]


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars for sentences."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        found[f"{name}_updates"] = case["updates"]["median"]
        for key in ("width", "parameters", "times_one_layer"):
            found[f"{name}_{key}"] = case[key]
    return found


def _slower(case: Mapping[str, Any]) -> Outcome:
    found = case["times_one_layer"]
    return Outcome.above(found, 1.5)


CLAIMS = (
    Claim(
        "C113",
        "At equal parameters four LSTM layers need more than 1.5 times as many updates "
        "as one to learn the running parity of the running parity.",
        _slower,
        case="lstm_4",
        control="lstm_1_again",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Width, parameters, learning rate and updates of each stack."""
    rows = []
    for name, case in record["cases"].items():
        note = {"wide": ", width of one layer", "again": ", other seeds"}
        end = note.get(name.rpartition("_")[2], "")
        updates = case["updates"]
        rows.append(
            [
                f"{case['kind']}, {case['depth']}{end}",
                number(case["width"]),
                number(case["parameters"]),
                number(case["learning_rate"], 1),
                f"{updates['median']:.0f} ({updates['low']:.0f} to "
                f"{updates['high']:.0f})",
                number(case["capped"]),
            ]
        )
    headers = ["kind, layers", "width", "parameters", "learning rate"]
    return {
        "updates": table(
            [*headers, "updates: median (range)", "seeds at the limit"],
            rows,
        )
    }


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
