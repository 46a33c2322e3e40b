r"""Does depth help at equal parameters? Stacks on a task that is made of layers.

The task is the running parity of the running parity: with bits $x_t$ and
$u_t = u_{t-1} + x_t$, $v_t = v_{t-1} + u_t$, both modulo 2, the target at each step is
$v_t$. Two layers could each do one of the two sums. Stacks of LSTMs and of plain
networks of different depth get the widest layers that keep them within one number of
parameters, and, as a check on the narrowness that this brings, the width of the single
layer as well. For each stack the learning rate is the best of the same few. What is
counted is updates until the network is right on held-out sequences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from experiments import lab
from seqref import LSTM, RNN, Stacked

KINDS = {"LSTM": (LSTM, 4), "RNN": (RNN, 1)}


@dataclass(frozen=True)
class Config:
    """Depths, the budget of parameters, the task and the training of one run."""

    depths: tuple[int, ...] = (1, 2, 4)
    parameters: int = 6000
    equal_width_depth: int = 4
    steps: int = 12
    batch_size: int = 64
    heldout_size: int = 500
    learning_rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    max_norm: float = 1.0
    check_every: int = 5
    longest: int = 600
    accuracy: float = 0.99
    seeds: tuple[int, ...] = tuple(range(7))
    control_seeds: tuple[int, ...] = tuple(range(20, 27))


def parameters(kind: str, depth: int, width: int) -> int:
    """Parameters of a stack over inputs of width 1, without the head."""
    _, blocks = KINDS[kind]
    inputs = 1 + (depth - 1) * width
    return blocks * width * (inputs + depth * (width + 2))


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
        self.stack = Stacked(make(width if i else 1, width) for i in range(depth))
        self.head = nn.Linear(width, 1)

    def forward(self, x: Float[Tensor, "batch time 1"]) -> Float[Tensor, "batch time"]:
        return self.head(self.stack(x)[0])[..., 0]


def updates_needed(
    config: Config, kind: str, depth: int, width: int, learning_rate: float, seed: int
) -> int:
    """Updates until the held-out accuracy is reached; `config.longest` if it is not."""
    with lab.seeded(seed):
        network = Network(kind, depth, width)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    random, others = lab.generator(seed + 1000), lab.generator(seed + 2000)
    x_heldout, wanted = batch(config.heldout_size, config.steps, others)
    for update in range(1, config.longest + 1):
        x, targets = batch(config.batch_size, config.steps, random)
        loss = binary_cross_entropy_with_logits(network(x), targets)
        lab.descend(optimiser, loss, config.max_norm)
        if update % config.check_every == 0:
            with torch.no_grad():
                right = (network(x_heldout) > 0) == (wanted > 0.5)
            if right.double().mean().item() >= config.accuracy:
                return update
    return config.longest


def measure_stack(
    config: Config, kind: str, depth: int, width: int, seeds: Sequence[int]
) -> dict[str, Any]:
    """Updates over seeds, at the learning rate with the lowest median."""
    updates = {
        rate: [updates_needed(config, kind, depth, width, rate, s) for s in seeds]
        for rate in config.learning_rates
    }
    best = min(updates, key=lambda rate: lab.median(updates[rate]))
    return {
        "kind": kind,
        "depth": depth,
        "width": width,
        "parameters": parameters(kind, depth, width),
        "learning_rate": best,
        "updates": lab.spread(updates[best]),
        "capped": updates[best].count(config.longest),
    }


def run(config: Config, track: lab.Track) -> dict:
    """Train every stack at every learning rate and seed."""
    deep, jobs = config.equal_width_depth, {}
    for kind in KINDS:
        stem, one_layer = kind.lower(), width_for(kind, 1, config.parameters)
        for depth in config.depths:
            width = width_for(kind, depth, config.parameters)
            jobs[f"{stem}_{depth}"] = kind, depth, width, config.seeds
        jobs[f"{stem}_{deep}_wide"] = kind, deep, one_layer, config.seeds
        jobs[f"{stem}_1_again"] = kind, 1, one_layer, config.control_seeds
    cases = {
        name: measure_stack(config, *job)
        for name, job in track(jobs.items(), "stacked_training")
    }
    for case in cases.values():
        shallow = cases[f"{case['kind'].lower()}_1"]["updates"]["median"]
        case["times_one_layer"] = case["updates"]["median"] / shallow
    return {"series": {"rows": list(cases.values())}, "cases": cases}


def label(row: Mapping[str, Any]) -> str:
    """Kind and number of layers, and what is different from the other stacks."""
    notes = {"wide": ", width of one layer", "again": ", other seeds"}
    return f"{row['kind']}, {row['depth']}" + notes.get(row["name"].split("_")[-1], "")


experiment = lab.Experiment(
    small=Config(
        depths=(1, 4),
        parameters=3000,
        steps=8,
        heldout_size=256,
        learning_rates=(0.01,),
        check_every=10,
        longest=400,
        seeds=(0, 1, 2),
        control_seeds=(20, 21, 22),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C113",
            "At equal parameters four LSTM layers need more than 1.5 times as many "
            "updates as one to learn the running parity of the running parity.",
            lab.above("times_one_layer", 1.5),
            case="lstm_4",
            control="lstm_1_again",
        ),
    ],
    numbers=[
        lab.each("updates.median", "updates"),
        *(lab.each(key) for key in ("width", "parameters", "times_one_layer")),
    ],
    tables={
        "updates": lab.Table(
            {
                "kind, layers": label,
                "width": "width",
                "parameters": "parameters",
                "learning rate": lab.cell("learning_rate", lab.number, 1),
                "updates: median (range)": lab.with_span("updates", "{:.0f}".format),
                "seeds at the limit": "capped",
            }
        )
    },
)
