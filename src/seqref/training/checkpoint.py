r"""A checkpoint: weights and configuration in one file, written whole or not at all."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from seqref.errors import check_size
from seqref.models import LanguageModel
from seqref.tasks import Vocabulary
from seqref.training._file import names_in, read_file, write_file
from seqref.training._layers import KINDS, made_again, name_of
from seqref.training._pack import plain
from seqref.training._whole import (
    check_rebuilt,
    check_tensors,
    check_unwrapped,
    tie,
    ties_of,
)

FORMAT = "language-model/1"
STEP_FILE = re.compile(r"step-(\d+)\.safetensors")


@dataclass(frozen=True)
class Checkpoints:
    r"""Where a training run is kept, how often, and whether it is taken up again.

    Files are called `step-000000120.safetensors`; each holds the whole run at that
    step ([`fit`](loop.md#resume) says what). The first is written before the first
    step, so that a folder that cannot be written is noticed at once.

    Args:
        folder: Gets the files; made where it is missing.
        every: Steps from one file to the next. The last step is kept in any case.
        keep: How many of the newest files are kept.
        resume: Whether to go on from the newest file. Where there is none, training
            starts from the beginning.
        config: Facts of your own that two runs must share, such as the name of the
            data. They are compared by value on resuming, so they must be plain data:
            numbers, strings, None, lists, dicts, tensors.
        stateful: More objects whose state belongs to the run, by name: each has
            `state_dict` and `load_state_dict`, or is a `torch.Generator`. Batches may
            be drawn from a generator, such as that of a shuffled `DataLoader`; they
            must not depend on the state of another object.

    Raises:
        TypeError: `every` or `keep` is no int, `config` holds what is not plain, or an
            object of `stateful` has no state.
        ValueError: `every` or `keep` is below 1, or `folder` is empty.

    Source:
        None: a design of this package.
    """

    folder: str | Path
    every: int = 1000
    keep: int = 2
    resume: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    stateful: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_size("Checkpoints", "every", self.every)
        check_size("Checkpoints", "keep", self.keep)
        if self.folder == "":
            raise ValueError("Checkpoints: `folder` must be the name of one, got ''")
        plain(dict(self.config), "Checkpoints", "config")
        for name, value in self.stateful.items():
            pairs = (("state_dict", "load_state_dict"), ("get_state", "set_state"))
            if not any(hasattr(value, a) and hasattr(value, b) for a, b in pairs):
                raise TypeError(
                    f"Checkpoints: `stateful[{name!r}]` must have `state_dict` and "
                    "`load_state_dict`, or be a torch.Generator, got "
                    f"{type(value).__name__}"
                )

    def path(self, step: int) -> Path:
        r"""The file of a step."""
        return Path(self.folder) / f"step-{step:09d}.safetensors"

    def files(self) -> list[Path]:
        r"""The files that are there, oldest first; none where the folder is missing.

        Raises:
            OSError: the folder cannot be listed.
        """
        by_step = {}
        folder = Path(self.folder)
        for name in names_in(folder, "Checkpoints.files"):
            match = STEP_FILE.fullmatch(name)
            if match:
                by_step[int(match[1])] = folder / name
        return [by_step[step] for step in sorted(by_step)]


def save_checkpoint(path: str | Path, model: nn.Module, config: dict[str, Any]) -> None:
    r"""Write parameters and configuration to one file, whole or not at all.

    The tensors are stored as safetensors, which runs no code when it is loaded; the
    configuration is JSON text in the same file's header. So weights and configuration
    cannot come from two different moments. A SHA-256 digest of both is stored with
    them, so that a file that was changed or cut is noticed when it is read.

    Args:
        path: The file; a file that is there is replaced.
        model: Its `state_dict` is stored: parameters and persistent buffers by their
            names. Tied ones are stored under each name. Training mode, `requires_grad`
            and hooks are not.
        config: What is needed to build the model again; must be JSON data.

    Raises:
        RuntimeError: safetensors is not installed.
        TypeError: `model` or a module in it is what `torch.compile` returns, `model` is
            a `DataParallel` or `DistributedDataParallel`, or its `state_dict` holds
            something else than tensors, as with `get_extra_state`.
        ValueError: `model` is on the device "meta".
        TypeError, ValueError: `config` has no form in JSON.

    Source:
        None: a design of this package.
    """
    check_unwrapped("save_checkpoint", "model", model)
    tensors = model.state_dict()
    check_tensors("save_checkpoint", tensors)
    write_file(Path(path), tensors, config)


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    r"""Read what `save_checkpoint` wrote: tensors by name, and the configuration.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: safetensors is not installed.
        ValueError: the file is torn, has changed since it was written, or was not
            written by `save_checkpoint`.

    Source:
        None: a design of this package.
    """
    return read_file(Path(path), "load_checkpoint")


def save_language_model(
    path: str | Path,
    model: LanguageModel,
    vocabulary: Vocabulary,
    facts: dict[str, Any] | None = None,
) -> None:
    r"""Write a language model with its vocabulary to one file, whole or not at all.

    Args:
        path: The file; a file that is there is replaced.
        model: A model over a recurrent layer of the package that has a cell, or over a
            `Transformer` as `seqref train-lm` makes it. Parameters in two places, such
            as embedding and head, come back tied. Training mode, `requires_grad` and
            hooks are not stored.
        vocabulary: What its indices mean.
        facts: Anything more that should be kept (step, seed, versions): JSON data.

    Raises:
        RuntimeError: safetensors is not installed.
        TypeError: `model` is no `LanguageModel` itself (a subclass, what
            `torch.compile` returns), its layer is none of those this file format knows,
            or `facts` has no form in JSON.
        ValueError: model and vocabulary differ in size; the file would not give this
            model back, since a module of it was replaced, parametrised or pruned, or
            has no numbers.

    Source:
        None: a design of this package.
    """
    where = "save_language_model"
    check_unwrapped(where, "model", model)
    if type(model) is not LanguageModel:
        raise TypeError(
            f"{where}: `model` must be a LanguageModel itself, got "
            f"{type(model).__name__} (another class may hold more than this format: "
            "save_checkpoint keeps the numbers of any module)"
        )
    layer: Any = model.layer
    name = name_of(layer)
    if name is None:
        raise TypeError(
            f"{where}: `model.layer` must be one of {', '.join(KINDS)}, got "
            f"{type(layer).__name__}"
        )
    if len(vocabulary) != model.vocab_size:
        raise ValueError(
            f"{where}: `vocabulary` must have the model's {model.vocab_size} symbols, "
            f"got {len(vocabulary)}"
        )
    sizes = KINDS[name].read(layer)
    check_rebuilt(where, "model", model, _plain(name, sizes, len(vocabulary)))
    config = {
        "format": FORMAT,
        "layer": name,
        "sizes": sizes,
        "vocabulary": vocabulary.characters,
        "facts": facts or {},
    }
    if ties_of(model):
        config["ties"] = ties_of(model)
    save_checkpoint(path, model, config)


def _plain(name: str, sizes: dict[str, Any], vocab_size: int) -> LanguageModel:
    r"""The model that a header describes, without numbers."""
    return LanguageModel(vocab_size, made_again(name, sizes))


def load_language_model(
    path: str | Path,
) -> tuple[LanguageModel, Vocabulary, dict[str, Any]]:
    r"""Read what `save_language_model` wrote: model, vocabulary and facts.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: safetensors is not installed.
        ValueError: the file is torn, or holds something else.

    Source:
        None: a design of this package.
    """
    tensors, config = load_checkpoint(path)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(
            f"load_language_model: {str(path)!r} must have format {FORMAT!r}, "
            f"got {config.get('format') if isinstance(config, dict) else config!r}"
        )
    try:
        vocabulary = Vocabulary(config["vocabulary"])
        model = _plain(config["layer"], config["sizes"], len(vocabulary))
        model.load_state_dict(tensors, assign=True)
        tie(model, config.get("ties", []))
        return model, vocabulary, config["facts"]
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"load_language_model: {str(path)!r} does not hold the model that its "
            f"header describes: {error}"
        ) from error
