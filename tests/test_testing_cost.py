"""What a training pass costs by the number of steps, on sound and broken models."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import seqref
from seqref.ops.linear_scan import linear_scan
from seqref.testing import check_linear_cost
from tests.layers import LAYERS, OF_A_CELL

X = torch.randn(2, 32, 6, generator=torch.Generator().manual_seed(0))


class Loop(nn.Module):
    """A cell over the steps, taken apart in one way or another."""

    def __init__(self, steps):
        super().__init__()
        self.cell, self.steps = nn.RNNCell(6, 8), steps

    def forward(self, x):
        h, outputs = x.new_zeros(len(x), 8), []
        for x_t in self.steps(torch.tanh(x)):
            h = self.cell(x_t, h)
            outputs.append(h)
        return torch.stack(outputs, dim=1)


class Appending(Loop):
    """The outputs so far are copied at each step."""

    def forward(self, x):
        h, outputs = x.new_zeros(len(x), 8), x.new_zeros(len(x), 0, 8)
        for x_t in self.steps(torch.tanh(x)):
            h = self.cell(x_t, h)
            outputs = torch.cat([outputs, h[:, None]], dim=1)
        return outputs


class Writing(Loop):
    """The outputs are written into a tensor, one step after the other."""

    def forward(self, x):
        h, outputs = x.new_zeros(len(x), 8), x.new_zeros(*x.shape[:2], 8)
        for t, x_t in enumerate(self.steps(torch.tanh(x))):
            h = self.cell(x_t, h)
            outputs[:, t] = h
        return outputs


def unbound(x):
    return x.unbind(1)


def indexed(x):
    return (x[:, t] for t in range(x.shape[1]))


@pytest.mark.parametrize(
    "model",
    [
        Loop(unbound),
        seqref.LSTM(6, 8),
        seqref.ChoGRU(6, 8),
        nn.LSTM(6, 8, batch_first=True),
        nn.Conv1d(6, 6, 3),
    ],
    ids=lambda model: type(model).__name__,
)
def test_work_that_grows_with_the_steps_passes(model):
    call = None
    if isinstance(model, nn.Conv1d):
        call = lambda model, x: model(x.mT).mT  # noqa: E731
    assert check_linear_cost(model, X, call=call) is None


@pytest.mark.parametrize("steps", [7, 10, 32, 64, 200, 1000])
def test_a_scan_in_chunks_passes(steps):
    x = torch.randn(2, steps, 6)
    check_linear_cost(lambda x: linear_scan(x.sigmoid(), x), x)


QUADRATIC = {
    "indexed": (Loop(indexed), "select_backward"),
    "appended": (Appending(unbound), "cat"),
    "written": (Writing(unbound), "copy_"),
    "matrix": (lambda x: (x @ x.mT).softmax(-1) @ x, "bmm"),
    "kernel": (seqref.MultiHeadAttention(6, 2), "flash_attention_for_cpu"),
}


@pytest.mark.parametrize("name", QUADRATIC)
def test_work_that_grows_faster_is_told(name):
    model, operation = QUADRATIC[name]
    with pytest.raises(AssertionError, match=r"^linear cost: from 64 to 128") as caught:
        check_linear_cost(model, X)
    assert operation in str(caught.value)
    assert "a write into one, as `y[:, t] = h`" in str(caught.value)


def test_inputs_that_are_data_want_no_gradient():
    """Then an index into them has no backward pass."""
    model = Loop(lambda x: indexed(x.detach()))
    assert check_linear_cost(model, X) is None
    model = nn.Sequential(Loop(indexed))
    with pytest.raises(AssertionError, match="select_backward"):
        check_linear_cost(model, X)


def test_a_packed_batch_costs_more_than_its_steps():
    """torch slices the packed data at each step, on a CPU."""

    def packed(model, x):
        lengths = torch.full((len(x),), x.shape[1])
        return model(pack_padded_sequence(x, lengths, batch_first=True))

    with pytest.raises(AssertionError, match="slice_backward"):
        check_linear_cost(nn.GRU(6, 8, batch_first=True), X, call=packed)


@dataclass
class Result:
    """Outputs by name, as libraries return them."""

    y: Tensor


def test_outputs_in_other_objects_are_found():
    assert check_linear_cost(lambda x: Result(x.tanh()), X) is None
    with pytest.raises(AssertionError, match=r"^linear cost: "):
        check_linear_cost(lambda x: Result((x @ x.mT).softmax(-1) @ x), X)


def test_a_model_may_write_to_its_inputs():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6))
    assert check_linear_cost(model, X) is None
    assert X.min() < 0


def test_a_state_that_was_kept_on_the_module_is_copied_too():
    """It has a graph, of which copy.deepcopy wants none."""
    model = nn.Sequential(nn.Linear(6, 6))
    model.kept = model(X)
    assert check_linear_cost(model, X) is None
    assert model.kept.requires_grad


def test_a_model_of_limited_length_is_told_what_it_was_given():
    table = nn.Embedding(64, 6)

    def model(x):
        return x + table(torch.arange(x.shape[1]))

    assert check_linear_cost(model, X[:, :16]) is None
    with pytest.raises(IndexError) as caught:
        check_linear_cost(model, X)
    assert "inputs of shape (2, 128, 6)" in caught.value.__notes__[0]


def test_a_caller_in_inference_mode_changes_nothing():
    with torch.inference_mode():
        assert check_linear_cost(lambda x: x.tanh(), X) is None
        with pytest.raises(AssertionError, match=r"^linear cost: "):
            check_linear_cost(lambda x: (x @ x.mT).softmax(-1) @ x, X)


def test_work_that_grows_faster_than_a_square_is_told():
    """Though no operation looks quadratic."""

    def of_three(x):
        a = x[..., 0]
        return a[:, :, None, None] * a[:, None, :, None] * a[:, None, None, :]

    with pytest.raises(AssertionError, match=r"^linear cost: from 32 to 64 steps"):
        check_linear_cost(of_three, X[:, :16])


def test_what_begins_late_is_not_quadratic():
    """Work that none of the shorter runs has grows by no square."""

    def late(x):
        y = x
        for _ in range(40):
            y = y.tanh()
        return y.sin() if x.shape[1] >= 4 * X.shape[1] else y

    check_linear_cost(late, X)


@pytest.mark.parametrize("width", [5, 64, 512])
def test_a_wide_model_does_not_hide_it(width):
    """Products of its matrices are most of the work, and linear."""

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(width, width)
            self.cell = nn.LSTMCell(width, width)

        def forward(self, x):
            x, state, outputs = self.embed(x), None, []
            for x_t in (x[:, t] for t in range(x.shape[1])):
                state = self.cell(x_t, state)
                outputs.append(state[0])
            return torch.stack(outputs, dim=1)

    with pytest.raises(AssertionError, match="select_backward"):
        check_linear_cost(Wide(), torch.randn(2, 32, width))


def test_a_wide_layer_of_attention_does_not_hide_it():
    layer = nn.TransformerEncoderLayer(256, 4, batch_first=True)
    with pytest.raises(AssertionError, match=r"^linear cost: .* of a training pass"):
        check_linear_cost(layer, torch.randn(2, 32, 256))


@pytest.mark.parametrize("name", LAYERS)
def test_every_recurrent_layer_costs_what_its_steps_cost(name):
    layer = LAYERS[name]()
    if name.startswith(("MultiHeadAttention", "TransformerXLAttention")):
        pytest.skip("attention over all positions")
    # Attention within a window runs in blocks, which are longer than short sequences.
    steps = 32 if name in OF_A_CELL else 128
    check_linear_cost(layer, torch.randn(2, steps, layer.input_size))


def test_the_model_and_its_gradients_stay_as_they_are():
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = X.clone().requires_grad_()
    check_linear_cost(model, x, call=lambda m, x: m(x.flatten(0, 1)))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    norm = nn.BatchNorm1d(6)
    check_linear_cost(norm.forward, X, call=lambda forward, x: forward(x.mT))
    assert norm.num_batches_tracked == 0
    assert x.grad is None
    assert all(p.grad is None for p in model.parameters())


def test_ids_are_inputs_too():
    embedding = nn.Embedding(9, 4)
    ids = torch.arange(32).view(2, 16) % 9
    check_linear_cost(embedding, ids)
    check_linear_cost(embedding.forward, ids)


def test_what_has_no_gradient_or_no_steps_is_refused():
    with pytest.raises(ValueError, match="no output of the model has a gradient"):
        check_linear_cost(lambda x: x.detach(), X)
    deaf = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="does not grow with the steps"):
        check_linear_cost(deaf, X, call=lambda m, _: m(torch.ones(3)))
    with pytest.raises(ValueError, match="nothing to take a gradient to"):
        check_linear_cost(lambda x: x, torch.arange(32).view(2, 16))
    frozen = nn.Embedding(32, 3).requires_grad_(False)
    with pytest.raises(ValueError, match="with parameters that want one"):
        check_linear_cost(frozen, torch.arange(32).view(2, 16))


@pytest.mark.errors
def test_bad_arguments():
    with pytest.raises(ValueError, match="`at_most` must be"):
        check_linear_cost(lambda x: x, X, at_most=1.0)
    with pytest.raises(TypeError, match="`model` must be"):
        check_linear_cost(None, X)
    with pytest.raises(TypeError, match="`x` must be"):
        check_linear_cost(lambda x: x, None)
