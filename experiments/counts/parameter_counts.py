r"""How many parameters an RNN and an LSTM have, and what the second bias vector does.

The textbook counts one bias vector: $D^2 + D I + D$ for an Elman network with input
size $I$ and hidden size $D$, four times as many for an LSTM. torch.nn keeps two, one
beside the input weights and one beside the recurrent weights, and so does seqref. They
enter as a sum and get the same gradient, so one step of SGD, or the first of Adam,
moves the sum twice as far as it would move a single vector.
"""

from dataclasses import dataclass

import torch
from torch import nn

from experiments import lab
from seqref import LSTM, RNN


@dataclass(frozen=True)
class Config:
    """Sizes (input, hidden) to count; learning rate and seeds of the bias step."""

    sizes: tuple[tuple[int, int], ...] = (
        (3, 5),
        (32, 64),
        (128, 256),
        (512, 512),
        (1024, 1024),
    )
    learning_rate: float = 0.1
    seeds: tuple[int, ...] = (0, 1, 2)


# Affine maps of [x_t, h_{t-1}], and the layers that have them.
KINDS = {"rnn": (1, RNN, nn.RNN), "lstm": (4, LSTM, nn.LSTM)}
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
# Large enough for the claim's case and its control, whatever the config counts.
CASE_SIZE = (128, 256)


def counts(kind: str, input_size: int, hidden_size: int, *, bias: bool = True) -> dict:
    """Textbook, torch.nn and seqref, for one kind of layer and one size."""
    maps, ours, theirs = KINDS[kind]
    with torch.device("meta"):
        torch_count = lab.parameter_count(theirs(input_size, hidden_size, bias=bias))
        seqref_count = lab.parameter_count(ours(input_size, hidden_size, bias=bias))
    textbook = maps * hidden_size * (hidden_size + input_size + 1)
    return {
        "kind": kind,
        "input_size": input_size,
        "hidden_size": hidden_size,
        "textbook": textbook,
        "torch": torch_count,
        "seqref": seqref_count,
        "excess": torch_count - textbook,
    }


def bias_step(optimizer: str, learning_rate: float, seed: int, *, both: bool) -> float:
    r"""How far one step moves the bias of an LSTM, relative to a single vector.

    The single vector has the same gradient. `both=False` freezes the second one of the
    layer.
    """
    with lab.seeded(seed):
        layer = nn.LSTM(4, 8, batch_first=True, dtype=torch.float64)
    first, second = map(layer.get_parameter, ("bias_ih_l0", "bias_hh_l0"))
    second.requires_grad_(both)
    x = torch.randn((2, 6, 4), generator=lab.generator(seed), dtype=torch.float64)
    layer(x)[0].square().sum().backward()
    before, single = first + second, nn.Parameter(torch.zeros_like(first))
    single.grad = first.grad
    OPTIMIZERS[optimizer]([*layer.parameters(), single], lr=learning_rate).step()
    return ((first + second - before).norm() / single.norm()).item()


def bias_steps(config: Config, *, both: bool) -> dict[str, float]:
    """The shortest and the longest step over seeds, by optimizer."""
    steps = {
        name: [
            bias_step(name, config.learning_rate, s, both=both) for s in config.seeds
        ]
        for name in OPTIMIZERS
    }
    lowest = {f"{name}_low": min(ratios) for name, ratios in steps.items()}
    return lowest | {f"{name}_high": max(ratios) for name, ratios in steps.items()}


def run(config: Config, track: lab.Track) -> dict:
    """Count every size, and measure one optimiser step."""
    sizes = track(config.sizes, "sizes")
    return {
        "series": {"rows": [counts(kind, *size) for size in sizes for kind in KINDS]},
        "cases": {
            "lstm": counts("lstm", *CASE_SIZE),
            "lstm_without_bias": counts("lstm", *CASE_SIZE, bias=False),
            "rnn": counts("rnn", *CASE_SIZE),
            "two_biases": bias_steps(config, both=True),
            "one_bias": bias_steps(config, both=False),
        },
    }


COUNTED = ("textbook", "torch", "seqref", "excess")
HEADERS = ("textbook", "torch.nn", "seqref", "excess")
experiment = lab.Experiment(
    small=Config(sizes=((3, 5), (128, 256)), seeds=(0,)),
    run=run,
    claims=[
        lab.Claim(
            "C38.count",
            "An LSTM of torch.nn or seqref has 4D parameters more than the textbook "
            "count.",
            lab.exactly(
                "excess",
                lambda case: (
                    case["torch"] == case["seqref"]
                    and case["excess"] == 4 * case["hidden_size"]
                ),
            ),
            case="lstm",
            control="lstm_without_bias",
        ),
        lab.Claim(
            "C38.step",
            "With two bias vectors one step of SGD moves the bias twice as far.",
            lab.all_of(
                lab.below(lambda case: abs(case["sgd_low"] - 2), 1e-5),
                lab.below(lambda case: abs(case["sgd_high"] - 2), 1e-5),
                number="sgd_high",
            ),
            case="two_biases",
            control="one_bias",
        ),
    ],
    numbers=[
        {f"{kind}_{key}": f"{kind}.{key}" for kind in KINDS for key in COUNTED},
        {key: f"lstm.{key}" for key in ("input_size", "hidden_size")},
        {
            "sgd_step_two_biases": "two_biases.sgd_high",
            "adam_step_two_biases": "two_biases.adam_high",
            "sgd_step_one_bias": "one_bias.sgd_high",
        },
    ],
    tables={
        kind: lab.Table(
            rows="series.rows",
            where={"kind": kind},
            columns={
                "layer (input, hidden)": lambda row: (
                    f"{row['kind'].upper()} ({row['input_size']}, {row['hidden_size']})"
                ),
                **dict(zip(HEADERS, COUNTED, strict=True)),
            },
        )
        for kind in KINDS
    },
)
