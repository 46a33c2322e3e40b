r"""How many parameters an RNN and an LSTM have, and what the second bias vector does.

The textbook counts one bias vector: $D^2 + D I + D$ for an Elman network with input
size $I$ and hidden size $D$, four times as many for an LSTM. torch.nn keeps two, one
beside the input weights and one beside the recurrent weights, and so does seqref. They
enter as a sum and get the same gradient, so one step of SGD, or the first of Adam,
moves the sum twice as far as it would move a single vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.tables import number, table
from seqref import LSTM, RNN


@dataclass(frozen=True)
class Config:
    """Sizes (input, hidden) to count; learning rate and seed of the bias step."""

    sizes: tuple[tuple[int, int], ...]
    learning_rate: float
    seeds: tuple[int, ...]


SMALL = Config(sizes=((3, 5), (128, 256)), learning_rate=0.1, seeds=(0,))
FULL = Config(
    sizes=((3, 5), (32, 64), (128, 256), (512, 512), (1024, 1024)),
    learning_rate=0.1,
    seeds=(0, 1, 2),
)
KINDS = {"rnn": (1, RNN, nn.RNN), "lstm": (4, LSTM, nn.LSTM)}
# Large enough for the claim's case and its control, whatever the config counts.
CASE_SIZE = (128, 256)


def textbook(maps: int, input_size: int, hidden_size: int) -> int:
    r"""`maps` affine maps of $[x_t, h_{t-1}]$ with one bias vector each."""
    return maps * hidden_size * (hidden_size + input_size + 1)


def count(module: nn.Module) -> int:
    """Number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def counts(kind: str, input_size: int, hidden_size: int, *, bias: bool) -> dict:
    """Textbook, torch.nn and seqref, for one kind of layer and one size."""
    maps, ours, theirs = KINDS[kind]
    with seeded(0):
        torch_count = count(theirs(input_size, hidden_size, bias=bias))
        seqref_count = count(ours(input_size, hidden_size, bias=bias))
    expected = textbook(maps, input_size, hidden_size)
    return {
        "kind": kind,
        "input_size": input_size,
        "hidden_size": hidden_size,
        "textbook": expected,
        "torch": torch_count,
        "seqref": seqref_count,
        "excess": torch_count - expected,
    }


def bias_step(optimizer: str, learning_rate: float, seed: int, *, both: bool) -> float:
    r"""How far one step moves the bias of an LSTM, relative to a single vector.

    A single vector under SGD moves by the learning rate times the gradient; under
    Adam's first step by the learning rate. `both=False` freezes the second vector.
    """
    with seeded(seed):
        layer = nn.LSTM(4, 8, batch_first=True, dtype=torch.float64)
    parameters = dict(layer.named_parameters())
    first, second = parameters["bias_ih_l0"], parameters["bias_hh_l0"]
    second.requires_grad_(both)
    x = torch.randn((2, 6, 4), generator=generator(seed), dtype=torch.float64)
    trained = [p for p in layer.parameters() if p.requires_grad]
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    stepper = kinds[optimizer](trained, lr=learning_rate)
    before = (first + second).detach()
    layer(x)[0].square().sum().backward()
    gradient = first.grad
    if gradient is None:
        raise RuntimeError("bias_step: the loss gave the bias no gradient")
    stepper.step()
    moved = (first + second).detach() - before
    single = gradient if optimizer == "sgd" else gradient.sign()
    return (moved.norm() / (learning_rate * single).norm()).item()


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Count every size, and measure one optimiser step."""
    sizes = track(config.sizes, "parameter_counts")
    rows = [counts(kind, *size, bias=True) for size in sizes for kind in KINDS]
    cases: dict[str, Any] = {
        "lstm": counts("lstm", *CASE_SIZE, bias=True),
        "lstm_without_bias": counts("lstm", *CASE_SIZE, bias=False),
        "rnn": counts("rnn", *CASE_SIZE, bias=True),
        "two_biases": _steps(config, both=True),
        "one_bias": _steps(config, both=False),
    }
    return {"numbers": summary(cases), "series": {"rows": rows}, "cases": cases}


def _steps(config: Config, *, both: bool) -> dict[str, float]:
    found = {}
    for optimizer in ("sgd", "adam"):
        ratios = [
            bias_step(optimizer, config.learning_rate, seed, both=both)
            for seed in config.seeds
        ]
        found[f"{optimizer}_low"], found[f"{optimizer}_high"] = min(ratios), max(ratios)
    return found


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars for sentences."""
    found: dict[str, Any] = {
        "input_size": CASE_SIZE[0],
        "hidden_size": CASE_SIZE[1],
        "sgd_step_two_biases": cases["two_biases"]["sgd_high"],
        "adam_step_two_biases": cases["two_biases"]["adam_high"],
        "sgd_step_one_bias": cases["one_bias"]["sgd_high"],
    }
    for kind in KINDS:
        for key in ("textbook", "torch", "seqref", "excess"):
            found[f"{kind}_{key}"] = cases[kind][key]
    return found


def _two_bias_vectors(case: Mapping[str, Any]) -> Outcome:
    excess = case["excess"]
    agree = case["torch"] == case["seqref"]
    return Outcome.exactly(
        float(excess), holds=agree and excess == 4 * case["hidden_size"]
    )


def _doubles(case: Mapping[str, Any]) -> Outcome:
    low, high = case["sgd_low"], case["sgd_high"]
    return Outcome.all_of(
        high, Outcome.below(abs(low - 2), 1e-5), Outcome.below(abs(high - 2), 1e-5)
    )


CLAIMS = (
    Claim(
        "C38.count",
        "An LSTM of torch.nn or seqref has 4D parameters more than the textbook count.",
        _two_bias_vectors,
        case="lstm",
        control="lstm_without_bias",
    ),
    Claim(
        "C38.step",
        "With two bias vectors one step of SGD moves the bias twice as far.",
        _doubles,
        case="two_biases",
        control="one_bias",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Counts by kind of layer and size."""
    headers = ["layer (input, hidden)", "textbook", "torch.nn", "seqref", "excess"]
    found = {}
    for kind in KINDS:
        rows = [
            [
                f"{kind.upper()} ({row['input_size']}, {row['hidden_size']})",
                *[number(row[k]) for k in ("textbook", "torch", "seqref", "excess")],
            ]
            for row in record["series"]["rows"]
            if row["kind"] == kind
        ]
        found[kind] = table(headers, rows)
    return found


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
