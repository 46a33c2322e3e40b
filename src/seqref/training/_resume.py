r"""Options of the commands that train, and what they are where a run is resumed."""

import argparse
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqref.tasks import Corpus
from seqref.training._file import in_words, is_there
from seqref.training._options import CHECKPOINT, DEFAULTS, FOLDER
from seqref.training._output import say
from seqref.training._run import read_newest
from seqref.training.checkpoint import Checkpoints, load_language_model


def step_of_language_model(path: Path) -> int:
    return load_language_model(path)[2].get("step", -1)


@dataclass(frozen=True)
class Trains:
    r"""A command that trains: its name, what it reads, and its options of a run.

    `data` says what the run learns from, in the words of the command's error, and
    `step_of` reads from a model's file after how many steps it was written.
    """

    name: str
    data: Callable[[argparse.Namespace], str]
    defaults: Mapping[str, Any]
    step_of: Callable[[Path], int]


TRAIN_LM = Trains(
    "train-lm",
    lambda arguments: f"`--text` {str(arguments.text)!r} is not the text",
    DEFAULTS,
    step_of_language_model,
)


def choose_folder(
    arguments: argparse.Namespace, command: Trains = TRAIN_LM
) -> Checkpoints:
    r"""Where the run is kept.

    Raises:
        ValueError: the folder holds what would be replaced, or cannot be gone on with.
        OSError: the folder is no folder, or cannot be listed.
    """
    out = Path(arguments.out)
    checkpoints = Checkpoints(out / FOLDER, resume=arguments.resume)
    has_model = is_there(out / CHECKPOINT, command.name)
    try:
        has_run = bool(checkpoints.files())
    except NotADirectoryError as error:
        if os.path.isdir(out):
            raise
        raise not_made(out, error, command.name) from error
    # A model of step 0 is what a crash before the first checkpoint leaves.
    lone = arguments.resume and has_model and not has_run
    if lone and command.step_of(out / CHECKPOINT):
        raise ValueError(
            f"{command.name}: `--out` {arguments.out!r} holds a model but no "
            "checkpoint of its training to go on from; choose another folder, or "
            "delete it"
        )
    if not arguments.resume and (has_model or has_run):
        mend = "go on with --resume, " if has_run else ""
        raise ValueError(
            f"{command.name}: `--out` {arguments.out!r} already holds a model; {mend}"
            "choose another folder, or delete it"
        )
    return checkpoints


def not_made(folder: Path, error: OSError, command: str = "train-lm") -> OSError:
    r"""The error for a folder that cannot be made."""
    return in_words(
        error,
        f"{command}: `--out` must be a folder that can be made, got {str(folder)!r}",
    )


def complete(
    arguments: argparse.Namespace,
    text: str,
    checkpoints: Checkpoints,
    command: Trains = TRAIN_LM,
) -> dict[str, Any]:
    r"""Give every option that is None its value: the run's, or the default.

    `text` is the digest of what is learned from. Returned are the options as the run
    began with them: `save_every` may be another one now.

    Raises:
        ValueError: an option or the text is not that of the run that is resumed.
    """
    recorded = {}
    start = f"no checkpoint in {checkpoints.folder}: starting at the beginning"
    if checkpoints.files():
        path, _, header = read_newest(checkpoints, command.name)
        recorded = header["settings"]["config"]
        if recorded.get("text") != text:
            raise ValueError(
                f"{command.name}: {command.data(arguments)} that {str(path)!r} was "
                "trained on"
            )
        made = header["step"]["number"] if header["step"] else 0
        start = f"resuming after step {made:,}: {path}"
    for name, default in command.defaults.items():
        given, before = getattr(arguments, name), recorded.get(name)
        if given is None:
            setattr(arguments, name, default if before is None else before)
        elif before is not None and given != before and name != "save_every":
            raise ValueError(
                f"{command.name}: `--{name.replace('_', '-')}` is {before} in the run "
                f"that is resumed, got {given}; leave the option out"
            )
    if arguments.resume:
        say(start)
    begun = {name: getattr(arguments, name) for name in command.defaults}
    if recorded:
        begun["save_every"] = recorded.get("save_every")
    return begun


def digest(corpus: Corpus) -> str:
    r"""Tells two texts apart."""
    sha = hashlib.sha256()
    for part in (corpus.train, corpus.tune, corpus.heldout):
        sha.update(part.encode("utf-8", "surrogatepass"))
    return sha.hexdigest()
