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
from experiments.models import _language_counts as counts
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


def test_points_of_student_are_those_of_the_tables():
    wanted = {1: 12.7062, 2: 4.30265, 4: 2.77645, 8: 2.30600, 30: 2.04227}
    for freedom, point in wanted.items():
        assert rates.student(freedom) == pytest.approx(point, rel=1e-5)
    assert rates.student(4) > rates.student(4.5) > rates.student(5)
    # Of one degree of freedom, Cauchy's law, half lies within 1.
    assert rates.share_within(1.0, 1) == pytest.approx(0.5)


def test_a_difference_takes_the_seeds_of_each_kind_alone():
    """Welch: variances 1/2 by 2 seeds and 8 by 2, so 1/4 + 4; freedom of both."""
    found = rates.difference([[1.0, 1.0], [2.0, 2.0]], [[5.0, 5.0], [9.0, 9.0]])
    freedom = 4.25**2 / (0.25**2 + 4**2)
    assert found["mean"] == -5.5
    half = rates.student(freedom) * math.sqrt(4.25)
    assert found["high"] + 5.5 == pytest.approx(half)
    within = rates.share_within(5.5 / math.sqrt(4.25), freedom)
    assert found["p"] == pytest.approx(1 - within)
    one = rates.difference([[1.0, 3.0]], [[1.0, 2.0], [2.0, 3.0]])
    assert one == {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_the_level_of_several_comparisons_is_that_of_holm():
    found = rates.holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.9})
    wanted = {"b": 0.04, "c": 0.09, "a": 0.09, "d": 0.9}
    assert found == {name: pytest.approx(level) for name, level in wanted.items()}
    assert rates.holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


def compared(bits):
    """The one pair of two kinds with these bits, (seeds, windows, bands)."""
    config = replace(TINY, kinds=tuple(bits), seeds=(0, 1))
    jobs = module.final(config, dict.fromkeys(bits, 0.01), {})
    done = {
        job: {
            "bits": bits[job.kind][job.seed].tolist(),
            "far": bits[job.kind][job.seed, :, 0].tolist(),
        }
        for job in jobs
    }
    return module.pairs(module.Answers(config, {}, {}, {}, {}, done, {}))


def test_differences_are_paired_by_window_and_not_by_seed():
    """A hard window that both kinds share is no part of their interval; a seed is."""
    random = torch.Generator().manual_seed(0)
    window = torch.randn(1, 3, 8, generator=random).expand(2, 3, 8)
    case = compared({"gru": window + 1, "lstm": window})["lstm_less_gru"]
    assert case["bits"]["mean"] == pytest.approx(-1)
    assert case["bits"]["high"] - case["bits"]["low"] < 1e-5
    assert case["shift"]["mean"] == pytest.approx(0, abs=1e-6)
    seed = torch.tensor([0.0, 1.0])[:, None, None].expand(2, 3, 8)
    case = compared({"gru": seed + 1, "lstm": seed})["lstm_less_gru"]
    assert case["bits"]["high"] - case["bits"]["low"] > 1
    assert case["holm"] == case["bits"]["p"]


def test_a_seed_gives_two_kinds_the_same_windows_and_not_the_same_weights():
    one, other = (runs.build(FULL, kind, 97, 0) for kind in ("gru", "lstm"))
    assert not torch.equal(one.embedding.weight, other.embedding.weight)


def test_counts_are_of_the_part_to_learn_from():
    """Each token of a part has one that follows; no count knows the other parts."""
    training = replace(SMALL, windows=3)
    known = counts.counted(training, TEXT._replace(heldout=TEXT.train))
    # Near 1 of 10 characters, of which one can follow, with one added to each count.
    assert known["frequencies"].shape == (3,)
    shares = {"frequencies": (201, LENGTH + 30), "bigram": (201, 230)}
    for name, (count, of) in shares.items():
        wanted = torch.full_like(known[name], math.log2(of / count))
        torch.testing.assert_close(known[name], wanted, atol=0.01, rtol=0)
    strange = counts.counted(training, TEXT)
    wanted = torch.full_like(strange["bigram"], math.log2(30))
    torch.testing.assert_close(strange["bigram"], wanted)


def stopped_after(parts, config):
    """By the clock of the tests every look at it takes 1 / 1024 of a second."""
    stopped = replace(config, hours=(parts + 0.5) / 1024 / 3600)
    with pytest.raises(BudgetSpentError) as caught:
        module.experiment.result(stopped)
    return str(caught.value)


def test_a_run_whose_hours_are_over_goes_on_where_it_stopped(tmp_path):
    config = replace(TINY, kinds=("gru", "lstm"), keep=str(tmp_path))
    # Two kinds at two rates; then each once, and one at equal compute.
    assert "and 6 parts are left" in stopped_after(1, config)
    message = stopped_after(4, config)
    assert message.startswith("language_models: the budget of `hours`")
    assert "and 3 parts are left" in message
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


def test_all_six_differences_stand_at_five_percent_and_one_barely(record):
    """What the page says of the order."""
    cases = record["cases"]
    pairs = {name: case for name, case in cases.items() if "shift" in case}
    assert len(pairs) == 6
    assert not any(holds_zero(case["bits"]) for case in pairs.values())
    levels = {name: case["holm"] for name, case in pairs.items()}
    assert max(levels, key=lambda name: levels[name]) == "transformer_less_lstm"
    assert 0.04 < max(levels.values()) < 0.05
    assert sorted(levels.values())[-2] < 0.02
    order = sorted(runs.KINDS, key=lambda kind: cases[kind]["bits"]["mean"])
    assert order == ["gru", "rnn", "transformer", "lstm"]


def test_against_the_lstm_the_transformer_gains_along_the_window(record):
    """And against the GRU it does not; the GRU gains on the LSTM no less."""
    cases = record["cases"]
    lstm, gru = cases["transformer_less_lstm"], cases["transformer_less_gru"]
    assert holds_zero(lstm["early"])
    assert lstm["late"]["high"] < 0
    assert lstm["shift"]["high"] < 0
    assert holds_zero(gru["shift"])
    assert gru["late"]["low"] > 0
    assert cases["lstm_less_gru"]["shift"]["mean"] > -lstm["shift"]["mean"]


def test_the_means_of_the_seeds_are_those_of_the_bits(record):
    for kind in runs.KINDS:
        case = record["cases"][kind]
        assert len(case["by_seed"]) == len(FULL.seeds)
        wanted = pytest.approx(case["bits"]["mean"], abs=1e-5)
        assert sum(case["by_seed"]) / len(FULL.seeds) == wanted


def test_at_equal_compute_transformer_and_lstm_are_not_told_apart(record):
    cases = {kind: record["cases"][f"compute_{kind}"] for kind in runs.KINDS}
    less = {kind: case["less"] for kind, case in cases.items() if "less" in case}
    assert set(less) == {"rnn", "gru", "transformer"}
    assert less["gru"]["mean"] < less["rnn"]["mean"]
    assert less["rnn"]["high"] < 0
    assert less["gru"]["high"] < 0
    assert holds_zero(less["transformer"])
    assert cases["transformer"]["own"]["low"] > 0
    assert all(bits > 0 for bits in cases["transformer"]["own_by_seed"])


def test_all_kinds_need_far_fewer_bits_than_counted_pairs(record):
    cases = record["cases"]
    assert cases["frequencies"]["bits"] > cases["bigram"]["bits"] + 1
    for kind in runs.KINDS:
        assert cases[kind]["less_bigram"]["high"] < -1


def test_the_rnn_has_the_most_parameters_in_all(record):
    cases = record["cases"]
    totals = {kind: cases[kind]["parameters"] for kind in runs.KINDS}
    assert max(totals, key=lambda kind: totals[kind]) == "rnn"
    assert max(runs.KINDS, key=lambda kind: cases[kind]["head"]) == "rnn"
    assert totals["rnn"] > 1.09 * totals["transformer"]


def test_bands_are_told_by_the_characters_that_were_read(record):
    series = record["series"]
    assert series["first"] == [1, 2, 3, 5, 9, 17, 33, 65, 129]
    assert series["last"] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    numbers = record["numbers"]
    assert (numbers["early"], numbers["late"]) == (16, 65)


def test_what_lies_beyond_the_cut_is_worth_little_and_to_two_kinds_something(record):
    cases = record["cases"]
    worth = {kind for kind in runs.KINDS if not holds_zero(cases[kind]["far"])}
    assert worth == {"gru", "transformer"}
    assert all(cases[kind]["far"]["low"] > 0 for kind in worth)
    assert all(cases[kind]["far"]["high"] < 0.01 for kind in runs.KINDS)
    # Such places have read 33 to 64 characters of a context that was cut.
    read = runs.far_places(FULL).nonzero()[:, 0] % FULL.cut + 1
    assert (read.min(), read.max()) == (33, 64)
    # What is nearer is: after one character more bits are needed than after eight.
    after = {kind: cases[kind]["bands"] for kind in runs.KINDS}
    assert all(bands[0]["mean"] > bands[4]["mean"] + 0.3 for bands in after.values())


def test_a_carried_state_helps_each_recurrent_kind(record):
    for kind in runs.RECURRENT:
        assert record["cases"][kind]["carried_less"]["low"] > 0


def test_the_rate_moves_an_lstm_further_than_kinds_lie_apart(record):
    """At the lowest rate; the order at other rates is one of a seed."""
    cases = record["cases"]
    assert not any(cases[kind]["at_an_end"] for kind in runs.KINDS)
    first, own = cases["rate_0"], cases["rates_lstm"]
    assert (first["first"], first["last"]) == ("rnn", "lstm")
    best = {kind: cases[kind]["rate"] for kind in runs.KINDS}
    assert best == {"rnn": 0.009, "gru": 0.009, "lstm": 0.027, "transformer": 0.009}
    assert first["apart"] > 2 * own["between"]
    # The worst of the rates that an LSTM was tried at is the lowest.
    assert max(own["bits"]) == own["bits"][0]
