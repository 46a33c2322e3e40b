r"""What a model loses when it reads its own tokens, by how it was trained.

An encoder and a decoder learn to reverse sequences of random symbols: with true tokens
as inputs, with one of the three schedules of scheduled sampling, or with their own
tokens from the first update on. All see the same sequences and make as many updates.
On held-out sequences tokens are then predicted from true inputs and from the model's
own, and whole sequences are decoded. The target follows from the source, so that the
optimum of scheduled sampling is the right one here. The control repeats teacher forcing
with other seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from experiments import lab
from seqref import GRU
from seqref.decoding import greedy
from seqref.models import EncoderDecoder, FinalState
from seqref.training import (
    ShiftedTarget,
    exponential_schedule,
    inverse_sigmoid_schedule,
    linear_schedule,
    scheduled_sampling,
    shift_target,
    target_loss,
)

BEGIN, END, FIRST = 0, 1, 2

LABELS = {
    "teacher": "teacher forcing",
    "linear": "linear",
    "exponential": "exponential",
    "inverse_sigmoid": "inverse sigmoid",
    "free": "own tokens from the start",
    "teacher_again": "teacher forcing, other seeds",
}


@dataclass(frozen=True)
class Config:
    """The task, the networks, their training, and what is held out."""

    symbols: int = 8
    shortest: int = 6
    longest: int = 10
    widths: tuple[int, ...] = (32, 64)
    embedding_size: int = 16
    updates: int = 600
    batch_size: int = 64
    learning_rate: float = 0.008
    max_norm: float = 1.0
    # That of the last update, by the exponential schedule; the linear one ends at 0.
    last_probability: float = 0.01
    # A half is then reached after half of the updates.
    inverse_sigmoid_k: float = 71.0
    regimes: tuple[str, ...] = tuple(LABELS)
    check_every: int = 50
    early: int = 4
    heldout: int = 500
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    control_seeds: tuple[int, ...] = (20, 21, 22, 23, 24)


class Pairs(NamedTuple):
    """Sources, and what the decoder reads and must predict."""

    source: Int[Tensor, "batch source"]
    lengths: Int[Tensor, " batch"]
    target: ShiftedTarget


def build(config: Config, width: int) -> EncoderDecoder:
    """An encoder whose last state is the first of a decoder."""
    vocab = config.symbols + FIRST
    encoder, decoder = (GRU(config.embedding_size, width) for _ in range(2))
    return EncoderDecoder(vocab, vocab, encoder, decoder, hand_over=FinalState())


def draw(config: Config, size: int, random: torch.Generator) -> Pairs:
    """Random symbols of random lengths, and the same from right to left."""
    shape = size, config.longest
    lengths = torch.randint(
        config.shortest, config.longest + 1, (size,), generator=random
    )
    source = torch.randint(FIRST, FIRST + config.symbols, shape, generator=random)
    places = (lengths[:, None] - 1 - torch.arange(config.longest)).clamp_min(0)
    target = shift_target(source.gather(1, places), lengths, begin=BEGIN, end=END)
    return Pairs(source, lengths, target)


def probabilities(config: Config) -> dict[str, Callable[[int], float]]:
    """By regime, the probability of the true token at each update."""
    k = config.last_probability ** (1 / config.updates)
    return {
        "teacher": lambda i: 1.0,
        "linear": partial(linear_schedule, k=1.0, c=1 / config.updates),
        "exponential": partial(exponential_schedule, k=k),
        "inverse_sigmoid": partial(
            inverse_sigmoid_schedule, k=config.inverse_sigmoid_k
        ),
        "free": lambda i: 0.0,
        "teacher_again": lambda i: 1.0,
    }


def step_loss(
    model: EncoderDecoder, pairs: Pairs, probability: float, random: torch.Generator
) -> Tensor:
    """The loss of one batch.

    Tokens are chosen first, without a graph, and read in one call: no gradient passes
    through the choice, so this is scheduled sampling.
    """
    bound, inputs = model.attend(pairs.source, pairs.lengths), pairs.target.inputs
    if probability < 1:
        with torch.no_grad():
            inputs = scheduled_sampling(
                bound, inputs, probability=probability, generator=random
            ).inputs
    logits, _ = bound(inputs)
    return target_loss(logits, pairs.target.targets)


def distance(one: Sequence[int], other: Sequence[int]) -> int:
    """Edit distance: the fewest insertions, deletions and replacements."""
    above = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
        above = row
    return above[-1]


@torch.no_grad()
def accuracies(model: EncoderDecoder, pairs: Pairs) -> dict[str, float]:
    """Share of right tokens by true and by own inputs, and the loss by true ones."""
    inputs, targets, lengths = pairs.target
    real, bound = targets >= 0, model.attend(pairs.source, pairs.lengths)
    forced, _ = bound(inputs)
    free = scheduled_sampling(bound, inputs, lengths, probability=0, temperature=0)
    shares = {}
    for name, logits in (("true_inputs", forced), ("own_inputs", free.logits)):
        right = (logits.argmax(dim=-1) == targets)[real]
        shares[name] = right.double().mean().item()
    lost = shares["true_inputs"] - shares["own_inputs"]
    return {**shares, "lost": lost, "loss": target_loss(forced, targets).item()}


@torch.no_grad()
def decoded(config: Config, model: EncoderDecoder, pairs: Pairs) -> dict[str, float]:
    """Share of whole sequences that are right, and edits for each true token."""
    start, longest = pairs.target.inputs[:, 0], 2 * config.longest
    bound = model.attend(pairs.source, pairs.lengths)
    written = greedy(bound, start, max_length=longest, end=END)
    edits, exact, total = 0, 0, 0
    for row, length in enumerate(pairs.lengths.tolist()):
        wanted = pairs.target.targets[row, :length].tolist()
        ends = int(written.lengths[row]) - int(written.finished[row])
        apart = distance(written.tokens[row, :ends].tolist(), wanted)
        edits, total = edits + apart, total + length
        exact += apart == 0 and bool(written.finished[row])
    return {"exact": exact / len(pairs.lengths), "edits": edits / total}


def train(config: Config, regime: str, width: int, seed: int) -> dict[str, Any]:
    """One run: its course on held-out sequences, and what it ends with."""
    with lab.seeded(seed):
        model = build(config, width)
    probability = probabilities(config)[regime]
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    random, own = lab.generator(seed + 1000), lab.generator(seed + 2000)
    heldout = draw(config, config.heldout, lab.generator(seed + 3000))
    course = []
    for update in range(config.updates):
        pairs = draw(config, config.batch_size, random)
        loss = step_loss(model, pairs, probability(update), own)
        lab.descend(optimizer, loss, config.max_norm)
        if (update + 1) % config.check_every == 0:
            course.append(accuracies(model, heldout))
    last = accuracies(model, heldout) | decoded(config, model, heldout)
    early = course[config.early - 1]["own_inputs"]
    return {"course": course, "early": early, **last}


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds with their intervals."""
    keys = "true_inputs", "own_inputs", "lost", "loss", "exact", "edits", "early"
    return {key: lab.mean_interval([run[key] for run in runs]) for key in keys}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Train by every regime, width and seed."""
    jobs = {
        f"{regime}_{width}": (regime, width)
        for width in config.widths
        for regime in config.regimes
        if regime != "teacher_again" or width == config.widths[0]
    }
    cases, courses = {}, {}
    for name, (regime, width) in track(jobs.items(), "exposure_bias"):
        again = regime == "teacher_again"
        seeds = config.control_seeds if again else config.seeds
        runs = [train(config, regime, width, seed) for seed in seeds]
        cases[name] = {"regime": regime, "width": width, **summary(runs)}
        courses[name] = [
            lab.spread(run["course"][i]["own_inputs"] for run in runs)
            for i in range(config.updates // config.check_every)
        ]
    for case in cases.values():
        teacher = cases[f"teacher_{case['width']}"]
        case["lost_of_teacher"] = case["lost"]["mean"] / teacher["lost"]["mean"]
        case["early_errors_of_teacher"] = (1 - case["early"]["mean"]) / (
            1 - teacher["early"]["mean"]
        )
    return {"series": {"courses": courses}, "cases": cases}


def draw_courses(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Right tokens by own inputs against updates, at the widest."""
    axes, config = figure.subplots(), record["run"]["config"]
    width, every = config["widths"][-1], config["check_every"]
    curves = {
        LABELS[regime]: record["series"]["courses"][f"{regime}_{width}"]
        for regime in ("teacher", "exponential", "free")
    }
    updates = [every * (i + 1) for i in range(config["updates"] // every)]
    ends = lab.lines(axes, updates, curves, theme)
    axes.set_xlim(updates[0], updates[-1])
    axes.set_xlabel("updates")
    axes.set_title("Share of right tokens when the model reads its own")
    lab.label_ends(axes, updates[-1], ends)


def percent(quantity: str) -> lab.Cell:
    """A share of a case with its interval, in per cent."""
    return lab.with_span(quantity, lambda share: f"{100 * share:.1f}")


experiment = lab.Experiment(
    small=Config(
        shortest=3,
        longest=5,
        widths=(32,),
        updates=64,
        learning_rate=0.03,
        regimes=("teacher", "exponential", "free", "teacher_again"),
        check_every=32,
        early=2,
        heldout=200,
        seeds=(0, 1),
        control_seeds=(20, 21),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C63.bias",
            "A model trained by teacher forcing gets at least 4 of 100 tokens fewer "
            "right when it reads its own; one trained on its own tokens does not.",
            lab.above("lost.mean", 0.04),
            case="teacher_32",
            control="free_32",
        ),
        lab.Claim(
            "C63.schedule",
            "With the exponential schedule less than 0.6 of that is lost.",
            lab.below("lost_of_teacher", 0.6),
            case="exponential_32",
            control="teacher_again_32",
        ),
        lab.Claim(
            "C65",
            "After as many updates a model trained by teacher forcing writes more than "
            "0.35 of whole sequences right; one trained on its own tokens does not.",
            lab.above("exact.mean", 0.35),
            case="teacher_32",
            control="free_32",
        ),
    ],
    numbers=[
        *(
            lab.each(f"{key}.mean", key)
            for key in ("true_inputs", "own_inputs", "lost", "exact", "edits", "early")
        ),
        lab.each("early_errors_of_teacher"),
        lab.each("lost_of_teacher"),
    ],
    tables={
        "regimes": lab.Table(
            {
                "width": "width",
                "training": lambda case: LABELS[case["regime"]],
                "right by true inputs, %": percent("true_inputs"),
                "by own inputs, %": percent("own_inputs"),
                "lost": percent("lost"),
                "edits per token, %": percent("edits"),
                "whole sequences right, %": percent("exact"),
            }
        )
    },
    figures={"courses": draw_courses},
)
