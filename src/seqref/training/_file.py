r"""One safetensors file with tensors and a JSON header, written whole or not at all."""

import contextlib
import hashlib
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqref.errors import import_extra

# Key of our own entry in the header of a safetensors file. One entry, because the
# library writes several in an order that changes.
HEADER = "seqref"
# Windows would translate line ends without it; elsewhere there is no such flag.
BINARY = getattr(os, "O_BINARY", 0)


def write_file(path: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    r"""Tensors and JSON in one file, with a digest of both.

    Raises:
        RuntimeError: safetensors is not installed.
        TypeError: `config` has no form in JSON, or a tensor none in the file format.
        ValueError: `config` holds a number that JSON lacks.
    """
    safetensors = import_extra("safetensors.torch", "a checkpoint", "train")
    # Copies: the format refuses tensors that share memory, such as tied weights.
    stored = {name: _copy(name, tensor) for name, tensor in tensors.items()}
    entry = {"config": config, "sha256": _digest(stored, config)}
    try:
        data = safetensors.save(stored, metadata={HEADER: json.dumps(entry)})
    except KeyError as error:
        raise TypeError(
            f"a checkpoint cannot hold a tensor of dtype {error.args[0]}"
        ) from error
    write_whole(path, data)


def _copy(name: str, tensor: Tensor) -> Tensor:
    r"""A copy in plain memory.

    Raises:
        TypeError: the tensor is no dense array of numbers.
    """
    if tensor.layout != torch.strided or tensor.is_meta:
        kind = "on the device meta" if tensor.is_meta else str(tensor.layout)
        hint = " (pass to_dense())" if tensor.is_sparse else ""
        raise TypeError(
            f"a checkpoint cannot hold {name}: it must be a dense tensor of numbers, "
            f"got one that is {kind}{hint}"
        )
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def read_file(path: Path, where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    r"""What `write_file` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file may not be read, or the disk fails.
        RuntimeError: safetensors is not installed.
        ValueError: the file is torn, changed, or not of `write_file`'s making.
    """
    safetensors = import_extra("safetensors", "a checkpoint", "train")
    _check_readable(path, where)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: what the library returns lies in the file's own pages, and changes
            # when somebody writes to the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{where}: {str(path)!r} is torn or not a safetensors file ({error})"
        ) from error
    header = metadata.get(HEADER)
    if header is None:
        raise ValueError(
            f"{where}: {str(path)!r} was not written by seqref: its header has no "
            f"entry {HEADER!r}"
        )
    try:
        entry = json.loads(header)
        config, digest = entry["config"], entry["sha256"]
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(
            f"{where}: {str(path)!r} was not written by seqref: the entry {HEADER!r} "
            f"of its header is not JSON ({error})"
        ) from error
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{where}: {str(path)!r} was not written by seqref: the entry {HEADER!r} "
            f"of its header has no config and sha256"
        ) from error
    if digest != _digest(tensors, config):
        raise ValueError(
            f"{where}: {str(path)!r} has changed since it was written: its content "
            f"does not have the SHA-256 digest that its header names, {digest}"
        )
    return tensors, config


def write_whole(path: Path, data: bytes) -> None:
    r"""Write beside `path`, flush to disk, then move over it in one step.

    Raises:
        OSError: the disk is full, fails, or may not be written; names `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, data)
    except OSError as error:
        # The error's own path is that of the temporary file, which nobody knows.
        raise in_words(error, f"{str(path)!r} could not be written") from error
    _flush_folder(path.parent)


def _write(path: Path, data: bytes) -> None:
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


def in_words(error: OSError, message: str, after: str = "") -> OSError:
    r"""The same kind of error, with a message of ours around the system's reason."""
    kind = type(error) if type(error).__module__ == "builtins" else OSError
    made = kind(f"{message}: {error.strerror or error}{after}")
    made.errno = error.errno
    return made


def names_in(folder: Path, where: str) -> list[str]:
    r"""The names in `folder`, none where it is missing.

    Not `Path.glob`: it takes a folder that may not be listed, and in some versions of
    Python a disk that fails, for an empty one.

    Raises:
        OSError: the folder cannot be listed.
    """
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise in_words(
            error, f"{where}: the folder {str(folder)!r} cannot be listed"
        ) from error


def is_there(path: Path, where: str) -> bool:
    r"""Whether there is such a file.

    Raises:
        OSError: the system does not tell.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise in_words(error, f"{where}: {str(path)!r} cannot be looked at") from error
    return True


def remove_leftovers(folder: Path, name: str) -> None:
    r"""Delete what a killed `write_whole` left; `name` is a regular expression."""
    pattern = re.compile(rf"\.{name}\.[0-9a-f]{{16}}")
    for name in names_in(folder, "remove_leftovers"):
        if pattern.fullmatch(name):
            (folder / name).unlink(missing_ok=True)


def _check_readable(path: Path, where: str) -> None:
    # safetensors says of a file that may not be read that there is none.
    if not is_there(path, where) or not path.is_file():
        raise FileNotFoundError(f"{where}: there is no file {str(path)!r}")
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except OSError as error:
        raise in_words(error, f"{where}: {str(path)!r} cannot be read") from error


def _flush_folder(folder: Path) -> None:
    # The move itself must reach the disk before an older file may be deleted. Windows
    # opens no folders, and some file systems cannot flush one.
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _digest(tensors: dict[str, Tensor], config: Any) -> str:
    digest = hashlib.sha256(json.dumps(config, allow_nan=False).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
