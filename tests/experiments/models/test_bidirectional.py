"""What two directions give away and cost, and what padding does to them."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.lab.seeding import generator
from experiments.models import _bidirectional_leak as leak
from experiments.models import _bidirectional_padding as padding
from experiments.models import bidirectional

SMALL = bidirectional.experiment.small


@pytest.fixture(scope="module")
def records():
    """Of short trainings from two seeds."""
    configs = [replace(SMALL, updates=20, every=10, seeds=(seed,)) for seed in (0, 1)]
    return [measure(replace(find("bidirectional"), small=config)) for config in configs]


def test_another_seed_gives_another_network(records):
    one, other = (record["cases"]["mixed"] for record in records)
    assert one != other


def test_tables_have_a_row_for_each_case(records):
    tables = find("bidirectional").rendered(records[0])
    assert tables["losses"].count("\n") == 2 + len(bidirectional.TRAINED)
    assert tables["padding"].count("\n") == 2 + 4
    assert tables["parameters"].count("\n") == 2 + len(SMALL.depths)


def test_bounds_of_the_chain_by_counting():
    """Entropies over all pairs of steps, by brute force."""
    pairs = list(itertools.product(leak.OFFSETS, repeat=2))
    sums = Counter(sum(pair) for pair in pairs)
    both = sum(count / len(pairs) * math.log(count) for count in sums.values())
    bounds = leak.chain_bounds()
    assert bounds["both"] == pytest.approx(both, abs=1e-15)
    assert bounds["past"] == pytest.approx(math.log(len(leak.OFFSETS)), abs=1e-15)
    # The sums must differ modulo the vocabulary too.
    assert len({total % SMALL.vocab for total in sums}) == len(sums)


def test_chain_and_random_tokens_are_what_they_say():
    tokens = leak.chain_tokens(SMALL, 2000, generator(0))
    steps = (tokens[:, 1:] - tokens[:, :-1]) % SMALL.vocab
    assert set(steps.flatten().tolist()) == set(leak.OFFSETS)
    assert abs((steps == leak.OFFSETS[0]).double().mean() - 0.5) < 0.02
    assert tokens[:, 0].bincount(minlength=8).min() > 150
    tokens = leak.random_tokens(SMALL, 2000, generator(0))
    assert (tokens.flatten().bincount() / tokens.numel() - 1 / 8).abs().max() < 0.01


def reach(name, position):
    """The inputs that the loss at one position depends on, by its gradient."""
    make, _, (loss, _) = bidirectional.TRAINED[name]
    torch.manual_seed(0)
    model = leak.Model(make(4), SMALL.vocab, 4)
    tokens = leak.random_tokens(SMALL, 1, generator(1))
    seen = []
    model.embedding.register_forward_hook(
        lambda module, inputs, output: seen.append(output) or None
    )
    value = loss(model, tokens, generator(2))[0, position]
    (gradient,) = torch.autograd.grad(value, seen[0])
    return set(gradient[0].abs().sum(-1).nonzero().flatten().tolist())


def test_which_inputs_each_model_reads():
    """Position 3 predicts token 4, in these two losses alike."""
    every = set(range(10))
    assert reach("one_way", 3) == {0, 1, 2, 3}
    assert reach("two_ways", 3) == every - {9}
    assert reach("around", 3) == every - {4}
    assert reach("separate", 3) == every - {4}
    assert reach("mixed", 3) == every


def test_masked_tokens_are_hidden():
    """What stands at a masked place changes nothing that the model computes."""
    torch.manual_seed(0)
    model = leak.Model(leak.mixed(4), SMALL.vocab, 4)
    tokens = leak.random_tokens(SMALL, 6, generator(1))
    shapes = []
    model.embedding.register_forward_hook(
        lambda module, inputs, output: shapes.append(inputs[0])
    )
    for loss in (leak.masked, leak.one_masked):
        value = loss(model, tokens, generator(2))
        given = shapes.pop()
        hidden = given == SMALL.vocab
        assert torch.equal(given[~hidden], tokens[~hidden])
        logits = model.head(model.features(given))
        shapes.pop()
        expected = nn.functional.cross_entropy(logits[hidden], tokens[hidden])
        torch.testing.assert_close(value.mean(), expected)
    assert hidden.sum(1).tolist() == [1] * 6
    assert not hidden[:, [0, -1]].any()


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_final_states_by_hand(kind):
    """Each row alone gives the right states; zeros after it spoil the backward one."""
    layer = padding.build(kind, 4, 0.0, seed=0)
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    x[1, 2:] = 0
    packed, others = padding.final_states(layer, x, torch.tensor([6, 2]))
    for row, length in ((0, 6), (1, 2)):
        _, alone = layer(x[row : row + 1, :length])
        alone = alone[0] if kind is nn.LSTM else alone
        right = dict(zip(("forward", "backward"), alone[:, 0], strict=True))
        for way in right:
            torch.testing.assert_close(packed[way][row], right[way])
        for way in ("forward_gathered", "backward_lengths"):
            torch.testing.assert_close(others[way][row], right[way.partition("_")[0]])
        full = length == 6
        for way in ("forward_final", "backward_final"):
            same = torch.allclose(others[way][row], right[way.partition("_")[0]])
            assert same == full
        # One step from zeros, whatever came before it.
        first, _ = layer(x[row : row + 1, length - 1 : length])
        torch.testing.assert_close(others["backward_gathered"][row], first[0, 0, 4:])


def test_forget_bias_is_added_to_both_directions():
    plain, raised = (padding.build(nn.LSTM, 4, bias, seed=0) for bias in (0.0, 3.0))
    for (name, before), after in zip(
        plain.named_parameters(), raised.parameters(), strict=True
    ):
        expected = torch.zeros_like(before)
        if name.startswith("bias_ih"):
            expected[4:8] = 3
        torch.testing.assert_close(after - before, expected)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_parameters_by_depth(depth):
    row = bidirectional.parameters(SMALL, depth)
    size, width = SMALL.input_size, SMALL.hidden_size

    def one(inputs, hidden):
        return 4 * hidden * (inputs + hidden + 2)

    deeper = depth - 1
    assert row["one"] == one(size, width) + deeper * one(width, width)
    assert row["two"] == 2 * (one(size, width) + deeper * one(2 * width, width))
    half = width // 2
    assert row["half"] == 2 * (one(size, half) + deeper * one(width, half))
    assert row["ratio"] == row["two"] / row["one"]
