r"""What a decoder of LSTMs loses when only `h`, or only `c`, is handed over.

Random symbols are to be written again in their order. The encoder's last state is all
that the decoder knows of them. The networks, their seeds and their updates are the
same; what differs is which half of the state is zeros when the decoder begins.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiments import lab
from seqref import LSTM, LSTMState
from seqref.models import EncoderDecoder

LABELS = {"hc": "$h$ and $c$", "h": "$h$", "c": "$c$"}


@dataclass(frozen=True)
class Config:
    """Symbols and their number, widths, updates, seeds."""

    symbols: int = 8
    length: int = 8
    hidden_sizes: tuple[int, ...] = (32, 64)
    updates: int = 400
    batch_size: int = 64
    learning_rate: float = 0.01
    tests: int = 1000
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)


class Handed(nn.Module):
    """The encoder's last state with a part of it blanked."""

    def __init__(self, kept: str):
        super().__init__()
        self.kept = kept

    def forward(self, state: LSTMState) -> LSTMState:
        """What the decoder starts from."""
        parts = state._asdict()
        return LSTMState(
            **{
                name: part if name in self.kept else torch.zeros_like(part)
                for name, part in parts.items()
            }
        )


def drawn(config: Config, rows: int, generator: torch.Generator) -> Tensor:
    """Random symbols (rows, length)."""
    size = (rows, config.length)
    return torch.randint(config.symbols, size, generator=generator)


def scores(model: EncoderDecoder, symbols: Tensor, begin: int) -> Tensor:
    """Logits of each symbol after the source and the symbols before it."""
    inputs = nn.functional.pad(symbols[:, :-1], (1, 0), value=begin)
    return model(symbols, inputs)


def accuracy(config: Config, kept: str, width: int, seed: int) -> float:
    """Share of symbols right after training, each after the true ones before it."""
    symbols = config.symbols
    with lab.seeded(seed):
        layers = LSTM(16, width), LSTM(16, width)
        model = EncoderDecoder(symbols, symbols + 1, *layers, hand_over=Handed(kept))
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    stream = lab.generator(seed)
    for _ in range(config.updates):
        batch = drawn(config, config.batch_size, stream)
        logits = scores(model, batch, symbols).flatten(0, 1)
        loss = nn.functional.cross_entropy(logits, batch.flatten())
        lab.descend(optimizer, loss, max_norm=1.0)
    tests = drawn(config, config.tests, lab.generator(10_000 + seed))
    with torch.no_grad():
        right = scores(model, tests, symbols).argmax(dim=-1) == tests
    return right.double().mean().item()


def run(config: Config, track: lab.Track = lab.untracked) -> dict[str, Any]:
    """The accuracies, and what is lost against handing over both, seed by seed."""
    grid = [(width, kept) for width in config.hidden_sizes for kept in LABELS]
    values = {
        (width, kept): [accuracy(config, kept, width, seed) for seed in config.seeds]
        for width, kept in track(grid, "handed_state")
    }
    cases = {}
    for (width, kept), some in values.items():
        both = values[width, "hc"]
        lost = [one - other for one, other in zip(both, some, strict=True)]
        cases[f"{kept}_{width}"] = {
            "kept": kept,
            "width": width,
            "accuracy": lab.mean_interval(some),
            "lost": lab.spread(lost),
        }
    return {"series": {}, "cases": cases}


experiment = lab.Experiment(
    small=Config(
        length=7,
        hidden_sizes=(32,),
        updates=200,
        batch_size=32,
        tests=400,
        seeds=(0, 1),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C62.h",
            "With h handed over and c not, a decoder of 32 units writes at least a "
            "tenth of the symbols less right than with both, whatever the seed; with c "
            "handed over and h not, it does not.",
            lab.above("lost.low", 0.1),
            case="h_32",
            control="c_32",
        ),
    ],
    numbers=[
        lab.each("accuracy.mean", "accuracy"),
        lab.each("lost.median", "lost", write=partial(lab.number, digits=2)),
    ],
    tables={
        "accuracy": lambda record: lab.Table(
            labels={
                name: f"{LABELS[case['kept']]}, width {case['width']}"
                for name, case in record["cases"].items()
            },
            heading="handed over",
            columns={
                "symbols right": lab.fixed(
                    lambda case: 100 * case["accuracy"]["mean"], 1, " %"
                ),
                "95 % interval": lambda case: "{low:.3f} to {high:.3f}".format(
                    **case["accuracy"]
                ),
                "lost, lowest and highest": lambda case: (
                    "{low:.2f} to {high:.2f}".format(**case["lost"])
                ),
            },
        )
    },
)
