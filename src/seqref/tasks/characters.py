r"""Character-level text: vocabulary, Python's own source as a corpus, batched streams.

The corpus is the source of the standard library of the Python that runs the code.
It needs no download, and it differs between Python versions, so every result names
the version and the size of the text it was measured on.
"""

import hashlib
import os
import sys
import sysconfig
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from seqref.errors import check_number, check_shape, check_size, check_tensor

UNK = "\N{REPLACEMENT CHARACTER}"

# Tests; tables made by a program (many near copies of one another); applications;
# packages that other Python versions no longer have; what pip installed.
EXCLUDED_FOLDERS = frozenset(
    {
        *("test", "tests", "idle_test", "site-packages", "dist-packages"),
        *("encodings", "pydoc_data", "idlelib", "turtledemo", "distutils", "lib2to3"),
        *("lib-dynload", "__pycache__"),
    }
)
EXCLUDED_PREFIXES = ("config-", "_sysconfigdata")

PARTS = ("train", "tune", "heldout")

# Shares of the hash range, in percent; the rest is for training.
HELDOUT_PERCENT = 10
TUNE_PERCENT = 5


class Vocabulary:
    r"""The characters a model knows; index 0 stands for every other character.

    Args:
        characters: The known characters, each once. Their order gives the indices
            1, 2, and so on.

    Raises:
        ValueError: a character occurs twice, or an entry is not one character.
        TypeError: `characters` is no iterable.

    Source:
        None: a design of this package.
    """

    def __init__(self, characters: str | list[str]):
        if not isinstance(characters, Iterable):
            raise TypeError(
                "Vocabulary: `characters` must be a str or a list of characters, got "
                f"{type(characters).__name__}"
            )
        self.characters = list(characters)
        wrong = [c for c in self.characters if not isinstance(c, str) or len(c) != 1]
        if wrong:
            raise ValueError(
                "Vocabulary: `characters` must hold single characters, "
                f"got {wrong[0]!r}"
            )
        if len(set(self.characters)) != len(self.characters):
            twice = next(c for c, n in Counter(self.characters).items() if n > 1)
            raise ValueError(
                f"Vocabulary: `characters` must differ, got {twice!r} more than once"
            )
        # One entry a code point turns a text of millions of characters into
        # indices in one indexing operation.
        self._index_of = np.zeros(sys.maxunicode + 1, dtype=np.int64)
        codes = [ord(c) for c in self.characters]
        self._index_of[codes] = np.arange(1, len(codes) + 1)

    @classmethod
    def from_text(cls, text: str, min_count: int = 1) -> "Vocabulary":
        r"""The characters that occur at least `min_count` times, by code point.

        Raises:
            ValueError: `min_count` is below 1.
            TypeError: `text` is no str, or `min_count` no int.
        """
        _check_text("Vocabulary.from_text", text)
        check_size("Vocabulary.from_text", "min_count", min_count)
        counts = Counter(text)
        return cls(sorted(c for c, n in counts.items() if n >= min_count))

    def __len__(self) -> int:
        return len(self.characters) + 1

    def encode(self, text: str) -> Int[Tensor, " time"]:
        r"""Indices of the characters of `text`; 0 for those it does not know.

        Raises:
            TypeError: `text` is no str.
        """
        _check_text("Vocabulary.encode", text)
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        return torch.from_numpy(self._index_of[codes])

    def decode(self, tokens: Int[Tensor, " time"]) -> str:
        r"""The text of `tokens`; index 0 becomes U+FFFD, the replacement character.

        Raises:
            ValueError: an index lies outside the vocabulary; `tokens` is not one row.
            TypeError: `tokens` is no tensor of integers.
        """
        where = "Vocabulary.decode"
        hint = "decode a batch row by row"
        check_shape(where, "tokens", tokens, (("time", None),), hint)
        _check_integers(where, "tokens", tokens)
        indices = tokens.tolist()
        wrong = [i for i in indices if not 0 <= i < len(self)]
        if wrong:
            raise ValueError(
                f"{where}: `tokens` must lie in 0 to {len(self) - 1}, got {wrong[0]}"
            )
        table = [UNK, *self.characters]
        return "".join(table[i] for i in indices)

    def unknown(self, text: str) -> int:
        r"""How many characters of `text` are mapped to index 0."""
        return int((self.encode(text) == 0).sum())


@dataclass(frozen=True)
class Corpus:
    r"""Text in three parts, and the names of the modules in each.

    `train` is what models learn from, `tune` what settings are chosen on, `heldout`
    what results are measured on. No character is in two parts.
    """

    train: str
    tune: str
    heldout: str
    modules: dict[str, tuple[str, ...]]
    skipped: tuple[str, ...] = ()

    def describe(self) -> dict[str, object]:
        r"""Python version, sizes and a digest of the text: what a result must state."""
        parts = {"train": self.train, "tune": self.tune, "heldout": self.heldout}
        digest = hashlib.sha256("\0".join(parts.values()).encode("utf-8", "replace"))
        return {
            "python": sys.version.split()[0],
            "modules": {part: len(names) for part, names in self.modules.items()},
            "characters": {part: len(text) for part, text in parts.items()},
            "skipped_modules": len(self.skipped),
            "sha256": digest.hexdigest(),
        }


def stable_hash(name: str) -> int:
    r"""A 64-bit hash of `name` that is the same in every process and version."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def part_of(module: str) -> str:
    r"""Which part a module belongs to: "train", "tune" or "heldout".

    It depends on the module's name alone, so a module stays in its part when others
    are added or removed.
    """
    percent = stable_hash(module) % 100
    if percent < HELDOUT_PERCENT:
        return "heldout"
    return "tune" if percent < HELDOUT_PERCENT + TUNE_PERCENT else "train"


def python_source(root: str | Path | None = None) -> Corpus:
    r"""The source of Python's standard library, split by module into three parts.

    Within a part the modules follow one another in the order of their hash, so that
    the beginning of a part is a sample of the whole library and not its letter "a".

    Args:
        root: Folder with the library's source; `None` is the running Python's.

    Raises:
        FileNotFoundError: no Python source there (a zipped or stripped library).
        OSError: a folder of it cannot be listed.

    Source:
        None: a design of this package.
    """
    if root is None:
        root = sysconfig.get_paths()["stdlib"]
    root = Path(root)
    texts: dict[str, str] = {}
    skipped = []
    for path in _source_files(root):
        module = _module_name(path.relative_to(root))
        try:
            with tokenize.open(path) as file:
                texts[module] = file.read()
        except (SyntaxError, UnicodeDecodeError):
            skipped.append(module)
    ordered = sorted(texts, key=stable_hash)
    names = {part: tuple(m for m in ordered if part_of(m) == part) for part in PARTS}
    empty = [part for part, modules in names.items() if not modules]
    if empty:
        raise FileNotFoundError(
            f"python_source: found {len(texts)} Python source modules under "
            f"{str(root)!r}, none of them for {', '.join(empty)}; this Python's "
            "library may be zipped or stripped: pass `root=` a folder with its source"
        )
    joined = {part: "".join(texts[m] for m in names[part]) for part in names}
    return Corpus(
        train=joined["train"],
        tune=joined["tune"],
        heldout=joined["heldout"],
        modules=names,
        skipped=tuple(skipped),
    )


def _source_files(root: Path) -> Iterator[Path]:
    paths = []
    # Not `rglob`: it takes a folder that cannot be listed for an empty one.
    for folder, folders, files in os.walk(root, onerror=_not_listed):
        folders[:] = [name for name in folders if not _excluded(name)]
        names = [n for n in files if n.endswith(".py") and not _excluded(n)]
        paths += [Path(folder, name) for name in names]
    for path in sorted(paths):
        if path.is_file():
            yield path


def _excluded(name: str) -> bool:
    return name in EXCLUDED_FOLDERS or name.startswith(EXCLUDED_PREFIXES)


def _not_listed(error: OSError) -> None:
    if isinstance(error, FileNotFoundError):
        return
    raise OSError(
        f"python_source: the folder {str(error.filename)!r} cannot be listed: "
        f"{error.strerror}"
    ) from error


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    if len(parts) > 1 and parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


def read_text(path: str | Path) -> str:
    r"""The text of the reader's own file, with line ends as ``\n``.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: `path` is a folder.
        OSError: the file may not be read, or the disk fails.
        ValueError: the file is empty, or is not UTF-8 text.

    Source:
        None: a design of this package.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"read_text: {str(path)!r} is a folder, not a file")
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"read_text: there is no file {str(path)!r}") from error
    except OSError as error:
        raise OSError(
            f"read_text: {str(path)!r} cannot be read: {error.strerror or error}"
        ) from error
    if not data:
        raise ValueError(f"read_text: {str(path)!r} is empty")
    nul = data.find(0)
    if nul >= 0:
        raise ValueError(
            f"read_text: {str(path)!r} is not a text file (NUL byte at offset {nul}); "
            "convert it to UTF-8 first"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"read_text: {str(path)!r} is not UTF-8 (byte 0x{data[error.start]:02x} at "
            f"offset {error.start}); convert it first"
        ) from error
    if not text:
        raise ValueError(f"read_text: {str(path)!r} is empty but for its byte mark")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def split_text(text: str, heldout: float = 0.1, tune: float = 0.1) -> Corpus:
    r"""One text in three parts in reading order: train, tune, heldout tail.

    Args:
        text: The whole text.
        heldout: Share of the text, from its end, to measure on.
        tune: Share before that, to choose settings on.

    Raises:
        ValueError: a share is not in (0, 1), they sum to 1 or more, or a part would be
            empty.
        TypeError: `text` is no str.

    Source:
        None: a design of this package.
    """
    _check_text("split_text", text)
    for name, share in (("heldout", heldout), ("tune", tune)):
        check_number("split_text", name, share)
    if not (heldout > 0 and tune > 0 and heldout + tune < 1):
        raise ValueError(
            "split_text: `heldout` and `tune` must be positive and sum to less than 1, "
            f"got {heldout} and {tune}"
        )
    end = len(text) - int(len(text) * heldout)
    start = end - int(len(text) * tune)
    sizes = start, end - start, len(text) - end
    if 0 in sizes:
        raise ValueError(
            f"split_text: `text` is too short for three parts: {len(text)} characters "
            f"make {sizes[0]} for train, {sizes[1]} for tune, {sizes[2]} for heldout"
        )
    modules: dict[str, tuple[str, ...]] = dict.fromkeys(PARTS, ("text",))
    return Corpus(text[:start], text[start:end], text[end:], modules)


def _check_text(where: str, text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{where}: `text` must be a str, got {type(text).__name__}")


def _check_integers(where: str, name: str, tokens: Tensor) -> None:
    kind = tokens.dtype
    if kind == torch.bool or kind.is_floating_point or kind.is_complex:
        raise TypeError(f"{where}: `{name}` must have an integer dtype, got {kind}")


class Chunk(NamedTuple):
    r"""One step of training: characters, and those that follow them."""

    inputs: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]


class Streams:
    r"""A text cut into parallel rows, read in chunks: batches for truncated BPTT.

    The text is cut into `batch_size` rows of equal length. Chunk k holds steps
    `k * horizon` to `(k + 1) * horizon - 1` of every row, so row r of one chunk goes
    on in row r of the next, and a state carried across belongs to it. The target of
    a character is the one after it, also at the end of a chunk and of a row.
    Iterating again starts from the beginning.

    Args:
        tokens: The text as indices.
        batch_size: Number of rows.
        horizon: Characters of a row in one chunk; the last chunk may be shorter.

    Shapes:
        - each chunk: `inputs` and `targets`, both (batch, time) with time <= horizon

    Raises:
        ValueError: a size is below 1, or the text has no `batch_size + 1` characters.
        TypeError: a size is no int, or `tokens` is no tensor of integers.

    Source:
        None: a design of this package.
    """

    def __init__(self, tokens: Int[Tensor, " time"], batch_size: int, horizon: int):
        for name, size in (("batch_size", batch_size), ("horizon", horizon)):
            check_size("Streams", name, size)
        check_tensor("Streams", "tokens", tokens)
        _check_integers("Streams", "tokens", tokens)
        if tokens.dim() != 1 or len(tokens) <= batch_size:
            raise ValueError(
                "Streams: `tokens` must be one row of at least batch_size + 1 = "
                f"{batch_size + 1} characters, got shape {tuple(tokens.shape)}"
            )
        self.horizon = horizon
        self.row_length = (len(tokens) - 1) // batch_size
        used = self.row_length * batch_size
        self.inputs = tokens[:used].view(batch_size, -1)
        self.targets = tokens[1 : used + 1].view(batch_size, -1)

    def __len__(self) -> int:
        return (self.row_length + self.horizon - 1) // self.horizon

    @property
    def predicted(self) -> int:
        r"""How many characters are targets; at most `batch_size - 1` are left out."""
        return self.targets.numel()

    def __iter__(self) -> Iterator[Chunk]:
        for start in range(0, self.row_length, self.horizon):
            span = slice(start, start + self.horizon)
            yield Chunk(self.inputs[:, span], self.targets[:, span])
