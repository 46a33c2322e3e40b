"""Growth of the cell state on a stream: what is measured is what the names say."""

import dataclasses

import pytest
import torch

from experiments.lab.experiment import find
from experiments.lab.record import judgements, measure
from experiments.lab.seeding import generator, seeded
from experiments.models import _continual_cells as cells
from experiments.models import _continual_latch as latch
from experiments.models import continual_state as experiment
from seqref import LSTM1997, LSTMState

F64 = torch.float64
EXACT = {"atol": 1e-10, "rtol": 1e-10}


@pytest.fixture(scope="module")
def record():
    return measure(find("continual_state"))


def test_claims_hold_and_controls_fail(record):
    assert set(record["claims"]) == {"C28", "C136", "C137"}
    for identifier, claim in record["claims"].items():
        assert claim["holds"], identifier
        assert not claim["control_holds"], identifier
    assert judgements(find("continual_state"), record["cases"]) == record["claims"]


def test_a_forget_gate_at_one_is_the_cell_of_1997():
    old = cells.lstm_1997(experiment.SMALL, 3)
    new = cells.with_forget_gate(old, 1e3, 3)
    x = torch.randn((2, 40, 32), generator=generator(4), dtype=F64)
    (y, state), (y_new, state_new) = old(x), new(x)
    torch.testing.assert_close(y_new, y, **EXACT)
    torch.testing.assert_close(2 * state_new.c, state.c, **EXACT)
    shown = cells.squashed(cells.CASES["forget"], state_new.c)
    judge = cells.squashed(cells.CASES["lstm_1997"], state.c)
    torch.testing.assert_close(shown, judge, **EXACT)
    # The paper's h, eq. 4.
    torch.testing.assert_close(judge, 2 * state.c.sigmoid() - 1, **EXACT)
    # With its own weights in the gate it is another cell.
    other = cells.with_forget_gate(old, 0.0, 3)
    assert (other(x)[0] - y).abs().max() > 0.1


def test_the_biased_cell_differs_in_the_bias_of_the_input_gates_alone():
    config = experiment.SMALL
    plain, biased = (make(config, 1) for make in (cells.lstm_1997, cells.shut_gates))
    for name, parameter in plain.cell.named_parameters():
        moved = dict(biased.cell.named_parameters())[name] - parameter
        expected = torch.zeros_like(parameter)
        if name == "bias_ih":
            expected[: config.hidden_size] = config.input_gate_bias
        torch.testing.assert_close(moved, expected, **EXACT)


def test_states_are_those_of_one_stream_with_and_without_resets():
    config, seed = experiment.SMALL, 2
    random = generator(seed + 1000)
    pieces = [
        torch.randn((config.batch_size, n, 32), generator=random, dtype=F64)
        for n in (1, 9, 90)
    ]
    layer = cells.lstm_1997(config, seed)
    _, state = layer(torch.cat(pieces, dim=1))
    found = experiment.states(cells.CASES["lstm_1997"], config, seed)
    torch.testing.assert_close(found[2], state.c, **EXACT)
    reset = experiment.states(cells.CASES["resets"], config, seed)
    # The first hundred steps are the same, the state before a reset is what counts.
    torch.testing.assert_close(reset[2], found[2], **EXACT)
    for _ in range(9):
        x = torch.randn((config.batch_size, 100, 32), generator=random, dtype=F64)
        _, state = layer(x)
    torch.testing.assert_close(reset[3], state.c, **EXACT)


def test_size_and_saturation_are_those_of_the_states():
    config = dataclasses.replace(experiment.SMALL, marks=(1, 100), seeds=(0, 1, 2))
    for name, scale in (("forget_open", 2.0), ("lstm_1997", 1.0)):
        case = cells.CASES[name]
        found = experiment.growth(case, config)
        for at in range(2):
            states = [experiment.states(case, config, s)[at] for s in config.seeds]
            sizes = [(scale * c).square().mean().sqrt().item() for c in states]
            middle = 10 ** found["log10_size"][at]["median"]
            assert middle == pytest.approx(sorted(sizes)[1], rel=1e-4)
            # In the units of 1997, 2 atanh(0.99).
            flat = [((scale * c).abs() > 5.293).double().mean().item() for c in states]
            assert found["saturated"][at] == pytest.approx(sorted(flat)[1], abs=1e-6)


def test_a_trained_network_is_tested_at_both_ends_of_the_stream():
    config = dataclasses.replace(experiment.SMALL, train_updates=0, test_steps=60)
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
            layer = cells.lstm_1997(experiment.FULL, seed)
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
    layer = LSTM1997(3, 4, dtype=F64)
    x = torch.randn((2, 7, 3), generator=generator(1), dtype=F64)
    upstream = torch.randn((2, 7, 4), generator=generator(2), dtype=F64)
    whole = experiment.gradients(layer, x, upstream, "whole")
    y, _ = layer(x, LSTMState(*torch.zeros(2, 2, 4, dtype=F64)))
    expected = torch.autograd.grad(y, layer.parameters(), upstream)
    expected = torch.cat([part.flatten() for part in expected])
    torch.testing.assert_close(whole, expected, **EXACT)
    cut = experiment.gradients(layer, x, upstream, "truncated")
    assert (cut - whole).abs().max() > 1e-3
    assert experiment.cosine(experiment.SMALL, 1, 0) == pytest.approx(1, abs=1e-12)


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
    found = latch.trained(experiment.SMALL, "lstm", 0)
    assert set(found) == {"first", "last", "held", "largest"}
    assert latch.trained(experiment.SMALL, "lstm", 0) == found
