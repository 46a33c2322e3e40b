"""Truncated gradients against hand-cut graphs, and averages of known errors."""

import pytest
import torch

from experiments.bptt import bptt_bias
from seqref import LSTMState

SMALL = bptt_bias.experiment.small


def parameters_gradient(net, loss):
    parts = torch.autograd.grad(loss, list(net.layer.parameters()))
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize("name", bptt_bias.NETWORKS)
def test_the_whole_sequence_as_one_chunk_is_the_true_gradient(name):
    net, x = bptt_bias.Network(SMALL, name, 0), bptt_bias.draw(SMALL, 0)
    y, _ = net.layer(x)
    loss = (net.head(y)[:, 8:] - x[:, :-8]).square().mean()
    true = parameters_gradient(net, loss)
    for size in (32, 100):
        whole = bptt_bias.gradient(net, x, 8, size)
        torch.testing.assert_close(whole, true, atol=1e-12, rtol=1e-12)
    assert not torch.allclose(bptt_bias.gradient(net, x, 8, 4), true)


def test_a_cut_gradient_is_that_of_a_state_which_is_a_constant():
    net, x = bptt_bias.Network(SMALL, "lstm", 0), bptt_bias.draw(SMALL, 0)
    with torch.no_grad():
        _, middle = net.layer(x[:, :16])
    first, _ = net.layer(x[:, :16])
    second, _ = net.layer(x[:, 16:], LSTMState(*middle))
    predicted = net.head(torch.cat([first, second], dim=1)[:, 8:])
    expected = parameters_gradient(net, (predicted - x[:, :-8]).square().mean())
    cut = bptt_bias.gradient(net, x, 8, 16)
    torch.testing.assert_close(cut, expected, atol=1e-12, rtol=1e-12)


def test_networks_are_what_their_names_say():
    plain, raised, orthogonal = (
        bptt_bias.Network(SMALL, name, 0).layer.cell
        for name in ("lstm", "lstm_bias_3", "rnn_orthogonal")
    )
    expected = torch.zeros(32, dtype=torch.float64)
    expected[8:16] = 3
    torch.testing.assert_close(raised.bias_ih - plain.bias_ih, expected)
    weight = orthogonal.weight_hh
    torch.testing.assert_close(weight @ weight.T, torch.eye(8, dtype=torch.float64))
