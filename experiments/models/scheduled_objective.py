r"""What scheduled sampling converges to: sequences of two tokens, known exactly.

Sequences are drawn from a known distribution of two tokens. Language models are trained
on them with a fixed probability of the true token in the input, and with one that falls
from 1 to 0 and stays there. What they learned for the second token given the first is
compared with the truth, and with the mixture of truth and marginal that the objective
has as its optimum.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from seqref import GRU
from seqref.models import LanguageModel
from seqref.training import linear_schedule, scheduled_sampling, shift_target
from seqref.training import target_loss as loss_of

BEGIN, END, FIRST = 0, 1, 2


@dataclass(frozen=True)
class Config:
    """The distribution, the models and their training."""

    first: tuple[float, ...] = (0.3, 0.7)
    second: tuple[tuple[float, ...], ...] = ((0.9, 0.1), (0.2, 0.8))
    probabilities: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25, 0.0)
    hidden_size: int = 16
    updates: int = 400
    batch_size: int = 1000
    learning_rate: float = 0.02
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Case:
    """The probability of the true token: at an update, and at the end."""

    label: str
    at: Callable[[int], float]
    last: float


def cases(config: Config) -> dict[str, Case]:
    """Fixed probabilities, and a line from 1 to 0 over the first half."""
    slope = 2 / config.updates
    fixed = {
        f"fixed_{round(100 * p)}": Case(f"{p}", lambda i, p=p: p, p)
        for p in config.probabilities
    }
    line = Case("1 to 0", lambda i: linear_schedule(i, k=1.0, c=slope), 0.0)
    return fixed | {"scheduled": line}


def learned(config: Config, case: Case, seed: int) -> Tensor:
    """The distribution of the second token after each first one."""
    first, second = torch.tensor(config.first), torch.tensor(config.second)
    with lab.seeded(seed):
        model = LanguageModel(FIRST + len(first), GRU(4, config.hidden_size))
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    random = lab.generator(seed + 1000)
    for update in range(config.updates):
        # To 0 in a line: what is left is not the noise of the last batches.
        rate = config.learning_rate * (1 - update / config.updates)
        optimizer.param_groups[0]["lr"] = rate
        y_1 = torch.multinomial(first, config.batch_size, True, generator=random)
        y_2 = torch.multinomial(second[y_1], 1, generator=random)
        target = FIRST + torch.cat([y_1[:, None], y_2], dim=1)
        inputs, targets, _ = shift_target(target, begin=BEGIN, end=END)
        with torch.no_grad():
            inputs = scheduled_sampling(
                model, inputs, probability=case.at(update), generator=random
            ).inputs
        lab.descend(optimizer, loss_of(model(inputs)[0], targets))
    tokens = torch.arange(FIRST, FIRST + len(first))
    begins = torch.stack([torch.full_like(tokens, BEGIN), tokens], dim=1)
    with torch.no_grad():
        return model(begins)[0][:, 1].softmax(dim=-1)[:, FIRST:]


def measure(case: Case, config: Config) -> dict[str, Any]:
    """Largest distance of a learned probability from the truth and from the optimum."""
    first, second = torch.tensor(config.first), torch.tensor(config.second)
    optimum = case.last * second + (1 - case.last) * (first @ second)
    runs = [learned(config, case, seed) for seed in config.seeds]

    def apart(other: Tensor) -> dict[str, float]:
        return lab.spread((one - other).abs().max().item() for one in runs)

    return {
        "last": case.last,
        "label": case.label,
        "optimum": optimum[:, 0].tolist(),
        "learned": [
            lab.mean_interval([one[row, 0].item() for one in runs])
            for row in range(len(first))
        ],
        "from_truth": apart(second),
        "from_marginal": apart(first @ second),
        "from_optimum": apart(optimum),
    }


def with_interval(place: int) -> lab.Cell:
    """A learned probability with its interval over seeds."""
    return lab.with_span(f"learned.{place}", "{:.3f}".format)


experiment = lab.Experiment(
    small=Config(probabilities=(1.0, 0.0), updates=100, batch_size=300, seeds=(0,)),
    cases=cases,
    measure=measure,
    claims=[
        lab.Claim(
            "C158",
            "With own tokens alone the second token is learned more than 0.2 from the "
            "truth in some probability.",
            lab.above("from_truth.low", 0.2, lab.share),
            case="fixed_0",
            control="fixed_100",
        ),
        lab.Claim(
            "C158.scheduled",
            "So it is where the probability of the true token falls from 1 to 0.",
            lab.above("from_truth.low", 0.2, lab.share),
            case="scheduled",
            control="fixed_100",
        ),
        lab.Claim(
            "C158.marginal",
            "With own tokens alone every probability comes within 0.1 of the marginal.",
            lab.below("from_marginal.high", 0.1, lab.share),
            case="fixed_0",
            control="fixed_100",
        ),
    ],
    numbers=[
        lab.each("from_truth.median", "from_truth"),
        lab.each("from_optimum.high", "from_optimum"),
    ],
    tables={
        "conditionals": lab.Table(
            {
                "probability of the true token": lambda case: case["label"],
                "optimum after token 1": lab.fixed("optimum.0", 3),
                "learned": with_interval(0),
                "optimum after token 2": lab.fixed("optimum.1", 3),
                "learned ": with_interval(1),
            }
        )
    },
)
