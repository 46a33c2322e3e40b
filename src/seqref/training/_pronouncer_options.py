r"""The options of `seqref train-pronouncer`."""

import argparse
from pathlib import Path
from typing import Any

from seqref.training._options import CHECKPOINT, FOLDER, path, positive
from seqref.training._pronouncer import load_pronouncer
from seqref.training._resume import Trains

NAME = "train-pronouncer"
FOLDER_OUT = "seqref-pronouncer"
REPORT_WORDS = 2000

SIZES = (
    ("--steps", 5000, "batches to learn from"),
    ("--hidden-size", 128, "width of each layer"),
    ("--batch-size", 128, "words read side by side"),
    ("--save-every", 200, "steps from one checkpoint to the next"),
)
DEFAULTS: dict[str, Any] = {f[2:].replace("-", "_"): value for f, value, _ in SIZES}
DEFAULTS |= {"learning_rate": 0.004, "seed": 0, "words": None, "stress": False}


def step_of_pronouncer(file: Path) -> int:
    r"""After how many steps a model was written."""
    return load_pronouncer(file)[1].get("step", -1)


TRAIN_PRONOUNCER = Trains(
    NAME,
    lambda arguments: "the dictionary that is installed is not the one",
    DEFAULTS,
    step_of_pronouncer,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    r"""Add every option; those of a run are None where they are left out."""
    parser.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        default=FOLDER_OUT,
        help=f"folder for {CHECKPOINT} and {FOLDER}/ (default: %(default)s)",
    )
    parser.add_argument(
        "--report-words",
        type=positive,
        default=REPORT_WORDS,
        metavar="N",
        help="held-out words to measure on, at most (default: %(default)s)",
    )
    _add_settings(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--words",
        type=positive,
        metavar="N",
        help="take so many words of the dictionary, always the same (default: all)",
    )
    parser.add_argument(
        "--stress",
        action="store_true",
        default=None,
        help="learn the stress of vowels too (default: False)",
    )
    for flag, default, text in SIZES:
        parser.add_argument(
            flag, type=positive, metavar="N", help=f"{text} (default: {default})"
        )
    parser.add_argument(
        "--learning-rate",
        type=float,
        metavar="X",
        help="Adam's, falling to a tenth of it (default: 0.004)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="(default: 0)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help=(
            "go on from the newest checkpoint in --out, with the settings of its run; "
            "--save-every may be another one"
        ),
    )
