import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from seqref.tasks import Copying


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_sequence_by_hand():
    task = Copying(lag=3, length=2, symbols=4)
    x, targets = task.draw(300, generator())
    assert x.shape == (300, 7, 6)
    assert targets.shape == (300, 7)
    assert (x.sum(-1) == 1).all()
    read = x.argmax(-1)
    blank, delimiter = 4, 5
    assert read[:, :2].unique().tolist() == [0, 1, 2, 3]
    assert (read[:, 2:4] == blank).all()
    assert (read[:, 4] == delimiter).all()
    assert (read[:, 5:] == blank).all()
    assert (targets[:, :5] == blank).all()
    assert torch.equal(targets[:, 5:], read[:, :2])


def test_the_sizes_of_the_literature_are_the_defaults():
    task = Copying(lag=100)
    x, targets = task.draw(2, generator())
    assert x.shape == (2, 120, 10)
    assert (targets[:, :110] == 8).all()
    assert x.argmax(-1)[0].tolist().index(9) == 109
    assert task.blind_loss == pytest.approx(10 * math.log(8) / 120, rel=1e-15)


def test_symbols_are_uniform_and_independent():
    _, targets = Copying(lag=1, length=2, symbols=3).draw(40_000, generator())
    pairs = (3 * targets[:, -2] + targets[:, -1]).bincount(minlength=9) / 40_000
    torch.testing.assert_close(pairs, torch.full((9,), 1 / 9), atol=0.008, rtol=0)


@pytest.mark.parametrize(
    ("lag", "length", "symbols"), [(1, 3, 2), (7, 2, 5), (30, 10, 8)]
)
def test_the_blind_loss_is_that_of_knowing_when_but_not_what(lag, length, symbols):
    task = Copying(lag, length, symbols)
    _, targets = task.draw(64, generator())
    logits = torch.full(
        (64, task.time, task.categories), -math.inf, dtype=torch.float64
    )
    logits[:, : lag + length, symbols] = 0
    logits[:, lag + length :, :symbols] = 0
    loss = cross_entropy(logits.transpose(1, 2), targets).item()
    assert loss == pytest.approx(task.blind_loss, abs=1e-12)


@pytest.mark.parametrize(
    ("lag", "length", "symbols"), [(1, 3, 2), (7, 2, 5), (30, 10, 8)]
)
def test_the_memoryless_loss_is_that_of_the_best_table_by_current_input(
    lag, length, symbols
):
    task = Copying(lag, length, symbols)
    x, targets = task.draw(4000, generator())
    read = x.argmax(-1).flatten()
    # Relative frequency of each target after each input: the likeliest table.
    table = torch.zeros(task.categories, task.categories, dtype=torch.float64)
    table.index_put_((read, targets.flatten()), torch.tensor(1.0).double(), True)
    table /= table.sum(1, keepdim=True)
    loss = -table[read, targets.flatten()].log().mean().item()
    assert loss == pytest.approx(task.memoryless_loss, abs=0.002)
    if lag > 1:
        assert task.memoryless_loss > task.blind_loss + 0.05
    else:
        assert task.memoryless_loss == pytest.approx(task.blind_loss, rel=1e-15)


def test_a_seed_gives_the_same_strings_in_every_dtype():
    task = Copying(lag=4, length=3)
    x, targets = task.draw(5, generator(2))
    again, same = task.draw(5, generator(2), dtype=torch.float64, device="cpu")
    assert again.dtype == torch.float64
    assert torch.equal(again.float(), x)
    assert torch.equal(same, targets)
    assert not torch.equal(task.draw(5, generator(3)).targets, targets)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Copying(0), ValueError, "^Copying: `lag` must be at least 1, got 0"),
        (lambda: Copying(5, length=0), ValueError, "`length` must be at least 1"),
        (lambda: Copying(5, symbols=1), ValueError, "`symbols` must be at least 2"),
        (lambda: Copying(5.0), TypeError, "`lag` must be an int, got float"),
        (lambda: Copying(5).draw(0), ValueError, r"^Copying\.draw: `batch_size` must"),
        (lambda: Copying(5).draw(1, 3), TypeError, r"Generator or None, got int"),
        (lambda: Copying(5).draw(1, dtype=torch.long), TypeError, "floating dtype"),
    ],
)
def test_refuses(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
