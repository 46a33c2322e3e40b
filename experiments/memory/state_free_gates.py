r"""What a gate that does not see the state gives up, and what it keeps.

Parity: a bit at each step, and the sum of all bits so far, modulo 2. Latch: a value and
a mark at each step, and the value at the last mark. A layer with a linear read-out
learns the answer at every step, and is then tried at its last step, at the length of
training and at four times that. A minimal layer keeps a product of decays between 0 and
1, so nothing in its state can change sign at each step; a gate that reads the mark is
all that a latch takes. The control there is the same layer with a gate that reads
nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from experiments import lab
from experiments.memory._networks import Network
from experiments.memory._training import Cell, Problem, train
from seqref import GRU, MinGRU, MinLSTM, Stacked


@dataclass(frozen=True)
class Config:
    """Sizes, training, sequences tried after it, and the seeds."""

    hidden: int = 16
    length: int = 16
    batch: int = 32
    updates: int = 600
    learning_rate: float = 0.02
    tests: int = 1000
    all_cases: bool = True
    seeds: tuple[int, ...] = (0, 1, 2)


class Parity:
    """Bits as one of two inputs; the parity so far."""

    def __init__(self, length: int) -> None:
        self.length = length

    def draw(self, batch_size: int, random: Any) -> tuple[Tensor, Tensor]:
        """Bits, and at each step whether the sum of them so far is odd."""
        bits = torch.randint(2, (batch_size, self.length), generator=random)
        return one_hot(bits, 2).float(), (bits.cumsum(1) % 2).float()


class Latch:
    """A value of -1 or 1 and a mark at each step; the value at the last mark."""

    def __init__(self, length: int) -> None:
        self.length = length

    def draw(self, batch_size: int, random: Any) -> tuple[Tensor, Tensor]:
        """Values and marks, one in five, and one at the first step."""
        shape = batch_size, self.length
        values = torch.randint(2, shape, generator=random).float()
        marks = torch.rand(shape, generator=random) < 0.2
        marks[:, 0] = True
        steps = torch.arange(self.length).expand(shape)
        last = torch.where(marks, steps, 0).cummax(dim=1).values
        x = torch.stack([2 * values - 1, marks.float()], dim=-1)
        return x, values.gather(1, last)


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy at every step."""
    return binary_cross_entropy_with_logits(outputs[..., 0], targets)


def last_right(outputs: Tensor, targets: Tensor) -> float:
    """The share of rows that are right at their last step."""
    right = (outputs[:, -1, 0] > 0) == (targets[:, -1] > 0.5)
    return right.double().mean().item()


def problem(task: Callable[[int], Any]) -> Problem:
    """The task as the training sees it; `lag` is the length, and no run stops early."""
    return Problem(2, 1, task, loss, last_right, enough=0.0, solved=0.95)


def blind(width: int) -> MinGRU:
    """A minGRU whose gate reads no input: a decay that is learned, the same always."""
    layer = MinGRU(2, width)
    weight = layer.cell.weight_ih
    with torch.no_grad():
        weight[:width] = 0
    weight.register_hook(
        lambda grad: torch.cat([torch.zeros_like(grad[:width]), grad[width:]])
    )
    return layer


def two(width: int) -> Stacked:
    """Two layers of a minGRU, one on the other."""
    return Stacked([MinGRU(2, width), MinGRU(width, width)])


KINDS: dict[str, tuple[str, Callable[[int], Any]]] = {
    "gru": ("GRU", lambda width: GRU(2, width)),
    "mingru": ("minGRU", lambda width: MinGRU(2, width)),
    "minlstm": ("minLSTM", lambda width: MinLSTM(2, width)),
    "two": ("minGRU, two layers", two),
    "blind": ("minGRU, a gate that reads nothing", blind),
}
TASKS = {"parity": Parity, "latch": Latch}
CLAIMED = ("parity_gru", "parity_mingru", "latch_mingru", "latch_blind")


def cases(config: Config) -> dict[str, tuple[str, str]]:
    """Every task with every kind; in the tests those that claims name."""
    every = {f"{task}_{kind}": (task, kind) for task in TASKS for kind in KINDS}
    return {n: case for n, case in every.items() if config.all_cases or n in CLAIMED}


def measure(case: tuple[str, str], config: Config) -> dict[str, Any]:
    """Train with each seed; the share of rows that are right at their last step."""
    task, kind = case
    learn = problem(TASKS[task])
    long = 4 * config.length
    shares: dict[str, list[float]] = {"trained": [], "longer": []}
    for seed in config.seeds:
        with lab.seeded(seed):
            network = Network(KINDS[kind][1](config.hidden), 1)
        cell = Cell(
            kind, config.hidden, config.learning_rate, config.length, config.updates, 0
        )
        train(learn, network, cell, config.batch, seed)
        for name, length in {"trained": config.length, "longer": long}.items():
            random = lab.generator(seed + 2000)
            x, targets = learn.task(length).draw(config.tests, random)
            with torch.no_grad():
                shares[name].append(last_right(network(x), targets))
    return {name: lab.spread(values) for name, values in shares.items()}


def share_cell(task: str, name: str) -> lab.Cell:
    """The median share and its ends over seeds, of one task."""

    def write(row: Any) -> str:
        values = row[task][name]
        ends = f"{values['low']:.2f} to {values['high']:.2f}"
        return f"{values['median']:.2f} ({ends})"

    return write


def table(record: Any) -> lab.Table:
    """By layer, both tasks."""
    found = record["cases"]
    rows = [
        {"name": label, **{task: found[f"{task}_{kind}"] for task in TASKS}}
        for kind, (label, _) in KINDS.items()
        if all(f"{task}_{kind}" in found for task in TASKS)
    ]
    names = {"trained": "at the trained length", "longer": "at four times that"}
    columns: dict[str, Any] = {"layer": lambda row: row["name"]}
    for task in TASKS:
        for name, words in names.items():
            columns[f"{task}, {words}"] = share_cell(task, name)
    return lab.Table(columns, rows=lambda _: rows)


experiment = lab.Experiment(
    small=Config(
        hidden=8,
        length=8,
        batch=16,
        updates=150,
        learning_rate=0.03,
        tests=400,
        all_cases=False,
        seeds=(0,),
    ),
    cases=cases,
    measure=measure,
    claims=[
        lab.Claim(
            "C210",
            "A GRU that learned parity is right in at least 0.9 of rows at the length "
            "of training (median over seeds); a layer of minGRU is not.",
            lab.above("trained.median", 0.9, on=lab.share),
            case="parity_gru",
            control="parity_mingru",
        ),
        lab.Claim(
            "C210.latch",
            "A layer of minGRU that learned to hold the last marked value is right in "
            "at least 0.9 of rows at four times the length of training; with a gate "
            "that reads no input it is not.",
            lab.above("longer.median", 0.9, on=lab.share),
            case="latch_mingru",
            control="latch_blind",
        ),
    ],
    numbers=[
        lab.each("trained.median", "trained"),
        lab.each("longer.median", "longer"),
    ],
    tables={"shares": table},
)
