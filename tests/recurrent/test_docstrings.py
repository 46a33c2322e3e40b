"""A layer's docstring: its own part, and its cell's in the words of a sequence."""

import inspect
import re

import pytest
import torch
from torch import nn

import seqref
from seqref.recurrent import _docstrings
from seqref.recurrent._base import RecurrentLayer, built_from
from seqref.recurrent._docstrings import layer_docstring
from tests.layers import LAYERS, OF_A_CELL

KINDS = list(dict.fromkeys(LAYERS[name].kind for name in OF_A_CELL))


def cell_of(layer):
    return vars(layer)["__init__"].cell_type


@pytest.mark.parametrize("layer", KINDS)
def test_a_layer_speaks_of_sequences(layer):
    text = inspect.getdoc(layer)
    for words in (
        "`x`: (batch, time, input)",
        "`y` (batch, time, ",
        "after each row's last real step",
        "O(T D",
        "a length is below 0 or above time",
        "`lengths` is not of an integer dtype",
        "batch first",
    ):
        assert words in " ".join(text.split())
    assert "per step" not in text
    assert "returns `(h_t" not in text
    assert max(map(len, text.splitlines())) <= 84


@pytest.mark.parametrize("layer", KINDS)
def test_every_rule_finds_its_words_in_every_cell(layer):
    for section, rules in _docstrings._OVER_TIME.items():
        text = _docstrings._sections(cell_of(layer).__doc__)[1][section]
        for pattern, _ in rules:
            assert re.search(pattern, re.sub(r"\n +", " ", text)), (section, pattern)


@pytest.mark.parametrize("layer", KINDS)
def test_a_layer_has_the_arguments_of_its_cell(layer):
    assert inspect.signature(layer) == inspect.signature(cell_of(layer))
    assert type(layer.__init__) is type(lambda: None)
    assert "input_size" in inspect.signature(layer).parameters


CELL = r"""One step.

$$ a $$

Args:
    width: Of all.

Shapes:
    - `x_t`: (batch, input); `state`: `Own(h)`, (batch, hidden), or None for
      zeros
    - returns: `h_t` (batch, hidden), new `Own`

Cost:
    O(D^2) time and O(D) state per step; much.

Raises:
    ValueError: `x_t` or `state` has the wrong shape, dtype or device; `width` is
        small.
    TypeError: `state` is no `Own`; `width` is no int.

Source:
    Somebody (1990).
    Differs: returns `(h_t, state)`, not `h_t`; in
    another order.
"""

LAYER = r"""Over a sequence.

$$ b $$

Forms:
    `step` alone.

Args:
    width: Of all.

Shapes:
    - `x`: (batch, time, input); `state`: `Own(h)`, (batch, hidden), or None for
      zeros; `lengths`: (batch,) integers, the rest of each row is padding
    - returns: `y` (batch, time, hidden), zero in the padding, and the `Own` after
      each row's last real step

Cost:
    O(T D^2) time, T steps one after the other; O(D) state.

Raises:
    ValueError: `x`, `state` or `lengths` has the wrong shape, dtype or device; a
        length is below 0 or above time; `width` is small.
    TypeError: `state` is no `Own`; `lengths` is not of an integer dtype; `width` is
        no int.

Source:
    Somebody (1990).
    Differs: in another order; batch first; one layer, one direction.
"""


def test_what_is_made():
    own = "Over a sequence.\n\n$$ b $$\n\nForms:\n    `step` alone.\n"
    made = layer_docstring(own, CELL)
    opening, expected = _docstrings._sections(LAYER)
    assert _docstrings._sections(made) == (opening, expected)
    assert re.findall(r"^(\w+):$", made, re.MULTILINE) == [
        *("Args", "Shapes", "Cost", "Forms", "Raises", "Source")
    ]


def test_a_section_of_the_layer_stands_in_place_of_the_cells():
    made = layer_docstring("Over.\n\nCost:\n    Nothing.\n", CELL)
    assert _docstrings._sections(made)[1]["Cost"] == "Nothing."
    with pytest.raises(ValueError, match="not in tuple"):
        layer_docstring("Over.\n\nCosts:\n    Nothing.\n", CELL)


class Wide(seqref.LSTMCell):
    r"""One step of a cell with an argument more.

    Args:
        width: Both sizes.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, width)


class WideLayer(seqref.recurrent._looped.LoopedLayer):
    r"""A layer that somebody else made."""

    @built_from(Wide)
    def __init__(self) -> None: ...


class Named(seqref.PeepholeLSTM):
    r"""A subclass."""


class Square(seqref.PeepholeLSTM):
    def __init__(self, size):
        super().__init__(size, size, bias=False)


def test_layers_and_subclasses_of_others():
    assert "width: Both sizes." in WideLayer.__doc__
    assert WideLayer(3).cell.weight_hh.shape == (12, 3)
    assert list(inspect.signature(WideLayer).parameters) == ["width"]
    assert Named.__doc__ == "A subclass."
    assert Square.__doc__ is None
    assert list(inspect.signature(Square).parameters) == ["size"]
    assert Named(3, 4)(torch.zeros(1, 2, 3))[0].shape == (1, 2, 4)
    assert Square(4).bias is False
    assert isinstance(Square(4), nn.Module)


def test_without_docstrings(monkeypatch):
    """As under `python -OO`."""
    monkeypatch.setattr(Wide, "__doc__", None)

    class Bare(RecurrentLayer):
        @built_from(Wide)
        def __init__(self) -> None: ...

    assert Bare.__doc__ is None


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Named(0, 4), ValueError, r"^Named: `input_size` must be at least 1"),
        (lambda: seqref.LSTM(3), TypeError, r"^LSTM\.__init__\(\) missing 1"),
        (lambda: seqref.PeepholeLSTM(3, 4, bais=1), TypeError, r"^PeepholeLSTM.*bais"),
        (lambda: seqref.LSTM1997(3, 4, gradient="g"), ValueError, r"^LSTM1997: `grad"),
        (lambda: seqref.LayerNormLSTM(3, 1), ValueError, r"^LayerNormLSTM: `hidden"),
        (lambda: seqref.ProjectedLSTM(3, 4, 4), ValueError, r"^ProjectedLSTM: `proj"),
    ],
)
def test_errors_name_the_layer(call, error, message):
    with pytest.raises(error, match=message):
        call()
