"""Two sequences go on from one state, and neither reads the other's steps."""

import pytest
import torch
from torch import nn

from seqref.testing import check_sequence_layer, check_state_carry, check_state_fork
from tests.layers import CAUSAL, LAYERS

X = torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(0))


class Cached(nn.Module):
    """A running sum of a projection, whose past is kept in one of several ways."""

    def __init__(self, kind):
        super().__init__()
        self.linear, self.kind = nn.Linear(3, 4), kind

    def forward(self, x, state=None):
        new = self.linear(x)
        if self.kind == "tensor":
            past = new[:, :0] if state is None else state
            kept = state = torch.cat([past, new], dim=1)
        elif self.kind in ("list", "copied list"):
            state = [] if state is None else state
            state = list(state) if self.kind == "copied list" else state
            state += new.unbind(1)
            kept = torch.stack(state, dim=1)
        elif self.kind == "buffer":
            buffer, n = state or (new.new_zeros(len(x), 32, 4), 0)
            buffer[:, n : n + x.shape[1]] = new
            state = buffer, n + x.shape[1]
            kept = buffer[:, : state[1]]
        elif self.kind == "in place":
            total = new.new_zeros(len(x), 4) if state is None else state
            sums = total[:, None] + new.cumsum(1)
            if x.shape[1]:
                total.copy_(sums[:, -1])
            return torch.tanh(sums), total
        return torch.tanh(kept.cumsum(1))[:, kept.shape[1] - x.shape[1] :], state


@pytest.mark.parametrize("kind", ["tensor", "copied list"])
def test_a_state_that_is_made_anew_passes(kind):
    assert check_state_fork(Cached(kind), X) is None


@pytest.mark.parametrize("kind", ["list", "buffer", "in place"])
def test_a_state_that_is_written_to_is_caught(kind):
    """One sequence in parts is right with each of them."""
    with pytest.raises(AssertionError, match=r"^state fork: `output` at row .* go on"):
        check_state_fork(Cached(kind), X)
    if kind != "list":
        assert check_state_carry(Cached(kind), X) is None


def late(x, state=None):
    """Copies a short history, and appends to a longer one in place."""
    past, outputs = state or [], []
    for x_t in x.unbind(1):
        past = past if len(past) >= 2 else list(past)
        past.append(x_t)
        outputs.append(torch.stack(past).cumsum(0)[-1])
    return torch.stack(outputs, dim=1), past


def test_every_cut_is_tried():
    with pytest.raises(AssertionError, match="that after step 1"):
        check_state_fork(late, torch.randn(2, 5, 3))


def test_a_buffer_is_caught_by_a_later_step_alone():
    """The step after the fork overwrites its rival's and is right itself."""
    with pytest.raises(AssertionError, match="state fork"):
        check_state_fork(Cached("buffer"), X)
    assert check_state_fork(Cached("buffer"), X[:, :2]) is None
    with pytest.raises(AssertionError, match="state fork"):
        check_state_fork(Cached("list"), X[:, :2])


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_layers_of_torch_pass(kind):
    assert check_state_fork(kind(3, 4, 2, batch_first=True), X) is None


@pytest.mark.parametrize("name", CAUSAL)
def test_layers_of_this_package_pass(name):
    assert check_state_fork(LAYERS[name](3, 5), X) is None


def test_a_search_that_copies_the_cache_makes_it_sound():
    def copies(model, x, state):
        state = None if state is None else (state[0].clone(), state[1])
        return model(x, state)

    assert check_state_fork(Cached("buffer"), X, call=copies) is None


def test_the_contract_has_the_property_under_another_name():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)

        supports_lengths = False

        def initial_state(self, batch_size):
            return torch.zeros(batch_size, 4, dtype=self.linear.weight.dtype)

        def step(self, x_t, state):
            y_t = torch.tanh(self.linear(x_t) + state)
            with torch.no_grad():
                state.copy_(y_t)
            return y_t, state

        def forward(self, x, state=None):
            state = self.initial_state(len(x)) if state is None else state
            steps = []
            for x_t in x.unbind(1):
                y_t, state = self.step(x_t, state)
                steps.append(y_t)
            return torch.stack(steps, dim=1), state

    with pytest.raises(AssertionError, match=r"^state fork: "):
        check_state_fork(Layer(), X)
    with pytest.raises(AssertionError, match=r"^arguments: "):
        check_sequence_layer(Layer(), X)


def test_outputs_that_hang_on_nothing_leave_it_open():
    for model in (lambda x, state: (0 * x, state), nn.GRU(3, 4, batch_first=True)):
        call = None
        if isinstance(model, nn.Module):
            call = lambda model, x, state: model(0 * x, None)  # noqa: E731
        with pytest.raises(AssertionError, match="do not depend on the inputs"):
            check_state_fork(
                model, X, call=call, expected_failures={"state fork": "as built"}
            )


def test_two_results_of_one_call_leave_it_open():
    class Restless(nn.Module):
        def forward(self, x, state=None):
            return x + torch.rand(()), x[:, 0]

    with pytest.raises(AssertionError, match="so nothing can be compared"):
        check_state_fork(Restless(), X, expected_failures={"state fork": "as built"})


@pytest.mark.errors
@pytest.mark.parametrize(
    ("model", "x", "error", "message"),
    [
        (3, X, TypeError, "`model` must be"),
        (Cached("tensor"), X[:1], ValueError, "batch at least 2"),
        (Cached("tensor"), X[:, :1], ValueError, "time at least 2"),
        (nn.Linear(3, 4), X, TypeError, "outputs and state|takes 2 positional"),
        (lambda x, s: (x[:, 0], s), X, ValueError, "must have shape"),
    ],
)
def test_bad_arguments(model, x, error, message):
    with pytest.raises(error, match=message):
        check_state_fork(model, x)
