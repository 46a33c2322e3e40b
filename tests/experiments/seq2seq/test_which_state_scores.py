"""Two orders of one decoder, and what each lets through."""

import torch

from experiments.seq2seq import which_state_scores as experiment


def model_of(order):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return experiment.ordered(order, 8, 6)


def test_the_orders_have_equal_parameters():
    models = [model_of(order).state_dict() for order in experiment.ORDERS]
    for other in models[1:]:
        assert list(other) == list(models[0])
        assert all(torch.equal(other[name], models[0][name]) for name in other)


def test_the_token_of_a_step_reaches_its_weights_in_one_order_alone():
    moved = {
        order: experiment.moved(model_of(order), 6, torch.Generator().manual_seed(0))
        for order in experiment.ORDERS
    }
    assert moved["before"] == moved["blind"] == 0
    assert moved["after"] > 1e-4


def test_a_query_of_zeros_gives_the_same_weights_at_each_step():
    source = torch.tensor([[1, 2, 3, 4]])
    weights = model_of("blind").attend(source).align(torch.tensor([[0, 3, 2, 5]]))
    torch.testing.assert_close(weights, weights[:, :1].expand_as(weights))
