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
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from experiments import lab
from experiments.seq2seq._reversal import Training, as_it_is, right, trained
from seqref import GRU, AdditiveAttention, Bidirectional, ChoGRU, GRUState
from seqref.models import (
    BahdanauDecoder,
    BoundDecoder,
    EncoderDecoder,
    LuongDecoder,
    TanhBridge,
)
from seqref.models.encoder_decoder.bound import Source, by_scan
from seqref.models.encoder_decoder.fits import no_weights

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
    hidden_sizes: tuple[int, ...] = (32,)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


class OrderState(NamedTuple):
    """The layer's state, the last context, the last weights."""

    layer: GRUState
    context: Tensor
    weights: Tensor


class OrderDecoder(nn.Module):
    """Attention before the step or after it; all else is equal."""

    attends = True
    state_type = OrderState

    def __init__(self, order: str, embedding: int, width: int) -> None:
        super().__init__()
        self.order, self.input_size, self.output_size = order, embedding, width
        self.layer = ChoGRU(embedding + width, width)
        self.attention = AdditiveAttention(width, width, width)
        self.combine = nn.Linear(2 * width, width)

    def attend(
        self, memory: Tensor, lengths: Tensor | None = None, start: Any = None
    ) -> BoundDecoder:
        """Bind it to a source."""
        source = Source(self.attention.prepare(memory, lengths), start, len(memory))
        return BoundDecoder(self, source)

    def layer_state(self, rows: int) -> GRUState:
        """The layer's own first state."""
        return self.layer.initial_state(rows)

    def state_from(self, start: GRUState, source: Source) -> OrderState:
        """The state before the first step."""
        context = torch.zeros_like(start.h)
        return OrderState(start, context, no_weights(start.h, source))

    def advance(
        self, x_t: Tensor, state: OrderState, source: Source
    ) -> tuple[Tensor, OrderState]:
        """One step."""
        context, weights = state.context, state.weights
        if self.order != "after":
            context, weights = self._asked(state.layer.h, source)
        h_t, layer = self.layer.step(torch.cat([x_t, context], dim=1), state.layer)
        if self.order == "after":
            context, weights = self._asked(h_t, source)
        y_t = torch.tanh(self.combine(torch.cat([h_t, context], dim=1)))
        return y_t, OrderState(layer, context, weights)

    def _asked(self, query: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        if self.order == "blind":
            query = torch.zeros_like(query)
        return self.attention.attend(query, source.attended)

    def sequence(
        self, x: Tensor, state: OrderState, source: Source, lengths: Tensor | None
    ) -> tuple[Tensor, Any, Tensor]:
        """All steps, one after the other."""
        return by_scan(self, x, state, source, lengths)


def around(decoder: Any, width: int, vocab: int) -> EncoderDecoder:
    """A model with this decoder and an encoder that reads both ways."""
    encoder = Bidirectional(GRU(16, width // 2), GRU(16, width // 2))
    bridge = TanhBridge(encoder, decoder.layer)
    return EncoderDecoder(vocab, vocab, encoder, decoder, hand_over=bridge)


def ordered(order: str, width: int, vocab: int) -> EncoderDecoder:
    """A model of one of the orders."""
    return around(OrderDecoder(order, 16, width), width, vocab)


def published(kind: str, width: int, vocab: int) -> EncoderDecoder:
    """A model with a decoder of the package."""
    attention = AdditiveAttention(width, width, width)
    layer = ChoGRU(16 + width, width)
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
    small=Config(longest=4, updates=10, batch_size=8, tests=50, seeds=(0,)),
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
