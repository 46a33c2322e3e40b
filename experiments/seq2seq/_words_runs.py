r"""One model that is trained to say English words, and what is asked of it."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments import lab
from experiments.seq2seq._models import (
    Change,
    Level,
    Replaced,
    levelled,
    lstms,
    ordered,
    permuted,
)
from experiments.seq2seq._reversal import flipped
from seqref.decoding import beam_search
from seqref.tasks import BOS, EOS, Alphabet, Pairs, PronunciationBatches
from seqref.tasks.pronunciation import as_pairs, nearest
from seqref.tasks.pronunciation.dictionary import Lexicon
from seqref.training import (
    build_pronouncer,
    exponential_schedule,
    fit,
    inverse_sigmoid_schedule,
    linear_schedule,
    scheduled_sampling,
)

# Tokens of an answer at most.
LIMIT = 40
ROWS = 256
# Models whose weights are replaced.
REPLACED = "attention", "equal", "bahdanau"
SCHEDULES = "linear", "exponential", "inverse_sigmoid"


@dataclass(frozen=True)
class Training:
    """Rows of an update, passes over the words, and the largest step."""

    batch_size: int = 128
    epochs: int = 4
    learning_rate: float = 0.008
    max_norm: float = 1.0
    # That of the last update, by the exponential schedule; the linear one ends at 0.
    last_probability: float = 0.01


class FromEnd(nn.Module):
    """A model that is given each source from its last letter to its first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def attend(self, source: Tensor, lengths: Tensor) -> Any:
        """Bound to the source, which it reads from its end."""
        return self.model.attend(flipped(source, lengths), lengths)


def build(kind: str, width: int, seed: int) -> Any:
    """A model of this kind with fresh weights."""
    vocab = Alphabet().target_size
    with lab.seeded(seed):
        if kind in ("in_order", "from_end", "attention", "equal"):
            model: Any = lstms(kind in ("attention", "equal"), width, vocab)
            if kind == "equal":
                model.decoder.attention = Level(model.decoder.attention)
            return FromEnd(model) if kind == "from_end" else model
        if kind in ("before", "after"):
            return ordered(kind, width, vocab)
    return build_pronouncer(width, seed=seed).model


def half_way(updates: int) -> float:
    """The k of the inverse sigmoid that is a half after half of the updates."""
    k = float(updates)
    for _ in range(100):
        k = updates / 2 / math.log(max(k, 2.0))
    return max(k, 1.0)


def probability_of(kind: str, updates: int, last: float) -> Callable[[int], float]:
    """The probability of the true token at each update; 1 without a schedule."""
    if kind == "linear":
        return partial(linear_schedule, k=1.0, c=1 / updates)
    if kind == "exponential":
        return partial(exponential_schedule, k=last ** (1 / updates))
    if kind == "inverse_sigmoid":
        return partial(inverse_sigmoid_schedule, k=half_way(updates))
    return lambda update: 0.0 if kind == "free" else 1.0


class Loss:
    """Cross-entropy after the true tokens, or after a mixture with the model's own."""

    def __init__(self, probability: Callable[[int], float], seed: int) -> None:
        self.probability, self.random = probability, lab.generator(seed)
        self.update = 0

    def __call__(self, model: Any, batch: Pairs, state: Any) -> tuple[Tensor, None]:
        """Tokens are chosen first, without a graph, and then read in one call."""
        probability, self.update = self.probability(self.update), self.update + 1
        bound = model.attend(batch.source, batch.source_lengths)
        inputs, lengths = batch.target_in, batch.target_lengths
        if probability < 1:
            with torch.no_grad():
                inputs = scheduled_sampling(
                    *(bound, inputs, lengths),
                    probability=probability,
                    generator=self.random,
                ).inputs
        logits, _ = bound(inputs, None, lengths)
        return cross_entropy(logits.flatten(0, 1), batch.target_out.flatten()), None


def trained(
    training: Training, kind: str, width: int, seed: int, words: Lexicon
) -> Any:
    """Adam, its rate falling along a cosine to a tenth, batches of similar length."""
    model = build(kind, width, seed)
    batches = PronunciationBatches(
        words, training.batch_size, generator=lab.generator(seed + 1000)
    )
    rate, steps = training.learning_rate, training.epochs * len(batches)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=steps, eta_min=rate / 10
    )
    probability = probability_of(kind, steps, training.last_probability)
    loss = Loss(probability, seed + 2000)
    fit(
        *(model, batches, optimizer, steps, loss),
        max_norm=training.max_norm,
        scheduler=scheduler,
    )
    return model.eval()


Said = dict[str, list[Any]]


@torch.no_grad()
def said(model: Any, words: Lexicon, width: int = 1, penalty: Any = 0.0) -> Said:
    """Of each word: edits, phonemes of the nearest, phonemes said, log-probability."""
    alphabet, names = Alphabet(), list(words)
    order = sorted(range(len(names)), key=lambda row: len(names[row]))
    answers: list[list[Any]] = [[]] * len(names)
    for first in range(0, len(order), ROWS):
        rows = order[first : first + ROWS]
        source, lengths = alphabet.encode([names[row] for row in rows])
        best = beam_search(
            model.attend(source, lengths),
            torch.full((len(rows),), BOS),
            width=width,
            max_length=LIMIT,
            end=EOS,
            length_penalty=penalty,
        )
        parts = zip(rows, best.tokens, best.log_probabilities, strict=True)
        for row, (tokens,), (log_p,) in parts:
            # A model may say BOS, which is no phoneme.
            one = alphabet.decode(tokens[tokens != BOS])
            near = nearest(one, words[names[row]])
            answers[row] = [near.edits, near.phonemes, len(one), log_p.item()]
    keys = "edits", "phonemes", "length", "log_p"
    columns = zip(*answers, strict=True)
    return {key: list(column) for key, column in zip(keys, columns, strict=True)}


def in_parts(words: Lexicon) -> Iterator[tuple[list[int], Pairs]]:
    """Places of some words, and the words with their first pronunciations."""
    names = list(words)
    order = sorted(range(len(names)), key=lambda row: len(names[row]))
    for first in range(0, len(order), ROWS):
        rows = order[first : first + ROWS]
        pairs = [(names[row], words[names[row]][0]) for row in rows]
        yield rows, as_pairs(pairs, Alphabet())


@torch.no_grad()
def forced(model: Any, words: Lexicon) -> Said:
    """Of each word, after true tokens: predictions that are wrong, nats, tokens."""
    columns: Said = {key: [0] * len(words) for key in ("wrong", "nats", "tokens")}
    for rows, pairs in in_parts(words):
        logits = logits_of(model, pairs)
        real, out = pairs.target_out >= 0, pairs.target_out
        wrong = ((logits.argmax(dim=-1) != out) & real).sum(dim=1)
        nats = cross_entropy(logits.mT, out, reduction="none").sum(dim=1)
        values = zip(rows, wrong, nats, real.sum(dim=1), strict=True)
        for row, *three in values:
            for key, value in zip(columns, three, strict=True):
                columns[key][row] = value.item()
    return columns


def logits_of(model: Any, pairs: Pairs) -> Tensor:
    """Scores after true tokens."""
    bound = model.attend(pairs.source, pairs.source_lengths)
    return bound(pairs.target_in, None, pairs.target_lengths)[0]


@contextmanager
def replaced(model: Any, change: Change) -> Iterator[None]:
    """The weights of a model's attention are changed inside the block."""
    own = model.decoder.attention
    model.decoder.attention = Replaced(own, change)
    try:
        yield
    finally:
        model.decoder.attention = own


@torch.no_grad()
def moved(model: Any, words: Lexicon, change: Change) -> Said:
    """Of each word, after true tokens: how many predictions change, and how far."""
    columns: Said = {key: [0] * len(words) for key in ("changed", "distance")}
    for rows, pairs in in_parts(words):
        real = pairs.target_out >= 0
        p = torch.softmax(logits_of(model, pairs), dim=-1)
        with replaced(model, change):
            q = torch.softmax(logits_of(model, pairs), dim=-1)
        changed = ((p.argmax(-1) != q.argmax(-1)) & real).sum(dim=1)
        distance = ((p - q).abs().sum(-1) / 2 * real).sum(dim=1)
        for row, a, b in zip(rows, changed, distance, strict=True):
            columns["changed"][row], columns["distance"][row] = a.item(), b.item()
    return columns


@torch.no_grad()
def largest(model: Any, words: Lexicon) -> float:
    """The largest weight of a step, on average over all steps."""
    total = steps = 0.0
    for _, pairs in in_parts(words):
        bound = model.attend(pairs.source, pairs.source_lengths)
        weights = bound.align(pairs.target_in, None, pairs.target_lengths)
        # Zero in the padding.
        total += weights.amax(dim=-1).sum().item()
        steps += int(pairs.target_lengths.sum())
    return total / steps


def mean_of(columns: Sequence[Said]) -> Said:
    """The mean of several, word by word."""
    return {
        key: torch.tensor([one[key] for one in columns]).double().mean(dim=0).tolist()
        for key in columns[0]
    }


def effects(model: Any, words: Lexicon, draws: int, seed: int) -> dict[str, Any]:
    """What changes with weights that are permuted, or made equal."""
    random = lab.generator(seed + 3000)
    ways: dict[str, tuple[Change, int]] = {
        "permuted": (partial(permuted, random), draws),
        "levelled": (levelled, 1),
    }
    parts: dict[str, Any] = {"largest": largest(model, words)}
    for way, (change, times) in ways.items():
        columns = [moved(model, words, change) for _ in range(times)]
        with replaced(model, change):
            parts[way] = mean_of(columns) | {"said": said(model, words)}
    return parts


def answers(
    config: Any, kind: str, width: int, seed: int, words: Any
) -> dict[str, Any]:
    """A model after its training: all that is asked of it."""
    model = trained(config, kind, width, seed, words.learned)
    heldout = words.heldout
    result = {
        "parameters": lab.parameter_count(model),
        "greedy": said(model, heldout),
        "forced": forced(model, heldout),
    }
    if kind in REPLACED:
        result["effects"] = effects(model, heldout, config.draws, seed)
    if kind == "bahdanau":
        result["beams"] = {
            str(beam): said(model, heldout, beam) for beam in config.beams
        }
        result["penalties"] = {
            str(alpha): said(model, heldout, config.beam, alpha)
            for alpha in config.alphas
        }
        result["penalties"]["mean"] = said(
            model, heldout, config.beam, lambda lengths: lengths
        )
    return result
