import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

from seqref.tasks import ngrams
from seqref.tasks.ngrams import BUCKETS, NGram

GENERATOR = torch.Generator().manual_seed(7)
TRAIN = torch.randint(0, 4, (300,), generator=GENERATOR)
TUNE = torch.randint(0, 4, (100,), generator=GENERATOR)
TEST = torch.randint(0, 5, (60,), generator=GENERATOR)


def brute_force(model, train, context, symbol, order):
    """The recursion of the docstring, with counts taken by a loop over the text."""
    if order == 0:
        return 1 / model.vocab_size
    below = brute_force(model, train, context, symbol, order - 1)
    width = order - 1
    if width > len(context):
        return below
    u = tuple(context[len(context) - width :])
    text = train.tolist()
    followers = Counter(
        text[t] for t in range(width, len(text)) if tuple(text[t - width : t]) == u
    )
    total = sum(followers.values())
    if total == 0:
        return below
    weight = model.weights[order - 1][min(int(math.log2(total)), BUCKETS - 1)]
    return weight * followers[symbol] / total + (1 - weight) * below


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_equals_brute_force(order):
    model = NGram(TRAIN, TUNE, order, vocab_size=5)
    log_probs = model.log_probs(TEST)
    text = TEST.tolist()
    expected = [
        brute_force(model, TRAIN, text[:t], text[t], order) for t in range(len(text))
    ]
    np.testing.assert_allclose(np.exp(log_probs), expected, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_sum_to_one(order):
    model = NGram(TRAIN, TUNE, order, vocab_size=5)
    for context in ([], [0], [4], [1, 2, 3], [3, 1, 2, 0, 1, 2], [4, 4, 4, 4]):
        p = model.distribution(torch.tensor(context, dtype=torch.int64))
        assert p.shape == (5,)
        assert (p > 0).all()
        np.testing.assert_allclose(p.sum(), 1, rtol=1e-12)


def test_distribution_is_what_log_probs_uses():
    model = NGram(TRAIN, TUNE, 3, vocab_size=5)
    for context in product(range(5), repeat=2):
        p = model.distribution(torch.tensor(context))
        for symbol in range(5):
            text = torch.tensor([*context, symbol])
            np.testing.assert_allclose(np.log(p[symbol]), model.log_probs(text)[-1])


def test_closed_form_on_a_tiny_text():
    # Training text "aaab" with a = 0, b = 1: relative frequencies 3/4 and 1/4.
    tokens = torch.tensor([0, 0, 0, 1])
    model = NGram(tokens, tokens, order=1, vocab_size=2, iterations=1)
    # One step from 1/2. Posterior that the count and not the uniform 1/2 gave it:
    # a: (3/4) / (3/4 + 1/2) = 3/5; b: (1/4) / (1/4 + 1/2) = 1/3.
    weight = (3 * 3 / 5 + 1 / 3 + 1) / (4 + 2)
    bucket = 2  # the empty context was seen 4 = 2**2 times
    assert model.weights[0][bucket] == pytest.approx(weight, rel=1e-12)
    p_a = weight * 3 / 4 + (1 - weight) / 2
    p = model.distribution(torch.empty(0, dtype=torch.int64))
    np.testing.assert_allclose(p, [p_a, 1 - p_a], rtol=1e-12)


def test_a_constant_text_costs_next_to_nothing_and_a_fair_coin_one_bit():
    zeros = torch.zeros(4000, dtype=torch.int64)
    assert NGram(zeros, zeros, 2, vocab_size=2).bits_per_character(zeros) < 0.001
    coin = torch.randint(0, 2, (40_000,), generator=torch.Generator().manual_seed(1))
    parts = coin[:20_000], coin[20_000:30_000], coin[30_000:]
    bits = NGram(parts[0], parts[1], 3, vocab_size=2).bits_per_character(parts[2])
    assert bits == pytest.approx(1, abs=0.005)


def test_bits_reach_the_entropy_rate_of_a_markov_chain():
    # From 0 or 1 the next symbol repeats with probability 0.9: a rate of H(0.9).
    generator = torch.Generator().manual_seed(2)
    flips = (torch.rand(60_000, generator=generator) < 0.1).long()
    chain = flips.cumsum(0) % 2
    parts = chain[:40_000], chain[40_000:50_000], chain[50_000:]
    rate = -(0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))
    unigram, bigram, trigram = (
        NGram(parts[0], parts[1], n, vocab_size=2).bits_per_character(parts[2])
        for n in (1, 2, 3)
    )
    assert unigram == pytest.approx(1, abs=0.01)
    observed = flips[50_001:].double().mean().item()
    exact = -(observed * math.log2(0.1) + (1 - observed) * math.log2(0.9))
    assert exact == pytest.approx(rate, abs=0.02)
    assert bigram == pytest.approx(exact, abs=0.005)
    assert trigram == pytest.approx(exact, abs=0.005)


def test_the_first_character_is_context_only():
    model = NGram(TRAIN, TUNE, 2, vocab_size=5)
    expected = -model.log_probs(TEST)[1:].sum() / (len(TEST) - 1) / math.log(2)
    assert model.bits_per_character(TEST) == pytest.approx(expected, rel=1e-12)


def test_fitted_weights_suit_the_tuning_text():
    text = torch.tensor([i * i % 7 for i in range(700)])
    noisy = torch.where(torch.rand(700, generator=GENERATOR) < 0.2, 0, text)
    untuned = NGram(noisy, text, 4, vocab_size=8, iterations=0)
    tuned = NGram(noisy, text, 4, vocab_size=8)
    assert (untuned.weights == 0.5).all()
    assert tuned.bits_per_character(text) < untuned.bits_per_character(text) - 0.1
    assert ((tuned.weights > 0) & (tuned.weights < 1)).all()


def test_unseen_symbols_have_finite_cost():
    model = NGram(TRAIN, TUNE, 5, vocab_size=1000)
    assert np.isfinite(model.log_probs(torch.tensor([999, 998, 0, 999]))).all()


@pytest.mark.parametrize("length", [1, 2, 3])
def test_texts_shorter_than_the_order(length):
    tiny = torch.zeros(length, dtype=torch.int64)
    model = NGram(tiny, tiny, 5, vocab_size=3)
    assert np.isfinite(model.log_probs(tiny)).all()
    np.testing.assert_allclose(model.distribution(tiny).sum(), 1, rtol=1e-12)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NGram(TRAIN, TUNE, 0, 5), "`order` must be at least 1, got 0"),
        (lambda: NGram(TRAIN, TUNE, 2, 0), "`vocab_size` must be at least 1, got 0"),
        (lambda: NGram(TRAIN, TUNE, 2, 5, -1), "`iterations` must be at least 0, got"),
        (lambda: NGram(TRAIN, TUNE, 2, 5).distribution(TEST[:4, None]), "one row"),
        (
            lambda: NGram(TRAIN, TUNE, 2, 5).distribution(torch.tensor([9, 0, 0])),
            "`context` must lie in 0 to 4, got 0 to 9",
        ),
        (lambda: NGram(TRAIN, TUNE, 10, 100), r"below 2\*\*63"),
        (lambda: NGram(TRAIN, TUNE, 2, 3), "`tokens` must lie in 0 to 2, got 0 to 3"),
        (lambda: NGram(TRAIN, TUNE[:0], 2, 5), "`tune` must be one row"),
        (lambda: NGram(TRAIN, TUNE, 2, 5).bits_per_character(TEST[:1]), "at least 2"),
        (lambda: NGram(TRAIN, TUNE, 2, 5).log_probs(TEST - 1), "got -1 to"),
        (
            lambda: NGram(TRAIN, TUNE, 2, 5).distribution(torch.tensor([5])),
            "`context` must lie in 0 to 4",
        ),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NGram(TRAIN, TUNE, 2.0, 5), "`order` must be an int, got float"),
        (lambda: NGram(TRAIN, TUNE, 2, 5.0), "`vocab_size` must be an int, got float"),
        (lambda: NGram(TRAIN.tolist(), TUNE, 2, 5), "`tokens` must be a torch.Tensor"),
        (lambda: NGram(TRAIN > 1, TUNE, 2, 5), "whole numbers, got torch.bool"),
        (
            lambda: NGram(TRAIN, TUNE, 2, 5).distribution(torch.tensor([1.5])),
            r"^NGram\.distribution: `context` must hold whole numbers, got torch.float",
        ),
        (
            lambda: NGram(TRAIN, TUNE, 2, 5).bits_per_character([0, 1]),
            r"^NGram\.bits_per_character: `tokens` must be a torch.Tensor, got list",
        ),
    ],
)
def test_kinds_are_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.errors
def test_fractions_are_refused_not_cut_off():
    with pytest.raises(TypeError, match=r"^NGram: `tokens` must hold whole numbers"):
        NGram(TRAIN + 0.5, TUNE, 2, 5)
    model = NGram(TRAIN, TUNE, 2, 5)
    with pytest.raises(TypeError, match=r"^NGram\.log_probs: `tokens` must hold whole"):
        model.log_probs(TRAIN.double())
    with pytest.raises(ValueError, match=r"^NGram\.log_probs: `tokens` must lie in 0"):
        model.log_probs(TRAIN + 5)


def test_models_of_several_orders_are_those_made_alone(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 5, (700,), generator=generator)
    train, tune, rest = tokens[:500], tokens[500:600], tokens[600:]
    alone = {order: NGram(train, tune, order, 6) for order in (1, 2, 5)}
    counted, original = [], ngrams._count

    def count(text, order, vocab_size):
        counted.append(order)
        return original(text, order, vocab_size)

    monkeypatch.setattr(ngrams, "_count", count)
    made = list(NGram.of_orders(train, tune, [1, 2, 5], 6))
    # Each order once, and not again for each model.
    assert counted == [1, 2, 3, 4, 5]
    assert [model.order for model in made] == [1, 2, 5]
    for model in made:
        other = alone[model.order]
        assert (model.weights == other.weights).all()
        assert (model.log_probs(rest) == other.log_probs(rest)).all()
        assert len(model._counts) == model.order


@pytest.mark.errors
@pytest.mark.parametrize("orders", [[], [2, 2], [3, 1], [0, 1], [1, 40]])
def test_orders_that_do_not_rise_or_do_not_fit_are_refused_at_once(orders):
    text = torch.zeros(9, dtype=torch.int64)
    with pytest.raises(
        ValueError, match=r"NGram.of_orders: `(orders|order|vocab_size)`"
    ):
        NGram.of_orders(text, text, orders, 8)
