r"""Small character models that differ in how far back attention sees."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu

from experiments import lab
from seqref import MultiHeadAttention, Rotary, TransformerXLAttention
from seqref.models import FeedForward, PreNormBlock, Transformer, TransformerLM
from seqref.recurrence import detach_state

NATS = 0.6931471805599453


class Kind(NamedTuple):
    """A kind of model: its label, whether it reads in segments and keeps a memory."""

    label: str
    segments: bool
    memory: bool = False
    window: bool = False


KINDS = {
    "full": Kind("full attention", segments=False),
    "window": Kind("sliding window", segments=False, window=True),
    "segment": Kind("segments with memory", segments=True, memory=True),
    "vanilla": Kind("segments without memory", segments=True),
}


def build(config: Any, kind: Kind, vocab_size: int, seed: int) -> TransformerLM:
    """Pre-norm blocks; what a projection of distances has more, a network has less."""
    width, heads = config.d_model, config.n_heads

    def block() -> nn.Module:
        if kind.segments:
            attention: Any = TransformerXLAttention(width, heads, memory=config.segment)
            hidden = 4 * width
        else:
            attention = MultiHeadAttention(
                width,
                heads,
                bias=False,
                window=config.window if kind.window else None,
                positions=Rotary(width // heads),
            )
            hidden = 4 * width + width // 2
        return PreNormBlock(attention, FeedForward(width, hidden, gelu))

    with lab.seeded(seed):
        blocks = [block() for _ in range(config.n_layers)]
        stack = Transformer(blocks, last_norm=nn.LayerNorm(width))
        return TransformerLM(vocab_size, stack)


def chunks(
    config: Any, kind: Kind, tokens: Int[Tensor, " time"], random: torch.Generator
) -> Iterator[tuple[Tensor, bool]]:
    """Rows of a text with one more character behind, and whether they go on.

    Without a memory all are of random places. With one, rows start at random places and
    are read segment by segment, as far as the others see, `length`, times `runs`. So
    updates with a memory see fewer places, and are correlated.
    """
    time = config.segment if kind.segments else config.length
    batch = config.characters // time
    span = config.runs * config.length if kind.memory else time
    while True:
        starts = torch.randint(len(tokens) - span, (batch,), generator=random)
        for first in range(0, span, time):
            places = starts[:, None] + torch.arange(first, first + time + 1)
            yield tokens[places], first > 0


def trained(
    config: Any, kind: Kind, tokens: Int[Tensor, " time"], vocab_size: int, seed: int
) -> TransformerLM:
    """Adam, the same number of characters in each update for all kinds."""
    model = build(config, kind, vocab_size, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.updates, pct_start=0.1
    )
    batches = chunks(config, kind, tokens, lab.generator(seed + 1000))
    state = None
    for _ in range(config.updates):
        rows, goes_on = next(batches)
        state = detach_state(state) if goes_on else None
        logits, state = model(rows[:, :-1], state)
        loss = cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        lab.descend(optimizer, loss, 1.0)
        scheduler.step()
    return model.eval()


@torch.no_grad()
def bits(
    config: Any, kind: Kind, model: Any, rows: Int[Tensor, "batch time"], phase: int
) -> Float[Tensor, "batch time"]:
    """Bits of all characters but the first; the first segment has `phase` of them."""
    inputs, cuts = rows[:, :-1], [rows.shape[1] - 1]
    if kind.segments:
        rest = cuts[0] - phase
        cuts = [phase] * (phase > 0) + [config.segment] * (rest // config.segment)
        cuts += [rest % config.segment] * (rest % config.segment > 0)
    state, parts = None, []
    for part in inputs.split(cuts, dim=1):
        logits, state = model(part, state if kind.memory else None)
        parts.append(logits)
    logits = torch.cat(parts, dim=1)
    return cross_entropy(logits.mT, rows[:, 1:], reduction="none") / NATS
