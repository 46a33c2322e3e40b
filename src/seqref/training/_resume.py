r"""Options of `seqref train-lm`, and what they are where a run is resumed."""

import argparse
import hashlib
import os
from pathlib import Path
from typing import Any

from seqref.tasks import Corpus
from seqref.training._file import in_words, is_there
from seqref.training._options import CHECKPOINT, DEFAULTS, FOLDER
from seqref.training._output import say
from seqref.training._run import read_newest
from seqref.training.checkpoint import Checkpoints, load_language_model


def choose_folder(arguments: argparse.Namespace) -> Checkpoints:
    r"""Where the run is kept.

    Raises:
        ValueError: the folder holds what would be replaced, or cannot be gone on with.
        OSError: the folder is no folder, or cannot be listed.
    """
    out = Path(arguments.out)
    checkpoints = Checkpoints(out / FOLDER, resume=arguments.resume)
    has_model = is_there(out / CHECKPOINT, "train-lm")
    try:
        has_run = bool(checkpoints.files())
    except NotADirectoryError as error:
        if os.path.isdir(out):
            raise
        raise not_made(out, error) from error
    # A model of step 0 is what a crash before the first checkpoint leaves.
    if arguments.resume and has_model and not has_run and _step_of(out / CHECKPOINT):
        raise ValueError(
            f"train-lm: `--out` {arguments.out!r} holds a model but no checkpoint of "
            "its training to go on from; choose another folder, or delete it"
        )
    if not arguments.resume and (has_model or has_run):
        mend = "go on with --resume, " if has_run else ""
        raise ValueError(
            f"train-lm: `--out` {arguments.out!r} already holds a model; {mend}"
            "choose another folder, or delete it"
        )
    return checkpoints


def not_made(folder: Path, error: OSError) -> OSError:
    r"""The error for a folder that cannot be made."""
    return in_words(
        error,
        f"train-lm: `--out` must be a folder that can be made, got {str(folder)!r}",
    )


def _step_of(path: Path) -> int:
    return load_language_model(path)[2].get("step", -1)


def complete(
    arguments: argparse.Namespace, text: str, checkpoints: Checkpoints
) -> dict[str, Any]:
    r"""Give every option that is None its value: the run's, or the default.

    `text` is the text's digest. Returned are the options as the run began with them:
    `save_every` may be another one now.

    Raises:
        ValueError: an option or the text is not that of the run that is resumed.
    """
    recorded = {}
    start = f"no checkpoint in {checkpoints.folder}: starting at the beginning"
    if checkpoints.files():
        path, _, header = read_newest(checkpoints, "train-lm")
        recorded = header["settings"]["config"]
        if recorded.get("text") != text:
            raise ValueError(
                f"train-lm: `--text` {str(arguments.text)!r} is not the text that "
                f"{str(path)!r} was trained on"
            )
        made = header["step"]["number"] if header["step"] else 0
        start = f"resuming after step {made:,}: {path}"
    for name, default in DEFAULTS.items():
        given, before = getattr(arguments, name), recorded.get(name)
        if given is None:
            setattr(arguments, name, default if before is None else before)
        elif before is not None and given != before and name != "save_every":
            raise ValueError(
                f"train-lm: `--{name.replace('_', '-')}` is {before} in the run that "
                f"is resumed, got {given}; leave the option out"
            )
    if arguments.resume:
        say(start)
    begun = {name: getattr(arguments, name) for name in DEFAULTS}
    if recorded:
        begun["save_every"] = recorded.get("save_every")
    return begun


def digest(corpus: Corpus) -> str:
    r"""Tells two texts apart."""
    sha = hashlib.sha256()
    for part in (corpus.train, corpus.tune, corpus.heldout):
        sha.update(part.encode("utf-8", "surrogatepass"))
    return sha.hexdigest()
