import errno
import os
import sys
from itertools import pairwise

import pytest
import torch

from seqref.tasks import characters
from seqref.tasks.characters import (
    EXCLUDED_FOLDERS,
    UNK,
    Streams,
    Vocabulary,
    part_of,
    python_source,
    read_text,
    split_text,
    stable_hash,
)


@pytest.fixture(scope="module")
def corpus():
    return python_source()


def test_vocabulary_round_trip():
    text = "def f(x):\n\treturn 'ä🙂'\n"
    vocabulary = Vocabulary.from_text(text)
    assert len(vocabulary) == len(set(text)) + 1
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.unknown(text) == 0


def test_vocabulary_maps_unknown_characters_to_one_symbol():
    vocabulary = Vocabulary("ab")
    # The last is a lone surrogate, which UTF-32 refuses unless asked.
    tokens = vocabulary.encode("a?bé\ud800")
    assert tokens.tolist() == [1, 0, 2, 0, 0]
    assert vocabulary.decode(tokens) == f"a{UNK}b{UNK}{UNK}"
    assert vocabulary.unknown("a?bé") == 2


def test_vocabulary_min_count_and_order():
    vocabulary = Vocabulary.from_text("ccbaab", min_count=2)
    assert vocabulary.characters == ["a", "b", "c"]
    assert Vocabulary.from_text("ccbaabz", min_count=2).characters == ["a", "b", "c"]
    assert Vocabulary("zyx").encode("xyz").tolist() == [3, 2, 1]


def test_vocabulary_of_empty_text_knows_nothing():
    vocabulary = Vocabulary("ab")
    assert vocabulary.encode("").tolist() == []
    assert vocabulary.decode(torch.empty(0, dtype=torch.int64)) == ""


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Vocabulary("aa"), "'a' more than once"),
        (lambda: Vocabulary(["ab"]), "single characters, got 'ab'"),
        (lambda: Vocabulary([7]), "single characters, got 7"),
        (lambda: Vocabulary.from_text("a", min_count=0), "at least 1, got 0"),
        (lambda: Vocabulary("ab").decode(torch.tensor([3])), "0 to 2, got 3"),
        (lambda: Vocabulary("ab").decode(torch.tensor([-1])), "0 to 2, got -1"),
    ],
)
def test_vocabulary_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Vocabulary(None), TypeError, "`characters` must be .* got NoneType"),
        (lambda: Vocabulary.from_text(None), TypeError, "`text` must be a str, got N"),
        (lambda: Vocabulary.from_text("aab", 1.5), TypeError, "`min_count` must be an"),
        (lambda: Vocabulary("ab").encode(b"a"), TypeError, "encode: `text` must be a"),
        (lambda: split_text(None), TypeError, "^split_text: `text` must be a str, got"),
        (
            lambda: Vocabulary("ab").decode([1]),
            TypeError,
            "decode: `tokens` must be a torch.Tensor, got list",
        ),
        (
            lambda: Vocabulary("ab").decode(torch.tensor([1.5])),
            TypeError,
            "`tokens` must have an integer dtype, got torch.float32",
        ),
        (
            lambda: Vocabulary("ab").decode(torch.tensor([True])),
            TypeError,
            "got torch.bool",
        ),
        (
            lambda: Vocabulary("ab").decode(torch.tensor([[1], [2]])),
            ValueError,
            r"shape \(time,\), got \(2, 1\) \(decode a batch row by row\)$",
        ),
    ],
)
def test_what_is_no_text_or_no_row_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_python_source_is_split_by_module(corpus):
    facts = corpus.describe()
    assert facts["python"] == sys.version.split()[0]
    parts = [set(corpus.modules[p]) for p in ("train", "tune", "heldout")]
    assert len(set.union(*parts)) == sum(len(p) for p in parts)
    # What depends on the Python version is checked by inequalities.
    assert facts["characters"]["train"] > 3_000_000
    assert 0.03 < len(corpus.heldout) / len(corpus.train) < 0.3
    assert len(parts[0]) > 200
    assert len(facts["sha256"]) == 64
    for module in set.union(*parts):
        assert not EXCLUDED_FOLDERS & set(module.split("."))
        assert not module.endswith("__init__")
    assert {"bisect", "json", "json.decoder"} <= set.union(*parts)
    assert "encodings.cp1252" not in set.union(*parts)


def test_python_source_holds_the_modules_themselves(corpus):
    import bisect

    with open(bisect.__file__, encoding="utf-8") as file:
        text = file.read()
    part = getattr(corpus, part_of("bisect"))
    assert text in part
    others = {"train", "tune", "heldout"} - {part_of("bisect")}
    assert not any(text in getattr(corpus, other) for other in others)


def test_the_split_depends_on_the_name_alone():
    # Values of SHA-256, computed elsewhere: they must never change.
    assert stable_hash("") == 0xE3B0C44298FC1C14
    assert stable_hash("abc") == 0xBA7816BF8F01CFEA
    names = [f"module_{i}" for i in range(2000)]
    shares = [sum(part_of(n) == p for n in names) / 2000 for p in ("heldout", "tune")]
    assert 0.07 < shares[0] < 0.13
    assert 0.03 < shares[1] < 0.07


def _library(folder, names):
    folder.mkdir(exist_ok=True)
    for name in names:
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n", encoding="utf-8")


def test_python_source_reads_a_folder_and_its_encodings(tmp_path):
    names = [f"m{i}" for i in range(60)]
    package = ["package/__init__", "package/inner"]
    _library(
        tmp_path, [*names, *package, "test/test_x", "_sysconfigdata_x", "config-3/y"]
    )
    latin = tmp_path / "latin.py"
    latin.write_bytes("# -*- coding: latin-1 -*-\nname = 'é'\n".encode("latin-1"))
    (tmp_path / "broken.py").write_bytes(b"\xff\xfe\x00")
    corpus = python_source(tmp_path)
    everything = corpus.train + corpus.tune + corpus.heldout
    assert "name = 'é'" in everything
    assert corpus.skipped == ("broken",)
    expected = [*names, "latin", "package", "package.inner"]
    assert sorted(sum(corpus.modules.values(), ())) == sorted(expected)
    order = corpus.modules["train"]
    assert list(order) == sorted(order, key=stable_hash)


@pytest.mark.parametrize("make", [False, True])
def test_python_source_says_when_there_is_none(tmp_path, make):
    root = tmp_path / "nothing"
    if make:
        root.mkdir()
    with pytest.raises(FileNotFoundError, match="found 0 Python source modules"):
        python_source(root)


def test_read_text_normalises_line_ends_and_drops_the_mark(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n\xc3\xa9")
    assert read_text(path) == "a\nb\nc\né"


@pytest.mark.errors
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty but for its byte mark"),
        (b"abc\0def", "NUL byte at offset 3"),
        (b"ab\xff", "byte 0xff at offset 2"),
    ],
)
def test_read_text_refuses_what_is_no_text(tmp_path, data, message):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_text(path)


def test_read_text_refuses_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        read_text(tmp_path)


def test_split_text_keeps_reading_order():
    text = "".join(chr(97 + i % 26) for i in range(1000))
    corpus = split_text(text)
    assert corpus.train + corpus.tune + corpus.heldout == text
    assert (len(corpus.train), len(corpus.tune), len(corpus.heldout)) == (800, 100, 100)
    for shares in ((0.0, 0.1), (0.1, -0.1), (0.5, 0.5)):
        with pytest.raises(ValueError, match="sum to less than 1"):
            split_text(text, *shares)


@pytest.mark.parametrize(("length", "sizes"), [(0, "0 .* 0 .* 0"), (9, "9 .* 0 .* 0")])
def test_split_text_leaves_no_part_empty(length, sizes):
    with pytest.raises(ValueError, match=rf"too short .* {length} char.* {sizes}"):
        split_text("a" * length)
    corpus = split_text("abcdefghij")
    assert (corpus.train, corpus.tune, corpus.heldout) == ("abcdefgh", "i", "j")


@pytest.mark.parametrize(("length", "horizon"), [(41, 5), (41, 10), (43, 4), (41, 100)])
def test_streams_go_on_row_by_row(length, horizon):
    tokens = torch.arange(length)
    streams = Streams(tokens, batch_size=4, horizon=horizon)
    chunks = list(streams)
    assert len(chunks) == len(streams)
    for chunk in chunks:
        # The target of a character is the one after it in the text.
        assert torch.equal(chunk.targets, chunk.inputs + 1)
    for before, after in pairwise(chunks):
        assert torch.equal(after.inputs[:, 0], before.inputs[:, -1] + 1)
    whole = torch.cat([chunk.inputs for chunk in chunks], dim=1)
    assert torch.equal(whole.reshape(-1), tokens[: streams.predicted])
    assert length - 1 - streams.predicted < 4
    again = list(streams)
    assert all(
        torch.equal(a.inputs, b.inputs) for a, b in zip(chunks, again, strict=True)
    )


@pytest.mark.errors
def test_streams_refuse():
    tokens = torch.arange(10)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        Streams(tokens, 0, 5)
    with pytest.raises(ValueError, match="`horizon` must be at least 1, got -1"):
        Streams(tokens, 2, -1)
    with pytest.raises(ValueError, match=r"batch_size \+ 1 = 11 characters"):
        Streams(tokens, 10, 5)
    with pytest.raises(ValueError, match="one row"):
        Streams(tokens.view(2, 5), 1, 5)
    assert Streams(tokens, 9, 5).predicted == 9
    with pytest.raises(TypeError, match="`horizon` must be an int, got float"):
        Streams(tokens, 2, 5.0)
    with pytest.raises(TypeError, match=r"`tokens` must be a torch\.Tensor"):
        Streams([0, 1, 2], 2, 5)
    with pytest.raises(TypeError, match=r"integer dtype, got torch\.float32"):
        Streams(tokens.float(), 2, 5)


def test_a_folder_that_cannot_be_listed_is_no_empty_one(tmp_path, monkeypatch):
    for name in ("a.py", "b.py", "inner/c.py", "test/d.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x = 1\n")
    scan, blind = os.scandir, "inner"

    def scandir(path):
        if os.path.basename(path) == blind:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(OSError, match=r"inner' cannot be listed: Permission denied"):
        list(characters._source_files(tmp_path))
    # Nobody asks for what is left out.
    blind = "test"
    names = [path.name for path in characters._source_files(tmp_path)]
    assert names == ["a.py", "b.py", "c.py"]
