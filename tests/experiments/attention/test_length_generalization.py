"""Tasks of any length, and what a network's positions are in training."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import one_hot

from experiments.attention._length_runs import (
    KINDS,
    Kind,
    Network,
    Training,
    measure,
    stack,
)
from experiments.attention._length_tasks import NOTHING, SYMBOLS, TASKS, Batch
from experiments.attention.length_generalization import Config, percent
from experiments.lab.seeding import generator
from seqref.attention import alibi_slopes

TINY = Training(
    train_to=2,
    try_at=(2, 4),
    d_model=8,
    n_heads=2,
    hidden_size=8,
    batch_size=8,
    warm_up=1,
    copying_updates=3,
    recall_updates=3,
    counting_updates=3,
    tests=4,
)


def test_copying_asks_for_each_symbol_after_the_true_ones_before_it():
    batch = TASKS["copying"].draw(3, 2, generator(0))
    read = batch.x.argmax(dim=-1)
    string = read[:, :3]
    assert (string < SYMBOLS).all()
    assert (read[:, 3] == SYMBOLS).all()
    assert torch.equal(read[:, 4:], string[:, :2])
    assert (batch.targets[:, :3] == NOTHING).all()
    assert torch.equal(batch.targets[:, 3:], string)
    assert torch.equal(batch.asked, batch.targets != NOTHING)
    assert all(len(set(row.tolist())) == 3 for row in string)


def looking_up(x):
    """Scores of what followed the last symbol before; wrong after two symbols."""
    read = x.argmax(dim=-1)
    said = torch.zeros_like(read)
    for row, symbols in enumerate(read.tolist()):
        turn = symbols.index(SYMBOLS)
        for step in range(turn, len(symbols)):
            last = symbols[step]
            place = -1 if last == SYMBOLS else symbols.index(last)
            known = place + 1 < turn and last not in (3, 5)
            said[row, step] = symbols[place + 1] if known else 0
    return one_hot(said, SYMBOLS).float()


def test_answers_are_all_right_where_the_string_written_greedily_is():
    task = TASKS["copying"]
    batch = task.draw(6, 64, generator(1))
    right = task.right(looking_up(batch.x), batch)
    exact = (right | ~batch.asked).all(dim=1)
    written = batch.x[:, :7]
    for _ in range(6):
        symbol = looking_up(written)[:, -1].argmax(dim=-1)
        shown = one_hot(symbol, SYMBOLS + 1).float()
        written = torch.cat([written, shown[:, None]], dim=1)
    alike = written[:, 7:].argmax(dim=-1) == batch.targets[:, 6:]
    assert torch.equal(exact, alike.all(dim=1))
    assert 0 < exact.sum() < 64


def test_recall_asks_each_key_for_the_value_that_stood_beside_it():
    batch = TASKS["recall"].draw(5, 4, generator(2))
    keys, values = batch.x.split([SYMBOLS, 8], dim=-1)
    assert values[:, 5:].sum() == 0
    moved = 0
    for row in range(4):
        shown = keys[row].argmax(dim=-1).tolist()
        pairs = dict(zip(shown[:5], values[row, :5].argmax(-1).tolist(), strict=True))
        assert sorted(shown[:5]) == sorted(shown[5:])
        assert batch.targets[row, 5:].tolist() == [pairs[key] for key in shown[5:]]
        moved += shown[:5] != shown[5:]
    assert moved > 0


def test_counting_is_asked_at_every_b():
    task = TASKS["counting"]
    batch = task.draw(3, 1, generator(3))
    assert batch.asked.tolist() == [[False] * 3 + [True] * 3]
    assert batch.targets[0, 3:].tolist() == [0, 0, 1]
    outputs = torch.tensor([[9.0, 9, 9, -1, 1, 1]])[..., None]
    right = task.right(outputs, batch)
    assert right[0, 3:].tolist() == [True, False, True]
    words = task.draw(3, 128, generator(3))
    assert words.asked.sum(dim=1).tolist() == [1, 2, 3]
    said = torch.zeros_like(words.x[..., :1])
    torch.testing.assert_close(task.loss(said, words), torch.tensor(2.0).log())


@pytest.mark.parametrize("task", TASKS)
def test_a_perfect_answer_has_no_error_and_a_wrong_one_has(task):
    made = TASKS[task]
    batch = made.draw(3, 4, generator(4))
    perfect = torch.where(batch.targets > 0, 1.0, -1.0)[..., None]
    if task != "counting":
        classes = batch.targets.clamp_min(0)
        perfect = one_hot(classes, made.output_size).float()
    assert made.right(perfect, batch)[batch.asked].all()
    wrong = Batch(batch.x, 1 - batch.targets.clamp(0, 1), batch.asked)
    assert not made.right(perfect, wrong)[batch.asked].all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_causal_and_takes_the_longest_trial(kind):
    task = TASKS["copying"]
    network = Network(task, KINDS[kind].make(TINY))
    x = task.draw(4, 2, generator(5)).x
    y = network(x)
    assert y.shape == (2, 8, SYMBOLS)
    torch.testing.assert_close(network(x[:, :5]), y[:, :5])


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
def test_starts_are_positions_of_the_first_step_of_each_row(kind):
    task = TASKS["recall"]
    network = Network(task, KINDS[kind].make(TINY))
    x = task.draw(2, 2, generator(6)).x
    starts = torch.tensor([0, 3])
    y = network(x, starts)
    torch.testing.assert_close(y[:1], network(x[:1]))
    assert not torch.allclose(y[1], network(x)[1])
    if kind == "learned":
        table = network.table
        assert table is not None
        with torch.no_grad():
            table.copy_(table.roll(-3, 0))
        torch.testing.assert_close(network(x[1:])[0], y[1])


def test_rows_of_a_table_move_where_training_had_a_position():
    config = replace(TINY, counting_updates=40)
    fixed = measure(config, "counting", "learned", 0)
    assert (fixed["moved"], fixed["moved_beyond"]) == (4, 0)
    shifted = measure(config, "counting", "learned_shifted", 0)
    assert (shifted["moved"], shifted["moved_beyond"]) == (4, 4)


def test_networks_of_one_task_are_of_comparable_size():
    counts = {
        kind: measure(TINY, "recall", kind, 0)["parameters"]
        for kind in ("lstm", "none", "rotary", "learned")
    }
    assert counts["none"] == counts["rotary"]
    assert counts["learned"] == counts["none"] + 8 * 8


def test_only_none_and_all_are_written_as_0_and_100():
    assert [percent(share) for share in (0.0, 0.001, 0.5, 0.999, 1.0)] == [
        *("0", "<1", "50", ">99", "100")
    ]


def test_kinds_of_the_full_run_have_updates_and_a_place():
    config = Config()
    for task in TASKS:
        assert set(getattr(config, task)) <= set(KINDS)
        assert getattr(config, f"{task}_updates") > config.warm_up
    assert max(config.try_at) <= SYMBOLS


@pytest.mark.slow
def test_alibi_with_steep_slopes_does_not_recall_at_twice_the_trained_length(
    monkeypatch,
):
    assert alibi_slopes(Training().n_heads).tolist() == [1 / 16, 1 / 256]
    steep = torch.tensor([0.5, 0.25])
    kind = Kind("steep", lambda config: stack(config, inside=steep))
    monkeypatch.setitem(KINDS, "steep", kind)
    exact = measure(Training(tests=64), "recall", "steep", 0)["exact"]
    assert exact[0] > 0.7
    assert max(exact[2:]) < 0.05


@pytest.mark.slow
def test_an_lstm_recalls_more_with_more_updates():
    few, many = (
        measure(Training(tests=64, recall_updates=updates), "recall", "lstm", 0)
        for updates in (150, 450)
    )
    assert many["answers"][0] > few["answers"][0] + 0.03
    assert max(few["exact"][0], many["exact"][0]) < 0.05
