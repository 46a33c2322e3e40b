"""After a prompt of any padding each row goes on as if it were alone."""

import pytest
import torch
from torch import nn

from seqref.models import TransformerLM
from seqref.testing import check_cached_continuation, check_padding_invariance
from tests.layers import CAUSAL, LAYERS

X = torch.randn(3, 8, 3, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([5, 2, 4])
MESSAGE = r"^cached continuation: `output` at row \d, step \d, position .* changes by "


class Running(nn.Module):
    """A decaying sum of a projection, with a fault of choice in its prompt."""

    def __init__(self, fault=None):
        super().__init__()
        self.linear, self.fault = nn.Linear(3, 4), fault

    def forward(self, x, state=None, lengths=None):
        real = torch.ones(x.shape[:2], dtype=torch.bool)
        if lengths is not None:
            real = torch.arange(x.shape[1]) < lengths[:, None]
        if self.fault == "mask but for one row" and len(x) == 1:
            real = torch.ones_like(real)
        new = self.linear(x).masked_fill(~real[..., None], 0)
        h, states = x.new_zeros(len(x), 4) if state is None else state, []
        if self.fault == "forgets":
            h = torch.zeros_like(h)
        for t, new_t in enumerate(new.unbind(1)):
            following = 0.5 * h + new_t
            if self.fault == "decays on":
                # The inputs are hidden, and the decay goes on.
                h = following
            elif self.fault == "last of the batch":
                h = 0.5 * h + self.linear(x[:, t])
            else:
                h = torch.where(real[:, t, None], following, h)
            states.append(h)
        return torch.stack(states, dim=1), h


def test_a_state_that_ends_with_its_row_passes():
    assert check_cached_continuation(Running(), X, LENGTHS) is None
    assert check_cached_continuation(Running(), X, LENGTHS, pad=0.0) is None
    assert check_cached_continuation(Running(), X, torch.tensor([0, 3, 1])) is None


@pytest.mark.parametrize("fault", ["decays on", "last of the batch"])
def test_a_state_that_went_on_through_the_padding_is_caught(fault):
    """Outputs at real steps are right with either, so no other check sees it."""
    with pytest.raises(AssertionError, match=MESSAGE + ".* padded on the right in one"):
        check_cached_continuation(Running(fault), X, LENGTHS)

    def outputs(model, x, lengths):
        return model(x, None, lengths)[0]

    assert check_padding_invariance(Running(fault), X, LENGTHS, call=outputs) is None


def test_a_mask_that_is_left_out_for_one_row_is_caught():
    with pytest.raises(AssertionError, match="after a prompt alone with three steps"):
        check_cached_continuation(Running("mask but for one row"), X, LENGTHS)


def test_a_state_that_is_ignored_is_named_as_that():
    with pytest.raises(AssertionError, match="row alone goes on step by step") as info:
        check_cached_continuation(Running("forgets"), X, LENGTHS)
    assert "a state that is ignored" in str(info.value)


def test_what_padding_holds_can_be_fixed():
    """A model that finds its padding by its value."""

    def by_value(model, x, state, lengths):
        del lengths
        return model(x, state, (x != 0).any(dim=2).sum(dim=1))

    assert (
        check_cached_continuation(Running(), X, LENGTHS, call=by_value, pad=0) is None
    )
    with pytest.raises(AssertionError, match=MESSAGE):
        check_cached_continuation(Running(), X, LENGTHS, call=by_value)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_layers_of_torch_pass_with_a_packed_prompt(kind):
    layer = kind(3, 4, 2, batch_first=True)
    assert check_cached_continuation(layer, X, LENGTHS) is None
    whole = {"call": lambda model, x, state, lengths: model(x, state)}
    with pytest.raises(AssertionError, match=MESSAGE):
        check_cached_continuation(layer, X, LENGTHS, **whole)


@pytest.mark.parametrize("name", CAUSAL)
def test_layers_of_this_package_pass(name):
    layer = LAYERS[name](3, 5)
    # A layer that depends on where a sequence is cut has no row as a whole.
    if getattr(layer, "chunk_invariant", True):
        assert check_cached_continuation(layer, X, LENGTHS) is None


def test_models_of_this_package_pass_on_tokens():
    tokens = torch.randint(9, (3, 8), generator=torch.Generator().manual_seed(0))
    model = TransformerLM(9, LAYERS["LSTM"](4, 4))
    with torch.no_grad():
        model.embedding.weight.normal_()
    assert check_cached_continuation(model, tokens, LENGTHS) is None


def test_an_expected_failure_must_come():
    reason = {"cached continuation": "so it was built"}
    options = {"expected_failures": reason}
    assert (
        check_cached_continuation(Running("decays on"), X, LENGTHS, **options) is None
    )
    with pytest.raises(AssertionError, match="holds"):
        check_cached_continuation(Running(), X, LENGTHS, **options)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("model", "lengths", "error", "message"),
    [
        (3, LENGTHS, TypeError, "`model` must be"),
        (Running(), torch.tensor([2, 2, 2]), ValueError, "two different values above"),
        (Running(), torch.tensor([8, 2, 2]), ValueError, "below time=8"),
        (Running(), torch.tensor([5.0, 2, 2]), TypeError, "integer dtype"),
        (Running(), torch.tensor([5, 2]), ValueError, "must have shape"),
    ],
)
def test_bad_arguments(model, lengths, error, message):
    with pytest.raises(error, match=message):
        check_cached_continuation(model, X, lengths)


@pytest.mark.errors
def test_what_the_call_returns_must_be_a_pair_with_steps():
    def last_alone(model, x, state, lengths):
        y, state = model(x, state, lengths)
        return y[:, -1], state

    with pytest.raises(ValueError, match="must have shape"):
        check_cached_continuation(Running(), X, LENGTHS, call=last_alone)
    with pytest.raises(TypeError, match="must return outputs and state"):
        check_cached_continuation(
            Running(), X, LENGTHS, call=lambda m, x, s, n: m(x, s, n)[0]
        )
