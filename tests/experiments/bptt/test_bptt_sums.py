"""The sums against finite differences and a parameter used by hand."""

import pytest
import torch

from experiments.bptt import bptt_sums

CONFIG = bptt_sums.Config(hidden_size=4, input_size=3, steps=5, seeds=(0,))


def total(layer, x, grad_y, h_1):
    """The loss of steps 1 ... T as a function of the first state."""
    weight_ih, weight_hh, bias_ih, bias_hh = layer.cell.weights
    h = h_1
    loss = (grad_y[0, 0] * h).sum()
    for x_t, grad in zip(x[0, 1:], grad_y[0, 1:], strict=True):
        h = torch.tanh(weight_ih @ x_t + bias_ih + weight_hh @ h + bias_hh)
        loss = loss + (grad * h).sum()
    return loss.item()


@pytest.mark.parametrize("every", [True, False])
def test_the_first_state_against_finite_differences(every):
    given = bptt_sums.problem(CONFIG, 0, every=every)
    layer, x, _ = given
    with torch.no_grad():
        h_1 = layer(x)[0][0, 0]
        true = torch.tensor(
            [
                (total(*given, h_1 + step) - total(*given, h_1 - step)) / 2e-6
                for step in 1e-6 * torch.eye(4, dtype=torch.float64)
            ],
            dtype=torch.float64,
        )
    autograd = bptt_sums.gradient_at(*given, h_1[None])
    torch.testing.assert_close(autograd[0], true, atol=1e-8, rtol=1e-8)
    errors = bptt_sums.first_state(*given)
    assert errors["sum_error"] < 1e-10
    assert (errors["one_product_error"] < 1e-10) == (not every)


def test_both_sums_are_the_gradient():
    errors = bptt_sums.weight(*bptt_sums.problem(CONFIG, 0, every=True))
    assert errors["uses_error"] < 1e-12
    assert errors["losses_error"] < 1e-12
    assert errors["last_use_error"] > 0.1
    assert errors["terms_apart"] > 0.1


def test_a_loss_at_the_last_step_alone_is_one_term():
    _, _, grad_y = bptt_sums.problem(CONFIG, 0, every=False)
    assert not grad_y[:, :-1].any()
    assert grad_y[:, -1].all()
