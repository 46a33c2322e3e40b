r"""A checkpoint: weights and configuration in one file, written whole or not at all."""

import json
import os
import secrets
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqref.models import LanguageModel
from seqref.recurrent import LSTM, RNN
from seqref.tasks import Vocabulary
from seqref.training._extras import extra

# Key of our own entry in the header of a safetensors file.
HEADER = "seqref"
FORMAT = "language-model/1"
LAYERS = {"LSTM": LSTM, "RNN": RNN}
# Windows would translate line ends without it; elsewhere there is no such flag.
BINARY = getattr(os, "O_BINARY", 0)


def save_checkpoint(path: str | Path, model: nn.Module, config: dict[str, Any]) -> None:
    r"""Write parameters and configuration to one file, whole or not at all.

    The tensors are stored as safetensors, which runs no code when it is loaded; the
    configuration is JSON text in the same file's header. So weights and configuration
    cannot come from two different moments.

    Args:
        path: The file; a file that is there is replaced.
        model: Its `state_dict` is stored.
        config: What is needed to build the model again; must be JSON data.

    Raises:
        RuntimeError: safetensors is not installed.
        TypeError, ValueError: `config` has no form in JSON.

    Source:
        None: a design of this package.
    """
    safetensors = extra("safetensors.torch", "a checkpoint")
    # Copies: the format refuses tensors that share memory, such as tied weights.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    header = json.dumps(config, allow_nan=False)
    data = safetensors.save(tensors, metadata={HEADER: header})
    _write_whole(Path(path), data)


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    r"""Read what `save_checkpoint` wrote: tensors by name, and the configuration.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: safetensors is not installed.
        ValueError: the file is torn, or was not written by `save_checkpoint`.

    Source:
        None: a design of this package.
    """
    safetensors = extra("safetensors", "a checkpoint")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"load_checkpoint: there is no file {str(path)!r}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"load_checkpoint: {str(path)!r} is torn or not a safetensors file "
            f"({error})"
        ) from error
    if header is None:
        raise ValueError(
            f"load_checkpoint: {str(path)!r} was not written by seqref: its header has "
            f"no entry {HEADER!r}"
        )
    try:
        return tensors, json.loads(header)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"load_checkpoint: {str(path)!r} was not written by seqref: the entry "
            f"{HEADER!r} of its header is not JSON ({error})"
        ) from error


def save_language_model(
    path: str | Path,
    model: LanguageModel,
    vocabulary: Vocabulary,
    facts: dict[str, Any] | None = None,
) -> None:
    r"""Write a language model with its vocabulary to one file, whole or not at all.

    Args:
        path: The file; a file that is there is replaced.
        model: A model over an `LSTM` or an `RNN`.
        vocabulary: What its indices mean.
        facts: Anything more that should be kept (step, seed, versions): JSON data.

    Raises:
        RuntimeError: safetensors is not installed.
        TypeError: the model's layer is none of those this file format knows, or
            `facts` has no form in JSON.
        ValueError: model and vocabulary differ in size.

    Source:
        None: a design of this package.
    """
    layer = model.layer
    name = type(layer).__name__
    if LAYERS.get(name) is not type(layer):
        raise TypeError(
            f"save_language_model: `model.layer` must be one of {', '.join(LAYERS)}, "
            f"got {name}"
        )
    if len(vocabulary) != model.vocab_size:
        raise ValueError(
            "save_language_model: `vocabulary` must have the model's "
            f"{model.vocab_size} symbols, got {len(vocabulary)}"
        )
    sizes = {key: getattr(layer, key) for key in ("input_size", "hidden_size", "bias")}
    if isinstance(layer, RNN):
        sizes["nonlinearity"] = layer.cell.nonlinearity
    config = {
        "format": FORMAT,
        "layer": name,
        "sizes": sizes,
        "vocabulary": vocabulary.characters,
        "facts": facts or {},
    }
    save_checkpoint(path, model, config)


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
        layer = LAYERS[config["layer"]](**config["sizes"])
        model = LanguageModel(len(vocabulary), layer)
        model.to(next(iter(tensors.values())).dtype)
        model.load_state_dict(tensors)
        return model, vocabulary, config["facts"]
    except (KeyError, TypeError, ValueError, RuntimeError, StopIteration) as error:
        raise ValueError(
            f"load_language_model: {str(path)!r} does not hold the model that its "
            f"header describes: {error}"
        ) from error


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    # Not tempfile: its files are private, and this one must have the usual mode.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
