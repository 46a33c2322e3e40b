"""Replacing weights replaces the weights alone."""

import pytest
import torch

from experiments.seq2seq import permuted_attention as experiment
from seqref import AdditiveAttention

SMALL = experiment.experiment.small


def test_weights_that_are_not_changed_change_nothing():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = experiment.build("reversal", 8, 6).double()
    source, inputs, _ = experiment.batch(
        "reversal", SMALL, 5, torch.Generator().manual_seed(0)
    )
    expected = model(source, inputs)
    own = model.decoder.attention
    model.decoder.attention = experiment.Replaced(own, lambda weights, real: weights)
    torch.testing.assert_close(model(source, inputs), expected, atol=1e-10, rtol=0)
    model.decoder.attention = experiment.Replaced(own, experiment.levelled)
    assert (model(source, inputs) - expected).abs().max() > 1e-4


def test_permuted_weights_are_the_same_weights_elsewhere():
    weights = torch.rand(50, 7, generator=torch.Generator().manual_seed(0))
    real = torch.ones(50, 7, dtype=torch.bool)
    other = experiment.permuted(torch.Generator().manual_seed(1), weights, real)
    assert torch.equal(other.sort(dim=1).values, weights.sort(dim=1).values)
    assert not torch.equal(other, weights)
    # Rows are not permuted in one way.
    places = other.argsort(dim=1) != weights.argsort(dim=1)
    assert places.any(dim=1).double().mean() > 0.9


def test_contexts_are_sums_by_the_changed_weights():
    attention = AdditiveAttention(3, 4, 5)
    source = attention.prepare(torch.randn(2, 6, 4))
    level = experiment.Level(attention)
    context, weights = level.attend(torch.randn(2, 3), source)
    torch.testing.assert_close(context, source.values.mean(dim=1))
    torch.testing.assert_close(weights, torch.full((2, 6), 1 / 6))


def test_the_most_frequent_symbol_is_asked_for():
    source, inputs, targets = experiment.batch(
        "majority", SMALL, 40, torch.Generator().manual_seed(0)
    )
    assert inputs.shape == targets.shape == (40, 1)
    for row, target in zip(source.tolist(), targets.flatten().tolist(), strict=True):
        assert row.count(target) == max(row.count(symbol) for symbol in row)


def test_the_padding_keeps_no_weight():
    real = torch.arange(7) < torch.tensor([[3], [7], [1]])
    weights = torch.rand(3, 7, generator=torch.Generator().manual_seed(0)) * real
    other = experiment.permuted(torch.Generator().manual_seed(1), weights, real)
    assert torch.equal(other.sort(dim=1).values, weights.sort(dim=1).values)
    assert (other[~real] == 0).all()
    level = experiment.levelled(weights, real)
    assert level[0].tolist() == [pytest.approx(1 / 3)] * 3 + [0.0] * 4
