r"""`seqref pronounce`: how a trained model says words."""

import argparse
import math
from pathlib import Path
from typing import Any

from seqref.training._options import CHECKPOINT, path, positive
from seqref.training._output import say
from seqref.training._pronouncer import Pronounced, load_pronouncer
from seqref.training._pronouncer_options import FOLDER_OUT

NAME = "pronounce"
WIDTH = 4


def add_parser(subparsers: Any) -> None:
    r"""Add `pronounce` to the command line."""
    parser = subparsers.add_parser(
        NAME,
        help="say how words are pronounced, by a model of train-pronouncer",
        description=(
            "Print the phonemes of words, by a model that `seqref train-pronouncer` "
            "has trained. The names are those of the CMU Pronouncing Dictionary."
        ),
    )
    parser.add_argument(
        "words", nargs="+", metavar="WORD", help="of the letters a to z"
    )
    parser.add_argument(
        "--model",
        type=path,
        metavar="FILE",
        default=f"{FOLDER_OUT}/{CHECKPOINT}",
        help="(default: %(default)s)",
    )
    parser.add_argument(
        "--n-best",
        type=positive,
        default=1,
        metavar="N",
        help="answers for each word, with their probabilities (default: %(default)s)",
    )
    parser.add_argument(
        "--width",
        type=positive,
        metavar="N",
        help=f"of the beam; 1 is greedy (default: {WIDTH}, or as many as --n-best)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    r"""Print each word with its pronunciation; returns the exit status.

    Raises:
        ValueError: a word has a letter other than a to z, `--width` is below
            `--n-best`, or the file holds no pronouncer.
        FileNotFoundError: there is no such file.
        RuntimeError: safetensors is not installed.
    """
    words = [word.lower() for word in arguments.words]
    n_best = arguments.n_best
    width = max(WIDTH, n_best) if arguments.width is None else arguments.width
    if width < n_best:
        raise ValueError(
            f"{NAME}: `--width` must be at least --n-best={n_best}, got {width}"
        )
    if not Path(arguments.model).is_file():
        raise FileNotFoundError(
            f"{NAME}: there is no file {arguments.model!r}; train a model with "
            "`seqref train-pronouncer`, or name one with --model"
        )
    pronouncer, _ = load_pronouncer(arguments.model)
    _check(words, pronouncer.alphabet)
    answers = pronouncer.pronounce(words, n_best, width)
    for word, several in zip(arguments.words, answers, strict=True):
        if n_best == 1:
            say(f"{word}: {_line(several[0])}")
            continue
        say(f"{word}:")
        for answer in several:
            say(f"  {math.exp(answer.log_probability):.3f}  {_line(answer)}")
    return 0


def _check(words: list[str], alphabet: Any) -> None:
    for word in words:
        try:
            alphabet.encode([word])
        except ValueError as error:
            strange = sorted({letter for letter in word if not "a" <= letter <= "z"})
            got = ", ".join(map(repr, strange)) or "an empty word"
            raise ValueError(
                f"{NAME}: `WORD` must be of the letters a to z, got {got} in {word!r}"
            ) from error


def _line(answer: Pronounced) -> str:
    said = " ".join(answer.phonemes) or "(nothing)"
    return said if answer.finished else f"{said} ... (no end within the limit)"
