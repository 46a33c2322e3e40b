r"""What truncated BPTT can and cannot learn: a latch, and credit over a lag.

Two tasks for an LSTM. In the *latch* a mark with a sign comes every few steps, never
more than K apart, and the target at every step is the last sign. It is trained with
chunks of K steps and tested on one mark followed by a lag of up to a thousand steps. In
*recall* every step has a random sign, the first step is marked, and the only loss is at
the last step, for the marked sign: whether to keep it is decided at the first step. The
graph is cut between the last K steps and those before them, so that K is the horizon of
the loss, and no gradient gets to the first step unless K is the whole sequence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from experiments.lab.claim import Claim, Outcome, share
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.tables import number, table
from seqref import LSTM
from seqref.recurrence import detach_state
from seqref.recurrent.bptt import truncated_chunks


@dataclass(frozen=True)
class Config:
    """Sizes of network and tasks, numbers of updates, seeds."""

    hidden_size: int
    batch_size: int
    learning_rate: float
    latch_size: int
    latch_updates: int
    latch_steps: int
    latch_lags: tuple[int, ...]
    recall_steps: int
    recall_sizes: tuple[int, ...]
    recall_biases: tuple[int, ...]
    recall_updates: int
    tests: int
    seeds: tuple[int, ...]


SMALL = Config(
    hidden_size=16,
    batch_size=32,
    learning_rate=0.01,
    latch_size=10,
    latch_updates=400,
    latch_steps=100,
    latch_lags=(5, 100),
    recall_steps=20,
    recall_sizes=(10, 20),
    recall_biases=(1,),
    recall_updates=400,
    tests=500,
    seeds=(0, 1),
)
FULL = Config(
    hidden_size=16,
    batch_size=32,
    learning_rate=0.01,
    latch_size=10,
    latch_updates=400,
    latch_steps=100,
    latch_lags=(5, 10, 20, 50, 100, 200, 1000),
    recall_steps=20,
    recall_sizes=(5, 10, 15, 19, 20),
    recall_biases=(1, 3),
    recall_updates=1500,
    tests=2000,
    seeds=tuple(range(5)),
)


class Network(nn.Module):
    """An LSTM and one logit."""

    def __init__(self, width: int, forget_bias: float) -> None:
        super().__init__()
        self.layer = LSTM(2, width)
        self.head = nn.Linear(width, 1)
        with torch.no_grad():
            bias: Any = self.layer.cell.bias_ih
            bias[width : 2 * width].add_(forget_bias)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Logits (batch, time) and the state."""
        y, state = self.layer(x, state)
        return self.head(y)[..., 0], state


class Learner:
    """A network with its optimiser; gradients are clipped to a norm of 1."""

    def __init__(self, config: Config, forget_bias: float, seed: int) -> None:
        with seeded(seed):
            self.network = Network(config.hidden_size, forget_bias)
        self.parameters = list(self.network.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.learning_rate)

    def update(self, loss: Tensor) -> None:
        """One step of Adam."""
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()


def signs(size: tuple[int, ...], random: torch.Generator) -> Tensor:
    """-1 or 1 with equal chances."""
    return 2.0 * torch.randint(0, 2, size, generator=random) - 1


def latch_data(
    config: Config, random: torch.Generator
) -> tuple[Float[Tensor, "batch time 2"], Float[Tensor, "batch time"]]:
    """Marks 1 to `latch_size` steps apart, a little noise; the target is 0 or 1."""
    batch, steps = config.batch_size, config.latch_steps
    new = torch.zeros(batch, steps, dtype=torch.bool)
    wait = torch.zeros(batch, dtype=torch.long)
    for t in range(steps):
        new[:, t] = wait == 0
        gap = torch.randint(0, config.latch_size, (batch,), generator=random)
        wait = torch.where(new[:, t], gap, wait - 1)
    sign = signs((batch, steps), random)
    x = torch.stack([torch.where(new, sign, 0.0), new.float()], dim=-1)
    # The place of the last mark at each step.
    last = torch.where(new, torch.arange(steps), 0).cummax(dim=1).values
    target = (sign.gather(1, last) + 1) / 2
    return x + 0.1 * torch.randn(x.shape, generator=random), target


def learn_latch(config: Config, seed: int, *, carry: bool) -> Network:
    """Train with chunks of `latch_size`; `carry` hands the state on between them."""
    learner, random = Learner(config, 0.0, seed), generator(seed + 1000)
    updates = 0
    while updates < config.latch_updates:
        x, target = latch_data(config, random)
        state = None
        pieces = zip(
            truncated_chunks(x, config.latch_size),
            truncated_chunks(target, config.latch_size),
            strict=True,
        )
        for chunk, wanted in pieces:
            logits, state = learner.network(chunk.x, state)
            learner.update(cross_entropy(logits, wanted.x))
            state = detach_state(state) if carry else None
            updates += 1
    return learner.network


@torch.no_grad()
def latch_accuracy(
    config: Config, network: Network, lag: int, seed: int, *, carry: bool
) -> float:
    """Share of marks that are still known `lag` steps later."""
    random = generator(seed + 2000)
    sign = signs((config.tests,), random)
    x = torch.zeros(config.tests, lag + 1, 2)
    x[:, 0, 0], x[:, 0, 1] = sign, 1.0
    x += 0.1 * torch.randn(x.shape, generator=random)
    logits, state = x.new_empty(0), None
    for chunk, _ in truncated_chunks(x, config.latch_size):
        logits, state = network(chunk, state if carry else None)
    return ((logits[:, -1] > 0) == (sign > 0)).double().mean().item()


def recall_data(
    config: Config, count: int, random: torch.Generator
) -> tuple[Float[Tensor, "batch time 2"], Float[Tensor, " batch"]]:
    """A sign at every step, the first one marked and asked for at the end."""
    sign = signs((count, config.recall_steps), random)
    mark = torch.zeros_like(sign)
    mark[:, 0] = 1
    return torch.stack([sign, mark], dim=-1), (sign[:, 0] + 1) / 2


def recall_logits(
    network: Network, x: Float[Tensor, "batch time 2"], size: int
) -> Float[Tensor, " batch"]:
    """The logit of the last step; the graph is cut before the last `size` steps."""
    # Chunks counted from the first step would leave the loss a shorter last chunk.
    _, state = network(x[:, :-size], network.layer.initial_state(len(x)))
    logits, _ = network(x[:, -size:], detach_state(state))
    return logits[:, -1]


def recall_accuracy(config: Config, size: int, forget_bias: float, seed: int) -> float:
    """Train with a horizon of `size` steps; accuracy on new sequences."""
    learner, random = Learner(config, forget_bias, seed), generator(seed + 3000)
    for _ in range(config.recall_updates):
        x, target = recall_data(config, config.batch_size, random)
        learner.update(cross_entropy(recall_logits(learner.network, x, size), target))
    x, target = recall_data(config, config.tests, random)
    with torch.no_grad():
        logits, _ = learner.network(x, None)
    return ((logits[:, -1] > 0) == (target > 0.5)).double().mean().item()


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Train both tasks for every seed; keep the accuracy of each network."""
    latch = []
    for carry in (True, False):
        networks = [learn_latch(config, seed, carry=carry) for seed in config.seeds]
        for lag in config.latch_lags:
            found = [
                latch_accuracy(config, network, lag, seed, carry=carry)
                for network, seed in zip(networks, config.seeds, strict=True)
            ]
            latch.append({"carry": carry, "lag": lag, "accuracy": found})
    jobs = [(b, k) for b in config.recall_biases for k in config.recall_sizes]
    recall = []
    for bias, size in track(jobs, "bptt_credit"):
        found = [recall_accuracy(config, size, bias, seed) for seed in config.seeds]
        recall.append({"bias": bias, "size": size, "accuracy": found})
    cases = {
        f"latch_{'carried' if row['carry'] else 'reset'}_{row['lag']}": ends(row)
        for row in latch
    } | {f"recall_bias_{row['bias']}_{row['size']}": ends(row) for row in recall}
    numbers = {
        f"{name}_{key}": value
        for name, case in cases.items()
        for key, value in case.items()
    }
    return {
        "numbers": numbers,
        "series": {"latch": latch, "recall": recall},
        "cases": cases,
    }


def ends(row: Mapping[str, Any]) -> dict[str, float]:
    """Lowest and highest accuracy, and how many networks are right above 90 %."""
    found = row["accuracy"]
    solved = sum(accuracy > 0.9 for accuracy in found)
    return {"low": min(found), "high": max(found), "solved": solved}


def _still_knows(case: Mapping[str, Any]) -> Outcome:
    return Outcome.above(case["low"], 0.9, share)


def _is_chance(case: Mapping[str, Any]) -> Outcome:
    return Outcome.below(case["high"], 0.6, share)


CLAIMS = (
    Claim(
        "C25.latch",
        "A latch trained with chunks of 10 steps and marks at most 10 apart still "
        "knows the sign after 100 steps, above 90 %, because the state is carried.",
        _still_knows,
        case="latch_carried_100",
        control="latch_reset_100",
    ),
    Claim(
        "C25.credit",
        "A sign that has to be kept over 19 steps, with a loss at the last alone, is "
        "not learned with a horizon of 10: accuracy below 60 %, in every network with "
        "1 added to the forget bias.",
        _is_chance,
        case="recall_bias_1_10",
        control="recall_bias_1_20",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Accuracies, lowest to highest network."""
    series, config = record["series"], record["run"]["config"]

    def cell(row: Mapping[str, Any]) -> str:
        low, high = (f"{100 * ends(row)[end]:.0f}" for end in ("low", "high"))
        return low if low == high else f"{low} to {high}"

    lags = config["latch_lags"]
    latch = []
    for carry, text in ((True, "carried"), (False, "reset")):
        rows = [row for row in series["latch"] if row["carry"] == carry]
        latch.append([text, *map(cell, rows)])
    recall, sizes = [], config["recall_sizes"]
    for bias in config["recall_biases"]:
        rows = [row for row in series["recall"] if row["bias"] == bias]
        recall.append([number(bias), *map(cell, rows)])
    return {
        "latch": table(["state, % right at lag", *map(number, lags)], latch),
        "recall": table(
            ["forget bias plus", *[f"K = {size}, %" for size in sizes]], recall
        ),
    }


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
