"""Greedy decoding, sampling and beam search, held to slow forms and to transformers."""

import itertools
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from seqref import GRU, LSTM
from seqref.decoding import (
    beam_search,
    filter_logits,
    gnmt_coverage_penalty,
    gnmt_length_penalty,
    gnmt_score,
    greedy,
    sample,
)
from seqref.decoding.search import _top
from seqref.decoding.search._cover import Cover
from seqref.models import LanguageModel

F64 = torch.float64
END = 0
INF = math.inf


class TreeState(NamedTuple):
    """Number of the node of each row, its depth, and the attention of the last step."""

    node: Tensor
    depth: Tensor
    weights: Tensor


class Tree:
    """Scores of its own for each prefix: nothing but the prefix tells what comes next.

    Node 0 is before the first token; the children of a node follow from its number.
    """

    def __init__(self, vocab=3, depth=4, seed=0, scale=2.0, source=3):
        generator = torch.Generator().manual_seed(seed)
        self.vocab, n = vocab, (vocab ** (depth + 1) - 1) // (vocab - 1)
        draw = torch.randn(n, vocab, generator=generator, dtype=F64)
        self.logits = scale * draw
        draw = torch.randn(n, source, generator=generator, dtype=F64)
        self.weights = torch.softmax(3 * draw, dim=1)
        self.rows = []

    def initial_state(self, batch_size):
        zero = torch.zeros(batch_size, dtype=torch.int64)
        return TreeState(zero, zero, self.weights[zero])

    def step(self, token_t, state):
        self.rows.append(len(token_t))
        child = state.node * self.vocab + token_t + 1
        node = torch.where(state.depth == 0, state.node, child)
        # Beams that cannot win may walk on below the tree.
        node = node.clamp_max(len(self.logits) - 1)
        return self.logits[node], TreeState(node, state.depth + 1, self.weights[node])

    def log_p(self, row):
        """Log-probabilities of each token of a sequence, and the attention summed."""
        state = self.initial_state(1)
        token, total, covered = torch.tensor([1]), 0.0, 0.0
        for y in row:
            logits, state = self.step(token, state)
            total += torch.log_softmax(logits[0], dim=0)[y].item()
            covered = covered + state.weights[0]
            token = torch.tensor([y])
        return total, covered


def score(tree, row, alpha=0.0, beta=0.0):
    """GNMT's score of a sequence in plain numbers."""
    log_p, covered = tree.log_p(row)
    penalty = sum(math.log(min(c, 1.0)) for c in covered.tolist())
    return log_p / ((5 + len(row)) ** alpha / 6**alpha) + beta * penalty


def sentences(vocab, longest):
    """Every sequence that ends, and ends once."""
    words = [y for y in range(vocab) if y != END]
    for length in range(longest):
        for row in itertools.product(words, repeat=length):
            yield (*row, END)


def slow_beam(tree, width, longest, n, alpha=0.0, beta=0.0):
    """Beam search over lists of one row, without stopping early."""
    live, pool = [()], []
    for _ in range(longest):
        longer = [(*row, y) for row in live for y in range(tree.vocab)]
        longer.sort(key=lambda row: -tree.log_p(row)[0])
        pool += [row for row in longer[:width] if row[-1] == END]
        live = [row for row in longer if row[-1] != END][:width]
    by_score = [
        sorted(rows, key=lambda r: -score(tree, r, alpha, beta))
        for rows in (pool, live)
    ]
    return [*by_score[0], *by_score[1]][:n]


def rows_of(found, row=0):
    """Hypotheses of a row as tuples, without padding."""
    pairs = zip(found.tokens[row].tolist(), found.lengths[row].tolist(), strict=True)
    return [tuple(tokens[:length]) for tokens, length in pairs]


def language_model(layer=LSTM, vocab=6, seed=0, scale=4.0, unlikely_end=1.0):
    torch.manual_seed(seed)
    model = LanguageModel(vocab, layer(4, 8)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
        model.head.bias[END] -= unlikely_end
    return model.eval()


ONE = torch.tensor([1])


# Beam search against exhaustive search, a slow beam, and the model's own numbers.


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0, -1.0])
@pytest.mark.parametrize("beta", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_as_wide_as_the_tree_is_exhaustive_search(seed, alpha, beta):
    tree, longest = Tree(seed=seed), 4
    best = sorted(sentences(3, longest), key=lambda r: -score(tree, r, alpha, beta))
    options = {"coverage_penalty": beta, "attention": lambda state: state.weights}
    found = beam_search(
        *(tree, ONE),
        width=3**longest,
        max_length=longest,
        end=END,
        n_best=8,
        length_penalty=alpha,
        **options,
    )
    assert rows_of(found) == best[:8]
    expected = [score(tree, row, alpha, beta) for row in best[:8]]
    assert found.scores[0].tolist() == pytest.approx(expected, abs=1e-10)
    expected = [tree.log_p(row)[0] for row in best[:8]]
    assert found.log_probabilities[0].tolist() == pytest.approx(expected, abs=1e-10)
    assert found.finished.all()


@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("beta", [0.0, 0.4])
@pytest.mark.parametrize("seed", range(4))
def test_narrow_beams_equal_the_slow_form(seed, width, alpha, beta):
    tree = Tree(seed=seed, depth=5)
    expected = slow_beam(tree, width, 5, width, alpha, beta)
    found = beam_search(
        *(tree, ONE),
        width=width,
        max_length=5,
        end=END,
        n_best=width,
        length_penalty=alpha,
        coverage_penalty=beta,
        attention=lambda state: state.weights,
    )
    assert rows_of(found) == expected
    expected = [score(tree, row, alpha, beta) for row in expected]
    assert found.scores[0].tolist() == pytest.approx(expected, abs=1e-10)


# How unlikely the end is made: some hypotheses end, and some are cut.
@pytest.mark.parametrize(("layer", "unlikely"), [(LSTM, 1.0), (GRU, 4.0)])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_scores_are_the_models_own_read_with_the_answer_at_hand(layer, unlikely, alpha):
    model = language_model(layer, unlikely_end=unlikely)
    start = torch.tensor([1, 2, 3, 4])
    found = beam_search(
        *(model, start), width=4, max_length=9, end=END, n_best=3, length_penalty=alpha
    )
    assert found.finished.any()
    assert not found.finished.all()
    for b, n in itertools.product(range(4), range(3)):
        y = found.tokens[b, n, : found.lengths[b, n]]
        logits, _ = model(torch.cat((start[b : b + 1], y[:-1]))[None])
        log_p = torch.log_softmax(logits[0], dim=1).gather(1, y[:, None]).sum()
        torch.testing.assert_close(
            found.log_probabilities[b, n], log_p, atol=1e-10, rtol=0
        )
        divided = log_p / ((5 + len(y)) / 6) ** alpha
        torch.testing.assert_close(found.scores[b, n], divided, atol=1e-10, rtol=0)
        assert (y[-1] == END) == found.finished[b, n]
        assert (y[:-1] != END).all()


def test_rows_of_a_batch_are_searched_as_alone():
    model = language_model()
    start = torch.tensor([1, 2, 3, 4])
    state = model(torch.tensor([[2, 3], [1, 1], [5, 4], [2, 2]]))[1]
    options = {"width": 3, "max_length": 8, "end": END, "n_best": 3}
    together = beam_search(model, start, state=state, **options)
    for b in range(4):
        own = type(state)(*(part[b : b + 1] for part in state))
        alone = beam_search(model, start[b : b + 1], state=own, **options)
        assert rows_of(together, b) == rows_of(alone)
        torch.testing.assert_close(
            together.scores[b], alone.scores[0], atol=1e-10, rtol=0
        )


def test_a_state_given_is_where_the_search_begins_and_stays_as_it_was():
    model = language_model()
    prompt = torch.tensor([[1, 4, 2], [3, 3, 5]])
    _, state = model(prompt[:, :-1])
    before = [part.clone() for part in state]
    options = {"width": 3, "max_length": 5, "end": END}
    found = beam_search(model, prompt[:, -1], state=state, **options)
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))
    y = found.tokens[0, 0, : found.lengths[0, 0]]
    logits, _ = model(torch.cat((prompt[0], y[:-1]))[None])
    log_p = torch.log_softmax(logits[0, 2:], dim=1).gather(1, y[:, None]).sum()
    torch.testing.assert_close(found.scores[0, 0], log_p, atol=1e-10, rtol=0)
    fresh = beam_search(model, prompt[:, -1], **options)
    assert not torch.equal(fresh.scores, found.scores)


def test_every_step_gets_all_beams_of_all_rows():
    tree = Tree(seed=1)
    beam_search(tree, torch.ones(2, dtype=torch.int64), width=3, max_length=4, end=END)
    assert set(tree.rows) == {6}


@pytest.mark.parametrize("seed", range(5))
def test_width_one_is_greedy(seed):
    model = language_model(seed=seed)
    start = torch.arange(6)
    one = beam_search(model, start, width=1, max_length=7, end=END)
    plain = greedy(model, start, max_length=7, end=END)
    assert torch.equal(one.tokens[:, 0], plain.tokens)
    assert torch.equal(one.lengths[:, 0], plain.lengths)
    assert torch.equal(one.finished[:, 0], plain.finished)
    torch.testing.assert_close(
        one.log_probabilities[:, 0], plain.log_probabilities, atol=1e-10, rtol=0
    )


def by_value_then_place(values, k):
    """The k largest of each row in plain Python: values and places."""
    rows = [sorted(enumerate(row), key=lambda pair: -pair[1])[:k] for row in values]
    places, best = zip(*(zip(*row, strict=True) for row in rows), strict=True)
    return torch.tensor(best, dtype=F64), torch.tensor(places)


# Above and below what a plain sum of exponentials can hold, and in between.
@pytest.mark.parametrize("shift", [0.0, 800.0, -800.0])
@pytest.mark.parametrize("vocab", [576, 1000])
def test_the_best_of_long_rows_are_those_of_all(monkeypatch, vocab, shift):
    """In groups, rows in blocks, and by one `topk`: the same values and places."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(12, vocab, generator=generator, dtype=F64) + shift
    sums = torch.randn(3, 4, generator=generator, dtype=F64)
    # A forbidden token, a beam that is dead, and the best one in the last place.
    logits[:, 7], sums[2, 1] = -INF, -INF
    logits[5, -1] = shift + 30
    log_p = (logits - logits.logsumexp(dim=1, keepdim=True)).view(3, 4, vocab)
    expected = by_value_then_place((log_p + sums[:, :, None]).flatten(1).tolist(), 8)
    monkeypatch.setattr(_top, "BLOCK", 5 * vocab)
    for many in (0, 2**30):
        monkeypatch.setattr(_top, "MANY", many)
        values, places, certain = _top.extensions(logits, sums, 8)
        assert certain
        torch.testing.assert_close(values, expected[0], atol=1e-10, rtol=0)
        assert torch.equal(places, expected[1])


@pytest.mark.parametrize("many", [0, 2**30])
def test_equal_values_and_nan_are_noticed_in_long_rows(monkeypatch, many):
    monkeypatch.setattr(_top, "MANY", many)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 640, generator=generator, dtype=F64)
    sums = torch.zeros(2, 2, dtype=F64)
    assert _top.extensions(logits, sums, 4)[2]
    for other in (600, 1):
        # In another group and in the same; the k-th and the one after it count too.
        equal = logits.clone()
        equal[1, [0, other]] = 9.0
        assert not _top.extensions(equal, sums, 4)[2]
    for bad in (math.nan, INF):
        broken = logits.clone()
        broken[3, 500] = bad
        assert not _top.extensions(broken, sums, 4)[2]
    assert not _top.extensions(logits.fill_(-INF), sums, 4)[2]


def test_of_equal_values_the_first_are_taken():
    values = torch.tensor([[1.0, 3, 2, 3, 2, 2, 0], [5, 5, 5, 5, 5, 5, 5]], dtype=F64)
    for k in range(1, 8):
        best, places = _top.top(values, k)
        expected = by_value_then_place(values.tolist(), k)
        assert torch.equal(best, expected[0])
        assert torch.equal(places, expected[1])


def test_a_search_by_groups_is_the_search_by_one_topk(monkeypatch):
    model = language_model(vocab=700, scale=12.0)
    start = torch.arange(1, 5)
    results = []
    for many in (0, 2**30):
        monkeypatch.setattr(_top, "MANY", many)
        results.append(
            beam_search(model, start, width=4, max_length=9, end=END, n_best=4)
        )
    assert torch.equal(results[0].tokens, results[1].tokens)
    torch.testing.assert_close(results[0].scores, results[1].scores)


# Stopping, and what has ended.


class Chain:
    """The same scores at every step, whatever came before; counts its steps."""

    def __init__(self, probabilities):
        self.logits = torch.tensor(probabilities, dtype=F64).log()
        self.steps = 0

    def initial_state(self, batch_size):
        return (torch.zeros(batch_size, 1),)

    def step(self, token_t, state):
        self.steps += 1
        return self.logits.expand(len(token_t), -1), state


def test_a_search_stops_as_soon_as_nothing_can_overtake_and_not_before():
    # END has 0.6, and 0.6 is more than the 0.4 that any other way starts with.
    chain = Chain([0.6, 0.3, 0.1])
    found = beam_search(chain, ONE, width=2, max_length=50, end=END)
    assert chain.steps == 1
    assert rows_of(found) == [(END,)]
    # Two are wanted: the second is (1, END) with 0.18, and (1, 1) has 0.09.
    chain = Chain([0.6, 0.3, 0.1])
    beam_search(chain, ONE, width=2, max_length=50, end=END, n_best=2)
    assert chain.steps == 2
    # With alpha 1 a sequence of 50 may score log P / 9.17: the bound knows.
    chain = Chain([0.6, 0.3, 0.1])
    beam_search(chain, ONE, width=2, max_length=50, end=END, length_penalty=1.0)
    assert 2 < chain.steps < 50


def test_alpha_lets_a_longer_one_overtake_what_has_ended():
    """END at once has 0.5; 0.5 and nine times 0.93 has more for each token."""

    class Fork(Chain):
        def step(self, token_t, state):
            self.steps += 1
            at = min(self.steps, 11)
            p = {1: [0.5, 0.5, 0], 11: [1, 0, 0]}.get(at, [0.07, 0.93, 0])
            logits = torch.tensor(p, dtype=F64).log()
            return logits.expand(len(token_t), -1), state

    short = beam_search(Fork([1.0]), ONE, width=1, max_length=11, end=END)
    assert rows_of(short) == [(END,)]
    options = {"width": 2, "max_length": 11, "end": END, "length_penalty": 1.0}
    assert rows_of(beam_search(Fork([1.0]), ONE, **options)) == [(*[1] * 10, END)]


def test_the_end_is_counted_and_what_follows_is_filled_with_it():
    found = beam_search(
        Chain([0.5, 0.4, 0.1]), ONE, width=3, max_length=3, end=END, n_best=3
    )
    assert rows_of(found) == [(END,), (1, END), (1, 1, END)]
    assert found.tokens[0].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert found.lengths[0].tolist() == [1, 2, 3]
    expected = [math.log(p) for p in (0.5, 0.2, 0.08)]
    assert found.log_probabilities[0].tolist() == pytest.approx(expected, abs=1e-12)


def test_what_the_largest_length_cuts_stands_behind_what_ended():
    # END is likely enough to be among the best two, and less likely than three times 1.
    found = beam_search(
        Chain([0.04, 0.95, 0.01]), ONE, width=2, max_length=3, end=END, n_best=2
    )
    assert found.finished.tolist() == [[True, True]]
    assert found.scores.max() < 3 * math.log(0.95)
    found = beam_search(
        Chain([1e-9, 0.9, 0.1]), ONE, width=2, max_length=3, end=END, n_best=2
    )
    assert found.finished.tolist() == [[False, False]]
    assert rows_of(found) == [(1, 1, 1), (1, 1, 2)]
    assert found.lengths.tolist() == [[3, 3]]


def test_without_an_end_all_are_of_the_largest_length():
    found = beam_search(Chain([0.5, 0.3, 0.2]), ONE, width=3, max_length=2, n_best=3)
    assert rows_of(found) == [(0, 0), (0, 1), (1, 0)]
    assert not found.finished.any()


def test_a_forbidden_token_is_never_written_and_what_is_missing_says_so():
    # Only END and 1 are allowed, and 1 is never followed by 1 for ever: two sequences.
    found = beam_search(
        Chain([0.5, 0.5, 0.0]), ONE, width=4, max_length=2, end=END, n_best=4
    )
    assert rows_of(found) == [(END,), (1, END), (1, 1), ()]
    assert found.finished.tolist() == [[True, True, False, False]]
    assert found.scores[0, 3] == -INF
    assert found.log_probabilities[0, 3] == -INF


def test_a_vocabulary_smaller_than_the_width():
    only_end = beam_search(Chain([1.0]), ONE, width=5, max_length=3, end=0, n_best=2)
    assert rows_of(only_end) == [(0,), ()]
    tree = Tree(vocab=2, depth=3)
    found = beam_search(tree, ONE, width=7, max_length=3, end=END, n_best=3)
    assert rows_of(found) == sorted(sentences(2, 3), key=lambda r: -score(tree, r))


def test_equal_values_are_taken_in_order_of_beam_and_token():
    found = beam_search(Chain([0.25] * 4), ONE, width=3, max_length=2, n_best=3)
    assert rows_of(found) == [(0, 0), (0, 1), (0, 2)]
    wide = Chain([0.001] * 1000)
    found = beam_search(wide, ONE, width=4, max_length=3, end=999, n_best=4)
    assert rows_of(found) == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3)]
    assert greedy(wide, ONE, max_length=2).tokens.tolist() == [[0, 0]]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_tokens_have_the_dtype_of_the_start_and_an_empty_batch_is_one(dtype):
    model = language_model()
    found = beam_search(model, ONE.to(dtype), width=2, max_length=3, end=END)
    assert found.tokens.dtype == dtype
    nothing = beam_search(model, ONE.to(dtype)[:0], width=2, max_length=3, end=END)
    assert nothing.tokens.shape[:2] == (0, 1)
    assert greedy(model, ONE.to(dtype), max_length=3).tokens.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype):
    class Half(Chain):
        def step(self, token_t, state):
            logits, state = super().step(token_t, state)
            return logits.to(dtype), state

    half = Half([0.2, 0.5, 0.3])
    found = beam_search(half, ONE, width=3, max_length=6, end=END)
    assert found.scores.dtype == torch.float32
    log_p = torch.log_softmax(half.logits.to(dtype).float(), dim=0)
    expected = sum(log_p[y].item() for y in rows_of(found)[0])
    assert found.scores.item() == pytest.approx(expected, abs=1e-5)


# The penalties.


def test_coverage_in_half_precision_is_summed_in_float32():
    """A thousand times 0.001 is 1; in bfloat16 the sum stands still at 0.5."""
    weights = torch.full((1, 1), 0.001, dtype=torch.bfloat16)
    start = torch.zeros(1, dtype=torch.int64)
    cover = Cover("f", 1.0, lambda state: weights, None, start, 1)
    for _ in range(1000):
        cover.add(None)
    assert cover.total.item() == pytest.approx(1.0, rel=0.01)


def test_gnmt_scores_by_hand():
    log_p, length = torch.tensor([-6.0, -6.0], dtype=F64), torch.tensor([1, 7])
    assert gnmt_length_penalty(length, 1.0).tolist() == [1.0, 2.0]
    assert gnmt_score(log_p, length, alpha=1.0).tolist() == [-6.0, -3.0]
    assert gnmt_score(log_p, length, alpha=0.0).tolist() == [-6.0, -6.0]
    assert gnmt_score(log_p, length, alpha=-1.0).tolist() == [-6.0, -12.0]
    coverage = torch.tensor([[2.0, 0.5, 0.25], [1.0, 1.0, 0.25]], dtype=F64)
    real = torch.tensor([3, 2])
    penalty = gnmt_coverage_penalty(coverage, 0.2, real)
    expected = [0.2 * (math.log(0.5) + math.log(0.25)), 0.0]
    assert penalty.tolist() == pytest.approx(expected, abs=1e-12)
    both = gnmt_score(
        log_p, length, alpha=1.0, coverage=coverage, beta=0.2, source_lengths=real
    )
    assert both.tolist() == pytest.approx([-6.0 + expected[0], -3.0], abs=1e-12)


def test_a_larger_alpha_gives_longer_hypotheses():
    """In exhaustive search never shorter ones, and in some trees longer ones."""
    lengths = [
        [
            beam_search(
                *(Tree(seed=seed), ONE),
                width=81,
                max_length=4,
                end=END,
                length_penalty=alpha,
            ).lengths.item()
            for alpha in (-8.0, 0.0, 8.0)
        ]
        for seed in range(12)
    ]
    assert all(row == sorted(row) for row in lengths)
    assert sum(row[0] < row[1] for row in lengths) > 0
    assert sum(row[1] < row[2] for row in lengths) > 0


def test_a_function_may_give_the_divisors():
    tree = Tree(seed=2)
    best = max(sentences(3, 4), key=lambda row: tree.log_p(row)[0] / len(row))
    found = beam_search(
        *(tree, ONE), width=81, max_length=4, end=END, length_penalty=lambda n: n
    )
    assert rows_of(found) == [best]
    expected = tree.log_p(best)[0] / len(best)
    assert found.scores.item() == pytest.approx(expected, abs=1e-12)


def test_padding_of_the_source_needs_no_attention():
    tree = Tree(seed=4)
    tree.weights[:, 2] = 0.0
    options = {
        "width": 4,
        "max_length": 4,
        "end": END,
        "n_best": 4,
        "coverage_penalty": 0.5,
        "attention": lambda state: state.weights,
    }
    told = beam_search(tree, ONE, source_lengths=torch.tensor([2]), **options)
    tree.weights = tree.weights[:, :2]
    without = beam_search(tree, ONE, **options)
    assert rows_of(told) == rows_of(without)
    torch.testing.assert_close(told.scores, without.scores, atol=1e-10, rtol=0)


# Greedy decoding and sampling.


def test_greedy_takes_the_likeliest_and_can_lose():
    class Detour(Chain):
        """The best first token leads to two equal ones, the second to a sure one."""

        def step(self, token_t, state):
            table = {1: [0.0, 0.0, 0.6, 0.4], 2: [0.5, 0.5, 0, 0], 3: [1, 0, 0, 0]}
            p = [table[int(token)] for token in token_t]
            return torch.tensor(p, dtype=F64).log(), state

    likeliest = greedy(Detour([1.0]), ONE, max_length=2, end=END)
    assert likeliest.tokens.tolist() == [[2, 0]]
    assert likeliest.log_probabilities.item() == pytest.approx(math.log(0.3))
    wider = beam_search(Detour([1.0]), ONE, width=2, max_length=2, end=END)
    assert rows_of(wider) == [(3, END)]
    assert wider.scores.item() == pytest.approx(math.log(0.4))


def test_a_row_that_ended_changes_no_more_whatever_the_model_says():
    class Breaks(Chain):
        def step(self, token_t, state):
            logits, state = super().step(token_t, state)
            return torch.where((token_t == END)[:, None], torch.nan, logits), state

    start = torch.tensor([1, 2] * 4)
    found = sample(
        *(Breaks([0.5, 0.3, 0.2]), start),
        max_length=30,
        end=END,
        generator=torch.Generator().manual_seed(1),
    )
    assert found.finished.all()
    assert len(set(found.lengths.tolist())) > 1
    for row, length in zip(found.tokens.tolist(), found.lengths.tolist(), strict=True):
        assert row[length - 1] == END
        assert END not in row[: length - 1]
        assert set(row[length:]) <= {END}
    p = torch.tensor([0.5, 0.3, 0.2], dtype=F64).log()
    for b in range(8):
        expected = p[found.tokens[b, : found.lengths[b]]].sum()
        torch.testing.assert_close(found.log_probabilities[b], expected)
    beams = beam_search(
        Breaks([0.5, 0.3, 0.2]), ONE, width=2, max_length=30, end=END, n_best=2
    )
    assert rows_of(beams) == [(END,), (1, END)]


def frequencies(model, n=20000, **options):
    start = torch.ones(n, dtype=torch.int64)
    options = {"generator": torch.Generator().manual_seed(0), **options}
    drawn = sample(model, start, max_length=1, **options).tokens.flatten()
    return torch.bincount(drawn, minlength=len(model.logits)) / n


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0, "top_k": 3},
        {"top_p": 0.7},
        {"min_p": 0.3},
    ],
    ids=str,
)
def test_draws_have_the_filtered_distribution(options):
    chain = Chain([0.4, 0.3, 0.15, 0.1, 0.05])
    kept = torch.softmax(filter_logits(chain.logits, **options), dim=0)
    # Five standard deviations of a frequency of one half.
    assert (frequencies(chain, **options) - kept).abs().max() < 5 * 0.5 / 20000**0.5


def test_a_sample_repeats_with_its_generator_and_leaves_the_global_one():
    model = language_model()
    before = torch.get_rng_state()
    first, again = (
        sample(
            *(model, torch.arange(6)),
            max_length=20,
            generator=torch.Generator().manual_seed(2),
        )
        for _ in range(2)
    )
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(sample(model, torch.arange(6), max_length=20)[0], first[0])


def test_temperature_zero_is_greedy_and_log_probabilities_are_the_models_own():
    model = language_model()
    start = torch.arange(6)
    likeliest = greedy(model, start, max_length=8, end=END)
    frozen = sample(model, start, max_length=8, end=END, temperature=0.0)
    assert all(torch.equal(a, b) for a, b in zip(likeliest, frozen, strict=True))
    drawn = sample(model, start, max_length=8, temperature=3.0, top_k=4)
    y = torch.cat((start[:, None], drawn.tokens), dim=1)
    log_p = torch.log_softmax(model(y[:, :-1])[0], dim=2)
    expected = log_p.gather(2, y[:, 1:, None]).sum(dim=(1, 2))
    torch.testing.assert_close(drawn.log_probabilities, expected, atol=1e-10, rtol=0)


def kept(p, **options):
    """Indices that filters keep, and what they leave of the probabilities."""
    left = torch.softmax(filter_logits(torch.tensor(p, dtype=F64).log(), **options), 0)
    return [(i, round(q, 6)) for i, q in enumerate(left.tolist()) if q > 0]


def test_filters_by_hand():
    p = [0.1, 0.5, 0.15, 0.25]
    assert kept(p, top_k=2) == [(1, 0.666667), (3, 0.333333)]
    assert kept(p, top_k=9) == kept(p)
    assert kept(p, top_p=0.7) == [(1, 0.666667), (3, 0.333333)]
    assert kept(p, top_p=0.1) == [(1, 1.0)]
    assert kept(p, top_p=1.0) == kept(p)
    assert kept(p, min_p=0.4) == [(1, 0.666667), (3, 0.333333)]
    assert kept(p, min_p=1.0) == [(1, 1.0)]
    assert kept(p, min_p=0.0) == kept(p)
    squares = [round(q * q / sum(r * r for r in p), 6) for q in p]
    assert kept(p, temperature=0.5) == list(enumerate(squares))
    assert kept([0.25] * 4, top_k=2) == [(0, 0.5), (1, 0.5)]
    assert kept([0.5, 0.5, 0.0], top_k=3, temperature=INF) == [(0, 0.5), (1, 0.5)]


def test_the_order_of_the_filters():
    p = [0.4, 0.3, 0.2, 0.1]
    # Temperature first: at 2 the likeliest two have 0.325 and 0.281, so that top-p of
    # 0.65 takes three; the other way round it would take two, which have 0.7.
    assert [i for i, _ in kept(p, temperature=2.0, top_p=0.65)] == [0, 1, 2]
    # Top-k before top-p: of the first two 0.4 is 0.571 of the rest, enough for 0.55.
    assert [i for i, _ in kept(p, top_k=2, top_p=0.55)] == [0]
    assert [i for i, _ in kept(p, top_p=0.55)] == [0, 1]
    # Min-p last. Before top-p it would leave 0.4 and 0.3, of which 0.4 is 0.571.
    assert [i for i, _ in kept(p, top_p=0.55, min_p=0.7)] == [0, 1]


# Another library.


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.8},
        {"min_p": 0.1},
        {"temperature": 1.5, "top_k": 12, "top_p": 0.9, "min_p": 0.05},
    ],
    ids=str,
)
def test_filters_equal_those_of_transformers(options):
    process = pytest.importorskip("transformers.generation.logits_process")
    logits = 2 * torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    scores = logits
    for name, kind in (
        ("temperature", process.TemperatureLogitsWarper),
        ("top_k", process.TopKLogitsWarper),
        ("top_p", process.TopPLogitsWarper),
        ("min_p", process.MinPLogitsWarper),
    ):
        if name in options:
            scores = kind(options[name])(None, scores)
    found = filter_logits(logits, **options)
    assert torch.equal(found == -INF, scores == -INF)
    torch.testing.assert_close(torch.softmax(found, 1), torch.softmax(scores, 1))


class Prefix(NamedTuple):
    """All tokens so far of each row."""

    tokens: Tensor


class GPT2:
    """A GPT-2 that reads the whole prefix at each step, and must end at the last."""

    def __init__(self, model, longest):
        self.model, self.longest = model, longest

    def initial_state(self, batch_size):
        return Prefix(torch.zeros(batch_size, 0, dtype=torch.int64))

    def step(self, token_t, state):
        tokens = torch.cat((state.tokens, token_t[:, None]), dim=1)
        logits = self.model(tokens).logits[:, -1]
        if tokens.shape[1] == self.longest:
            logits = torch.full_like(logits, -INF)
            logits[:, END] = 0.0
        return logits, Prefix(tokens)


def gpt2(seed):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=20,
        n_positions=32,
        n_embd=16,
        n_layer=2,
        n_head=2,
        initializer_range=0.4,
        bos_token_id=1,
        eos_token_id=END,
        pad_token_id=END,
    )
    return transformers.GPT2LMHeadModel(config).eval()


def of_transformers(model, start, width, max_new_tokens=10, **options):
    """Tokens after the start, and scores, each with (batch, width) as first axes."""
    found = model.generate(
        start[:, None],
        attention_mask=torch.ones(len(start), 1, dtype=torch.int64),
        num_beams=width,
        num_return_sequences=width,
        max_new_tokens=max_new_tokens,
        forced_eos_token_id=END,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )
    shape = (len(start), width, -1)
    return found.sequences.view(shape)[:, :, 1:], found.sequences_scores.view(shape[:2])


@pytest.mark.parametrize("power", [-1.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("seed", range(2))
def test_beam_search_equals_that_of_transformers(seed, width, power):
    """Where all end, and with its exact bound on what can still overtake."""
    model, start = gpt2(seed), torch.arange(1, 9)
    tokens, scores = of_transformers(
        model, start, width, length_penalty=power, early_stopping="never"
    )
    found = beam_search(
        *(GPT2(model, 10), start),
        width=width,
        max_length=10,
        end=END,
        n_best=width,
        length_penalty=lambda n: n**power,
    )
    assert found.finished.all()
    assert torch.equal(found.tokens, tokens)
    torch.testing.assert_close(found.scores, scores, atol=1e-4, rtol=1e-5)


def test_transformers_stops_too_early_as_it_comes():
    """Its default bound takes the length so far; a longer one may still score more."""
    model, start = gpt2(6), torch.arange(1, 9)
    options = {"length_penalty": 2.0, "max_new_tokens": 12}
    _, scores = of_transformers(model, start, 4, **options)
    found = beam_search(
        *(GPT2(model, 12), start),
        width=4,
        max_length=12,
        end=END,
        length_penalty=lambda n: n**2,
    )
    lost = found.scores[:, 0] - scores[:, 0]
    assert (lost > -1e-4).all()
    assert (lost > 0.001).any()


# Bad input.


@pytest.mark.errors
@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"width": 0}, ValueError, "`width` must be at least 1"),
        ({"max_length": 0}, ValueError, "`max_length` must be at least 1"),
        ({"n_best": 3}, ValueError, "`n_best` must be at most width=2, got 3"),
        ({"end": -1}, ValueError, "`end` must be at least 0"),
        ({"end": 3}, ValueError, "`end` must be a token of the model's 3, got 3"),
        ({"length_penalty": INF}, ValueError, "`length_penalty` must be finite"),
        ({"length_penalty": lambda n: 2 - n}, ValueError, "positive finite divisors"),
        ({"coverage_penalty": 0.2}, ValueError, "needs `attention`"),
        ({"coverage_penalty": -0.2}, ValueError, "`coverage_penalty` must be at least"),
        ({"width": 2.0}, TypeError, "`width` must be an int"),
    ],
)
def test_bad_arguments_of_beam_search(options, kind, words):
    options = {"width": 2, "max_length": 3, "end": END, **options}
    with pytest.raises(kind, match=f"beam_search: .*{words}"):
        beam_search(Chain([0.5, 0.3, 0.2]), ONE, **options)


@pytest.mark.errors
def test_bad_models_and_starts():
    with pytest.raises(TypeError, match=r"greedy: `model` must have .* got LSTM"):
        greedy(object.__new__(type("LSTM", (), {})), ONE, max_length=2)
    with pytest.raises(TypeError, match="`start` must have dtype int64 or int32"):
        greedy(Chain([1.0]), torch.ones(2), max_length=2)
    with pytest.raises(ValueError, match=r"`start` must have shape \(batch,\)"):
        greedy(Chain([1.0]), torch.ones(2, 1, dtype=torch.int64), max_length=2)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -1.0}, "`temperature` must be"),
        ({"temperature": math.nan}, "`temperature` must be"),
        ({"top_k": 0}, "`top_k` must be at least 1"),
        ({"top_p": 0.0}, "`top_p` must be above 0 and at most 1"),
        ({"top_p": 1.5}, "`top_p` must be above 0 and at most 1"),
        ({"min_p": -0.1}, "`min_p` must be at least 0 and at most 1"),
    ],
    ids=str,
)
def test_bad_filters(options, words):
    with pytest.raises(ValueError, match=f"sample: {words}"):
        sample(Chain([0.5, 0.5]), ONE, max_length=2, **options)
    with pytest.raises(ValueError, match=f"filter_logits: {words}"):
        filter_logits(torch.zeros(3), **options)


@pytest.mark.errors
@pytest.mark.parametrize("bad", [math.nan, INF])
def test_scores_that_cannot_be_compared(bad):
    chain = Chain([0.5, 0.3, 0.2])
    chain.logits[1] = bad
    searches = {
        "greedy": lambda: greedy(chain, ONE, max_length=2),
        "sample": lambda: sample(chain, ONE, max_length=2),
        "beam_search": lambda: beam_search(chain, ONE, width=2, max_length=2),
    }
    for name, search in searches.items():
        with pytest.raises(ValueError, match=f"{name}: the scores of each row"):
            search()
    chain.logits = torch.full((3,), -INF)
    for search in searches.values():
        with pytest.raises(ValueError, match="the scores of each row"):
            search()
