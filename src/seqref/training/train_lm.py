r"""`seqref train-lm`: a character language model on the reader's own text."""

import argparse
import math
import platform
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from seqref import __version__
from seqref.errors import check_number, import_extra
from seqref.models import LanguageModel
from seqref.recurrence import grows
from seqref.tasks import Corpus, Streams, Vocabulary, read_text, split_text
from seqref.training._file import in_words, is_there, remove_leftovers
from seqref.training._interrupt import Interrupt
from seqref.training._kept import keep_report, key_of, read_report
from seqref.training._layers import layer_for
from seqref.training._lock import Lock
from seqref.training._options import CHECKPOINT, add_options
from seqref.training._output import PatientStreams, say, tell
from seqref.training._report import FORMAT, Report, report, show
from seqref.training._resume import choose_folder, complete, digest, not_made
from seqref.training.checkpoint import Checkpoints, save_language_model
from seqref.training.loop import NonFiniteLossError, Step
from seqref.training.truncated import train

# A character must occur twice to be known, so that the symbol for unknown ones is
# itself seen in training.
MIN_COUNT = 2
# So that a run that is over is not measured again.
REPORT = "report.json"
# Weights, their gradients and Adam's two moments.
COPIES = 4


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

    @property
    def name(self) -> str:
        r"""The name of the layer."""
        return type(self.model.layer).__name__

    @property
    def carries(self) -> bool:
        r"""Whether the state goes on from chunk to chunk: one that grows does not."""
        return not grows(self.model.initial_state(1))


def add_parser(subparsers: Any) -> None:
    r"""Add `train-lm` to the command line."""
    parser = subparsers.add_parser(
        "train-lm",
        help="train a character language model on a text file",
        description=(
            "Train a character model on a UTF-8 text file. The last tenth of the text "
            "is held out and measured against n-grams; the tenth before it tunes "
            "them. Ctrl-C, SIGTERM and SIGHUP stop after the running step and keep the "
            "model; --resume goes on, also after a crash."
        ),
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    r"""Train, save, compare and sample; returns the exit status.

    Output that is lost (a closed pipe, a full disk) does not end training: the error
    is raised when all is done.

    Raises:
        ValueError: the text is no text or too short, or the folder holds a model.
        OSError: the text is missing or a folder, the folder cannot be written, or
            standard output was lost.
        RuntimeError: tqdm or safetensors is not installed, or another run works in
            the folder.
        MemoryError: the model or its report does not fit.

    Source:
        None: a design of this package.
    """
    import_extra("tqdm", "train-lm", "train")
    import_extra("safetensors", "train-lm", "train")
    folder = Path(arguments.out)
    with PatientStreams() as streams, Lock(folder, "train-lm: `--out`") as lock:
        work = prepare(arguments)
        _make_folder(folder)
        lock.take()
        if lock.held:
            remove_leftovers(folder, re.escape(CHECKPOINT))
        _introduce(work)
        status = _all(work, arguments.report_characters, streams)
    if status == 0 and streams.lost is not None:
        raise in_words(streams.lost, "standard output was lost") from streams.lost
    return status


def _all(work: Run, limit: int, streams: PatientStreams) -> int:
    r"""Train, then report to whoever listens; returns the exit status."""
    try:
        last, interrupt = _train(work)
    except NonFiniteLossError as error:
        tell(f"seqref: error: {error}")
        tell(f"The last checkpoint is kept: {work.checkpoint}")
        return 1
    except KeyboardInterrupt:
        return _stopped(work, 130)
    except (OSError, RuntimeError, MemoryError) as error:
        why = _why_no_memory(work, error)
        if why is None and not isinstance(error, OSError):
            raise
        tell(f"seqref: error: {why or error}")
        _say_the_way_on(work)
        return 2
    say(f"saved: {work.checkpoint}")
    if interrupt.number is not None:
        say(
            f"stopped by {interrupt.name} after step {last.number} of "
            f"{work.settings['steps']}"
        )
        say(f"checkpoint: {work.checkpoints.files()[-1]}")
        say("go on with the same command and --resume")
        return _stopped(work, 128 + interrupt.number)
    if streams.lost is None:
        try:
            _report(work, last, limit)
        except KeyboardInterrupt:
            return _stopped(work, 130)
    return 0


def prepare(arguments: argparse.Namespace) -> Run:
    r"""Read and check the text, build the model, choose where the run is kept.

    Options that are None are those of the run that is resumed, else the defaults.

    Raises:
        ValueError: the text is too short, learning rate or seed is out of range, the
            folder holds a model and is not resumed, or it is of another run.
        MemoryError: the model does not fit.
    """
    corpus = split_text(read_text(arguments.text))
    checkpoints = choose_folder(arguments)
    text = digest(corpus)
    begun = complete(arguments, text, checkpoints)
    _check_long_enough(arguments, corpus)
    rate = arguments.learning_rate
    check_number("train-lm", "--learning-rate", rate, above=0, maximum=1)
    if not -(2**63) <= arguments.seed < 2**64:
        raise ValueError(
            f"train-lm: `--seed` must fit in 64 bits, got {arguments.seed}"
        )
    vocabulary = Vocabulary.from_text(corpus.train, MIN_COUNT)
    tokens = vocabulary.encode(corpus.train)
    streams = Streams(tokens, arguments.batch_size, arguments.horizon)
    model = _build(arguments, len(vocabulary))
    names = ("steps", "learning_rate", "seed", "save_every", "horizon")
    settings = {name: begun[name] for name in names}
    path = Path(arguments.out) / CHECKPOINT
    checkpoints = replace(
        checkpoints, every=arguments.save_every, config={**begun, "text": text}
    )
    return Run(corpus, vocabulary, streams, model, path, checkpoints, settings)


def _build(arguments: argparse.Namespace, vocab_size: int) -> LanguageModel:
    hidden_size, width = arguments.hidden_size, min(64, vocab_size)
    # Of an LSTM; others have as many and more, or a part of them.
    numbers = 4 * hidden_size * (width + hidden_size + 2)
    numbers += vocab_size * (width + hidden_size + 1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(arguments.seed)
            sizes = width, hidden_size, arguments.horizon
            return LanguageModel(vocab_size, layer_for(arguments.layer, *sizes))
    # torch says it in three ways, by the size.
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        raise MemoryError(
            f"train-lm: `--hidden-size` must fit in memory, got {hidden_size}: with "
            f"{vocab_size} symbols that is {numbers:,} parameters, and to train them "
            f"takes {COPIES * 4 * numbers / 1e9:,.0f} GB at least"
        ) from error


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
        raise not_made(folder, error) from error


def _introduce(work: Run) -> None:
    corpus, settings, config = work.corpus, work.settings, work.checkpoints.config
    parameters = sum(p.numel() for p in work.model.parameters())
    rows = work.streams.inputs.shape[0]
    unknown = work.vocabulary.unknown(corpus.heldout)
    print(
        f"text: {len(corpus.train):,} characters to train on, {len(corpus.tune):,} to "
        f"tune the n-grams, {len(corpus.heldout):,} held out; "
        f"{len(work.vocabulary)} symbols, {unknown:,} held-out characters unknown"
    )
    print(
        f"model: {work.name}, hidden size {config['hidden_size']}, {parameters:,} "
        f"parameters; {settings['steps']:,} steps of {rows} x {settings['horizon']} "
        "characters",
        flush=True,
    )


def _train(work: Run) -> tuple[Step, Interrupt]:
    steps, rate = work.settings["steps"], work.settings["learning_rate"]
    optimizer = torch.optim.Adam(work.model.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=steps, eta_min=rate / 10
    )
    start = Step(0, math.nan, math.nan, 0)
    with Interrupt() as interrupt, torch.random.fork_rng(devices=[]):
        # Of what a layer draws in training, such as masks.
        torch.manual_seed(work.settings["seed"])

        def after(step: Step) -> bool:
            if step.number % work.checkpoints.every == 0:
                _save(work, step)
            return interrupt.asked

        if not work.checkpoints.files():
            _save(work, start)
        last = train(
            work.model,
            work.streams,
            optimizer,
            steps,
            carry=work.carries,
            scheduler=scheduler,
            checkpoints=work.checkpoints,
            on_step=after,
            progress=True,
        )
        last = last or start
        _save(work, last)
        return last, interrupt


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


def _stopped(work: Run, status: int) -> int:
    if is_there(work.checkpoint, "train-lm"):
        tell(f"The model so far is in {work.checkpoint}")
    else:
        tell("Stopped before the first step: there is no model yet")
    return status


def _why_no_memory(work: Run, error: Exception) -> str | None:
    # torch's own error is a RuntimeError without a name of its own.
    text = str(error).lower()
    torch_s = "allocator" in text and "memory" in text
    if not (torch_s or isinstance(error, MemoryError)):
        return None
    rows, horizon = work.streams.inputs.shape[0], work.settings["horizon"]
    return (
        f"train-lm: not enough memory for steps of {rows} x {horizon} characters over "
        f"{len(work.vocabulary):,} symbols; take a smaller --batch-size, --horizon or "
        "--hidden-size"
    )


def _say_the_way_on(work: Run) -> None:
    files = work.checkpoints.files()
    kept = f"The last checkpoint is kept: {files[-1]}. " if files else ""
    tell(f"{kept}Once that is set right, go on with the same command and --resume")


def _report(work: Run, last: Step, limit: int) -> None:
    path = work.checkpoint.with_name(REPORT)
    key = key_of(FORMAT, work.checkpoint, work.checkpoints.config["text"], limit)
    result = read_report(path, key, Report)
    if result is None:
        rows, seed = work.streams.inputs.shape[0], work.settings["seed"]
        model, carry = work.model, work.carries
        result = report(model, work.vocabulary, work.corpus, rows, seed, limit, carry)
        keep_report(path, key, result)
    show(result, work.name, last.characters)
