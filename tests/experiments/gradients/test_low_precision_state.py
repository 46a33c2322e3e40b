"""The variants are what the package computes, and one rounding makes the difference."""

import pytest
import torch
from torch import nn

from experiments import lab
from experiments.gradients import low_precision_state as experiment
from seqref import LSTM, LSTMState
from seqref.ops.fused_recurrence.torch_kernels import onednn_supports

CONFIG = experiment.experiment.small


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "autocast"])
def test_a_variant_is_the_step_of_the_layer(name):
    """Bit for bit, over ten steps."""
    layer = experiment.build(CONFIG, 0, 1000)
    x = experiment.inputs(CONFIG, 0)[:, :10]
    precision = experiment.VARIANTS[name]
    mine = experiment.follow(layer, x, precision)[-1]
    is_autocast = name == "autocast"
    dtype = precision.state
    layer, state = layer.to(dtype), None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        for x_t in x.to(dtype).unbind(1):
            _, state = layer.step(x_t, state)
    assert state.c.dtype == dtype
    assert torch.equal(mine, state.c.double())


def test_autocast_keeps_the_dtype_of_our_state():
    x, layer = torch.randn(2, 5, 3), LSTM(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        states = [layer.step(x[:, 0])[1], layer(x)[1], nn.LSTMCell(3, 4)(x[:, 0])]
    assert {part.dtype for state in states for part in state} == {torch.float32}


def test_autocast_rounds_the_state_of_a_whole_call_of_torch():
    """Where oneDNN has an LSTM in bfloat16."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    if not onednn_supports(torch.bfloat16):
        pytest.skip("oneDNN has no LSTM in bfloat16 on this processor")
    with torch.autocast("cpu", torch.bfloat16):
        _, whole = nn.LSTM(3, 4, batch_first=True)(torch.randn(2, 5, 3))
    assert {part.dtype for part in whole} == {torch.bfloat16}


def test_the_truth_is_the_layer_in_float64():
    layer = experiment.build(CONFIG, 0, 100)
    x = experiment.inputs(CONFIG, 0)[:, :30]
    _, state = layer(x)
    truth = experiment.follow(layer, x, experiment.EXACT)[-1]
    torch.testing.assert_close(truth, state.c, atol=1e-12, rtol=0)


@pytest.mark.parametrize("half_life", [10, 1000])
def test_forget_gates_have_their_half_life(half_life):
    """With the recurrent weights and the inputs at zero, c halves in so many steps."""
    layer = experiment.build(CONFIG, 0, half_life)
    with torch.no_grad():
        layer.cell.weight_hh.zero_()
        layer.cell.bias_ih[2 * CONFIG.hidden_size : 3 * CONFIG.hidden_size] = 0
        layer.cell.bias_hh.zero_()
    start = LSTMState(*torch.ones(2, 1, CONFIG.hidden_size, dtype=torch.float64))
    zeros = torch.zeros(1, half_life, CONFIG.input_size, dtype=torch.float64)
    _, state = layer(zeros, start)
    # The bias is rounded to bfloat16.
    torch.testing.assert_close(
        state.c, torch.full_like(state.c, 0.5), atol=0.02, rtol=0
    )


def test_parameters_and_inputs_are_exact_in_bfloat16():
    layer = experiment.build(CONFIG, 0, 100)
    for tensor in (*layer.parameters(), experiment.inputs(CONFIG, 0)):
        assert torch.equal(tensor, tensor.to(torch.bfloat16).double())


def test_the_forget_gate_alone_makes_the_error():
    errors = experiment.run(CONFIG, lab.untracked)["series"]["1000"]
    assert errors["autocast"][-1]["low"] > 20 * errors["forget_float32"][-1]["high"]
    assert errors["float32"][-1]["high"] < 1e-5
