"""The shared parts of the memory experiments: networks, training, sweep, intervals."""

import dataclasses
import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import mean_interval, share_interval
from experiments.memory._judging import at_least, fewer_than_half, scalars
from experiments.memory._networks import (
    CATALOGUE,
    Network,
    build,
    layer_of,
)
from experiments.memory._presentation import percent, solved, table_by_lag
from experiments.memory._sweep import (
    Cell,
    measure_cell,
    measure_run,
    pool,
    select,
    sweep,
)
from experiments.memory._training import Problem, Schedule, score, train


def draw(batch_size, lag, random):
    """A sign at the first step, zeros after it, wanted at the end."""
    bit = torch.randint(2, (batch_size,), generator=random)
    x = torch.zeros(batch_size, lag + 1, 1)
    x[:, 0, 0] = 2.0 * bit - 1
    return x, bit.float()


PROBLEM = Problem(
    input_size=1,
    output_size=1,
    draw=draw,
    loss=lambda outputs, bit: cross_entropy(outputs[:, -1, 0], bit),
    score=lambda outputs, bit: (
        ((outputs[:, -1, 0] > 0) == (bit > 0.5)).double().mean().item()
    ),
    enough=0.1,
    solved=0.95,
)
SCHEDULE = Schedule(batch_size=16, tests=64)
CELL = Cell("rnn_orthogonal", 8, 0.01, 5, 200, 5)


@pytest.mark.parametrize("recipe", CATALOGUE)
def test_a_network_is_the_layer_of_torch(recipe):
    with seeded(3):
        layer = layer_of(recipe, 2, 6, 20.0).double()
    with seeded(3):
        network = Network(layer_of(recipe, 2, 6, 20.0), 1).double()
    x = torch.randn(3, 9, 2, generator=generator(1)).double()
    wanted = network.head(layer(x)[0])
    found = network(x)
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-10)
    upstream = torch.randn(3, 9, 1, generator=generator(2)).double()
    theirs = torch.autograd.grad(wanted, list(layer.parameters()), upstream)
    ours = torch.autograd.grad(found, list(network.layer.parameters()), upstream)
    assert len(ours) == len(theirs) == 4
    # Neither network sorts its parameters by name, and a shape may occur twice.
    by_name = dict(zip(dict(layer.named_parameters()), theirs, strict=True))
    for (name, _), gradient in zip(network.layer.named_parameters(), ours, strict=True):
        same = by_name[f"{name.rpartition('.')[2]}_l0"]
        torch.testing.assert_close(gradient, same, atol=1e-10, rtol=1e-10)


def test_recipes_are_what_their_names_say():
    def part(recipe, name, rows=slice(None)):
        with seeded(0):
            found = dict(layer_of(recipe, 2, 8, 50.0).named_parameters())
        if name == "bias":
            return (found["bias_ih_l0"] + found["bias_hh_l0"])[rows]
        return found[name][rows]

    eye = torch.eye(8)
    matrix = part("rnn_orthogonal", "weight_hh_l0")
    torch.testing.assert_close(matrix @ matrix.T, eye, atol=1e-5, rtol=0)
    assert torch.equal(part("irnn", "weight_hh_l0"), eye)
    forget, z = slice(8, 16), slice(8, 16)
    assert torch.equal(part("lstm_bias_1", "bias", forget), torch.ones(8))
    assert part("lstm", "bias", forget).abs().max() < 2 / 8**0.5
    for recipe, rows in (("lstm_chrono", forget), ("gru_chrono", z)):
        drawn = part(recipe, "bias", rows)
        assert 0 <= drawn.min() < drawn.max() <= torch.tensor(49.0).log()
        assert drawn.mean() > 2
    chrono = part("lstm_chrono", "bias")
    assert torch.equal(chrono[:8], -chrono[8:16])


def test_as_it_comes_is_what_torch_builds():
    for recipe, kind in (("rnn", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU)):
        with seeded(5):
            wanted = kind(2, 4).state_dict()
        with seeded(5):
            found = layer_of(recipe, 2, 4, 10.0).state_dict()
        for name, value in wanted.items():
            assert torch.equal(found[name], value)


def test_an_unknown_recipe_is_named():
    with pytest.raises(ValueError, match=r"`recipe` must be one of rnn, .*got 'gro'"):
        layer_of("gro", 1, 2, 3.0)


def test_a_seed_gives_one_network_and_leaves_the_generator():
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)
    first, again = (build("lstm_chrono", 1, 4, 1, 9, seed=2) for _ in range(2))
    assert torch.equal(torch.rand(1), wanted)
    other = build("lstm_chrono", 1, 4, 1, 9, seed=3)
    for a, b, c in zip(*(n.parameters() for n in (first, again, other)), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c) or not a.any()


def test_training_stops_after_so_many_good_batches_in_a_row():
    losses = itertools.chain([0.0, 0.0, 1.0], itertools.repeat(0.0))

    def loss(outputs, targets):
        return 0 * outputs.sum() + next(losses)

    problem = dataclasses.replace(PROBLEM, loss=loss)
    schedule = Schedule(batch_size=2, patience=4)
    network = build("rnn", 1, 2, 1, 2, seed=0)
    assert train(problem, network, schedule, 3, 100, 0.01, 0) == 6
    losses = itertools.repeat(1.0)
    assert train(problem, network, schedule, 3, 9, 0.01, 0) == 9


def test_each_batch_is_new_and_the_last_test_is_on_others():
    seen = []

    def noting(batch_size, lag, random):
        seen.append(torch.rand(4, generator=random))
        return draw(batch_size, lag, random)

    problem = dataclasses.replace(PROBLEM, draw=noting, enough=0.0)
    network = build("rnn", 1, 2, 1, 2, seed=0)
    train(problem, network, SCHEDULE, 3, 5, 0.01, 0)
    score(problem, network, SCHEDULE, 3, 0)
    assert len({tuple(row.tolist()) for row in seen}) == len(seen) == 6


def test_gradients_are_clipped():
    network = build("rnn", 1, 4, 1, 2, seed=0)
    problem = dataclasses.replace(PROBLEM, loss=lambda o, _: 1e6 * o.square().sum())
    fresh = build("rnn", 1, 4, 1, 2, seed=0)

    def largest_move():
        pairs = zip(network.parameters(), fresh.parameters(), strict=True)
        return max((a - b).abs().max().item() for a, b in pairs)

    # Adam divides by |g| + 1e-8: a gradient of 1e-30 moves nothing.
    train(problem, network, Schedule(max_norm=1e-30), 3, 1, 0.1, 0)
    assert largest_move() < 1e-9
    train(problem, network, Schedule(), 3, 1, 0.1, 0)
    assert largest_move() > 0.09


def test_the_network_that_stopped_is_the_one_whose_loss_was_good():
    """The update that would follow the last good batch is not made."""
    network = build("rnn", 1, 4, 1, 2, seed=0)
    fresh = build("rnn", 1, 4, 1, 2, seed=0)
    problem = dataclasses.replace(PROBLEM, enough=100.0)
    assert train(problem, network, Schedule(patience=1), 3, 9, 0.1, 0) == 0
    for ended, start in zip(network.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(ended, start)


def test_an_easy_task_is_solved_and_an_unlearned_one_is_not():
    run = measure_run(PROBLEM, CELL, SCHEDULE, 0)
    assert run.score == 1
    assert run.updates < 200
    idle = measure_run(
        PROBLEM, dataclasses.replace(CELL, learning_rate=0.0), SCHEDULE, 0
    )
    assert idle.score < 0.95
    assert idle.updates == 200
    assert measure_run(PROBLEM, CELL, SCHEDULE, 0) == run


def test_cells_are_told_apart_and_pooled():
    idle = dataclasses.replace(CELL, learning_rate=0.0, updates=3)
    rows = sweep(PROBLEM, [CELL, idle], SCHEDULE, (0, 1, 2))
    assert rows[0] == measure_cell(PROBLEM, CELL, SCHEDULE, (0, 1, 2))
    assert rows[0]["good"] == 3
    assert rows[1]["good"] == 0
    assert select(rows, learning_rate=0.01) == rows[:1]
    assert select(rows, recipe="rnn_orthogonal", lag=5) == rows
    assert select(rows, lag=6) == []
    found = pool(rows)
    assert (found["runs"], found["good"]) == (6, 3)
    assert found["share"]["share"] == 0.5
    assert (found["lowest_share"], found["highest_share"]) == (0, 1)
    scores = rows[0]["scores"] + rows[1]["scores"]
    assert found["score"]["mean"] == pytest.approx(sum(scores) / 6)
    with pytest.raises(ValueError, match="`rows` must hold at least one row"):
        pool([])


def test_tables_show_counts_and_intervals():
    rows = [{"recipe": "rnn", "lag": 5, "scores": [1.0] * 10, "good": 10}]
    rows[0]["made"] = [7] * 10
    # Wilson's interval for 10 of 10 begins at 10 / (10 + 1.96**2).
    shown = solved(rows).replace("\N{NO-BREAK SPACE}", " ")
    assert shown == "10 of 10<br>(72 to 100 %)"
    text = table_by_lag(rows, ["rnn"], [5])
    assert text.startswith("| layer, initialisation | lag 5 |\n")
    assert "tanh RNN, default" in text


@pytest.mark.parametrize(
    ("good", "runs", "low", "high"),
    [
        # From scipy 1.17.1, binomtest(good, runs).proportion_ci(0.95, "wilson").
        (0, 5, 0.0, 0.43448246478317476),
        (3, 5, 0.23072428127601297, 0.8823792257673521),
        (10, 10, 0.7224672001371109, 1.0),
        (17, 40, 0.28509392559950375, 0.5780493145800892),
    ],
)
def test_the_interval_of_a_share(good, runs, low, high):
    found = share_interval(good, runs)
    assert found["share"] == good / runs
    assert found["low"] == pytest.approx(low, abs=1e-12)
    assert found["high"] == pytest.approx(high, abs=1e-12)


def test_impossible_counts_are_refused():
    for good, runs in ((1, 0), (-1, 3), (4, 3)):
        with pytest.raises(ValueError, match=f"got {good} of {runs}"):
            share_interval(good, runs)


def test_the_interval_of_a_mean_covers_it_about_as_often_as_it_says():
    random, covered = generator(0), 0
    for _ in range(400):
        values = torch.randn(30, generator=random, dtype=torch.float64)
        found = mean_interval(values.tolist())
        assert found["mean"] == pytest.approx(values.mean().item())
        covered += found["low"] <= 0 <= found["high"]
    assert 0.90 < covered / 400 < 0.98


@pytest.mark.parametrize(("size", "share"), [(5, 0.84), (20, 0.93)])
def test_the_interval_is_too_narrow_for_few_values(size, share):
    random, covered = generator(0), 0
    for _ in range(1000):
        values = torch.randn(size, generator=random, dtype=torch.float64)
        found = mean_interval(values.tolist())
        covered += found["low"] <= 0 <= found["high"]
    # Three standard errors of a share are 0.035 and 0.024.
    assert covered / 1000 == pytest.approx(share, abs=0.03)


def test_the_interval_of_equal_values_has_no_width():
    found = mean_interval([0.5, 0.5, 0.5])
    assert found == {"mean": 0.5, "low": 0.5, "high": 0.5}
    with pytest.raises(ValueError, match="must hold at least one, got none"):
        mean_interval([])


def test_a_share_is_judged_at_its_limit():
    def case(share):
        return {"runs": 100, "good": round(100 * share), "share": {"share": share}}

    assert [at_least(0.9)(case(x)).holds for x in (0.89, 0.9, 1.0)] == [
        False,
        True,
        True,
    ]
    assert [fewer_than_half(case(x)).holds for x in (0.49, 0.5)] == [True, False]
    assert (
        at_least(0.5)(case(0.25)).number == fewer_than_half(case(0.25)).number == 0.25
    )


def test_scalars_of_a_cell():
    share = {"share": 0.4, "low": 0.1, "high": 0.8}
    found = scalars("rnn_5", {"runs": 5, "good": 2, "share": share, "score": {}})
    assert found["rnn_5_runs"] == 5
    assert found["rnn_5_good"] == 2
    assert set(found) == {
        f"rnn_5_{k}" for k in ("runs", "good", "share", "low", "high")
    }
    assert found["rnn_5_low"] == percent(0.1)
