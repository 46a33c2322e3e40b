import argparse
import errno
import io
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

import seqref
from preloaded import CLOSED, preloaded
from seqref import LSTM, cli
from seqref.models import LanguageModel
from seqref.tasks import NGram, Streams, Vocabulary, split_text
from seqref.training import (
    Checkpoints,
    Step,
    _layers,
    _lock,
    _options,
    _output,
    _report,
    evaluate,
    load_checkpoint,
    load_language_model,
    train_lm,
)
from tests.layers import CAUSAL, is_layer

TEXT = "".join(f"{n} times {n} is {n * n}, and so on.\n" for n in range(1, 400))
SIZES = ["--hidden-size", "12", "--batch-size", "4", "--horizon", "16"]


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


SOURCE = str(Path(train_lm.__file__).parents[2])
FRESH = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}


def start(*words, **streams):
    """The command in a process of its own, which finds torch imported already."""
    # The first step of an optimizer imports torch._dynamo.
    server = preloaded("torch", "torch._dynamo")
    return server.start(["seqref.cli", *words], module=True, path=[SOURCE], **streams)


def call(text, out, *more):
    return cli.main(["train-lm", "--text", str(text), "--out", str(out), *SIZES, *more])


def test_the_page_and_the_help_have_every_option_with_its_default():
    page = Path(__file__).parents[2] / "docs/training/train_lm.md"
    row = re.compile(r"^\| `(--[\w-]+)[^`]*` \| *`?([^`|]*?)`? *\|", re.MULTILINE)
    table = dict(row.findall(page.read_text(encoding="utf-8")))
    parser = argparse.ArgumentParser(add_help=False)
    _options.add_options(parser)
    defaults = {}
    for action in parser._actions:
        default = _options.DEFAULTS.get(action.dest, action.default)
        plain = default in (None, False) and action.dest != "seed"
        defaults[action.option_strings[0]] = "" if plain else str(default)
        if action.dest in _options.DEFAULTS:
            assert f"(default: {default})" in action.help
    assert table == defaults


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


CAUSAL_LAYERS = sorted(
    name
    for name in seqref.__all__
    if is_layer(getattr(seqref, name))
    # Made of other layers, or linear, or attention, which wants blocks around it.
    and name not in ("Bidirectional", "Stacked", "LTI")
    and not name.endswith("Attention")
)


def test_every_causal_layer_can_be_chosen():
    assert sorted(_layers.KINDS) == sorted([*CAUSAL_LAYERS, "Transformer"])
    assert set(CAUSAL_LAYERS) <= set(CAUSAL)


@pytest.mark.parametrize("name", _layers.KINDS)
def test_a_run_over_any_layer_can_be_stopped_and_resumed(
    text_file, tmp_path, capsys, monkeypatch, usual_signals, name
):
    """Saved, loaded, and after a stop the same as a run that was left alone."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ["--steps", "4", "--layer", name, "--save-every", "2"]
    few = ["--report-characters", "40"]
    monkeypatch.setattr(_report, "SAMPLE_LENGTH", 20)
    assert call(text_file, whole, *options, *few) == 0
    printed = capsys.readouterr().out
    assert f"model: {name}, hidden size 12, " in printed
    assert f"  {name:<8} " in printed
    model, _, facts = load_language_model(whole / "model.safetensors")
    assert type(model.layer).__name__ == name
    assert facts["step"] == 4
    with monkeypatch.context() as patch, usual_signals():
        at_step(patch, 3, lambda: signal.raise_signal(signal.SIGINT))
        assert call(text_file, parts, *options, *few) == 130
    again = ["train-lm", "--text", str(text_file), "--out", str(parts), "--resume"]
    assert cli.main([*again, *few]) == 0
    one, two = ((o / "model.safetensors").read_bytes() for o in (whole, parts))
    assert one == two
    other = "GRU" if name == "LSTM" else "LSTM"
    assert cli.main([*again, "--layer", other]) == 2
    assert f"`--layer` is {name} in the run" in capsys.readouterr().err


def test_a_layer_whose_state_grows_begins_each_chunk_anew(text_file, tmp_path, capsys):
    sizes, out = ["--layer", "Transformer", "--steps", "3"], tmp_path / "out"
    few = ["--report-characters", "50"]
    assert call(text_file, out, *sizes, *few) == 0
    printed = capsys.readouterr().out
    model, vocabulary, _ = load_language_model(out / "model.safetensors")
    heldout = vocabulary.encode(split_text(TEXT).heldout[:50])
    bits = evaluate(model, Streams(heldout, 1, 1024), carry=False) / math.log(2)
    assert f"  Transformer {bits:.3f}   after" in printed
    # As far back as the chunks that it learned from.
    assert {block.attention.window for block in model.layer.layers} == {16}
    assert call(text_file, tmp_path / "odd", *sizes, "--hidden-size", "7") == 2
    assert "`--hidden-size` must be even" in capsys.readouterr().err
    assert call(text_file, tmp_path / "eight", *sizes, "--hidden-size", "64") == 0
    model, _, _ = load_language_model(tmp_path / "eight" / "model.safetensors")
    assert model.layer.layers[0].attention.n_heads == 2


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
    [
        ["--steps", "0"],
        ["--steps", "many"],
        ["--batch-size", "-1"],
        ["--horizon", "x"],
        ["--report-characters", "0"],
        ["--hidden-size", str(2**63)],
        ["--steps", "9" * 5000],
    ],
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


def at_step(monkeypatch, number, act):
    """Let `act` happen after that step, before the command looks at it."""
    original = train_lm.train

    def train(*arguments, on_step, **options):
        def after(step):
            if step.number == number:
                act()
            return on_step(step)

        return original(*arguments, on_step=after, **options)

    monkeypatch.setattr(train_lm, "train", train)


def test_a_run_in_parts_equals_the_whole(
    text_file, tmp_path, capsys, monkeypatch, usual_signals
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    sizes = ["--steps", "30", "--seed", "4", "--save-every", "10"]
    assert call(text_file, whole, *sizes) == 0
    expected = final_lines(capsys.readouterr().out)

    def stopped(step, signals_name, status, *arguments):
        number = getattr(signal, signals_name, signal.SIGINT)
        with monkeypatch.context() as patch, usual_signals():
            at_step(patch, step, lambda: signal.raise_signal(number))
            assert cli.main(list(arguments)) == status
        return capsys.readouterr().out

    first = ["train-lm", "--text", str(text_file), "--out", str(parts)]
    printed = stopped(7, "SIGINT", 130, *first, *SIZES, *sizes)
    assert "stopped by Ctrl-C after step 7 of 30" in printed
    # Without the options: they are those of the run.
    arguments = [*first, "--resume"]
    status = 128 + getattr(signal, "SIGHUP", signal.SIGINT)
    printed = stopped(19, "SIGHUP", status, *arguments, "--save-every", "3")
    assert "resuming after step 7: " in printed
    assert "after step 19 of 30" in printed
    assert f"checkpoint: {Checkpoints(parts / 'checkpoints').files()[-1]}" in printed
    assert "--resume" in printed
    assert load_language_model(parts / "model.safetensors")[2]["step"] == 19
    printed = stopped(23, "SIGTERM", 143, *arguments)
    assert "stopped by SIGTERM after step 23 of 30" in printed
    names = [path.name[11:14] for path in Checkpoints(parts / "checkpoints").files()]
    # Kept every ten steps again, as the run began.
    assert names == ["020", "023"]
    assert cli.main(arguments) == 0
    assert final_lines(capsys.readouterr().out) == expected
    assert_same_run(parts, whole)
    models = [(o / "model.safetensors").read_bytes() for o in (parts, whole)]
    assert models[0] == models[1]


def test_a_run_that_is_over_is_not_measured_again(
    text_file, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    assert call(text_file, out, "--steps", "3") == 0
    expected = final_lines(capsys.readouterr().out)
    calls = []

    def measured(*arguments):
        calls.append(arguments)
        return original(*arguments)

    original = train_lm.report
    monkeypatch.setattr(train_lm, "report", measured)
    assert call(text_file, out, "--resume") == 0
    assert final_lines(capsys.readouterr().out) == expected
    assert calls == []
    # What it depends on: here the number of characters, and the model.
    assert call(text_file, out, "--resume", "--report-characters", "50") == 0
    total = len(split_text(TEXT).heldout) - 1
    assert f"on the first 49 of {total:,} held-out" in capsys.readouterr().out
    assert len(calls) == 1
    kept = out / "report.json"
    for text in (
        "",
        "[]",
        '{"key": 1}',
        kept.read_text().replace('"model": "', '"model": "x'),
    ):
        kept.write_text(text)
        assert call(text_file, out, "--resume") == 0
        assert final_lines(capsys.readouterr().out) == expected
    assert len(calls) == 5


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
    for name, default in _options.DEFAULTS.items():
        setattr(arguments, name, getattr(arguments, name, default))
    work = train_lm.prepare(arguments)
    train_lm._save(work, Step(0, math.nan, math.nan, 0))
    assert call(text_file, monkey, "--steps", "3", "--resume") == 0
    assert_same_run(monkey, tmp_path / "b")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_killed_and_resumed_on_the_command_line(text_file, tmp_path):
    chance = random.Random(3)

    def words(out, *more):
        sizes = [*SIZES, "--steps", "600", "--save-every", "7"]
        return ["train-lm", "--text", str(text_file), "--out", str(out), *sizes, *more]

    out, kills = tmp_path / "killed", 0
    for _ in range(2):
        before = set(out.glob("checkpoints/*"))
        nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        child = start(*words(out, "--resume"), **nowhere)
        new = lambda b=before: set(out.glob("checkpoints/step*")) - b  # noqa: E731
        assert wait_until(lambda n=new, c=child: n() or c.poll() is not None)
        time.sleep(chance.uniform(0, 0.4))
        child.kill()
        kills += child.wait() == -signal.SIGKILL
        # The model is whole, whenever the process died.
        load_language_model(out / "model.safetensors")
    assert kills >= 1
    # With nothing imported, and another seed for the hashes of strings.
    done = subprocess.run(
        [sys.executable, "-m", "seqref.cli", *words(out, "--resume")],
        env=FRESH,
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    printed = tmp_path / "printed.txt"
    with open(printed, "wb") as stdout:
        whole = start(*words(tmp_path / "whole"), stdout=stdout.fileno())
        assert whole.wait(900) == 0
    assert final_lines(done.stdout) == final_lines(printed.read_text(encoding="utf-8"))
    assert_same_run(out, tmp_path / "whole")
    assert not list(out.glob(".*"))
    models = [(o / "model.safetensors").read_bytes() for o in (out, tmp_path / "whole")]
    assert models[0] == models[1]


def wait_until(condition, seconds=900.0):
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
@pytest.mark.parametrize(("delay", "fresh"), [(0.0, True), (1.0, False)])
def test_ctrl_c_leaves_a_usable_checkpoint(text_file, tmp_path, delay, fresh):
    out = tmp_path / "out"
    words = ["train-lm", "--text", str(text_file), "--out", str(out)]
    words += ["--steps", "1000000", *SIZES, "--save-every", "3"]
    said = [tmp_path / "printed.txt", tmp_path / "errors.txt"]
    path = out / "model.safetensors"
    with open(said[0], "wb") as stdout, open(said[1], "wb") as stderr:
        streams = {"stdout": stdout.fileno(), "stderr": stderr.fileno()}
        if fresh:
            command = [sys.executable, "-m", "seqref.cli", *words]
            # A background job starts with SIGINT ignored, and children inherit that.
            options = {"env": FRESH, "preexec_fn": default_sigint}
            child = subprocess.Popen(command, **options, **streams)
        else:
            child = start(*words, **streams)
    try:
        assert wait_until(lambda: path.exists() or child.poll() is not None)
        time.sleep(delay)
        child.send_signal(signal.SIGINT)
        child.wait(900)
    finally:
        child.kill()
    printed, errors = (file.read_text(encoding="utf-8") for file in said)
    assert child.returncode == 130, errors
    assert "Traceback" not in errors
    assert f"The model so far is in {path}" in errors
    assert sorted(p.name for p in out.iterdir()) == ["checkpoints", "model.safetensors"]
    assert "go on with the same command and --resume" in printed
    model, vocabulary, facts = load_language_model(path)
    assert f"stopped by Ctrl-C after step {facts['step']} of 1000000" in printed
    sample = model.sample(vocabulary.encode("1 times")[None], 50)
    assert len(vocabulary.decode(sample[0])) == 50


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_second_signal_stops_at_once(first, usual_signals):
    number = getattr(signal, first, signal.SIGINT)
    with usual_signals(), train_lm.Interrupt() as interrupt:
        assert signal.getsignal(number) == interrupt._ask
        signal.raise_signal(number)
        assert interrupt.number == number
        # The system's own way to end a process: not tried here.
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_another_thread_sets_no_handler(usual_signals):
    asked = []

    def work():
        with train_lm.Interrupt() as interrupt:
            asked.append(interrupt.asked)

    with usual_signals():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert asked == [False]


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

    def stop(*arguments):
        if phase == "_train":
            original(*arguments)
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
        layer="LSTM",
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


# One run at a time in a folder.


def listing(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("more", [[], ["--resume"], ["--resume", "--seed", "7"]])
def test_a_second_start_is_refused_and_deletes_nothing(
    text_file, tmp_path, capsys, monkeypatch, more
):
    out, statuses = tmp_path / "out", []

    def start_again():
        capsys.readouterr()
        # What a running job is writing at that moment.
        for name in ("model", "checkpoints/.step-000000005"):
            path = out / name.replace("model", ".model")
            path.with_name(f"{path.name}.safetensors.{16 * '0'}").write_text("half")
        before = listing(out)
        statuses.append(call(text_file, out, *more))
        assert listing(out) == before
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1
        assert (
            f"`--out` {str(out)!r} is in use by another run (process {os.getpid()})"
            in printed.err
        )

    with monkeypatch.context() as patch:
        at_step(patch, 2, start_again)
        assert call(text_file, out, "--steps", "4") == 0
    assert statuses == [2]
    # The next start finds what the first would have left if it had been killed.
    assert call(text_file, out, "--resume") == 0
    assert not list(out.rglob(".*"))


HOLDER = """
import os, sys, time
from pathlib import Path
from seqref.training._lock import Lock
lock = Lock(Path(sys.argv[1]), "a run")
lock.take()
ready, tell = os.pipe()
child = os.fork()
if child == 0:
    os.write(tell, b"x")
    time.sleep(600)
# What a fork does in the child it does some time after the fork, on a busy machine.
os.read(ready, 1)
print(child, lock.held, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process and its fork")
def test_a_lock_ends_with_its_process_though_a_child_lives_on(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOLDER, str(tmp_path)],
        env=FRESH,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        child, held = holder.stdout.readline().split()
        try:
            assert held == "True"
            lock = _lock.Lock(tmp_path, "the folder")
            with pytest.raises(RuntimeError, match=rf"\(process {holder.pid}\)"):
                lock.take()
            holder.kill()
            holder.wait()
            assert (tmp_path / _lock.NAME).exists()
            with lock:
                assert lock.held
            assert not (tmp_path / _lock.NAME).exists()
        finally:
            holder.kill()
            os.kill(int(child), signal.SIGKILL)


def test_a_file_system_without_locks_is_said(text_file, tmp_path, monkeypatch):
    def none(handle):
        raise OSError(errno.ENOLCK, "No locks available")

    out = tmp_path / "out"
    assert call(text_file, out, "--steps", "3") == 0
    # It may be that of a run that is going on.
    half = out / f".model.safetensors.{16 * '0'}"
    half.write_text("half")
    monkeypatch.setattr(_lock, "_lock_file", none)
    with pytest.warns(RuntimeWarning, match="has no locks, so a second run") as caught:
        assert call(text_file, out, "--resume") == 0
    assert len(caught) == 2
    assert half.exists()


# Lost streams.

SHELL = "SEQREF train-lm --text TEXT --out out --steps 9 SIZES"


def assert_whole(folder, said):
    """The run came to its end, and nothing broke on the way."""
    model = load_language_model(folder / "out" / "model.safetensors")
    assert model[2]["step"] == 9
    assert "Traceback" not in said
    assert "Exception ignored" not in said


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize(
    ("streams", "status", "word"),
    [
        (">&- 2>&-", 0, None),
        ("2>&1 | head -c 300 >head", 141, None),
    ],
)
def test_a_lost_stream_ends_nothing(text_file, tmp_path, streams, status, word):
    command = SHELL.replace("SEQREF", f"{sys.executable} -m seqref.cli")
    command = command.replace("TEXT", str(text_file)).replace("SIZES", " ".join(SIZES))
    main, *pipe = f"{command} {streams}".split(" | ")
    # The exit status of the command, not that of `head`.
    script = f"({main}; echo $? >status)" + "".join(f" | {part}" for part in pipe)
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=tmp_path,
        env=FRESH,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (tmp_path / "status").read_text() == f"{status}\n", done.stderr
    assert_whole(tmp_path, done.stdout + done.stderr)
    if word is not None:
        assert word in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize(
    ("stdout", "stderr", "status", "word"),
    [
        (CLOSED, "said", 0, None),
        ("said", CLOSED, 0, "bits per character"),
        ("said", "/dev/full", 0, "bits per character"),
        ("/dev/full", "said", 2, "standard output was lost: No space left on device"),
        ("/dev/full", "/dev/full", 2, None),
    ],
)
def test_one_lost_stream_or_both(text_file, tmp_path, stdout, stderr, status, word):
    """The same without a shell, in processes that find torch imported already."""
    words = ["train-lm", "--text", str(text_file), "--out", "out", "--steps", "9"]
    said = tmp_path / "said"
    with ExitStack() as files:
        handles = [
            name
            if name == CLOSED
            else files.enter_context(open(tmp_path / name, "ab")).fileno()
            for name in (stdout, stderr)
        ]
        streams = {"stdout": handles[0], "stderr": handles[1]}
        child = start(*words, *SIZES, cwd=tmp_path, **streams)
        code = child.wait(120)
    text = said.read_text(encoding="utf-8") if said.exists() else ""
    assert code == status, text
    assert_whole(tmp_path, text)
    if word is not None:
        assert word in text


class Broken(io.StringIO):
    """A stream that is lost after so many writes."""

    encoding = "utf-8"

    def __init__(self, writes, error):
        super().__init__()
        self.writes, self.error = writes, error

    def write(self, text):
        self.writes -= 1
        if self.writes < 0:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141),
        (OSError(errno.EIO, "Input/output error"), 2),
        (ValueError("I/O operation on closed file"), 2),
    ],
)
@pytest.mark.parametrize("writes", [0, 1, 5])
def test_output_that_is_lost_is_said_in_the_end(
    text_file, tmp_path, monkeypatch, error, status, writes
):
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Broken(writes, error))
    monkeypatch.setattr(sys, "stderr", errors)
    out = tmp_path / "out"
    assert call(text_file, out, "--steps", "3") == status
    assert load_language_model(out / "model.safetensors")[2]["step"] == 3
    assert ("standard output was lost" in errors.getvalue()) == (status == 2)
    # Nobody listens, so nothing is measured.
    assert not (out / "report.json").exists()


def test_the_bar_goes_where_it_can(text_file, tmp_path, monkeypatch, capsys):
    for writes in (0, 2):
        broken = Broken(writes, BrokenPipeError(errno.EPIPE, "Broken pipe"))
        monkeypatch.setattr(sys, "stderr", broken)
        assert call(text_file, tmp_path / str(writes), "--steps", "3") == 0
        assert "bits per character" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stderr", None)
    assert call(text_file, tmp_path / "none", "--steps", "3") == 0
    assert sys.stderr is None


# Disks.


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EFBIG])
@pytest.mark.parametrize("suffix", ["model.safetensors", "step-000000010.safetensors"])
def test_a_full_disk_names_the_file_and_the_way_on(
    text_file, tmp_path, capsys, monkeypatch, code, suffix
):
    out, sizes = tmp_path / "out", ["--steps", "12", "--save-every", "5"]
    original = os.replace

    def full(source, target):
        later = (out / "checkpoints" / "step-000000005.safetensors").exists()
        if later and str(target).endswith(suffix):
            raise OSError(code, os.strerror(code))
        original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert call(text_file, out, *sizes) == 2
    message = capsys.readouterr().err
    folder = out if suffix.startswith("model") else out / "checkpoints"
    written = f"{str(folder / suffix)!r} could not be written: {os.strerror(code)}"
    assert written in message
    kept = out / "checkpoints" / "step-000000005.safetensors"
    assert f"The last checkpoint is kept: {kept}." in message
    assert "go on with the same command and --resume" in message
    assert not list(out.rglob(".*"))
    assert call(text_file, out, *sizes, "--resume") == 0
    assert call(text_file, tmp_path / "whole", *sizes) == 0
    assert_same_run(out, tmp_path / "whole")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_folder_that_cannot_be_listed_is_no_empty_one(
    text_file, tmp_path, capsys, monkeypatch, code
):
    out = tmp_path / "out"
    assert call(text_file, out, "--steps", "3") == 0
    before, original, scan = listing(out), os.listdir, os.scandir

    def blind(listed):
        def act(path="."):
            if Path(path).name == "checkpoints":
                raise OSError(code, os.strerror(code), str(path))
            return listed(path)

        return act

    for missing in (False, True):
        if missing:
            (out / "model.safetensors").unlink()
            del before[out / "model.safetensors"]
        for more in ([], ["--resume"]):
            capsys.readouterr()
            with monkeypatch.context() as patch:
                patch.setattr(os, "listdir", blind(original))
                patch.setattr(os, "scandir", blind(scan))
                assert call(text_file, out, "--steps", "3", *more) == 2
            printed = capsys.readouterr()
            assert printed.out == ""
            assert "checkpoints' cannot be listed: " in printed.err
            assert os.strerror(code) in printed.err
            assert listing(out) == before


def test_a_file_in_place_of_the_checkpoints_is_seen_first(text_file, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "checkpoints").touch()
    for more in ([], ["--resume"]):
        assert call(text_file, out, *more) == 2
        assert "checkpoints' cannot be listed: Not a dir" in capsys.readouterr().err
        assert [path.name for path in out.iterdir()] == ["checkpoints"]


def test_a_text_that_cannot_be_read_is_named(tmp_path, capsys, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert call(tmp_path / "text.txt", tmp_path / "out") == 2
    message = f"{str(tmp_path / 'text.txt')!r} cannot be read: Input/output error"
    assert message in capsys.readouterr().err


# What is asked for.


def test_an_empty_folder_name_is_refused_and_a_tilde_is_the_home(
    text_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for option in ("--out", "--text"):
        words = {"--out": "out", "--text": str(text_file), option: ""}
        with pytest.raises(SystemExit) as caught:
            cli.main(["train-lm", *(w for pair in words.items() for w in pair)])
        assert caught.value.code == 2
        assert f"{option}: must be a path, got ''" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [text_file]
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    text_file.rename(tmp_path / "~backup.txt")
    assert call("~backup.txt", "~/lm", "--steps", "2") == 0
    assert (home / "lm" / "model.safetensors").exists()


@pytest.mark.parametrize("size", [2**63 - 1, 2**40, 10**7])
def test_a_model_that_cannot_be_built_is_refused_in_words(
    text_file, tmp_path, capsys, monkeypatch, size
):
    def full(*sizes):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] can't allocate memory")

    if size == 10**7:
        monkeypatch.setattr(train_lm, "layer_for", full)
    out = tmp_path / "out"
    assert call(text_file, out, "--hidden-size", str(size)) == 2
    message = capsys.readouterr().err
    assert f"`--hidden-size` must fit in memory, got {size}" in message
    assert "enforce" not in message
    assert message.count("\n") == 1
    assert not out.exists()


def test_a_step_that_does_not_fit_names_the_way_on(
    text_file, tmp_path, capsys, monkeypatch
):
    def full():
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 2097414144 bytes. Error code 12 (Cannot ...)"
        )

    out = tmp_path / "out"
    at_step(monkeypatch, 3, full)
    assert call(text_file, out, "--steps", "5", "--save-every", "1") == 2
    message = capsys.readouterr().err
    assert "not enough memory for steps of 4 x 16 characters over" in message
    assert "step-000000002.safetensors. Once that is set right, go on" in message
    assert "enforce" not in message


def test_control_characters_of_the_text_do_not_drive_the_terminal(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text("\x1b[31m red\x07 \x9b0m\n\x7f\t" * 200, encoding="utf-8")
    assert call(path, tmp_path / "out", "--steps", "2") == 0
    sample = final_lines(capsys.readouterr().out).split("temperature 0.8:\n")[1]
    assert not {c for c in sample if unicodedata.category(c) == "Cc"} - {"\n", "\t"}
    assert "\\x1b" in sample
    assert _output.shown("a\x1b\x9b\x00\r\n\té\u2028") == (
        "a\\x1b\\x9b\\x00\\r\n\té\u2028"
    )


# The report.


def report_of(text, limit, rows=4):
    corpus = split_text(text)
    vocabulary = Vocabulary.from_text(corpus.train)
    torch.manual_seed(0)
    model = LanguageModel(len(vocabulary), LSTM(3, 5)).eval()
    scores = []
    model.register_forward_hook(lambda *call: scores.append(call[2][0].numel()))
    report = _report.report(model, vocabulary, corpus, rows, 0, limit)
    return report, model, vocabulary, corpus, scores


def test_the_report_s_memory_does_not_grow_with_the_vocabulary(monkeypatch):
    text = TEXT * 8
    whole, *_, scores = report_of(text, 10**6)
    monkeypatch.setattr(_report, "SCORES", 2000)
    parts, model, vocabulary, corpus, held = report_of(text, 10**6)
    assert max(scores) > 10 * max(held)
    assert max(held) <= 2000
    assert parts.bits == pytest.approx(whole.bits, rel=1e-5)
    tokens = vocabulary.encode(corpus.heldout)
    bits = evaluate(model, Streams(tokens, 3, 10**6)) / math.log(2)
    assert whole.bits == pytest.approx(bits, rel=1e-5)
    monkeypatch.undo()
    # 16 rows of 4,096 steps over 8,001 symbols are 2 GB at once.
    assert 16 * 8001 * _report.chunk_length(16, 8001) <= _report.SCORES < 10**7
    assert _report.chunk_length(1, 10**9) == 1


def test_the_report_s_time_is_bounded_and_its_numbers_say_on_what(capsys):
    report, model, vocabulary, corpus, _ = report_of(TEXT, 100)
    parts = corpus.train[-800:], corpus.tune[:100], corpus.heldout[:100]
    train, tune, heldout = map(vocabulary.encode, parts)
    for name, order in (("unigram", 1), ("bigram", 2), ("5-gram", 5)):
        ngram = NGram(train, tune, order, len(vocabulary))
        assert report.ngrams[name] == ngram.bits_per_character(heldout)
    bits = evaluate(model, Streams(heldout, 1, 100)) / math.log(2)
    assert report.bits == pytest.approx(bits, rel=1e-5)
    assert (report.measured, report.counted) == (99, 800)
    _report.show(report, "LSTM", 7)
    total, train = len(corpus.heldout) - 1, len(corpus.train)
    assert capsys.readouterr().out.startswith(
        f"bits per character on the first 99 of {total:,} held-out characters "
        f"(--report-characters); the n-grams count the last 800 of {train:,}:\n"
    )
