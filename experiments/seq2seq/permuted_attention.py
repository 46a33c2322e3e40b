r"""What a trained decoder writes when the weights of its attention are replaced.

Bahdanau's decoder with an encoder that reads both ways is trained twice: to write
random symbols backwards, and to write one token, the symbol that occurs most often.
Then, with nothing else changed, the weights at each step are permuted among the
positions of the source, or made equal, and the outputs are compared with those under
its own weights. In the control the weights were equal all along, in training too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments import lab
from experiments.seq2seq._models import (
    EMBEDDING,
    Level,
    Replaced,
    levelled,
    permuted,
)
from seqref import GRU, AdditiveAttention, Bidirectional, ChoGRU
from seqref.models import BahdanauDecoder, EncoderDecoder, TanhBridge
from seqref.tasks.reversal import Reversal

MODELS = {
    "reversal": "backwards",
    "majority": "most frequent symbol",
    "equal": "backwards, trained with equal weights",
}
WAYS = {"permuted": "permuted", "levelled": "made equal"}


@dataclass(frozen=True)
class Config:
    """Symbols, widths, the training, tests, permutations of each, seeds."""

    length: int = 9
    symbols: int = 4
    hidden_sizes: tuple[int, ...] = (32, 64)
    updates: int = 300
    batch_size: int = 32
    learning_rate: float = 0.015
    tests: int = 500
    draws: int = 5
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


def build(kind: str, width: int, vocab: int) -> EncoderDecoder:
    """Bahdanau's model; of the kind `equal` its weights are equal."""
    encoder = Bidirectional(GRU(EMBEDDING, width // 2), GRU(EMBEDDING, width // 2))
    attention: Any = AdditiveAttention(width, width, width)
    layer = ChoGRU(EMBEDDING + width, width)
    if kind == "equal":
        attention = Level(attention)
    decoder = BahdanauDecoder(layer, attention, width)
    bridge = TanhBridge(encoder, layer)
    return EncoderDecoder(vocab, vocab, encoder, decoder, hand_over=bridge)


def batch(
    kind: str, config: Config, rows: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Sources, what the decoder reads, and what it should write."""
    task = Reversal(config.length, None, config.symbols)
    pairs = task.draw(rows, generator)
    if kind != "majority":
        # Without the end, which is easy.
        return pairs.source, pairs.target_in[:, :-1], pairs.target_out[:, :-1]
    counts = nn.functional.one_hot(pairs.source, task.vocab_size).sum(dim=1)
    # Of equal counts the first symbol of all.
    most = counts.argmax(dim=1, keepdim=True)
    return pairs.source, pairs.target_in[:, :1], most


def trained(kind: str, width: int, config: Config, seed: int) -> EncoderDecoder:
    """A model after its updates."""
    with lab.seeded(seed):
        model = build(kind, width, config.symbols + 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    stream = lab.generator(seed)
    for _ in range(config.updates):
        source, inputs, targets = batch(kind, config, config.batch_size, stream)
        logits = model(source, inputs)
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
        lab.descend(optimizer, loss, max_norm=1.0)
    return model


def effects(
    kind: str, width: int, config: Config, seed: int
) -> dict[str, dict[str, float]]:
    """By way of replacing: tokens right, tokens changed, distance of the outputs."""
    model = trained(kind, width, config, seed)
    generator = lab.generator(10_000 + seed)
    source, inputs, targets = batch(kind, config, config.tests, generator)
    own: Any = model.decoder.attention
    with torch.no_grad():
        p = torch.softmax(model(source, inputs), dim=-1)
        weights = model.attend(source).align(inputs)
        parts = {
            "own": {
                "right": share(p.argmax(-1) == targets),
                "largest": weights.amax(dim=-1).mean().item(),
            }
        }
        for way in WAYS:
            change = levelled if way == "levelled" else partial(permuted, generator)
            model.decoder.attention = Replaced(own, change)
            values = []
            for _ in range(config.draws if way == "permuted" else 1):
                q = torch.softmax(model(source, inputs), dim=-1)
                values.append(
                    {
                        "right": share(q.argmax(-1) == targets),
                        "changed": share(q.argmax(-1) != p.argmax(-1)),
                        "distance": (p - q).abs().sum(-1).mean().item() / 2,
                    }
                )
            parts[way] = {
                key: sum(value[key] for value in values) / len(values)
                for key in values[0]
            }
    return parts


def share(those: Tensor) -> float:
    """The share that is true."""
    return those.double().mean().item()


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Train the models, and replace their weights."""
    cases: dict[str, Any] = {}
    grid = [(width, kind) for width in config.hidden_sizes for kind in MODELS]
    for width, kind in track(grid, "permuted_attention"):
        runs = [effects(kind, width, config, seed) for seed in config.seeds]
        for way in ("own", *WAYS):
            cases[f"{kind}_{width}_{way}"] = {
                "kind": kind,
                "width": width,
                "way": way,
                **{
                    key: lab.mean_interval([parts[way][key] for parts in runs])
                    for key in runs[0][way]
                },
            }
    return {"series": {}, "cases": cases}


def percent(quantity: str) -> Callable[[Mapping[str, Any]], str]:
    """A cell: a share with its interval."""

    def write(case: Mapping[str, Any]) -> str:
        if quantity not in case:
            return ""
        mean, low, high = (100 * case[quantity][key] for key in ("mean", "low", "high"))
        return f"{mean:.1f} % ({low:.1f} to {high:.1f})"

    return write


def largest(case: Mapping[str, Any]) -> str:
    """A cell: the mean of the largest weight of a step, of the model's own."""
    return f"{case['largest']['mean']:.2f}" if "largest" in case else ""


def table(record: Mapping[str, Any]) -> lab.Table:
    """All models and ways."""
    ways = {"own": "its own", **WAYS}
    return lab.Table(
        labels={
            name: f"{MODELS[case['kind']]}, width {case['width']}: {ways[case['way']]}"
            for name, case in record["cases"].items()
        },
        heading="written, and weights",
        columns={
            "largest weight": largest,
            "right": percent("right"),
            "tokens that change": percent("changed"),
            "distance of outputs": percent("distance"),
        },
    )


experiment = lab.Experiment(
    small=Config(
        length=6,
        hidden_sizes=(32,),
        updates=80,
        batch_size=20,
        learning_rate=0.02,
        tests=200,
        draws=1,
        seeds=(0,),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C59",
            "Permuting the weights changes more than 0.15 of the tokens of a model "
            "that writes its source backwards; where the model writes the most "
            "frequent symbol, fewer.",
            lab.above("changed.mean", 0.15, lab.share),
            case="reversal_32_permuted",
            control="majority_32_permuted",
        ),
        lab.Claim(
            "C59.equal",
            "And it moves the outputs by more than 0.15 in total variation; where the "
            "weights were equal in training, by less.",
            lab.above("distance.mean", 0.15, lab.share),
            case="reversal_32_permuted",
            control="equal_32_permuted",
        ),
    ],
    numbers=[
        lab.each("right.mean", "right"),
        lab.each("changed.mean", "changed"),
        lab.each("distance.mean", "distance"),
        lab.each("largest.mean", "largest"),
    ],
    tables={"effects": table},
)
