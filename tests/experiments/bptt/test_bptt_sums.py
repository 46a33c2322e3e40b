"""The sums against finite differences and a parameter used by hand."""

import pytest
import torch

from experiments.bptt import bptt_sums as experiment
from experiments.lab.experiment import find
from experiments.lab.record import measure

CONFIG = experiment.Config(hidden_size=4, input_size=3, steps=5, seeds=(0,))


def total(given, h_1):
    """The loss of steps 1 ... T as a function of the first state."""
    weight_ih, weight_hh, bias_ih, bias_hh = given.weights
    h = h_1
    loss = (given.grad_y[0] * h).sum()
    for x_t, grad in zip(given.x[1:], given.grad_y[1:], strict=True):
        h = torch.tanh(weight_ih @ x_t + bias_ih + weight_hh @ h + bias_hh)
        loss = loss + (grad * h).sum()
    return loss.item()


@pytest.mark.parametrize("every", [True, False])
def test_the_first_state_against_finite_differences(every):
    given = experiment.problem(CONFIG, 0, every=every)
    with torch.no_grad():
        h_1 = experiment.states(given, [given.weights[1]] * 5)[1][0]
        true = torch.tensor(
            [
                (total(given, h_1 + step) - total(given, h_1 - step)) / 2e-6
                for step in 1e-6 * torch.eye(4, dtype=torch.float64)
            ],
            dtype=torch.float64,
        )
    h = experiment.states(given, [given.weights[1]] * 5)
    loss = torch.stack(experiment.loss_terms(given, h)).sum()
    (autograd,) = torch.autograd.grad(loss, h[1])
    torch.testing.assert_close(autograd[0], true, atol=1e-8, rtol=1e-8)
    found = experiment.first_state(given)
    assert found["sum_error"] < 1e-10
    assert (found["one_product_error"] < 1e-10) == (not every)


def test_both_sums_are_the_gradient():
    given = experiment.problem(CONFIG, 0, every=True)
    found = experiment.weight(given)
    assert found["uses_error"] < 1e-12
    assert found["losses_error"] < 1e-12
    assert found["last_use_error"] > 0.1
    assert found["terms_apart"] > 0.1


def test_a_loss_at_the_last_step_alone_is_one_term():
    given = experiment.problem(CONFIG, 0, every=False)
    assert not given.grad_y[:-1].any()
    assert given.grad_y[-1].all()


def test_claims_hold_and_controls_fail():
    record = measure(find("bptt_sums"))
    assert set(record["claims"]) == {"C05", "C22"}
    for claim in record["claims"].values():
        assert claim["holds"]
        assert not claim["control_holds"]
