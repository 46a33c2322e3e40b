"""What two directions give away and cost, and what padding does to them."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from experiments.lab.experiment import find
from experiments.lab.record import judgements, measure
from experiments.lab.seeding import generator
from experiments.models import _bidirectional_leak as leak
from experiments.models import _bidirectional_padding as padding
from experiments.models import bidirectional

SMALL = bidirectional.SMALL
SIZES = leak.Sizes(
    vocab=8,
    time=10,
    width=4,
    batch_size=8,
    updates=2,
    every=1,
    learning_rate=0.01,
    curve_rows=8,
    test_rows=8,
)


@pytest.fixture(scope="module")
def record():
    return measure(find("bidirectional"))


@pytest.mark.parametrize("claim", [claim.id for claim in bidirectional.CLAIMS])
def test_claim_holds_and_control_fails(record, claim):
    judged = record["claims"][claim]
    assert judged["holds"]
    assert not judged["control_holds"]


def test_a_small_run_can_be_judged_again(record):
    again = judgements(find("bidirectional"), record["cases"])
    assert again == record["claims"]


def test_a_run_is_a_function_of_its_config():
    config = replace(SMALL, updates=20, every=10, depths=(1, 2, 4))
    one, two = bidirectional.run(config), bidirectional.run(config)
    assert one == two
    other = bidirectional.run(replace(config, seeds=(1,)))
    assert other["cases"]["mixed"] != one["cases"]["mixed"]


def test_tables_have_a_row_for_each_case(record):
    tables = bidirectional.tables(record)
    assert tables["losses"].count("\n") == 2 + len(bidirectional.TRAINED)
    assert tables["padding"].count("\n") == 2 + 4
    assert tables["parameters"].count("\n") == 2 + len(SMALL.depths)


def test_bounds_of_the_chain_by_counting():
    """Entropies over all pairs of steps, by brute force."""
    pairs = list(itertools.product(leak.OFFSETS, repeat=2))
    sums = Counter(sum(pair) for pair in pairs)
    both = sum(count / len(pairs) * math.log(count) for count in sums.values())
    found = leak.chain_bounds()
    assert found["both"] == pytest.approx(both, abs=1e-15)
    assert found["past"] == pytest.approx(math.log(len(leak.OFFSETS)), abs=1e-15)
    # The sums must differ modulo the vocabulary too.
    assert len({total % SIZES.vocab for total in sums}) == len(sums)


def test_chain_and_random_tokens_are_what_they_say():
    tokens = leak.chain_tokens(SIZES)(2000, generator(0))
    steps = (tokens[:, 1:] - tokens[:, :-1]) % SIZES.vocab
    assert set(steps.flatten().tolist()) == set(leak.OFFSETS)
    assert abs((steps == leak.OFFSETS[0]).double().mean() - 0.5) < 0.02
    assert tokens[:, 0].bincount(minlength=8).min() > 150
    tokens = leak.random_tokens(SIZES)(2000, generator(0))
    assert (tokens.flatten().bincount() / tokens.numel() - 1 / 8).abs().max() < 0.01


def reach(name, position):
    """The inputs that the loss at one position depends on, by its gradient."""
    build, _, loss, _ = bidirectional.TRAINED[name]
    torch.manual_seed(0)
    model = build(SIZES)
    tokens = leak.random_tokens(SIZES)(1, generator(1))
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
    model = leak.mixed(SIZES)
    tokens = leak.random_tokens(SIZES)(6, generator(1))
    shapes = []
    model.embedding.register_forward_hook(
        lambda module, inputs, output: shapes.append(inputs[0])
    )
    for loss in (leak.masked, leak.one_masked):
        value = loss(model, tokens, generator(2))
        given = shapes.pop()
        hidden = given == SIZES.vocab
        assert torch.equal(given[~hidden], tokens[~hidden])
        logits = model.head(model.features(given))
        shapes.pop()
        expected = nn.functional.cross_entropy(logits[hidden], tokens[hidden])
        torch.testing.assert_close(value.mean(), expected)
    assert hidden.sum(1).tolist() == [1] * 6
    assert not hidden[:, [0, -1]].any()


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_final_states_by_hand(kind):
    """Each row alone gives the right states; zeros after it spoil the backward one."""
    layer = padding.build(kind, 4, 0.0, seed=0)
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    x[1, 2:] = 0
    found = padding.final_states(kind, layer, x, torch.tensor([6, 2]))
    for row, length in ((0, 6), (1, 2)):
        _, alone = layer(x[row : row + 1, :length])
        alone = alone[0] if kind == "lstm" else alone
        right = dict(zip(("forward", "backward"), alone[:, 0], strict=True))
        for way in ("forward", "backward", "forward_gathered", "backward_lengths"):
            torch.testing.assert_close(found[way][row], right[way.partition("_")[0]])
        full = length == 6
        for way in ("forward_final", "backward_final"):
            same = torch.allclose(found[way][row], right[way.partition("_")[0]])
            assert same == full
        # One step from zeros, whatever came before it.
        first, _ = layer(x[row : row + 1, length - 1 : length])
        torch.testing.assert_close(found["backward_gathered"][row], first[0, 0, 4:])


def test_forget_bias_is_added_to_both_directions():
    plain, raised = (padding.build("lstm", 4, bias, seed=0) for bias in (0.0, 3.0))
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
