import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from seqref.tasks import DelayedRecall


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_batch_by_hand():
    x, symbol = DelayedRecall(lag=3, symbols=3).draw(500, generator())
    assert x.shape == (500, 4, 3)
    assert x.dtype == torch.float32
    assert symbol.dtype == torch.int64
    assert torch.equal(x[:, 0], torch.eye(3)[symbol])
    assert (x[:, 1:] == 0).all()
    assert symbol.unique().tolist() == [0, 1, 2]


def test_the_law_of_symbols_and_noise():
    task = DelayedRecall(lag=4, symbols=5, noise=0.5)
    x, symbol = task.draw(20_000, generator())
    shares = symbol.bincount(minlength=5) / len(symbol)
    # Five standard errors of a share of 1/5.
    torch.testing.assert_close(shares, torch.full((5,), 0.2), atol=0.015, rtol=0)
    assert torch.equal(x[:, 0], torch.eye(5)[symbol])
    assert x[:, 1:].std().item() == pytest.approx(0.5, rel=0.01)
    assert x[:, 1:].mean().item() == pytest.approx(0, abs=0.005)
    # What follows the symbol tells nothing of it.
    by_symbol = torch.stack([x[symbol == s, 1:].mean((0, 1)) for s in range(5)])
    assert by_symbol.abs().max() < 0.025


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("symbols", [2, 4])
def test_chance_is_what_the_best_network_without_memory_gets(symbols, noise):
    task = DelayedRecall(lag=1, symbols=symbols, noise=noise)
    x, symbol = task.draw(40_000, generator())
    # Without memory the answer is a function of the last step; here a linear one, by
    # least squares on half of the batch, tried on the other half.
    last = torch.cat([x[:, -1], torch.ones(len(x), 1)], dim=1)
    wanted = torch.eye(symbols)[symbol]
    fit = torch.linalg.lstsq(last[:20_000], wanted[:20_000], driver="gelsd").solution
    scores = last[20_000:] @ fit
    accuracy = (scores.argmax(-1) == symbol[20_000:]).double().mean().item()
    assert accuracy == pytest.approx(task.chance, abs=0.02)
    # One step earlier the symbol is plain to see.
    seen = torch.linalg.lstsq(x[:20_000, 0], wanted[:20_000]).solution
    assert (x[20_000:, 0] @ seen).argmax(-1).equal(symbol[20_000:])


def test_the_least_loss_without_memory_is_that_of_the_uniform_answer():
    task = DelayedRecall(lag=2, symbols=3)
    _, symbol = task.draw(30_000, generator())
    uniform = cross_entropy(torch.zeros(30_000, 3), symbol).item()
    assert uniform == pytest.approx(task.chance_loss, abs=1e-5)
    assert task.chance_loss == pytest.approx(math.log(3))
    tilted = cross_entropy(torch.tensor([0.2, 0.0, -0.2]).expand(30_000, 3), symbol)
    assert tilted.item() > task.chance_loss


def test_a_seed_gives_the_same_sequences_in_every_dtype():
    task = DelayedRecall(lag=5, noise=1.0)
    x, symbol = task.draw(7, generator(3))
    again, same = task.draw(7, generator(3), dtype=torch.float64, device="cpu")
    assert again.dtype == torch.float64
    assert torch.equal(again.float(), x)
    assert torch.equal(same, symbol)
    assert not torch.equal(task.draw(7, generator(4)).x, x)


def test_a_seed_gives_the_same_sequences_under_every_default_dtype():
    task = DelayedRecall(lag=5, noise=1.0)
    expected = task.draw(7, generator(3))
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        got = task.draw(7, generator(3))
    finally:
        torch.set_default_dtype(usual)
    assert got.x.dtype == torch.float32
    assert torch.equal(got.x, expected.x)


def test_without_a_generator_torchs_own_is_used():
    task = DelayedRecall(lag=2, noise=1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = task.draw(3)
        torch.manual_seed(5)
        assert torch.equal(task.draw(3).x, first.x)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: DelayedRecall(0), ValueError, "`lag` must be at least 1, got 0"),
        (lambda: DelayedRecall(2.0), TypeError, "`lag` must be an int, got float"),
        (lambda: DelayedRecall(3, 1), ValueError, "`symbols` must be at least 2"),
        (lambda: DelayedRecall(3, noise=-1), ValueError, "at least 0 and finite"),
        (lambda: DelayedRecall(3, noise=math.inf), ValueError, "and finite, got inf"),
        (lambda: DelayedRecall(3, noise="1"), TypeError, "a number, got str"),
        (lambda: DelayedRecall(3).draw(0), ValueError, r"^DelayedRecall\.draw: `batch"),
        (lambda: DelayedRecall(3).draw(2, 7), TypeError, "Generator or None, got int"),
        (
            lambda: DelayedRecall(3).draw(2, dtype=torch.int64),
            TypeError,
            "`dtype` must be a floating dtype, got torch.int64",
        ),
    ],
)
def test_refuses(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
