"""What the comparison of LSTM and n-grams rests on, and its small run."""

import math
from dataclasses import replace

import pytest
import torch

from experiments.lab.experiment import find
from experiments.models import _characters as characters
from experiments.models import _first_data as first_data
from experiments.models import first_model
from seqref import LSTM
from seqref.recurrence import map_state, scan
from seqref.tasks import NGram
from seqref.training import evaluate

SMALL = first_model.experiment.small
TINY = replace(
    SMALL,
    train_characters=20_000,
    heldout_characters=5_000,
    shuffled_characters=5_000,
    control_steps=3,
    hidden_size=8,
)


@pytest.fixture(scope="module")
def small(small_run):
    return small_run("first_model").record


@pytest.fixture(scope="module")
def data():
    return first_data.prepare(TINY)


def test_the_seed_is_that_of_the_lstm_and_not_of_the_text():
    first, other = (
        find("first_model").result(replace(TINY, seeds=(seed,))) for seed in (0, 1)
    )
    assert other["numbers"]["lstm"] != first["numbers"]["lstm"]
    assert other["numbers"]["fivegram"] == first["numbers"]["fivegram"]


def test_the_model_without_memory_sees_one_character_only():
    torch.manual_seed(0)
    layer = first_data.Forgetful(LSTM(3, 5)).double()
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    y, state = layer(x)
    changed = x.clone()
    changed[:, 2] += 1
    moved = (layer(changed)[0] != y).any(-1).any(0)
    assert moved.tolist() == [False, False, True, False, False, False]
    full = map_state(torch.ones_like, state)
    assert torch.equal(layer(x, full)[0], y)
    stepped, _ = scan(layer, x, full)
    torch.testing.assert_close(stepped, y, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="`lengths` must be None"):
        layer(x, lengths=torch.tensor([6, 6]))


def test_all_models_predict_the_same_characters(data):
    streams = data.evaluation()
    predicted = streams.targets.flatten()
    assert torch.equal(predicted, data.heldout[1 : streams.predicted + 1])
    assert len(data.heldout) - 1 - streams.predicted < 64
    # The n-grams' mean is over those characters and no others.
    model = NGram(data.train, data.tune, 2, len(data.vocabulary))
    log_probs = model.log_probs(data.heldout)[1 : streams.predicted + 1]
    expected = -log_probs.mean() / math.log(2)
    assert data.ngram_bits(data.train, 2) == pytest.approx(expected, rel=1e-12)


def test_equal_text_is_what_the_streams_have_read(data):
    chunks = [chunk.inputs for chunk in data.streams][:3]
    read = data.read_by(3)
    assert torch.equal(read, torch.cat(chunks, dim=1).flatten())
    assert len(read) == 3 * TINY.batch_size * TINY.horizon
    assert len(data.read_by(10**9)) == data.streams.predicted


def test_training_and_held_out_text_are_apart(data):
    corpus = data.corpus
    names = [set(corpus.modules[part]) for part in ("train", "tune", "heldout")]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    assert torch.equal(
        data.train, data.vocabulary.encode(corpus.train[: TINY.train_characters])
    )
    characters = set(data.vocabulary.characters)
    assert characters <= set(corpus.train[: TINY.train_characters])


def test_the_curve_is_measured_at_its_marks(data):
    assert first_model.marks_of(100, 3) == [25, 50, 100]
    assert first_model.marks_of(2, 9) == [1, 2]
    model = characters.build(TINY, data.vocabulary, seed=0)
    curve = first_model.learning_curve(model, data, TINY, 6, [3, 6])
    assert [point["steps"] for point in curve] == [3, 6]
    size = TINY.batch_size * TINY.horizon
    assert [point["characters"] for point in curve] == [3 * size, 6 * size]
    # The last mark is the model as it is returned.
    assert curve[-1]["lstm"] == data.bits(model)
    assert data.bits(model) == evaluate(model, data.evaluation()) / math.log(2)


def test_numbers_agree_with_each_other(small):
    numbers, series = small["numbers"], small["series"]
    assert numbers["lstm_perplexity"] == pytest.approx(2 ** numbers["lstm"], rel=1e-4)
    assert numbers["lstm_nats"] == pytest.approx(
        numbers["lstm"] * math.log(2), rel=1e-5
    )
    orders = {row["order"]: row["bits"] for row in series["orders"]}
    assert (orders[1], orders[2], orders[5]) == (
        numbers["unigram"],
        numbers["bigram"],
        numbers["fivegram"],
    )
    assert series["curve"][-1]["lstm"] == numbers["lstm"]
    gap = numbers["lstm"] - numbers["fivegram"]
    assert numbers["lstm_minus_fivegram"] == pytest.approx(gap, abs=1e-4)
    assert numbers["lstm_wins"] == (gap < 0)
    costs = numbers["reset_costs"]
    # The more often the state is emptied, the more it costs.
    assert costs["4"] > costs["32"] > 0


def test_samples_go_on_from_the_prompt(small):
    (sample,) = small["series"]["samples"]
    assert sample["prompt"] == first_model.PROMPT
    assert len(sample["text"]) == SMALL.sample_length
    rendered = find("first_model").rendered(small)["samples"]
    assert rendered.startswith("Temperature 1:")
    assert sample["text"].split("\n")[0].rstrip() in rendered


def test_the_reset_table_multiplies_the_cost_by_the_distance(small):
    numbers = small["numbers"]
    rows = find("first_model").rendered(small)["resets"].splitlines()[2:]
    assert len(rows) == 3
    for row, (every, cost) in zip(rows, numbers["reset_costs"].items(), strict=False):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == f"every {every} characters"
        assert float(cells[1]) == pytest.approx(numbers["lstm"] + cost, abs=6e-4)
        assert float(cells[2]) == pytest.approx(int(every) * cost, abs=0.06)
