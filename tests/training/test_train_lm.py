import io
import math
import os
import random
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from seqref import cli
from seqref.tasks import NGram, Streams, split_text
from seqref.training import (
    Checkpoints,
    Step,
    _report,
    evaluate,
    load_checkpoint,
    load_language_model,
    train_lm,
)

TEXT = "".join(f"{n} times {n} is {n * n}, and so on.\n" for n in range(1, 400))
SIZES = ["--hidden-size", "12", "--batch-size", "4", "--horizon", "16"]


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def call(text, out, *more):
    return cli.main(["train-lm", "--text", str(text), "--out", str(out), *SIZES, *more])


def test_trains_compares_and_samples(text_file, tmp_path, capsys):
    out = tmp_path / "out"
    assert call(text_file, out, "--steps", "30") == 0
    printed = capsys.readouterr().out
    model, vocabulary, facts = load_language_model(out / "model.safetensors")
    assert facts["step"] == 30
    assert facts["characters"] == 30 * 4 * 16
    assert facts["versions"]["torch"] == torch.__version__

    # The printed numbers are those of the saved model and of n-grams on the same text.
    corpus = split_text(TEXT)
    parts = [vocabulary.encode(t) for t in (corpus.train, corpus.tune, corpus.heldout)]
    streams = Streams(parts[2], 1, 10**6)
    bits = evaluate(model, streams) / math.log(2)
    assert f"LSTM     {bits:.3f}   after 1,920 characters" in printed
    assert f"on {streams.predicted:,} held-out characters" in printed
    for name, order in (("unigram", 1), ("bigram", 2), ("5-gram", 5)):
        ngram = NGram(parts[0], parts[1], order, len(vocabulary))
        assert f"{name:<8} {ngram.bits_per_character(parts[2]):.3f}" in printed
    sample = printed.split("temperature 0.8:\n")[1]
    assert len(sample) == _report.SAMPLE_LENGTH + 1


def test_the_same_seed_gives_the_same_model(text_file, tmp_path):
    weights = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        state = torch.get_rng_state()
        assert call(text_file, tmp_path / name, "--steps", "3", "--seed", seed) == 0
        assert torch.equal(torch.get_rng_state(), state)
        model, _, _ = load_language_model(tmp_path / name / "model.safetensors")
        weights.append(model.layer.cell.weight_hh)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def bad_files(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "nul.bin").write_bytes(b"PK\x03\x04\0\0\0")
    (tmp_path / "latin.txt").write_bytes("déjà vu\n".encode("latin-1") * 1000)
    (tmp_path / "short.txt").write_text("too short for anything\n")
    return {
        "none.txt": "there is no file",
        "folder": "is a folder, not a file",
        "empty.txt": "is empty",
        "nul.bin": "NUL byte at offset 4",
        "latin.txt": "is not UTF-8 (byte 0xe9 at offset 1)",
        "short.txt": "`--text` is too short: 23 characters",
    }


def test_a_bad_file_is_one_line_and_status_2(tmp_path, capsys):
    for name, message in bad_files(tmp_path).items():
        assert call(tmp_path / name, tmp_path / "out") == 2, name
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.startswith("seqref: error: ")
        assert captured.err.count("\n") == 1
        assert captured.out == ""
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("length", [1, 2, 9, 15, 19, 20, 25])
def test_tiny_texts_work_or_are_refused(tmp_path, capsys, length):
    path = tmp_path / "tiny.txt"
    path.write_text("abcabcabcabcabcabcabcabcabc"[:length])
    out = ["--text", str(path), "--out", str(tmp_path / "out"), "--steps", "2"]
    sizes = ["--batch-size", "1", "--horizon", "1", "--hidden-size", "2"]
    status = cli.main(["train-lm", *out, *sizes])
    assert status == (0 if length >= 20 else 2)
    assert ("too short" in capsys.readouterr().err) == (length < 20)


def test_a_model_that_is_there_is_not_replaced(text_file, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.safetensors").write_bytes(b"dear to somebody")
    assert call(text_file, out) == 2
    assert "already holds a model" in capsys.readouterr().err
    assert (out / "model.safetensors").read_bytes() == b"dear to somebody"
    assert call(text_file, text_file) == 2
    assert "seqref: error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--steps", "0"], ["--steps", "many"], ["--batch-size", "-1"], ["--horizon", "x"]],
)
def test_bad_numbers_are_refused_by_the_parser(text_file, tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        call(text_file, tmp_path / "out", *arguments)
    assert caught.value.code == 2
    assert "must be a whole number >= 1" in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "1.01"])
def test_bad_learning_rates_are_refused(text_file, tmp_path, capsys, rate):
    assert call(text_file, tmp_path / "out", "--learning-rate", rate) == 2
    assert "`--learning-rate` must be above 0 and at most 1" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["tqdm", "safetensors"])
def test_a_missing_extra_is_named(text_file, tmp_path, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert call(text_file, tmp_path / "out") == 2
    captured = capsys.readouterr().err
    assert f"train-lm needs {package}" in captured
    assert 'pip install ".[train]"' in captured


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(
    text_file, tmp_path, capsys, monkeypatch
):
    original = train_lm.train

    def poisoned(model, *arguments, on_step, **options):
        def after(step):
            if step.number == 2:
                with torch.no_grad():
                    model.head.bias[0] = math.nan
            return on_step(step)

        return original(model, *arguments, on_step=after, **options)

    monkeypatch.setattr(train_lm, "train", poisoned)
    out = tmp_path / "out"
    assert call(text_file, out, "--steps", "50") == 1
    errors = capsys.readouterr().err
    assert "the loss is nan at step 3, before its update: the parameter" in errors
    assert "learning rate 0.0039" in errors
    assert "The last checkpoint is kept" in errors
    model, _, facts = load_language_model(out / "model.safetensors")
    assert facts["step"] == 0
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_huge_vocabulary_gets_shorter_ngrams():
    assert _report.orders(100) == [1, 2, 5]
    assert _report.orders(20_000) == [1, 2, 4]
    assert _report.orders(3_000_000) == [1, 2]


# Resuming.


def run_file(out):
    """Tensors and header of the newest checkpoint, without the generators' states.

    The command draws nothing from the global generators while it trains, and does not
    seed them.
    """
    tensors, config = load_checkpoint(Checkpoints(out / "checkpoints").files()[-1])
    del config["tree"]["place"]
    return {n: t for n, t in tensors.items() if not n.startswith("place/")}, config


def assert_same_run(out, other):
    (tensors, config), (expected, wanted) = run_file(out), run_file(other)
    assert config == wanted
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor), name


def final_lines(text):
    return text[text.index("bits per character") :]


def test_a_run_in_parts_equals_the_whole(text_file, tmp_path, capsys, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    sizes = ["--steps", "30", "--seed", "4", "--save-every", "10"]
    assert call(text_file, whole, *sizes) == 0
    expected = final_lines(capsys.readouterr().out)

    class Asked(train_lm.Interrupt):
        count = 0

        @property
        def asked(self):
            Asked.count += 1
            return Asked.count in (7, 19)

        @asked.setter
        def asked(self, value):
            pass

    monkeypatch.setattr(train_lm, "Interrupt", Asked)
    original = train_lm._train

    def stopped(work):
        last, _ = original(work)
        return last, last.number < 30

    monkeypatch.setattr(train_lm, "_train", stopped)
    assert call(text_file, parts, *sizes) == 130
    assert "stopped by Ctrl-C after step 7 of 30" in capsys.readouterr().out
    Asked.count = 7
    # Without the options: they are those of the run.
    arguments = ["train-lm", "--text", str(text_file), "--out", str(parts), "--resume"]
    assert cli.main([*arguments, "--save-every", "3"]) == 130
    printed = capsys.readouterr().out
    assert "resuming after step 7: " in printed
    assert "after step 19 of 30" in printed
    assert load_language_model(parts / "model.safetensors")[2]["step"] == 19
    assert cli.main(arguments) == 0
    assert final_lines(capsys.readouterr().out) == expected
    assert_same_run(parts, whole)
    # A run that is over is measured again.
    assert cli.main(arguments) == 0
    assert final_lines(capsys.readouterr().out) == expected


def test_what_cannot_be_resumed_is_one_line_and_status_2(text_file, tmp_path, capsys):
    out = tmp_path / "out"
    assert call(text_file, out, "--steps", "3") == 0
    newest = Checkpoints(out / "checkpoints").files()[-1]
    other = tmp_path / "other.txt"
    other.write_text(TEXT + "more")

    def refused(message, *arguments, text=text_file):
        capsys.readouterr()
        assert call(text, out, *arguments) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""

    refused("already holds a model; go on with --resume")
    refused("`--steps` is 3 in the run that is resumed, got 9", "--resume", "--steps=9")
    refused("`--seed` is 0 in the run that is resumed, got 1", "--resume", "--seed=1")
    refused("is not the text that", "--resume", text=other)
    whole = newest.read_bytes()
    newest.write_bytes(whole[:1000])
    refused(f"{str(newest)!r} is torn", "--resume")
    newest.write_bytes(whole)
    (out / "model.safetensors").unlink()
    refused("already holds a model; go on with --resume")
    assert call(text_file, out, "--resume") == 0
    for path in newest.parent.iterdir():
        path.unlink()
    refused("holds a model but no checkpoint of its training", "--resume")


def test_resume_without_a_run_starts_at_the_beginning(text_file, tmp_path, capsys):
    assert call(text_file, tmp_path / "a", "--steps", "3", "--resume") == 0
    assert "no checkpoint in " in capsys.readouterr().out
    assert call(text_file, tmp_path / "b", "--steps", "3") == 0
    assert_same_run(tmp_path / "a", tmp_path / "b")
    # What a crash before the first checkpoint leaves: the model of step 0.
    monkey = tmp_path / "c"
    arguments = Namespace(
        text=text_file, out=monkey, resume=False, steps=3, hidden_size=12
    )
    for name, default in train_lm.DEFAULTS.items():
        setattr(arguments, name, getattr(arguments, name, default))
    work = train_lm.prepare(arguments)
    train_lm._save(work, Step(0, math.nan, math.nan, 0))
    assert call(text_file, monkey, "--steps", "3", "--resume") == 0
    assert_same_run(monkey, tmp_path / "b")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_killed_and_resumed_on_the_command_line(text_file, tmp_path):
    source = str(Path(train_lm.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    chance = random.Random(3)

    def command(out, *more):
        words = ["--text", str(text_file), "--out", str(out), *SIZES, "--steps", "600"]
        program = [sys.executable, "-m", "seqref.cli", "train-lm"]
        return [*program, *words, "--save-every", "7", *more]

    def finish(out, *more):
        done = subprocess.run(
            command(out, *more),
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return final_lines(done.stdout)

    out, kills = tmp_path / "killed", 0
    for _ in range(2):
        before = set(out.glob("checkpoints/*"))
        child = subprocess.Popen(
            command(out, "--resume"),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert wait_until(lambda b=before: set(out.glob("checkpoints/step*")) - b)
        time.sleep(chance.uniform(0, 0.4))
        child.kill()
        kills += child.wait() == -signal.SIGKILL
        # The model is whole, whenever the process died.
        load_language_model(out / "model.safetensors")
    assert kills >= 1
    assert finish(out, "--resume") == finish(tmp_path / "whole")
    assert_same_run(out, tmp_path / "whole")
    assert not list(out.glob(".*"))
    models = [(o / "model.safetensors").read_bytes() for o in (out, tmp_path / "whole")]
    assert models[0] == models[1]


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def default_sigint():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


# From the first moment that a checkpoint can exist to well into training.
@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_ctrl_c_leaves_a_usable_checkpoint(text_file, tmp_path, delay):
    out = tmp_path / "out"
    arguments = ["--text", str(text_file), "--out", str(out), "--steps", "1000000"]
    arguments += [*SIZES, "--save-every", "3"]
    source = str(Path(train_lm.__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, "-m", "seqref.cli", "train-lm", *arguments],
        env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job starts with SIGINT ignored, and children inherit that.
        preexec_fn=default_sigint,  # noqa: PLW1509
    )
    try:
        path = out / "model.safetensors"
        assert wait_until(lambda: path.exists() or child.poll() is not None)
        time.sleep(delay)
        child.send_signal(signal.SIGINT)
        printed, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 130, errors
    assert "Traceback" not in errors
    assert f"The model so far is in {path}" in errors
    assert sorted(p.name for p in out.iterdir()) == ["checkpoints", "model.safetensors"]
    assert "go on with the same command and --resume" in printed
    model, vocabulary, facts = load_language_model(path)
    assert f"stopped by Ctrl-C after step {facts['step']} of 1000000" in printed
    sample = model.sample(vocabulary.encode("1 times")[None], 50)
    assert len(vocabulary.decode(sample[0])) == 50


@pytest.fixture
def sigint_as_it_comes():
    # A background job starts with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint_as_it_comes")
def test_a_second_ctrl_c_stops_at_once():
    with train_lm.Interrupt() as interrupt:
        assert signal.getsignal(signal.SIGINT) == interrupt._ask
        signal.raise_signal(signal.SIGINT)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with train_lm.Interrupt() as interrupt:
            signal.raise_signal(signal.SIGINT)
            assert not interrupt.asked
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("phase", ["_report", "_train"])
def test_ctrl_c_outside_a_step_keeps_the_checkpoint(
    text_file, tmp_path, capsys, monkeypatch, phase
):
    original = train_lm._train

    def stop(*_):
        if phase == "_train":
            original(*_)
        raise KeyboardInterrupt

    monkeypatch.setattr(train_lm, phase, stop)
    out = tmp_path / "out"
    assert call(text_file, out, "--steps", "3") == 130
    assert "The model so far is in" in capsys.readouterr().err
    assert load_language_model(out / "model.safetensors")[2]["step"] == 3


def test_ctrl_c_before_the_first_checkpoint_names_no_file(
    text_file, tmp_path, capsys, monkeypatch
):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_lm, "_save", stop)
    assert call(text_file, tmp_path / "out") == 130
    errors = capsys.readouterr().err
    assert "there is no model yet" in errors
    assert "model.safetensors" not in errors


@pytest.mark.parametrize("inside", [False, True])
def test_a_folder_that_cannot_be_made_is_named(text_file, tmp_path, capsys, inside):
    out = tmp_path / "file"
    out.write_text("in the way")
    out = out / "inside" if inside else out
    assert call(text_file, out) == 2
    printed = capsys.readouterr()
    assert "`--out` must be a folder that can be made, got" in printed.err
    assert str(out) in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1])
def test_bad_seeds_are_refused(text_file, tmp_path, capsys, seed):
    assert call(text_file, tmp_path / "out", "--seed", str(seed)) == 2
    assert f"`--seed` must fit in 64 bits, got {seed}" in capsys.readouterr().err


def test_a_terminal_without_the_characters_gets_question_marks(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_text("αβγδε " * 300, encoding="utf-8")
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert call(path, tmp_path / "ö", "--steps", "1") == 0
    out.flush()
    printed = out.buffer.getvalue()
    assert f"{tmp_path}/?/model.safetensors".encode() in printed.replace(b"\\", b"/")
    sample = printed.split(b"temperature 0.8:")[1].strip(b"\r\n")
    assert set(sample) <= set(b"? ")


def test_prepare_keeps_the_parts_apart(text_file, tmp_path):
    arguments = Namespace(
        text=text_file,
        out=tmp_path / "out",
        steps=1,
        hidden_size=4,
        batch_size=4,
        horizon=8,
        save_every=1,
        learning_rate=0.1,
        seed=0,
        resume=False,
    )
    work = train_lm.prepare(arguments)
    corpus = work.corpus
    assert corpus.train + corpus.tune + corpus.heldout == TEXT
    read = work.vocabulary.decode(work.streams.inputs.flatten())
    assert corpus.train.startswith(read)
    assert len(corpus.train) - len(read) <= 4
    assert not (tmp_path / "out").exists()
