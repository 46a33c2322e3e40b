r"""Which state of the decoder asks the source: that before the step, or that after.

In Bahdanau's order the state before the step asks, and the context goes into the step;
in Luong's the new state asks. So the token that a step reads can change the weights of
that step in the second and not in the first: shown with the decoders of the package.
And two decoders of equal parameters, layers and first values, which differ in the order
alone, are trained to write random symbols backwards. In the control the query is zeros:
then one vector that is handed over, and one mean of the source, have to do.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from experiments import lab
from experiments.seq2seq._models import EMBEDDING, around, ordered
from experiments.seq2seq._reversal import Training, as_it_is, right, trained
from seqref import AdditiveAttention, ChoGRU
from seqref.models import BahdanauDecoder, EncoderDecoder, LuongDecoder

ORDERS = {
    "before": "the state before the step asks",
    "after": "the state after the step asks",
    "blind": "nothing asks: a query of zeros",
}


@dataclass(frozen=True)
class Config(Training):
    """Of the training; widths, length of the tests, seeds."""

    longest: int = 10
    updates: int = 250
    hidden_sizes: tuple[int, ...] = (32, 64)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


def published(kind: str, width: int, vocab: int) -> EncoderDecoder:
    """A model with a decoder of the package."""
    attention = AdditiveAttention(width, width, width)
    layer = ChoGRU(EMBEDDING + width, width)
    decoder = (
        BahdanauDecoder(layer, attention, width)
        if kind == "bahdanau"
        else LuongDecoder(layer, attention, width)
    )
    return around(decoder, width, vocab)


def moved(model: EncoderDecoder, vocab: int, generator: torch.Generator) -> float:
    """The most that weights of a step move when the token that it reads is another."""
    source, tokens = (torch.randint(vocab, (4, n), generator=generator) for n in (7, 5))
    other = tokens.clone()
    other[:, -1] = (other[:, -1] + 1) % vocab
    with torch.no_grad():
        bound = model.attend(source)
        change = bound.align(tokens) - bound.align(other)
    return change[:, -1].abs().max().item()


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Train the orders, and ask the decoders of the package."""
    vocab = config.symbols + 2
    cases: dict[str, Any] = {}
    for kind in ("bahdanau", "luong"):
        with lab.seeded(config.seeds[0]):
            model = published(kind, config.hidden_sizes[0], vocab)
        generator = lab.generator(config.seeds[0])
        cases[kind] = {"moved": moved(model, vocab, generator)}
    grid = [(width, order) for width in config.hidden_sizes for order in ORDERS]
    values = {}
    for width, order in track(grid, "which_state_scores"):
        build = partial(ordered, order, width)
        tests, parameters = [], 0
        for seed in config.seeds:
            model = trained(build, as_it_is, config, seed)
            parameters = sum(p.numel() for p in model.parameters())
            tests.append(right(model, as_it_is, config.longest, config).double())
        symbols = [part.mean().item() for part in tests]
        values[width, order] = symbols
        cases[f"{order}_{width}"] = {
            "order": order,
            "width": width,
            "parameters": parameters,
            "symbols": lab.mean_interval(symbols),
            "rows": lab.mean_interval([p.prod(dim=1).mean().item() for p in tests]),
        }
    for width in config.hidden_sizes:
        pairs = zip(values[width, "after"], values[width, "before"], strict=True)
        cases[f"difference_{width}"] = {
            "difference": lab.mean_interval([a - b for a, b in pairs])
        }
    return {"series": {}, "cases": cases}


def share_text(quantity: str) -> Any:
    """A cell: a share with its interval, in per cent."""

    def write(case: Any) -> str:
        mean, low, high = (100 * case[quantity][key] for key in ("mean", "low", "high"))
        return f"{mean:.1f} % ({low:.1f} to {high:.1f})"

    return write


def table(record: Any) -> lab.Table:
    """The trained orders, by width."""
    cases = record["cases"]
    return lab.Table(
        labels={
            name: f"{ORDERS[case['order']]}, width {case['width']}"
            for name, case in cases.items()
            if "order" in case
        },
        heading="order",
        columns={
            "parameters": "parameters",
            "symbols right": share_text("symbols"),
            "rows right": share_text("rows"),
        },
    )


experiment = lab.Experiment(
    # How well each order learns is no claim: a small run says too little of it.
    small=Config(
        longest=4,
        updates=10,
        batch_size=8,
        tests=50,
        hidden_sizes=(32,),
        seeds=(0,),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C56",
            "Which token a step reads does not change the weights of that step in "
            "Bahdanau's decoder, to the bit; in Luong's it does.",
            lab.exactly("moved", lambda case: case["moved"] == 0),
            case="bahdanau",
            control="luong",
        ),
    ],
    numbers=[
        lab.each("symbols.mean", "symbols"),
        lab.each("rows.mean", "rows"),
        lab.each("moved", "moved"),
        lab.each("difference.mean", "mean"),
        lab.each("difference.low", "low"),
        lab.each("difference.high", "high"),
    ],
    tables={"orders": table},
)
