"""Growth of the cell state on a stream: what is measured is what the names say."""

import dataclasses

import pytest
import torch

from experiments.lab.seeding import generator, seeded
from experiments.models import _continual_latch as latch
from experiments.models import continual_state as continual
from seqref import LSTM1997, LSTMState

F64 = torch.float64
SMALL = continual.experiment.small
EXACT = {"atol": 1e-10, "rtol": 1e-10}


def test_a_forget_gate_at_one_is_the_cell_of_1997():
    old = continual.lstm_1997(SMALL, 3)
    new = continual.with_forget_gate(SMALL, 3, 1e3)
    x = torch.randn((2, 40, 32), generator=generator(4), dtype=F64)
    (y, state), (y_new, state_new) = old(x), new(x)
    torch.testing.assert_close(y_new, y, **EXACT)
    with_gate, without = (continual.CASES[name] for name in ("forget", "lstm_1997"))
    size = with_gate.scale * state_new.c
    torch.testing.assert_close(size, without.scale * state.c, **EXACT)
    shown = torch.tanh(with_gate.slope * state_new.c)
    judge = torch.tanh(without.slope * state.c)
    torch.testing.assert_close(shown, judge, **EXACT)
    # The paper's h, eq. 4.
    torch.testing.assert_close(judge, 2 * state.c.sigmoid() - 1, **EXACT)
    # With its own weights in the gate it is another cell.
    other = continual.with_forget_gate(SMALL, 3, 0.0)
    assert (other(x)[0] - y).abs().max() > 0.1


def test_the_biased_cell_differs_in_the_bias_of_the_input_gates_alone():
    config = SMALL
    plain, biased = (
        continual.CASES[name].build(config, 1) for name in ("lstm_1997", "shut_gates")
    )
    for name, parameter in plain.cell.named_parameters():
        moved = dict(biased.cell.named_parameters())[name] - parameter
        expected = torch.zeros_like(parameter)
        if name == "bias_ih":
            expected[: config.hidden_size] = config.input_gate_bias
        torch.testing.assert_close(moved, expected, **EXACT)


def test_states_are_those_of_one_stream_with_and_without_resets():
    config, seed = SMALL, 2
    random = generator(seed + 1000)
    pieces = [
        torch.randn((config.batch_size, n, 32), generator=random, dtype=F64)
        for n in (1, 9, 90)
    ]
    layer = continual.lstm_1997(config, seed)
    _, state = layer(torch.cat(pieces, dim=1))
    states = continual.states(continual.CASES["lstm_1997"], config, seed)
    torch.testing.assert_close(states[2], state.c, **EXACT)
    reset = continual.states(continual.CASES["resets"], config, seed)
    # The first hundred steps are the same, the state before a reset is what counts.
    torch.testing.assert_close(reset[2], states[2], **EXACT)
    for _ in range(9):
        x = torch.randn((config.batch_size, 100, 32), generator=random, dtype=F64)
        _, state = layer(x)
    torch.testing.assert_close(reset[3], state.c, **EXACT)


def test_size_and_saturation_are_those_of_the_states():
    config = dataclasses.replace(SMALL, marks=(1, 100), seeds=(0, 1, 2))
    for name, scale in (("forget_open", 2.0), ("lstm_1997", 1.0)):
        case = continual.CASES[name]
        growth = continual.growth(case, config)
        for at in range(2):
            states = [continual.states(case, config, s)[at] for s in config.seeds]
            sizes = [(scale * c).square().mean().sqrt().item() for c in states]
            middle = 10 ** growth["log10_size"][at]["median"]
            assert middle == pytest.approx(sorted(sizes)[1], rel=1e-4)
            # In the units of 1997, 2 atanh(0.99).
            flat = [((scale * c).abs() > 5.293).double().mean().item() for c in states]
            assert growth["saturated"][at] == pytest.approx(sorted(flat)[1], abs=1e-6)


def test_a_trained_network_is_tested_at_both_ends_of_the_stream():
    config = dataclasses.replace(SMALL, train_updates=0, test_steps=60)
    with seeded(7):
        layer, head = latch.layer_of("whole", 4), torch.nn.Linear(4, latch.MARKS)
    x, target = latch.stream(config.train_batch, 60, generator(2007))
    with torch.no_grad():
        y, state = layer(x)
        right = (head(y).argmax(-1) == target).double()
        held = head(latch.held_in_range(layer, x, 5)).argmax(-1) == target
    assert latch.trained(config, "whole", 7) == pytest.approx(
        {
            "first": right[:, :5].mean().item(),
            "last": right[:, 54:].mean().item(),
            "held": held[:, 54:].double().mean().item(),
            "largest": state.c.abs().amax().item(),
        }
    )
    assert right[:, :6].mean() != right[:, 54:].mean()


def test_a_held_state_stays_where_the_first_steps_took_it():
    layer = LSTM1997(2, 1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.cell.weight_ih[1, 0] = 1e3
        layer.cell.bias_ih.copy_(torch.tensor([1e3, 0, 1e3]))
    x = torch.zeros(2, 7, 2)
    x[0, :, 0], x[1, :, 0] = 1, -1
    # Twos are added; the range is that of three steps in any row, on either side.
    x[1, :2] = 0
    held = latch.held_in_range(layer, x, 3)[..., 0]
    expected = torch.tensor([[2, 4, 6, 8, 8, 8, 8], [0, 0, -2, -4, -6, -8, -8]])
    torch.testing.assert_close(held, torch.tanh(expected / 2))


def test_growth_needs_a_mean_and_any_of_three_things_gives_one():
    """Gate and candidate read the same inputs; biases; the way back through h."""

    def growth(shared=False, biases=False, fed_back=False):
        sizes = []
        for seed in (0, 1):
            layer = continual.lstm_1997(continual.Config(), seed)
            state, random = layer.initial_state(8), generator(seed + 1000)
            with torch.no_grad():
                if not shared:
                    layer.cell.weight_ih[:32, 16:] = 0
                    layer.cell.weight_ih[32:64, :16] = 0
                if not biases:
                    layer.cell.bias_ih.zero_()
                    layer.cell.bias_hh.zero_()
                if not fed_back:
                    layer.cell.weight_hh.zero_()
                for steps in (500, 4500):
                    x = torch.randn((8, steps, 32), generator=random, dtype=F64)
                    _, state = layer(x, state)
                    sizes.append(state.c.square().mean().sqrt())
        return ((sizes[1] + sizes[3]) / (sizes[0] + sizes[2])).item()

    # With none of them it is a random walk: the square root of 10.
    assert growth() == pytest.approx(10**0.5, rel=0.15)
    for name in ("shared", "biases", "fed_back"):
        assert growth(**{name: True}) > 6, name


def test_the_angle_is_that_of_one_gradient_to_the_other():
    config = dataclasses.replace(SMALL, input_size=3, hidden_size=4)
    whole = continual.weight_gradient(config, 7, 1, "whole")
    random = generator(3001)
    x = torch.randn((4, 7, 3), generator=random, dtype=F64)
    upstream = torch.randn((4, 7, 4), generator=random, dtype=F64)
    layer = continual.lstm_1997(config, 1)
    y, _ = layer(x, LSTMState(*torch.zeros(2, 4, 4, dtype=F64)))
    expected = torch.autograd.grad(y, layer.parameters(), upstream)
    expected = torch.cat([part.flatten() for part in expected])
    torch.testing.assert_close(whole, expected, **EXACT)
    cut = continual.weight_gradient(config, 7, 1, "truncated")
    assert (cut - whole).abs().max() > 1e-3
    expected = (cut @ whole / (cut.norm() * whole.norm())).item()
    assert continual.cosine(config, 7, 1) == pytest.approx(expected, abs=1e-12)
    assert continual.cosine(SMALL, 1, 0) == pytest.approx(1, abs=1e-12)


def test_the_target_is_the_last_mark():
    x, target = latch.stream(3, 200, generator(5))
    symbol = x.argmax(-1)
    assert x.sum(-1).eq(1).all()
    assert (symbol[:, 0] >= latch.NOISE).all()
    for row in range(3):
        last = None
        for t in range(200):
            if symbol[row, t] >= latch.NOISE:
                last = symbol[row, t] - latch.NOISE
            assert target[row, t] == last
    marks = (symbol >= latch.NOISE).double().mean()
    assert 0.05 < marks < 0.2
    assert set(target.unique().tolist()) == {0, 1}


def test_training_is_by_the_rule_that_is_named():
    for kind in ("whole", "truncated"):
        assert latch.layer_of(kind, 4).cell.gradient == kind
    losses = latch.trained(SMALL, "lstm", 0)
    assert set(losses) == {"first", "last", "held", "largest"}
    assert latch.trained(SMALL, "lstm", 0) == losses
