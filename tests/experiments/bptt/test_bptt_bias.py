"""Truncated gradients against hand-cut graphs, and averages of known errors."""

import pytest
import torch

from experiments.bptt import bptt_bias as experiment
from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.lab.seeding import seeded
from seqref import LSTMState

SMALL = experiment.SMALL


def network(name):
    with seeded(0):
        return experiment.Network(SMALL, name)


@pytest.mark.parametrize("name", experiment.NETWORKS)
def test_the_whole_sequence_as_one_chunk_is_the_true_gradient(name):
    net, x = network(name), experiment.draw(SMALL, 0)
    y, _ = net.layer(x)
    loss = (net.head(y)[:, 8:] - x[:, :-8]).square().mean()
    true = torch.autograd.grad(loss, list(net.layer.parameters()))
    true = torch.cat([part.flatten() for part in true])
    for size in (32, 100):
        found = experiment.gradient(net, x, 8, size)
        torch.testing.assert_close(found, true, atol=1e-12, rtol=1e-12)
    assert not torch.allclose(experiment.gradient(net, x, 8, 4), true)


def test_a_cut_gradient_is_that_of_a_state_which_is_a_constant():
    net, x = network("lstm"), experiment.draw(SMALL, 0)
    with torch.no_grad():
        _, middle = net.layer(x[:, :16])
    first, _ = net.layer(x[:, :16])
    second, _ = net.layer(x[:, 16:], LSTMState(*middle))
    predicted = net.head(torch.cat([first, second], dim=1)[:, 8:])
    loss = (predicted - x[:, :-8]).square().mean()
    expected = torch.autograd.grad(loss, list(net.layer.parameters()))
    expected = torch.cat([part.flatten() for part in expected])
    found = experiment.gradient(net, x, 8, 16)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_networks_are_what_their_names_say():
    plain, raised = network("lstm").layer.cell, network("lstm_bias_3").layer.cell
    moved = raised.bias_ih - plain.bias_ih
    expected = torch.zeros(32, dtype=torch.float64)
    expected[8:16] = 3
    torch.testing.assert_close(moved, expected)
    weight = network("rnn_orthogonal").layer.cell.weight_hh
    torch.testing.assert_close(weight @ weight.T, torch.eye(8, dtype=torch.float64))


def test_claims_hold_and_controls_fail():
    record = measure(find("bptt_bias"))
    assert set(record["claims"]) == {"C26", "C26.bias"}
    for claim in record["claims"].values():
        assert claim["holds"]
        assert not claim["control_holds"]
