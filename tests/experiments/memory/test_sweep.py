"""The shared parts of the memory experiments: networks, training, sweep, intervals."""

import dataclasses
import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from experiments import lab
from experiments.lab.experiment import find
from experiments.lab.seeding import generator, seeded
from experiments.memory._networks import (
    CATALOGUE,
    Network,
    build,
    layer_of,
)
from experiments.memory._sweep import (
    at_least,
    cases_of,
    fewer_than_half,
    grid,
    groups,
    measure_run,
    pool,
    sweep,
    swept,
)
from experiments.memory._tables import COUNTS, by_lag, percent, pooled, settings, solved
from experiments.memory._training import Cell, Problem, score, train
from seqref.interop import from_torch


@dataclasses.dataclass
class Sign:
    """A sign at the first step, zeros after it, wanted at the end."""

    lag: int

    def draw(self, batch_size, random):
        bit = torch.randint(2, (batch_size,), generator=random)
        x = torch.zeros(batch_size, self.lag + 1, 1)
        x[:, 0, 0] = 2.0 * bit - 1
        return x, bit.float()


PROBLEM = Problem(
    input_size=1,
    output_size=1,
    task=Sign,
    loss=lambda outputs, bit: cross_entropy(outputs[:, -1, 0], bit),
    score=lambda outputs, bit: (
        ((outputs[:, -1, 0] > 0) == (bit > 0.5)).double().mean().item()
    ),
    enough=0.1,
    solved=0.95,
)
CELL = Cell("rnn_orthogonal", 8, 0.01, 5, 200, 5)


def cell(updates, learning_rate=0.01):
    return dataclasses.replace(
        CELL, lag=3, updates=updates, learning_rate=learning_rate
    )


@pytest.mark.parametrize("recipe", CATALOGUE)
def test_a_network_is_the_layer_of_torch(recipe):
    with seeded(3):
        layer = layer_of(recipe, 2, 6, 20.0).double()
    with seeded(3):
        network = Network(from_torch(layer_of(recipe, 2, 6, 20.0)), 1).double()
    x = torch.randn(3, 9, 2, generator=generator(1)).double()
    wanted = network.head(layer(x)[0])
    y = network(x)
    torch.testing.assert_close(y, wanted, atol=1e-10, rtol=1e-10)
    upstream = torch.randn(3, 9, 1, generator=generator(2)).double()
    theirs = torch.autograd.grad(wanted, list(layer.parameters()), upstream)
    ours = torch.autograd.grad(y, list(network.layer.parameters()), upstream)
    assert len(ours) == len(theirs) == 4
    # Neither network sorts its parameters by name, and a shape may occur twice.
    by_name = dict(zip(dict(layer.named_parameters()), theirs, strict=True))
    for (name, _), gradient in zip(network.layer.named_parameters(), ours, strict=True):
        same = by_name[f"{name.rpartition('.')[2]}_l0"]
        torch.testing.assert_close(gradient, same, atol=1e-10, rtol=1e-10)


def test_recipes_are_what_their_names_say():
    def part(recipe, name, rows=slice(None)):
        with seeded(0):
            parameters = dict(layer_of(recipe, 2, 8, 50.0).named_parameters())
        if name == "bias":
            return (parameters["bias_ih_l0"] + parameters["bias_hh_l0"])[rows]
        return parameters[name][rows]

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
            state = layer_of(recipe, 2, 4, 10.0).state_dict()
        for name, value in wanted.items():
            assert torch.equal(state[name], value)


def test_an_unknown_recipe_is_named():
    with pytest.raises(KeyError, match="gro"):
        layer_of("gro", 1, 2, 3.0)


def test_a_seed_gives_one_network_and_leaves_the_generator():
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)
    first, again = (build("lstm_chrono", (1, 4, 1), 9, seed=2) for _ in range(2))
    assert torch.equal(torch.rand(1), wanted)
    other = build("lstm_chrono", (1, 4, 1), 9, seed=3)
    for a, b, c in zip(*(n.parameters() for n in (first, again, other)), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c) or not a.any()


def test_training_stops_after_so_many_good_batches_in_a_row():
    losses = itertools.chain([0.0, 0.0, 1.0], itertools.repeat(0.0))

    def loss(outputs, targets):
        return 0 * outputs.sum() + next(losses)

    problem = dataclasses.replace(PROBLEM, loss=loss)
    network = build("rnn", (1, 2, 1), 2, seed=0)
    assert train(problem, network, cell(100), 2, 0, patience=4) == 6
    losses = itertools.repeat(1.0)
    assert train(problem, network, cell(9), 2, 0, patience=4) == 9


def test_each_batch_is_new_and_the_last_test_is_on_others():
    seen = []

    class Noting(Sign):
        def draw(self, batch_size, random):
            seen.append((batch_size, *torch.rand(4, generator=random).tolist()))
            return super().draw(batch_size, random)

    problem = dataclasses.replace(PROBLEM, task=Noting, enough=0.0)
    network = build("rnn", (1, 2, 1), 2, seed=0)
    train(problem, network, cell(5), 16, 0)
    score(problem, network, 3, 64, 0)
    assert [row[0] for row in seen] == [16] * 5 + [64]
    assert len({row[1:] for row in seen}) == 6


def test_gradients_are_clipped():
    network = build("rnn", (1, 4, 1), 2, seed=0)
    problem = dataclasses.replace(PROBLEM, loss=lambda o, _: 1e6 * o.square().sum())
    fresh = build("rnn", (1, 4, 1), 2, seed=0)

    def largest_move():
        pairs = zip(network.parameters(), fresh.parameters(), strict=True)
        return max((a - b).abs().max().item() for a, b in pairs)

    # Adam divides by |g| + 1e-8: a gradient of 1e-30 moves nothing.
    train(problem, network, cell(1, 0.1), 32, 0, max_norm=1e-30)
    assert largest_move() < 1e-9
    train(problem, network, cell(1, 0.1), 32, 0)
    assert largest_move() > 0.09


def test_the_network_that_stopped_is_the_one_whose_loss_was_good():
    """The update that would follow the last good batch is not made."""
    network = build("rnn", (1, 4, 1), 2, seed=0)
    fresh = build("rnn", (1, 4, 1), 2, seed=0)
    problem = dataclasses.replace(PROBLEM, enough=100.0)
    assert train(problem, network, cell(9, 0.1), 32, 0, patience=1) == 0
    for ended, start in zip(network.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(ended, start)


def test_a_rate_that_decays_goes_down_in_a_line_to_nothing(monkeypatch):
    rates = []
    monkeypatch.setattr(
        lab,
        "descend",
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]),
    )
    network = build("rnn", (1, 2, 1), 2, seed=0)
    train(PROBLEM, network, cell(4), 2, 0, decay=True)
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    rates.clear()
    train(PROBLEM, network, cell(2), 2, 0)
    assert rates == [0.01, 0.01]


def test_an_easy_task_is_solved_and_an_unlearned_one_is_not():
    score, updates = measure_run(PROBLEM, CELL, 16, 64, 0)
    assert score == 1
    assert updates < 200
    idle = dataclasses.replace(CELL, learning_rate=0.0)
    found_idle, updates_idle = measure_run(PROBLEM, idle, 16, 64, 0)
    assert found_idle < 0.95
    assert updates_idle == 200
    assert measure_run(PROBLEM, CELL, 16, 64, 0) == (score, updates)


def test_a_grid_has_every_setting_once_in_order():
    config = SimpleNamespace(
        recipes=("rnn", "gru"),
        hidden_sizes=(4, 8),
        learning_rates=(0.1, 0.2),
        updates=7,
    )
    cells = grid(config, (5, 6, 9))
    assert len(set(cells)) == len(cells) == 2 * 3 * 2 * 2
    assert cells[0] == Cell("rnn", 4, 0.1, 5, 7, 5)
    assert cells[1] == Cell("rnn", 4, 0.2, 5, 7, 5)
    assert cells[-1] == Cell("gru", 8, 0.2, 9, 7, 9)
    assert all(cell.horizon == cell.lag for cell in cells)
    config = SimpleNamespace(hidden_size=3, learning_rates=(0.1, 0.2), updates=7)
    other = grid(config, [5], recipes=["lstm"], horizon=lambda lag: 2 * lag)
    assert other == [Cell("lstm", 3, rate, 5, 7, 10) for rate in (0.1, 0.2)]


@pytest.mark.parametrize("name", ["adding_problem", "delayed_recall", "copying_memory"])
def test_a_full_grid_has_several_settings_and_seeds(name):
    full = find(name).full
    assert len(full.seeds) >= 5
    assert len(full.hidden_sizes) == len(full.learning_rates) == 2
    assert len({*full.recipes}) == len(full.recipes)


def test_cells_are_told_apart_and_pooled():
    idle = dataclasses.replace(CELL, learning_rate=0.0, updates=3)
    rows = sweep(PROBLEM, [CELL, idle], (0, 1, 2), 16, 64)
    runs = [measure_run(PROBLEM, CELL, 16, 64, seed) for seed in (0, 1, 2)]
    assert rows[0] == {
        **dataclasses.asdict(CELL),
        "scores": [run[0] for run in runs],
        "made": [run[1] for run in runs],
        "good": 3,
    }
    assert rows[1]["good"] == 0
    assert groups(rows, "learning_rate") == {(0.01,): rows[:1], (0.0,): rows[1:]}
    assert groups(rows, "recipe", "lag") == {("rnn_orthogonal", 5): rows}
    pooled_rows = pool(rows)
    assert (pooled_rows["runs"], pooled_rows["good"]) == (6, 3)
    assert pooled_rows["share"]["share"] == 0.5
    assert (pooled_rows["lowest_share"], pooled_rows["highest_share"]) == (0, 1)
    scores = rows[0]["scores"] + rows[1]["scores"]
    assert pooled_rows["score"]["mean"] == pytest.approx(sum(scores) / 6)
    assert pooled_rows["median_made"] == lab.median(rows[0]["made"] + rows[1]["made"])
    assert cases_of(rows, "recipe", "lag") == {"rnn_orthogonal_5": pooled_rows}
    config = SimpleNamespace(seeds=(0, 1, 2), batch_size=16, tests=64)
    result = swept(PROBLEM, [CELL, idle], config, lab.untracked, ("updates",))
    assert result["series"]["rows"] == rows
    assert result["cases"] == {"200": pool(rows[:1]), "3": pool(rows[1:])}
    with pytest.raises(ValueError, match="got 0 of 0"):
        pool([])


def row_of(recipe, lag, good, rate=0.1):
    scores = [1.0] * good + [0.5] * (10 - good)
    return {
        "recipe": recipe,
        "lag": lag,
        "hidden_size": 4,
        "learning_rate": rate,
        "scores": scores,
        "made": [7] * 10,
        "good": good,
    }


def test_tables_show_counts_and_intervals():
    rows = [row_of("rnn", 5, 10), row_of("rnn", 5, 7, 0.2), row_of("rnn", 9, 2)]
    rows += [row_of("gru", 5, 4)]
    record = {"series": {"rows": rows, "noise": rows[3:]}}
    # Wilson's interval for 10 of 10 begins at 10 / (10 + 1.96**2).
    shown = solved(pool(rows[:1])).replace("\N{NO-BREAK SPACE}", " ")
    assert shown == "10 of 10<br>(72 to 100 %)"
    text = by_lag(word="length").text(record)
    assert text.startswith("| layer, initialisation | length 5 | length 9 |\n")
    lines = text.replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert lines[2].startswith("| tanh RNN, default | 17 of 20<br>")
    assert lines[3].startswith("| GRU, default | 4 of 10<br>")
    assert "GRU" not in by_lag(recipes=["rnn"]).text(record)
    assert "RNN" not in by_lag(part="noise").text(record)
    lines = settings().text(record).replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert lines[0].endswith("| width | learning rate | lag 5 | lag 9 |")
    assert lines[2:] == [
        "| tanh RNN, default | 4 | 0.1 | 10 of 10 | 2 of 10 |",
        "| tanh RNN, default | 4 | 0.2 | 7 of 10 |  |",
        "| GRU, default | 4 | 0.1 | 4 of 10 |  |",
    ]
    pooled_lines = pooled("recipe")(record)
    assert [(row["recipe"], row["good"]) for row in pooled_lines] == [
        ("rnn", 19),
        ("gru", 4),
    ]


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


def test_the_numbers_of_a_case_are_counts_and_a_share_in_per_cent():
    share = {"share": 0.4, "low": 0.1, "high": 0.8}
    cases = {"rnn_5": {"runs": 5, "good": 2, "share": share, "score": {}}, "other": {}}
    numbers = {}
    for number in COUNTS:
        numbers |= number.of(cases)
    assert numbers == {
        "rnn_5_runs": 5,
        "rnn_5_good": 2,
        "rnn_5_share": "40",
        "rnn_5_low": percent(0.1),
        "rnn_5_high": "80",
    }
