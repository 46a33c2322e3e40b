import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from seqref.tasks import BOS, EOS, IGNORED, Reversal


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_row_is_its_source_read_backwards():
    task = Reversal(longest=6, shortest=1, symbols=3)
    pairs = task.draw(400, generator())
    assert pairs.source.shape == (400, 6)
    assert pairs.target_in.shape == pairs.target_out.shape == (400, 7)
    lengths = pairs.source_lengths.tolist()
    assert set(lengths) == set(range(1, 7))
    for row, length in enumerate(lengths):
        source = pairs.source[row].tolist()
        symbols, padding = source[:length], 6 - length
        assert set(symbols) <= {2, 3, 4}
        assert source[length:] == [0] * padding
        backwards = symbols[::-1]
        assert pairs.target_in[row].tolist() == [BOS, *backwards, *[EOS] * padding]
        assert pairs.target_out[row].tolist() == [
            *[*backwards, EOS],
            *[IGNORED] * padding,
        ]
        assert int(pairs.target_lengths[row]) == length + 1


def test_without_shortest_all_rows_have_the_longest_length():
    pairs = Reversal(longest=4).draw(50, generator())
    assert pairs.source_lengths.tolist() == [4] * 50
    assert (pairs.target_out != IGNORED).all()
    assert Reversal(longest=4).vocab_size == 10
    assert set(pairs.source.flatten().tolist()) == set(range(2, 10))


def test_symbols_are_independent_and_lengths_uniform():
    pairs = Reversal(longest=3, shortest=2, symbols=3).draw(40_000, generator())
    two = 3 * (pairs.source[:, 0] - 2) + pairs.source[:, 1] - 2
    share = two.bincount(minlength=9) / 40_000
    torch.testing.assert_close(share, torch.full((9,), 1 / 9), atol=0.008, rtol=0)
    assert (pairs.source_lengths == 3).double().mean() == pytest.approx(0.5, abs=0.012)


@pytest.mark.parametrize(("longest", "shortest"), [(5, None), (7, 2)])
def test_the_blind_loss_is_that_of_lengths_without_symbols(longest, shortest):
    task = Reversal(longest, shortest, symbols=4)
    pairs = task.draw(20_000, generator())
    logits = torch.full((*pairs.target_out.shape, task.vocab_size), -math.inf)
    logits[..., 2:] = 0
    at_end = torch.nn.functional.one_hot(pairs.target_lengths - 1, longest + 1).bool()
    logits[at_end] = -math.inf
    logits[..., EOS] = torch.where(at_end, 0.0, -math.inf)
    loss = cross_entropy(logits.double().transpose(1, 2), pairs.target_out).item()
    assert loss == pytest.approx(task.blind_loss, rel=1e-12 if not shortest else 0.01)


def test_a_seed_gives_the_same_rows_on_every_device():
    task = Reversal(longest=5, shortest=2)
    first, again = task.draw(9, generator(2)), task.draw(9, generator(2), device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(task.draw(9, generator(3)).source, first.source)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Reversal(0), ValueError, "^Reversal: `longest` must be at least 1"),
        (lambda: Reversal(3, 0), ValueError, "`shortest` must be at least 1, got 0"),
        (lambda: Reversal(3, 4), ValueError, "`shortest` must be at most longest=3"),
        (lambda: Reversal(3, symbols=1), ValueError, "`symbols` must be at least 2"),
        (lambda: Reversal(3.0), TypeError, "`longest` must be an int, got float"),
        (lambda: Reversal(3).draw(0), ValueError, r"^Reversal\.draw: `batch_size`"),
        (lambda: Reversal(3).draw(1, 5), TypeError, "Generator or None, got int"),
    ],
)
def test_refuses(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
