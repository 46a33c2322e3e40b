"""What the comparison of language models rests on: sizes, texts, intervals."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import one_hot
from torch.utils.flop_counter import FlopCounterMode

from experiments.lab.budget import BudgetSpentError
from experiments.models import _language_rates as rates
from experiments.models import _language_runs as runs
from experiments.models import language_models as module

FULL, SMALL = module.experiment.full, module.experiment.small
TINY = replace(SMALL, updates=4, windows=4, seeds=(0,), rates=(0.001, 0.01))
RECORD = Path(__file__).parents[3] / "docs" / "_data" / "language_models.json"
LENGTH = 2_000
# Each part has tokens of its own.
TEXT = runs.Text(*(first + torch.arange(LENGTH) % 10 for first in (0, 10, 20)), 30, {})


class Follows(nn.Module):
    """Knows that each token is followed by the next in the circle of its part."""

    def __init__(self, sure=50.0):
        super().__init__()
        self.sure, self.read = sure, []

    def forward(self, tokens, state=None):
        self.read.append(tokens)
        following = tokens // 10 * 10 + (tokens % 10 + 1) % 10
        return self.sure * one_hot(following, 30).float(), None


@pytest.mark.parametrize("config", [FULL, SMALL])
def test_layers_have_as_many_parameters(config):
    counts = {kind: runs.size_of(config, kind, 97).layers for kind in runs.KINDS}
    wanted = counts["transformer"]
    assert all(abs(count / wanted - 1) < 0.02 for count in counts.values()), counts
    for kind in runs.KINDS:
        model = runs.build(config, kind, 97, 0)
        assert sum(p.numel() for p in model.layer.parameters()) == counts[kind]


def test_layers_that_are_not_equal_are_refused():
    runs.check_equal(1000, 1019, "lstm")
    with pytest.raises(ValueError, match="`lstm` must have 1000 parameters to 2%, got"):
        runs.check_equal(1000, 979, "lstm")
    with pytest.raises(ValueError, match="the layers of `lstm` must have"):
        runs.layers_of(replace(SMALL, d_model=16), "lstm")


@pytest.mark.parametrize("kind", runs.KINDS)
def test_multiply_adds_are_those_that_torch_counts(kind):
    """Step by step: a kernel for whole sequences hides its products."""
    config = replace(SMALL, context=6)
    model = runs.build(config, kind, 97, 0)
    state = model.initial_state(2)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        for token_t in torch.randint(97, (6, 2)):
            _, state = model.step(token_t, state)
    counted = counter.get_total_flops() / 2 / 2 / 6
    assert runs.size_of(config, kind, 97).multiply_adds == counted


def test_the_rate_rises_and_falls_to_a_tenth():
    at = partial(runs.rate_at, highest=2.0, updates=100, warmup=0.1)
    assert at(0) == pytest.approx(0.2)
    assert at(9) == pytest.approx(2.0)
    assert at(10) == pytest.approx(2.0)
    assert at(100) == pytest.approx(0.2)
    falling = [at(update) for update in range(10, 101)]
    assert falling == sorted(falling, reverse=True)


def test_windows_are_of_the_training_part_and_their_targets_one_later():
    windows = runs.drawn_windows(SMALL, 5, 0, TEXT)
    assert len(windows) == 5
    for window in windows:
        assert window.inputs.shape == (SMALL.batch_size, SMALL.context)
        assert torch.equal(window.targets, (window.inputs + 1) % 10)
    assert same(windows, runs.drawn_windows(SMALL, 5, 0, TEXT))
    assert not same(windows, runs.drawn_windows(SMALL, 5, 1, TEXT))


def same(windows, others):
    """Whether all windows that both have are equal."""
    both = zip(windows, others, strict=False)
    return all(torch.equal(a.inputs, b.inputs) for a, b in both)


def test_a_shorter_training_reads_the_beginning_of_a_longer_one():
    assert same(*(runs.drawn_windows(SMALL, n, 0, TEXT) for n in (5, 3)))


@pytest.mark.parametrize(("measure", "first"), [(runs.tuned, 10), (runs.measured, 20)])
def test_rates_are_chosen_and_results_measured_on_parts_of_their_own(
    measure, first, monkeypatch
):
    model = Follows()
    monkeypatch.setattr(runs, "trained", lambda *arguments: model)
    found = measure(SMALL, "lstm", 0.1, 1.0, 0, TEXT)
    read = torch.cat([tokens.flatten() for tokens in model.read])
    assert read.min() >= first
    assert read.max() < first + 10
    # It knows what follows, and not what is there: a target is the next character.
    assert torch.tensor(found["bits"]).abs().max() < 1e-6


def test_bits_of_a_model_that_knows_nothing_are_those_of_the_vocabulary():
    windows = runs.cut_out(TEXT.heldout, SMALL)
    read = partial(runs.from_nothing, every=SMALL.context)
    found = runs.bits(Follows(sure=0.0), windows, read)
    assert found.shape == (SMALL.windows, SMALL.context)
    torch.testing.assert_close(found, torch.full_like(found, math.log2(30)))


def test_a_context_begins_where_it_is_said_to():
    model = runs.build(SMALL, "lstm", 30, 0).double()
    tokens = runs.cut_out(TEXT.heldout, SMALL)[:2, :-1]
    second = tokens[:, SMALL.context :]
    with torch.no_grad():
        whole = runs.from_nothing(model, tokens, SMALL.context)
        torch.testing.assert_close(whole, model(second)[0])
        cut = runs.from_nothing(model, tokens, SMALL.cut)
        torch.testing.assert_close(cut[:, : SMALL.cut], whole[:, : SMALL.cut])
        alone = model(second[:, SMALL.cut : 2 * SMALL.cut])[0]
        torch.testing.assert_close(cut[:, SMALL.cut : 2 * SMALL.cut], alone)
        state = model(tokens[:, : SMALL.context])[1]
        after = model(second, state)[0]
        torch.testing.assert_close(runs.from_before(model, tokens), after)


def test_far_places_are_behind_the_cut_with_half_of_a_context():
    config = replace(SMALL, context=12, cut=4)
    far = runs.far_places(config).nonzero()[:, 0]
    assert far.tolist() == [6, 7, 10, 11]


def test_bands_hold_every_place_once():
    assert runs.bands(8) == [0, 1, 2, 4]
    assert runs.bands(256) == [0, 1, 2, 4, 8, 16, 32, 64, 128]
    table = torch.arange(8.0).repeat(2, 1)
    assert runs.by_band(table) == [[0.0, 1.0, 2.5, 5.5]] * 2


def test_each_kind_gets_the_rate_that_is_best_on_the_part_for_tuning():
    bits = iter([3.0, 2.0, 1.0, 4.0, 5.0, 0.5, 2.0, 2.1])
    tried = {job: next(bits) for job in module.tuning(TINY)}
    best = {"rnn": 0.01, "gru": 0.001, "lstm": 0.01, "transformer": 0.001}
    assert list(runs.KINDS) == list(best)
    assert module.chosen(TINY, tried) == best


def test_with_equal_compute_a_costly_kind_makes_fewer_updates():
    sizes = {kind: runs.size_of(FULL, kind, 97) for kind in runs.KINDS}
    less = module.shares(FULL, sizes)
    assert set(less) == {"rnn", "transformer"}
    totals = {k: less.get(k, 1.0) * sizes[k].multiply_adds for k in runs.KINDS}
    assert all(abs(v / totals["lstm"] - 1) < 0.02 for v in totals.values())


def test_an_interval_is_of_seeds_and_of_windows():
    """Two seeds at 1 and 2, no windows that differ: 12.7 standard errors of 1/2."""
    found = rates.interval([[1.0, 1.0], [2.0, 2.0]])
    assert found["mean"] == 1.5
    assert found["high"] - 1.5 == pytest.approx(12.7062 * 0.5)
    # Windows alone: their variance of 2 by their number.
    found = rates.interval([[0.0, 2.0], [0.0, 2.0], [0.0, 2.0]])
    assert 1.0 - found["low"] == pytest.approx(4.30265)
    assert rates.interval([[1.0, 2.0]]) == {"mean": 1.5, "low": 1.5, "high": 1.5}


def test_differences_are_paired_by_seed_and_window():
    """What both kinds share, a hard window or a seed, is no part of their interval."""
    shared = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    config = replace(TINY, kinds=("gru", "lstm"), seeds=(0, 1))
    jobs = module.final(config, {"gru": 0.01, "lstm": 0.01}, {})
    done = {
        job: {
            "bits": (shared[job.seed] + (job.kind == "gru")).tolist(),
            "far": shared[job.seed, :, 0].tolist(),
        }
        for job in jobs
    }
    answers = module.Answers(config, {}, {}, {}, {}, done)
    case = module.pairs(answers)["lstm_less_gru"]
    assert case["bits"]["mean"] == pytest.approx(-1)
    assert case["bits"]["high"] - case["bits"]["low"] < 1e-5
    assert case["shift"]["mean"] == pytest.approx(0, abs=1e-6)


def test_a_run_whose_hours_are_over_goes_on_where_it_stopped(tmp_path):
    """By the clock of the tests every look at it takes 1 / 1024 of a second."""
    config = replace(TINY, kinds=("gru", "lstm"), keep=str(tmp_path))
    stopped = replace(config, hours=4.5 / 1024 / 3600)
    with pytest.raises(
        BudgetSpentError, match="language_models: the budget of `hours`"
    ):
        module.experiment.result(stopped)
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(kept) == 4
    result = module.experiment.result(config)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert kept.items() <= after.items()
    assert result == module.experiment.result(replace(config, keep=None))


@pytest.fixture(scope="module")
def record():
    return json.loads(RECORD.read_text(encoding="utf-8"))


def holds_zero(interval):
    return interval["low"] <= 0 <= interval["high"]


def test_the_page_ranks_no_kind_since_no_interval_does(record):
    cases = record["cases"]
    pairs = [case for case in cases.values() if "shift" in case]
    assert len(pairs) == 6
    assert all(holds_zero(case["bits"]) for case in pairs)
    by_place = [case[key] for case in pairs for key in ("early", "late", "shift")]
    assert sum(not holds_zero(interval) for interval in by_place) == 2
    assert all(holds_zero(cases[f"compute_{kind}"]["less"]) for kind in runs.KINDS)


def test_what_lies_beyond_the_cut_is_worth_nothing_yet(record):
    cases = record["cases"]
    assert all(holds_zero(cases[kind]["far"]) for kind in runs.KINDS)
    # What is nearer is: after one character more bits are needed than after eight.
    after = {kind: cases[kind]["bands"] for kind in runs.KINDS}
    assert all(bands[0]["mean"] > bands[4]["mean"] + 0.3 for bands in after.values())


def test_a_carried_state_helps_each_recurrent_kind(record):
    for kind in runs.RECURRENT:
        assert record["cases"][kind]["carried_less"]["low"] > 0


def test_one_rate_for_all_decides_the_order(record):
    cases = record["cases"]
    assert not any(cases[kind]["at_an_end"] for kind in runs.KINDS)
    first, last = cases["rate_0"], cases["rate_3"]
    assert (first["first"], first["last"]) == ("rnn", "lstm")
    assert (last["first"], last["last"]) == ("gru", "rnn")
