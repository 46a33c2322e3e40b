"""What is counted of words, and how rates and their intervals are made of it."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from experiments import lab
from experiments.seq2seq import _words_rates as rates
from experiments.seq2seq import _words_runs as runs
from experiments.seq2seq import words_seq2seq as experiment
from seqref.tasks import EOS, Alphabet
from seqref.tasks.pronunciation import as_pairs

WORDS = {
    "ab": (("AE", "B"),),
    "abba": (("AE", "B", "AH"), ("AA", "B", "AA")),
    "bob": (("B", "AA", "B"),),
}


class Spells(nn.Module):
    """Writes one fixed pronunciation for each length of a source, whatever it reads."""

    def __init__(self, by_length):
        super().__init__()
        self.by_length = by_length
        self.size = Alphabet().target_size

    def attend(self, source, lengths):
        answers = [self.by_length[int(length)] for length in lengths]
        rows = Alphabet().encode_phonemes(answers)
        # One more step than needed says EOS too.
        table = torch.full((len(rows), runs.LIMIT + 1), EOS)
        for place, row in enumerate(rows):
            table[place, : len(row)] = torch.tensor(row)
        return Bound(table, self.size)


class Bound:
    def __init__(self, table, size):
        self.scores = 20.0 * nn.functional.one_hot(table, size).float()

    def initial_state(self, rows):
        return State(torch.zeros(rows, dtype=torch.int64), torch.arange(rows))

    def step(self, token, state):
        logits = self.scores[state.row, state.time]
        return logits, State(state.time + 1, state.row)

    def __call__(self, tokens, state, lengths):
        return self.scores[:, : tokens.shape[1]], None


class State(tuple):
    def __new__(cls, time, row):
        return super().__new__(cls, (time, row))

    time = property(lambda self: self[0])
    row = property(lambda self: self[1])
    _fields = ("time", "row")

    @classmethod
    def _make(cls, parts):
        return cls(*parts)


def model():
    return Spells({2: ("AE", "B"), 4: ("AA", "B"), 3: ("B", "AA", "B", "B")})


def test_edits_are_to_the_nearest_in_the_order_of_the_words():
    said = runs.said(model(), WORDS)
    assert said["edits"] == [0, 1, 1]
    assert said["phonemes"] == [2, 3, 3]
    assert said["length"] == [2, 2, 4]
    # Every token has nearly all of the probability.
    assert all(abs(value) < 1e-4 for value in said["log_p"])


def test_predictions_after_true_tokens_are_counted_with_the_end():
    forced = runs.forced(model(), WORDS)
    # "abba", AE B AH: AA for AE, the end for AH. "bob": B for the end.
    assert forced["wrong"] == [0, 2, 1]
    assert forced["tokens"] == [3, 4, 4]
    assert forced["nats"][0] < 1e-4 < forced["nats"][2]


def test_a_source_from_its_end_is_turned_within_its_length():
    seen = []

    class Looks(nn.Module):
        def attend(self, source, lengths):
            seen.append(source)

    pairs = as_pairs([("abc", ("B",)), ("ab", ("B",))], Alphabet())
    runs.FromEnd(Looks()).attend(pairs.source, pairs.source_lengths)
    assert seen[0].tolist() == [[2, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("updates", [40, 428, 5000])
def test_the_schedules_fall_from_true_tokens_to_own(updates):
    by_kind = {
        kind: runs.probability_of(kind, updates, 0.01) for kind in runs.SCHEDULES
    }
    for kind, probability in by_kind.items():
        values = [probability(i) for i in range(updates)]
        assert values[0] > 0.9, kind
        assert values == sorted(values, reverse=True), kind
    assert by_kind["linear"](updates) == pytest.approx(0, abs=1e-9)
    assert by_kind["exponential"](updates) == pytest.approx(0.01)
    assert by_kind["inverse_sigmoid"](updates // 2) == pytest.approx(0.5, abs=1e-6)
    assert runs.probability_of("bahdanau", updates, 0.01)(updates) == 1


def test_true_tokens_alone_are_read_where_there_is_no_schedule():
    model = runs.build("bahdanau", 4, 0)
    pairs = as_pairs([("ab", ("AE", "B")), ("bob", ("B", "AA", "B"))], Alphabet())
    expected = nn.functional.cross_entropy(
        model(*pairs[:1], pairs.target_in, pairs.source_lengths).flatten(0, 1),
        pairs.target_out.flatten(),
    )
    loss, _ = runs.Loss(lambda update: 1.0, 0)(model, pairs, None)
    torch.testing.assert_close(loss, expected)
    other = runs.Loss(lambda update: 0.0, 0)
    assert other(model, pairs, None)[0] != loss
    assert other.update == 1


def test_replaced_weights_are_put_back():
    model = runs.build("attention", 4, 0)
    own = model.decoder.attention
    before = runs.forced(model, WORDS)
    with runs.replaced(model, runs.levelled):
        assert model.decoder.attention is not own
        level = runs.forced(model, WORDS)
    assert model.decoder.attention is own
    assert runs.forced(model, WORDS) == before
    assert level["nats"] != before["nats"]
    moved = runs.moved(model, WORDS, lambda weights, real: weights)
    assert moved["changed"] == [0, 0, 0]
    assert moved["distance"] == pytest.approx([0, 0, 0], abs=1e-5)


def test_equal_weights_in_training_cannot_be_permuted():
    model = runs.build("equal", 4, 0)
    change = runs.partial(runs.permuted, lab.generator(0))
    moved = runs.moved(model, WORDS, change)
    assert moved["distance"] == pytest.approx([0, 0, 0], abs=1e-5)
    assert runs.largest(model, {"ab": WORDS["ab"]}) == pytest.approx(0.5)


def test_a_rate_is_of_sums_and_its_interval_holds_it():
    random = lab.generator(0)
    above = torch.randint(3, (5, 400), generator=random).double()
    below = torch.randint(3, 9, (5, 400), generator=random).double()
    resampled = rates.Resampled(5, 400)
    rate = resampled.rate(rates.Ratio(above, below))
    assert rate["mean"] == pytest.approx((above.sum() / below.sum()).item())
    assert rate["low"] < rate["mean"] < rate["high"]
    # The standard error of a ratio of sums over the words alone, by the usual formula.
    words = (above - rate["mean"] * below).sum(dim=0)
    alone = words.std() * 400**0.5 / below.sum()
    width = (rate["high"] - rate["low"]) / 3.92
    assert alone < width < 2.5 * alone


def test_a_difference_is_paired_by_word_and_seed():
    random = lab.generator(0)
    above = torch.randint(9, (5, 300), generator=random).double()
    below = torch.full((5, 300), 9.0, dtype=torch.float64)
    resampled = rates.Resampled(5, 300)
    one = rates.Ratio(above, below)
    same = resampled.difference(one, one)
    assert set(same.values()) == {0.0}
    more = resampled.difference(rates.Ratio(above + 0.9, below), one)
    assert list(more.values()) == pytest.approx([0.1] * 3)


def test_one_seed_has_an_interval_over_words():
    resampled = rates.Resampled(1, 100)
    assert set(resampled.seeds.flatten().tolist()) == {1.0}
    assert resampled.words.sum(dim=1).unique().tolist() == [100.0]


def test_every_length_is_in_one_column():
    ends = list(experiment.LETTERS.values())
    assert ends[0][0] == 1
    assert all(one[1] + 1 == other[0] for one, other in pairwise(ends))
