r"""The questions of sequence to sequence, asked of models that say English words.

Models of ten kinds learn the words of a fixed subset, at two widths, and say the same
held-out words: one vector or attention, the source in order or from its end; attention
asked by the state before the step or after it; its weights permuted, or equal in
training; true tokens in training, or more and more of the model's own; answers by beams
of several widths, ranked by several divisors of log P. All 100 trainings of the full
run take some 40 minutes of one core; each is kept in a file when it ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments import lab
from experiments.seq2seq import _words_runs as runs
from experiments.seq2seq._words_rates import (
    Ratio,
    Resampled,
    among,
    per,
    stacked,
    wer,
)
from experiments.seq2seq._words_tables import FIGURES, TABLES, numbers
from seqref.tasks import read_dictionary, split_lexicon
from seqref.tasks.pronunciation.dictionary import Lexicon

MODULE = "experiments.seq2seq._words_runs"
KINDS = (
    *("in_order", "from_end", "attention", "equal", "before", "after"),
    *("bahdanau", *runs.SCHEDULES),
)
# What they know of the source: one vector, or all positions.
BOTTLENECK = "in_order", "from_end", "equal", "attention"
# By name, the fewest and the most letters of a word.
LETTERS = {"5": (1, 5), "7": (6, 7), "9": (8, 9), "10": (10, 99)}


@dataclass(frozen=True)
class Config(runs.Training):
    """Of the training; words, widths, kinds of models, searches, seeds."""

    words: int = 15_000
    # Of so many words of the dictionary the part that is held out.
    heldout_words: int = 30_000
    hidden_sizes: tuple[int, ...] = (32, 64)
    kinds: tuple[str, ...] = KINDS
    draws: int = 3
    beams: tuple[int, ...] = (1, 2, 4, 8)
    beam: int = 4
    alphas: tuple[float, ...] = (0.2, 0.6, 1.0, 2.0)
    keep: str | None = "runs/words_seq2seq"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


class Words(NamedTuple):
    """The words to learn from, and those held out."""

    learned: Lexicon
    heldout: Lexicon


def read_words(config: Config) -> Words:
    """The parts of the dictionary that a config asks for."""
    lexicon = read_dictionary()
    return Words(
        split_lexicon(lexicon, config.words).train,
        split_lexicon(lexicon, config.heldout_words).heldout,
    )


class Answers(NamedTuple):
    """What the models of one width said, by kind and seed, and how to compare."""

    width: int
    runs: Mapping[str, list[dict[str, Any]]]
    resampled: Resampled
    letters: Tensor
    single: Tensor


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Train all models, and ask them."""
    words = read_words(config)
    grid = [
        (width, kind, seed)
        for width in config.hidden_sizes
        for kind in config.kinds
        for seed in config.seeds
    ]
    # What a model says does not depend on which others there are.
    alone = replace(config, hidden_sizes=(), kinds=(), seeds=())
    done = {}
    for width, kind, seed in track(grid, "words_seq2seq"):
        make = partial(runs.answers, config, kind, width, seed, words)
        name = f"{kind}-{width}-{seed}"
        done[width, kind, seed] = lab.kept(alone, MODULE, name, make)
    resampled = Resampled(len(config.seeds), len(words.heldout))
    letters = torch.tensor([len(word) for word in words.heldout])
    single = torch.tensor([len(said) == 1 for said in words.heldout.values()])
    cases: dict[str, Any] = {}
    for width in config.hidden_sizes:
        by_kind = {
            kind: [done[width, kind, seed] for seed in config.seeds]
            for kind in config.kinds
        }
        answers = Answers(width, by_kind, resampled, letters, single)
        for question in (models, by_letters, orders, schedules, weights, searches):
            cases |= question(config, answers)
    sizes = {
        "learned": len(words.learned),
        "heldout": len(words.heldout),
        "single": int(single.sum()),
        "longest": int((letters >= LETTERS["10"][0]).sum()),
    }
    return {"numbers": sizes, "series": {"letters": list(LETTERS)}, "cases": cases}


def gap(answers: Answers, kind: str) -> dict[str, Ratio]:
    """Wrong predictions after true tokens and edits after own ones, a phoneme.

    Of words with one pronunciation, since the true tokens are those of one. A wrong
    prediction of the end counts as one, as an edit would; a word has no more edits than
    phonemes, so that a few answers without an end do not decide.
    """
    rows, rate = answers.runs[kind], partial(among, mask=answers.single)
    edits, phonemes = per(rows, "greedy")
    own = Ratio(edits.minimum(phonemes), phonemes)
    wrong = Ratio(stacked(rows, "forced", "wrong"), own.below)
    lost = Ratio(own.above - wrong.above, own.below)
    return {"forced": rate(wrong), "free": rate(own), "gap": rate(lost)}


def models(config: Config, answers: Answers) -> dict[str, Any]:
    """Each kind: its rates, read greedily and after true tokens."""
    cases = {}
    for kind, rows in answers.runs.items():
        nats = Ratio(stacked(rows, "forced", "nats"), stacked(rows, "forced", "tokens"))
        rates = {"per": per(rows, "greedy"), "wer": wer(rows, "greedy"), "nats": nats}
        rates |= gap(answers, kind)
        cases[f"{kind}_{answers.width}"] = {
            "kind": kind,
            "width": answers.width,
            "parameters": rows[0]["parameters"],
            **{name: answers.resampled.rate(rate) for name, rate in rates.items()},
        }
    return cases


def by_letters(config: Config, answers: Answers) -> dict[str, Any]:
    """One vector, read in two ways, and attention, by the letters of the word."""
    cases: dict[str, Any] = {}
    kinds = [k for k in BOTTLENECK if k in answers.runs]
    for name, (least, most) in LETTERS.items():
        mask = (answers.letters >= least) & (answers.letters <= most)
        rates = {k: among(per(answers.runs[k], "greedy"), mask) for k in kinds}
        for kind, rate in rates.items():
            cases[f"{kind}_letters{name}_{answers.width}"] = {
                "bottleneck": kind,
                "letters": name,
                "width": answers.width,
                "per": answers.resampled.rate(rate),
                "less": answers.resampled.difference(rates["in_order"], rate),
            }
    return cases


def difference(answers: Answers, one: str, other: str) -> dict[str, Any]:
    """Rates of one kind less those of another, both greedy."""
    first, second = answers.runs[one], answers.runs[other]
    return {
        name: answers.resampled.difference(
            rate(first, "greedy"), rate(second, "greedy")
        )
        for name, rate in (("per_more", per), ("wer_more", wer))
    }


def orders(config: Config, answers: Answers) -> dict[str, Any]:
    """The state after the step asks, against the state before it."""
    if "after" not in answers.runs:
        return {}
    return {f"order_{answers.width}": difference(answers, "after", "before")}


def schedules(config: Config, answers: Answers) -> dict[str, Any]:
    """Each schedule against true tokens alone, which is Bahdanau's model."""
    cases = {}
    teacher = gap(answers, "bahdanau")
    for kind in (*runs.SCHEDULES, "free"):
        if kind in answers.runs:
            found = difference(answers, kind, "bahdanau")
            for name, rate in gap(answers, kind).items():
                other = teacher[name]
                found[f"{name}_more"] = answers.resampled.difference(rate, other)
            cases[f"schedule_{kind}_{answers.width}"] = found
    return cases


def weights(config: Config, answers: Answers) -> dict[str, Any]:
    """Weights that are replaced in a trained model."""
    cases: dict[str, Any] = {}
    for kind in runs.REPLACED:
        rows = answers.runs[kind]
        tokens = stacked(rows, "forced", "tokens")
        own = {"per": answers.resampled.rate(per(rows, "greedy"))}
        common = {"trained": kind, "width": answers.width}
        largest = [row["effects"]["largest"] for row in rows]
        cases[f"{kind}_own_{answers.width}"] = {
            **common,
            "weights": "own",
            "largest": lab.mean_interval(largest),
            **own,
        }
        for way in ("permuted", "levelled"):
            rates = {
                key: Ratio(stacked(rows, "effects", way, key), tokens)
                for key in ("changed", "distance")
            }
            rates["per"] = per(rows, "effects", way, "said")
            cases[f"{kind}_{way}_{answers.width}"] = {
                **common,
                "weights": way,
                **{name: answers.resampled.rate(rate) for name, rate in rates.items()},
            }
    return cases


def searches(config: Config, answers: Answers) -> dict[str, Any]:
    """Beams by width against greedy, and divisors against none at one width."""
    rows, cases = answers.runs["bahdanau"], {}
    for group, against in (("beams", 1), ("penalties", config.beam)):
        for name in rows[0][group]:
            path, other = (group, name), ("beams", str(against))
            one = Ratio(
                stacked(rows, *path, "length"), stacked(rows, *path, "phonemes")
            )
            found = {"per": per(rows, *path), "wer": wer(rows, *path), "length": one}
            case = {k: answers.resampled.rate(rate) for k, rate in found.items()}
            case |= {
                f"{key}_more": answers.resampled.difference(
                    rate(rows, *path), rate(rows, *other)
                )
                for key, rate in (("per", per), ("wer", wer))
            }
            ones = torch.ones_like(one.above)
            log_p = [Ratio(stacked(rows, *p, "log_p"), ones) for p in (path, other)]
            case["log_p_more"] = answers.resampled.difference(*log_p)
            # A path in a record has dots between its parts.
            short = name.replace(".", "")
            cases[f"{group}_{short}_{answers.width}"] = {
                "search": group,
                "name": name,
                "width": answers.width,
                **case,
            }
    return cases


experiment = lab.Experiment(
    small=Config(
        words=600,
        heldout_words=4_000,
        hidden_sizes=(32,),
        kinds=("in_order", "attention", "bahdanau", "equal", "exponential"),
        batch_size=64,
        epochs=8,
        learning_rate=0.02,
        draws=1,
        beams=(1, 4),
        alphas=(),
        keep=None,
        seeds=(0,),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C155",
            "Of words with ten or more letters a model with attention has more than "
            "0.1 fewer edits a phoneme than one that hands over one vector; with equal "
            "weights in the place of attention it has not.",
            lab.above("less.mean", 0.1),
            case="attention_letters10_32",
            control="equal_letters10_32",
        ),
        lab.Claim(
            "C156",
            "Permuting the weights changes more than 0.25 of the predictions; where "
            "the weights were equal in training, fewer.",
            lab.above("changed.mean", 0.25, lab.share),
            case="attention_permuted_32",
            control="equal_permuted_32",
        ),
        lab.Claim(
            "C157",
            "After its own tokens a model trained on true ones has more than 0.01 more "
            "errors a phoneme than after true ones; trained by a schedule that is "
            "exponential it has not.",
            lab.above("gap.mean", 0.01),
            case="bahdanau_32",
            control="exponential_32",
        ),
        lab.Claim(
            "C159",
            "With a beam of 4 answers are likelier by more than 0.05 nats a word; "
            "with a beam of 1 they are not.",
            lab.above("log_p_more.mean", 0.05),
            case="beams_4_32",
            control="beams_1_32",
        ),
    ],
    numbers=[numbers],
    tables=TABLES,
    figures=FIGURES,
)
