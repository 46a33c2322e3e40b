"""Draft: the laws in closed form, every layer and direction, and what stays."""

import math

import pytest
import torch
from torch import nn

import seqref
from seqref.recurrent.initialisation import (
    Change,
    chrono_,
    forget_bias_,
    identity_,
    orthogonal_,
)

F64 = torch.float64
OPTIONS = {"num_layers": 2, "bidirectional": True, "dtype": F64}


def stacked(kind):
    both = seqref.Bidirectional(kind(3, 5, dtype=F64), kind(3, 5, dtype=F64))
    return seqref.Stacked([both, kind(10, 5, dtype=F64)])


def families(name, *more):
    torchs, ours = getattr(nn, name), [getattr(seqref, n) for n in (name, *more)]
    built = [torchs(3, 5, **OPTIONS), getattr(nn, name + "Cell")(3, 5, dtype=F64)]
    for kind in ours:
        built += [kind(3, 5, dtype=F64), stacked(kind)]
    return built


RNNS, LSTMS, GRUS = families("RNN"), families("LSTM"), families("GRU", "ChoGRU")
ids = lambda m: f"{type(m).__module__.split('.')[0]}-{type(m).__name__}"


def biases(module):
    named = dict(module.named_parameters())
    return [
        (p, named[n.replace("bias_ih", "bias_hh")])
        for n, p in named.items()
        if "bias_ih" in n
    ]


@pytest.mark.parametrize("module", RNNS + LSTMS + GRUS, ids=ids)
def test_orthogonal(module):
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    changes = orthogonal_(module, 0.5, torch.Generator().manual_seed(0))
    named = dict(module.named_parameters())
    for c in changes:
        w = named[c.parameter][slice(*c.rows)]
        torch.testing.assert_close(w @ w.T, 0.25 * torch.eye(5, dtype=F64))
    changed = {n for n in named if not torch.equal(named[n], before[n])}
    assert changed == {c.parameter for c in changes}
    assert changed == {n for n in named if "weight_hh" in n}
    expect = torch.Generator().manual_seed(0)
    for c in changes:
        judge = nn.init.orthogonal_(torch.empty(5, 5, dtype=F64), 0.5, generator=expect)
        assert torch.equal(named[c.parameter][slice(*c.rows)], judge)


@pytest.mark.parametrize("module", RNNS, ids=ids)
def test_identity(module):
    identity_(module, 0.9)
    for n, p in module.named_parameters():
        if "weight_hh" in n:
            assert torch.equal(p, 0.9 * torch.eye(5, dtype=F64))
        elif "bias" in n:
            assert torch.equal(p, torch.zeros_like(p))


@pytest.mark.parametrize("module", LSTMS, ids=ids)
def test_forget_bias(module):
    other = [(a + b).detach().clone() for a, b in biases(module)]
    changes = forget_bias_(module, 3)
    pairs = biases(module)
    assert len(changes) == 2 * len(pairs)
    for (a, b), old in zip(pairs, other, strict=True):
        assert torch.equal((a + b)[5:10], torch.full((5,), 3.0, dtype=F64))
        keep = [*range(5), *range(10, 20)]
        assert torch.equal((a + b)[keep], old[keep])


@pytest.mark.parametrize("module", LSTMS + GRUS, ids=ids)
def test_chrono(module):
    chrono_(module, 200, torch.Generator().manual_seed(1))
    draw = torch.Generator().manual_seed(1)
    for a, b in biases(module):
        total = a + b
        expected = torch.empty(5, dtype=F64).uniform_(1, 199, generator=draw).log()
        assert torch.equal(total[5:10], expected)
        assert expected.min() >= 0 and expected.max() <= math.log(199)
        if len(total) == 20:
            assert torch.equal(total[:5], -expected)


def test_refusals_change_nothing():
    mixed = seqref.Stacked([seqref.LSTM(3, 5), seqref.RNN(5, 5)])
    before = [p.detach().clone() for p in mixed.parameters()]
    for call in (forget_bias_, identity_, lambda m: chrono_(m, 9)):
        with pytest.raises(TypeError, match="nothing was changed"):
            call(mixed)
    assert all(map(torch.equal, before, mixed.parameters()))
    with pytest.raises(ValueError, match="must have biases"):
        chrono_(nn.LSTM(3, 5, bias=False), 9)
    with pytest.raises(ValueError, match="square"):
        orthogonal_(nn.LSTM(3, 5, proj_size=2))
    with pytest.raises(ValueError, match="above 2"):
        chrono_(nn.LSTM(3, 5), 2)
    with pytest.raises(TypeError, match="recurrent layer"):
        orthogonal_(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="finite"):
        forget_bias_(nn.LSTM(3, 5), math.nan)


def test_the_report():
    assert forget_bias_(nn.LSTM(3, 5), 1) == [
        Change("bias_ih_l0", (5, 10), "f", "1"),
        Change("bias_hh_l0", (5, 10), "f", "0"),
    ]
