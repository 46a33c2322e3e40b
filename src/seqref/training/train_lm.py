r"""`seqref train-lm`: a character language model on the reader's own text."""

import argparse
import math
import platform
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from seqref import __version__
from seqref.errors import import_extra
from seqref.models import LanguageModel
from seqref.recurrent import LSTM
from seqref.tasks import Corpus, Streams, Vocabulary, read_text, split_text
from seqref.training._file import remove_leftovers
from seqref.training._interrupt import Interrupt
from seqref.training._report import report, say
from seqref.training._resume import (
    CHECKPOINT,
    DEFAULTS,
    FOLDER,
    SIZES,
    choose_folder,
    complete,
    digest,
)
from seqref.training.checkpoint import Checkpoints, save_language_model
from seqref.training.loop import NonFiniteLossError, Step
from seqref.training.truncated import train

# A character must occur twice to be known, so that the symbol for unknown ones is
# itself seen in training.
MIN_COUNT = 2


@dataclass(frozen=True)
class Run:
    r"""Everything that one call of the command works with."""

    corpus: Corpus
    vocabulary: Vocabulary
    streams: Streams
    model: LanguageModel
    checkpoint: Path
    checkpoints: Checkpoints
    settings: dict[str, Any]


def add_parser(subparsers: Any) -> None:
    r"""Add `train-lm` to the command line."""
    parser = subparsers.add_parser(
        "train-lm",
        help="train a character language model on a text file",
        description=(
            "Train a character LSTM on a UTF-8 text file. The last tenth of the text "
            "is held out and measured against n-grams; the tenth before it tunes "
            "them. Ctrl-C stops after the running step and keeps the model; --resume "
            "goes on, also after a crash."
        ),
    )
    parser.add_argument("--text", metavar="FILE", required=True, help="UTF-8 text")
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="seqref-lm",
        help=f"folder for {CHECKPOINT} and {FOLDER}/ (default: %(default)s)",
    )
    for flag, default, text in SIZES:
        parser.add_argument(
            flag,
            type=_positive,
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
        help="go on from the newest checkpoint in --out, with the settings of its run",
    )
    parser.set_defaults(run=run)


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return value


def run(arguments: argparse.Namespace) -> int:
    r"""Train, save, compare and sample; returns the exit status.

    Raises:
        ValueError: the text is no text or too short, or the folder holds a model.
        OSError: the text is missing or a folder, or the folder cannot be written.
        RuntimeError: tqdm or safetensors is not installed.

    Source:
        None: a design of this package.
    """
    import_extra("tqdm", "train-lm", "train")
    import_extra("safetensors", "train-lm", "train")
    work = prepare(arguments)
    _make_folder(work.checkpoint.parent)
    remove_leftovers(work.checkpoint.parent, re.escape(CHECKPOINT))
    _introduce(work)
    try:
        last, stopped = _train(work)
    except NonFiniteLossError as error:
        print(f"seqref: error: {error}", file=sys.stderr)
        print(f"The last checkpoint is kept: {work.checkpoint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _stopped(work)
    say(f"saved: {work.checkpoint}")
    if stopped:
        print(f"stopped by Ctrl-C after step {last.number} of {arguments.steps}")
        print("go on with the same command and --resume")
        return _stopped(work)
    try:
        _report(work, last)
    except KeyboardInterrupt:
        return _stopped(work)
    return 0


def prepare(arguments: argparse.Namespace) -> Run:
    r"""Read and check the text, build the model, choose where the run is kept.

    Options that are None are those of the run that is resumed, else the defaults.

    Raises:
        ValueError: the text is too short, learning rate or seed is out of range, the
            folder holds a model and is not resumed, or it is of another run.
    """
    corpus = split_text(read_text(arguments.text))
    checkpoints = choose_folder(arguments)
    complete(arguments, corpus, checkpoints)
    _check_long_enough(arguments, corpus)
    if not (0 < arguments.learning_rate <= 1):
        raise ValueError(
            "train-lm: `--learning-rate` must be above 0 and at most 1, "
            f"got {arguments.learning_rate}"
        )
    if not -(2**63) <= arguments.seed < 2**64:
        raise ValueError(
            f"train-lm: `--seed` must fit in 64 bits, got {arguments.seed}"
        )
    vocabulary = Vocabulary.from_text(corpus.train, MIN_COUNT)
    tokens = vocabulary.encode(corpus.train)
    streams = Streams(tokens, arguments.batch_size, arguments.horizon)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(arguments.seed)
        layer = LSTM(min(64, len(vocabulary)), arguments.hidden_size)
        model = LanguageModel(len(vocabulary), layer)
    settings = {
        name: getattr(arguments, name)
        for name in ("steps", "learning_rate", "seed", "save_every", "horizon")
    }
    path = Path(arguments.out) / CHECKPOINT
    config = {name: getattr(arguments, name) for name in DEFAULTS}
    # How often a run is kept may change when it goes on.
    config["save_every"] = None
    checkpoints = replace(
        checkpoints,
        every=arguments.save_every,
        config={**config, "text": digest(corpus)},
    )
    return Run(corpus, vocabulary, streams, model, path, checkpoints, settings)


def _check_long_enough(arguments: argparse.Namespace, corpus: Corpus) -> None:
    needed = arguments.batch_size * arguments.horizon + 1
    if len(corpus.train) < needed:
        total = len(corpus.train) + len(corpus.tune) + len(corpus.heldout)
        raise ValueError(
            f"train-lm: `--text` is too short: {total} characters, of which "
            f"{len(corpus.train)} are left for training, and one step reads "
            f"batch size * horizon + 1 = {needed}; take a longer text, or a smaller "
            "--batch-size or --horizon"
        )
    if len(corpus.heldout) < 2 or len(corpus.tune) < 2:
        raise ValueError(
            "train-lm: `--text` is too short: a tenth of it must be at least 2 "
            f"characters, got {len(corpus.heldout)}"
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"train-lm: `--out` must be a folder that can be made, got {str(folder)!r} "
            f"({error.strerror})"
        ) from error


def _introduce(work: Run) -> None:
    corpus, settings = work.corpus, work.settings
    parameters = sum(p.numel() for p in work.model.parameters())
    rows = work.streams.inputs.shape[0]
    unknown = work.vocabulary.unknown(corpus.heldout)
    print(
        f"text: {len(corpus.train):,} characters to train on, {len(corpus.tune):,} to "
        f"tune the n-grams, {len(corpus.heldout):,} held out; "
        f"{len(work.vocabulary)} symbols, {unknown:,} held-out characters unknown"
    )
    print(
        f"model: LSTM, hidden size {work.model.layer.hidden_size}, {parameters:,} "
        f"parameters; {settings['steps']:,} steps of {rows} x {settings['horizon']} "
        "characters",
        flush=True,
    )


def _train(work: Run) -> tuple[Step, bool]:
    settings = work.settings
    steps, rate = settings["steps"], settings["learning_rate"]
    optimizer = torch.optim.Adam(work.model.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=steps, eta_min=rate / 10
    )
    start = Step(0, math.nan, math.nan, 0)
    with Interrupt() as interrupt:

        def after(step: Step) -> bool:
            if step.number % settings["save_every"] == 0:
                _save(work, step)
            return interrupt.asked

        if not work.checkpoints.files():
            _save(work, start)
        last = train(
            work.model,
            work.streams,
            optimizer,
            steps,
            scheduler=scheduler,
            checkpoints=work.checkpoints,
            on_step=after,
            progress=True,
        )
        last = last or start
        _save(work, last)
        return last, interrupt.asked


def _save(work: Run, step: Step) -> None:
    facts = {
        **work.settings,
        "batch_size": work.streams.inputs.shape[0],
        "step": step.number,
        "characters": step.characters,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "seqref": __version__,
        },
    }
    save_language_model(work.checkpoint, work.model, work.vocabulary, facts)


def _stopped(work: Run) -> int:
    if work.checkpoint.exists():
        print(f"The model so far is in {work.checkpoint}", file=sys.stderr)
    else:
        print("Stopped before the first step: there is no model yet", file=sys.stderr)
    return 130


def _report(work: Run, last: Step) -> None:
    rows = work.streams.inputs.shape[0]
    seed = work.settings["seed"]
    report(work.model, work.vocabulary, work.corpus, rows, seed, last.characters)
