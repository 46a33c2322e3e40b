"""What is measured of a layer, against torch.nn and in closed form."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from experiments.gradients import memory_by_initialisation as memory
from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.lab.seeding import generator

LAGS = (1, 2, 9, 20)
CONFIG = memory.Config(batch_size=1, warm_up=4, lags=LAGS)


def test_the_cases_are_what_their_names_say():
    default = memory.CASES["lstm_default"].build(3, 5, 0)
    chrono = memory.CASES["lstm_chrono_200"].build(3, 5, 0)
    assert torch.equal(default.cell.weight_hh, chrono.cell.weight_hh)
    assert torch.equal(default.cell.bias_ih[10:], chrono.cell.bias_ih[10:])
    u = chrono.cell.bias_ih[5:10].exp()
    assert u.min() >= 1
    assert u.max() <= 199
    gates = memory.gates_of_biases(memory.CASES["lstm_bias_5"].build(3, 5, 0))
    torch.testing.assert_close(gates, torch.full((5,), 5.0).double().sigmoid())
    w = memory.CASES["rnn_orthogonal"].build(3, 5, 0).cell.weight_hh
    torch.testing.assert_close(w @ w.T, torch.eye(5).double())
    irnn = memory.CASES["rnn_identity"].build(3, 5, 0)
    assert irnn.cell.nonlinearity == "relu"
    assert torch.equal(irnn.cell.weight_hh, torch.eye(5).double())
    assert memory.gates_of_biases(irnn) is None
    kinds = {type(memory.CASES[case].build(3, 5, 0)).__name__ for case in memory.CASES}
    assert kinds == {"RNN", "LSTM", "GRU"}


def test_gradients_are_those_of_torch():
    """The state's by cutting torch.nn.LSTM in two, the input's by its own backward."""
    layer = memory.CASES["lstm_chrono_200"].build(3, 5, 0)
    result = memory.measure_layer(layer, CONFIG, seed=7)
    judge = nn.LSTM(3, 5, batch_first=True, dtype=torch.float64)
    judge.load_state_dict({f"{k}_l0": v for k, v in layer.cell.state_dict().items()})
    draw = generator(7)
    x = torch.randn((1, 24, 3), generator=draw, dtype=torch.float64)
    bar = torch.randn((1, 5), generator=draw, dtype=torch.float64)
    x.requires_grad_()
    y, _ = judge(x)
    (x_bar,) = torch.autograd.grad((y[:, -1] * bar).sum(), x)
    for i, lag in enumerate(LAGS):
        _, middle = judge(x[:, : 24 - lag].detach())
        leaves = [part.detach().requires_grad_() for part in middle]
        y, _ = judge(x[:, 24 - lag :].detach(), tuple(leaves))
        bars = torch.autograd.grad((y[:, -1] * bar).sum(), leaves)
        left = torch.cat(bars, dim=-1).norm() / bar.norm()
        assert result["by_lag"]["state"][i] == pytest.approx(left.item(), rel=1e-10)
        at_input = x_bar[0, 23 - lag].norm() / bar.norm()
        assert result["by_lag"]["input"][i] == pytest.approx(at_input.item(), rel=1e-10)


@pytest.mark.parametrize("case", ["lstm_chrono_200", "gru_chrono_200"])
def test_without_weights_the_biases_alone_decide(case):
    """A state's gradient is then multiplied by each unit's own gate at every step."""
    layer = memory.CASES[case].build(3, 5, 0)
    with torch.no_grad():
        layer.cell.weight_hh.zero_()
        layer.cell.weight_ih.zero_()
    result = memory.measure_layer(layer, CONFIG, seed=0)
    draw = generator(0)
    torch.randn((1, 24, 3), generator=draw, dtype=torch.float64)
    bar = torch.randn((1, 5), generator=draw, dtype=torch.float64)
    gates = memory.gates_of_biases(layer)
    _, end = layer(torch.zeros(1, 24, 3).double())
    arriving = bar
    if case.startswith("lstm"):
        o_t = (layer.cell.bias_ih + layer.cell.bias_hh)[15:].sigmoid()
        arriving = bar * o_t * (1 - end.c.tanh() ** 2)
    for i, lag in enumerate(LAGS):
        expected = (arriving * gates**lag).norm() / bar.norm()
        assert result["by_lag"]["state"][i] == pytest.approx(expected.item(), rel=1e-10)
        power = (gates ** (lag - 1)).norm() / math.sqrt(5)
        assert result["by_lag"]["biases"][i] == pytest.approx(power.item(), rel=1e-10)


def test_the_lag_at_which_one_percent_is_left():
    config = replace(CONFIG, batch_size=3)
    layer = memory.CASES["rnn_default"].build(3, 5, 0)
    result = memory.measure_layer(layer, config, 0)
    assert 2 <= result["one_percent"] <= 20
    assert result["by_lag"]["state"][-1] < 0.01 < result["by_lag"]["state"][0]
    layer = memory.CASES["gru_chrono_200"].build(3, 5, 0)
    assert memory.measure_layer(layer, config, 0)["one_percent"] == 21


def test_texts():
    case = {"lags": [1, 1000], "one_percent": {"median": 7.0, "low": 7.0, "high": 7.0}}
    assert memory.one_percent_text(case) == "7"
    case["one_percent"] = {"median": 900.0, "low": 850.0, "high": 1001.0}
    assert memory.one_percent_text(case) == "900 (850 to over 1,000)"
    assert memory.text_of(-99.5) == "below 10⁻⁹⁹"
    assert memory.text_of(-1.0) == "0.10"


def test_a_constant_gate():
    result = memory.measure(0.99, replace(CONFIG, lags=(10, 100)))
    assert 10 ** result["state"]["median"][1] == pytest.approx(0.99**100)


def test_every_layer_has_its_row():
    experiment = find("memory_by_initialisation")
    tables = experiment.rendered(measure(experiment))
    assert tables["state"].count("\n") == 2 + 4
    assert tables["biases"].count("\n") == 2 + 3
    assert tables["saturation"].count("\n") == 2 + 3
    assert "| LSTM, default |" in tables["input"]
    assert "| 0.99 | 0.90 |" in tables["gates"]


def test_fewer_inputs_let_an_orthogonal_network_reach_further():
    reached = {}
    for case in ("rnn_orthogonal", "rnn_default"):
        for width in (1, 16):
            layer = memory.CASES[case].build(width, 32, 0)
            config = replace(CONFIG, warm_up=50, lags=(1, 200))
            result = memory.measure_layer(layer, config, seed=1000)
            reached[case, width] = result["one_percent"]
    assert reached["rnn_orthogonal", 1] > 1.5 * reached["rnn_orthogonal", 16]
    assert reached["rnn_default", 1] < 1.5 * reached["rnn_default", 16]


def test_far_growth_goes_through_the_hidden_state():
    """Under a forget bias of 5: without W_hh the gradient falls, with it, it grows."""
    left = {}
    for name in ("whole", "cut"):
        layer = memory.CASES["lstm_bias_5"].build(16, 64, 0)
        with torch.no_grad():
            if name == "cut":
                layer.cell.weight_hh.zero_()
        config = replace(CONFIG, warm_up=200, lags=(10, 1000))
        states = memory.measure_layer(layer, config, seed=1000)["by_lag"]["state"]
        left[name] = states[1] / states[0]
    assert left["cut"] < 0.01
    assert left["whole"] > 1
