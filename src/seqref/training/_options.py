r"""The options of `seqref train-lm`, and kinds that other commands share."""

import argparse
import os

from seqref.training._layers import KINDS

CHECKPOINT = "model.safetensors"
FOLDER = "checkpoints"
REPORT_CHARACTERS = 500_000
LARGEST = 2**63 - 1

SIZES = (
    ("--steps", 3000, "chunks to learn from"),
    ("--hidden-size", 256, "width of the layer"),
    ("--batch-size", 16, "rows read side by side"),
    ("--horizon", 64, "characters of a row in one chunk"),
    ("--save-every", 200, "steps from one checkpoint to the next"),
)
DEFAULTS = {flag[2:].replace("-", "_"): default for flag, default, _ in SIZES}
DEFAULTS |= {"layer": "LSTM", "learning_rate": 0.004, "seed": 0}


def add_options(parser: argparse.ArgumentParser) -> None:
    r"""Add every option; those of a run are None where they are left out."""
    parser.add_argument(
        "--text", type=path, metavar="FILE", required=True, help="UTF-8 text"
    )
    parser.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        default="seqref-lm",
        help=f"folder for {CHECKPOINT} and {FOLDER}/ (default: %(default)s)",
    )
    parser.add_argument(
        "--report-characters",
        type=positive,
        default=REPORT_CHARACTERS,
        metavar="N",
        help=(
            "held-out characters to measure on, at most; the n-grams are tuned on as "
            "many and count eight times as many (default: %(default)s)"
        ),
    )
    _add_settings(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--layer",
        choices=tuple(KINDS),
        metavar="NAME",
        help=f"the layer, one of {', '.join(KINDS)} (default: LSTM)",
    )
    for flag, default, text in SIZES:
        parser.add_argument(
            flag,
            type=positive,
            metavar="N",
            help=f"{text} (default: {default})",
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


def positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= LARGEST:
        raise argparse.ArgumentTypeError(
            f"must be a whole number >= 1 and < 2^63, got {text[:40]!r}"
        )
    return value


def path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must be a path, got ''")
    # A shell leaves it as it is in quotes, and after the = of --out=~/model.
    home = text == "~" or text.startswith(("~/", f"~{os.sep}"))
    return os.path.expanduser(text) if home else text
