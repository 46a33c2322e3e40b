"""What every exported layer promises: found in the package, named in no list."""

import pytest
import torch

import seqref
from seqref.recurrence import Recurrent
from seqref.recurrent._base import RecurrentLayer, built_from
from seqref.testing import check_sequence_layer
from tests import layers
from tests.layers import CAUSAL, INPUT, LAYERS, OF_A_CELL, stirred


@pytest.mark.parametrize("time", [1, 13])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CAUSAL)
def test_contract(name, bias, time):
    contract(LAYERS[name], bias, time)


def contract(case, bias, time):
    # Noise is for training: in evaluation each of the layers is a function.
    layer = stirred(case(bias=bias)).eval()
    assert isinstance(layer, Recurrent)
    x = torch.randn(2, time, INPUT)
    report = check_sequence_layer(layer, x)
    assert {"forward", "gradients", "padding", "empty"} <= set(report.checked)
    allowed = {"causality", "chunks"}
    if not getattr(layer, "differentiable_state", True):
        allowed |= {"gradients of the state", "gradients beside the loop"}
    if not getattr(layer, "chunk_invariant", True):
        allowed |= {"forward over more than one step", "gradients beside the loop"}
    assert set(report.skipped) <= allowed
    report = check_sequence_layer(layer, x, atol=2e-5, rtol=2e-5, dtype=torch.float32)
    # Without a loop to compare with, gradients are checked by differences alone.
    assert "padding" in report.checked
    by_loop = "gradients beside the loop" not in report.skipped
    assert ("gradients" in report.checked) == by_loop


@pytest.mark.parametrize("name", sorted(set(LAYERS) - set(CAUSAL)))
def test_what_is_not_causal_is_refused(name):
    with pytest.raises(TypeError, match=rf"must be causal, and {name} declares"):
        check_sequence_layer(LAYERS[name](), torch.randn(2, 4, INPUT))


class OffByOneCell(seqref.LSTMCell):
    """Named as a cell is: it has no `step`, and is no layer."""


class OffByOne(RecurrentLayer):
    """A layer whose call and step differ."""

    @built_from(OffByOneCell)
    def __init__(self): ...

    def step(self, x_t, state=None):
        return self.cell(x_t, self.initial_state(len(x_t)) if state is None else state)

    def forward(self, x, state=None, lengths=None):
        state = self._checked(x, state, lengths)
        outputs = []
        for x_t in x.unbind(1):
            outputs.append(state.h)
            _, state = self.cell(x_t, state)
        return torch.stack(outputs, 1), state


class Unknown(RecurrentLayer):
    """A layer with an argument that nothing here has a value for."""

    def __init__(self, input_size, n_moods):
        super().__init__(seqref.LSTMCell(input_size, n_moods))

    def step(self, x_t, state=None): ...


class Package:
    __all__ = ("LSTM", "LSTMState", "OffByOne", "OffByOneCell", "Unknown")
    LSTM, LSTMState = seqref.LSTM, seqref.LSTMState
    OffByOne, OffByOneCell, Unknown = OffByOne, OffByOneCell, Unknown


def test_a_new_layer_is_found_and_its_fault_with_it():
    cases = {case.name: case for case in layers.found_in(Package)}
    assert list(cases) == ["LSTM", "OffByOne", "Unknown"]
    contract(cases["LSTM"], True, 3)
    with pytest.raises(AssertionError, match=r"^forward: y of the call over 1 step"):
        contract(cases["OffByOne"], True, 3)
    with pytest.raises(KeyError, match=r"Unknown: .* no value for `n_moods`: add one"):
        cases["Unknown"]()


def test_every_layer_of_a_family_is_exported_by_the_package():
    made = {kind for kind in subclasses(RecurrentLayer) if is_ours(kind)}
    assert made == {case.kind for case in LAYERS.values() if case.has_cell}


def subclasses(kind):
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


def is_ours(kind):
    """A finished class of the package: neither a base nor one of a test."""
    name = kind.__name__
    return kind.__module__.startswith("seqref.") and name[-5:] != "Layer"


DRAWS_MORE = {
    "ProjectedLSTM": "the base's square matrix, before the one it is replaced by",
    "PeepholeLSTM": "the base's parameters, before all are drawn with the peepholes",
}


@pytest.mark.parametrize("name", OF_A_CELL)
def test_a_cell_draws_each_parameter_once(name):
    torch.manual_seed(7)
    layer = LAYERS[name](dtype=torch.float64)
    made = torch.random.get_rng_state()
    torch.manual_seed(7)
    layer.cell.reset_parameters()
    once = torch.equal(torch.random.get_rng_state(), made)
    assert once != (name in DRAWS_MORE), DRAWS_MORE.get(name)
