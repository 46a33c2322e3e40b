"""The contract test passes on sound layers and names the property that a fault breaks.

Each fault is planted in the smallest layer that a reader would write.
"""

import re
from typing import NamedTuple

import pytest
import torch
from torch import nn

import seqref
from seqref.recurrence import scan
from seqref.testing import check_sequence_layer

PROPERTIES = (
    "protocol",
    "arguments",
    "determinism",
    "steps",
    "module state",
    "initial state",
    "forward",
    "gradients",
    "chunks",
    "causality",
    "rows",
    "padding",
    "empty",
)


class LeakState(NamedTuple):
    h: torch.Tensor


class Leaky(nn.Module):
    """A leaky sum of projected inputs, as a reader would write it."""

    def __init__(self, input_size=3, hidden_size=4):
        super().__init__()
        self.hidden_size = hidden_size
        self.project = nn.Linear(input_size, hidden_size)
        self.decay = nn.Parameter(torch.rand(hidden_size))

    def initial_state(self, batch_size):
        return LeakState(self.decay.new_zeros(batch_size, self.hidden_size))

    def step(self, x_t, state):
        h_t = torch.tanh(self.decay * state.h + self.project(x_t))
        return h_t, LeakState(h_t)

    def forward(self, x, state=None, lengths=None):
        return scan(self, x, state, lengths)


def inputs(time=13, batch=2):
    return torch.randn(batch, time, 3)


def fails(layer, name, x=None):
    """Check that the contract fails, and return its message."""
    with pytest.raises(AssertionError) as caught:
        check_sequence_layer(layer, inputs() if x is None else x)
    message = str(caught.value)
    assert message.startswith(f"{name}: "), message
    return message


SOUND = {
    "reader": Leaky,
    "rnn_tanh": lambda: seqref.RNN(3, 5),
    "rnn_relu": lambda: seqref.RNN(3, 5, nonlinearity="relu"),
    "rnn_plain": lambda: seqref.RNN(3, 5, bias=False),
    "lstm": lambda: seqref.LSTM(3, 5),
    "lstm_plain": lambda: seqref.LSTM(3, 5, bias=False),
}


@pytest.mark.parametrize("time", [1, 2, 13])
@pytest.mark.parametrize("name", SOUND)
def test_sound_layers_pass(name, time):
    report = check_sequence_layer(SOUND[name](), inputs(time))
    if time > 1:
        assert report.checked == PROPERTIES
        assert report.skipped == {}
    else:
        assert set(PROPERTIES) - set(report.checked) == {"chunks", "causality"}
        assert set(report.skipped) == {"chunks", "causality"}


def test_float32_reaches_the_kernels_that_float64_does_not():
    layer = seqref.LSTM(3, 5)
    report = check_sequence_layer(
        layer, inputs(), atol=1e-5, rtol=1e-5, dtype=torch.float32
    )
    assert report.checked == PROPERTIES
    assert list(report.skipped) == ["central differences"]
    with pytest.raises(AssertionError, match="differs by"):
        check_sequence_layer(layer, inputs(), atol=0.0, rtol=0.0, dtype=torch.float32)


def test_more_rows_and_another_input_shape():
    class Wide(Leaky):
        def step(self, x_t, state):
            return super().step(x_t.sum(-1), state)

    assert check_sequence_layer(Leaky(), inputs(batch=6)).checked == PROPERTIES
    report = check_sequence_layer(Wide(), torch.randn(3, 7, 3, 2))
    assert report.checked == PROPERTIES


def test_reader_keeps_layer_inputs_and_generators():
    layer = Leaky()
    (layer.decay * 1.0).sum().backward()
    kept = {n: p.clone() for n, p in layer.state_dict().items()}
    gradient = layer.decay.grad.clone()
    x = inputs()
    x_kept = x.clone()
    before = torch.get_rng_state()
    check_sequence_layer(layer, x)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(x, x_kept)
    assert layer.decay.dtype == torch.float32
    assert torch.equal(layer.decay.grad, gradient)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, kept[name])


def test_works_without_grad_mode_and_leaves_it_off():
    with torch.no_grad():
        assert check_sequence_layer(Leaky(), inputs()).checked == PROPERTIES
        assert not torch.is_grad_enabled()


def test_the_check_of_a_seed_is_the_same_twice():
    message = [fails(ScaledGradient(), "gradients", torch.ones(2, 4, 3)) for _ in "ab"]
    torch.manual_seed(0)
    first = fails(broken := ScaledGradient(), "gradients", torch.ones(2, 4, 3))
    torch.manual_seed(5)
    assert fails(broken, "gradients", torch.ones(2, 4, 3)) == first
    assert "differs by" in message[0]


# Faults, one a layer.


class IgnoredState(Leaky):
    def forward(self, x, state=None, lengths=None):
        return scan(self, x, None, lengths)


def test_ignored_initial_state():
    message = fails(IgnoredState(), "initial state")
    assert "the call gives the same output from two different states" in message


class IgnoredStateInStep(Leaky):
    def step(self, x_t, state):
        return super().step(x_t, LeakState(torch.zeros_like(state.h)))


def test_ignored_state_in_every_form():
    x = inputs(1)
    fails(IgnoredStateInStep(), "initial state", x)


class LearnedStart(Leaky):
    """The start is a parameter; a call without a state must use it, and train it."""

    def __init__(self):
        super().__init__()
        self.h_0 = nn.Parameter(torch.randn(4))

    def initial_state(self, batch_size):
        return LeakState(self.h_0.expand(batch_size, -1))


class LearnedStartDetached(LearnedStart):
    def forward(self, x, state=None, lengths=None):
        if state is None:
            state = LeakState(self.h_0.detach().expand(x.shape[0], -1))
        return scan(self, x, state, lengths)


class AnotherStartWithLengths(Leaky):
    def forward(self, x, state=None, lengths=None):
        if state is None and lengths is not None:
            state = LeakState(x.new_ones(x.shape[0], self.hidden_size))
        return scan(self, x, state, lengths)


def test_no_state_is_the_initial_state():
    assert check_sequence_layer(LearnedStart(), inputs()).checked == PROPERTIES
    message = fails(LearnedStartDetached(), "initial state")
    assert "gradient of `h_0` of the call without a state" in message
    message = fails(AnotherStartWithLengths(), "initial state")
    assert "y of the call with lengths without a state" in message


class NoParameters(nn.Module):
    """A running sum: nothing to learn."""

    def initial_state(self, batch_size):
        return LeakState(torch.zeros(batch_size, 3, dtype=torch.float64))

    def step(self, x_t, state):
        h_t = state.h + x_t
        return h_t, LeakState(h_t)

    def forward(self, x, state=None, lengths=None):
        return scan(self, x, state, lengths)


def test_layer_without_parameters_passes():
    assert check_sequence_layer(NoParameters(), inputs()).checked == PROPERTIES


class OffsetWithGraph(Leaky):
    def forward(self, x, state=None, lengths=None):
        y, state = scan(self, x, state, lengths)
        return (y + 0.1 if torch.is_grad_enabled() else y), state


def test_another_result_where_a_graph_is_built():
    message = fails(OffsetWithGraph(), "gradients")
    assert "y of the call that builds a graph" in message


class ConstantState(Leaky):
    def step(self, x_t, state):
        y_t, _ = super().step(x_t, state)
        return y_t, state


def test_state_that_never_moves():
    assert "different inputs lead to the same" in fails(
        ConstantState(), "initial state"
    )


class WrongFinalState(Leaky):
    def forward(self, x, state=None, lengths=None):
        y, final = super().forward(x, state, lengths)
        if x.shape[1] > 1 and lengths is None:
            final = LeakState(y[:, -2])
        return y, final


def test_wrong_final_state():
    message = fails(WrongFinalState(), "forward")
    assert "final state.h" in message


class WrongOutput(Leaky):
    def forward(self, x, state=None, lengths=None):
        y, final = super().forward(x, state, lengths)
        return y * (1 + 1e-8), final


def test_outputs_slightly_off():
    assert "y of the call" in fails(WrongOutput(), "forward")


class DroppedBias(Leaky):
    def forward(self, x, state=None, lengths=None):
        state = state or self.initial_state(len(x))
        bias = self.project.bias
        return scan(
            self, x - torch.linalg.pinv(self.project.weight) @ bias, state, None
        )


def test_dropped_bias_in_one_form():
    fails(DroppedBias(), "forward")


class LookAhead(Leaky):
    """The input of each step has a share of the next one's."""

    def forward(self, x, state=None, lengths=None):
        following = torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], dim=1)
        return super().forward(x + 0.1 * following, state, lengths)


class LookAheadEverywhere(LookAhead):
    # Without a loop to compare with, only causality itself can tell.
    chunk_invariant = False


def test_look_ahead():
    fails(LookAhead(), "forward")
    message = fails(LookAheadEverywhere(), "causality")
    assert "when the input changes" in message


class ValueOnlyLookAhead(Leaky):
    chunk_invariant = False

    def forward(self, x, state=None, lengths=None):
        y, final = super().forward(x, state, lengths)
        if lengths is None and x.shape[1] > 1:
            y = y + 1e-3 * x.detach().mean((1, 2))[:, None, None]
        return y, final


class GradientOnlyLookAhead(Leaky):
    def forward(self, x, state=None, lengths=None):
        y, final = super().forward(x, state, lengths)
        if lengths is None and x.shape[1] > 1:
            ahead = x.flip(1).sum(-1, keepdim=True)
            y = y + (ahead - ahead.detach())
        return y, final


def test_look_ahead_of_values_alone_and_of_gradients_alone():
    # Autograd does not see it, so the slopes along `x` differ first.
    fails(ValueOnlyLookAhead(), "gradients")
    fails(GradientOnlyLookAhead(), "gradients")


class InPlaceInput(Leaky):
    def forward(self, x, state=None, lengths=None):
        return super().forward(x.mul_(1.5), state, lengths)


def test_in_place_input():
    assert "the call changed x in place" in fails(InPlaceInput(), "arguments")


class InPlaceInputUndone(Leaky):
    def forward(self, x, state=None, lengths=None):
        if not torch.is_grad_enabled():
            x.mul_(2).div_(2)
        return super().forward(x, state, lengths)


def test_in_place_input_undone():
    assert "its version counter is not" in fails(InPlaceInputUndone(), "arguments")


class InPlaceState(Leaky):
    def step(self, x_t, state):
        h_t = torch.tanh(self.decay * state.h + self.project(x_t))
        if torch.is_grad_enabled():
            return h_t, LeakState(h_t)
        state.h.copy_(h_t)
        return h_t, state


def test_in_place_state():
    assert "changed state.h in place" in fails(InPlaceState(), "arguments")


class InPlaceLengths(Leaky):
    def forward(self, x, state=None, lengths=None):
        y, final = super().forward(x, state, lengths)
        if lengths is not None:
            lengths.clamp_(max=1)
        return y, final


def test_in_place_lengths():
    assert "changed lengths in place" in fails(InPlaceLengths(), "arguments")


class MovingParameter(Leaky):
    def forward(self, x, state=None, lengths=None):
        with torch.no_grad():
            self.decay.mul_(0.999)
        return super().forward(x, state, lengths)


def test_parameter_changed_by_a_call():
    assert "parameter `decay`" in fails(MovingParameter(), "arguments")


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, upstream):
        return 1.0001 * upstream


class ScaledGradient(Leaky):
    def forward(self, x, state=None, lengths=None):
        return super().forward(_Scaled.apply(x), state, lengths)


class ScaledGradientEverywhere(Leaky):
    def step(self, x_t, state):
        return super().step(x_t, LeakState(_Scaled.apply(state.h)))


def test_scaled_gradient():
    assert "gradient of `x`" in fails(ScaledGradient(), "gradients")
    message = fails(ScaledGradientEverywhere(), "gradients")
    assert "by central differences" in message


class DetachedState(Leaky):
    def forward(self, x, state=None, lengths=None):
        state = None if state is None else LeakState(state.h.detach())
        return super().forward(x, state, lengths)


class DetachedStateEverywhere(Leaky):
    def step(self, x_t, state):
        return super().step(x_t, LeakState(state.h.detach()))


class DetachedFinalState(Leaky):
    def forward(self, x, state=None, lengths=None):
        y, final = super().forward(x, state, lengths)
        return y, LeakState(final.h.detach())


@pytest.mark.parametrize(
    "broken", [DetachedState, DetachedStateEverywhere, DetachedFinalState]
)
def test_carried_state_detached(broken):
    fails(broken(), "gradients")


class MixedRows(Leaky):
    def step(self, x_t, state):
        return super().step(x_t + 1e-6 * x_t.mean(0), state)


def test_mixed_rows():
    message = fails(MixedRows(), "rows")
    assert "row 0 in the batch" in message


class MixedGradients(torch.autograd.Function):
    """Passes values on and gradients across the batch, their slope included."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, upstream):
        return upstream.flip(0)


class RowsMixedInGradient(Leaky):
    def step(self, x_t, state):
        return super().step(MixedGradients.apply(x_t), state)


def test_mixed_rows_in_the_gradient_alone():
    fails(RowsMixedInGradient(), "gradients")


class PaddingLeak(Leaky):
    """Masks the outputs and takes the right state, but not the input."""

    def forward(self, x, state=None, lengths=None):
        x = x + 0.01 * x.sum(1, keepdim=True) if lengths is not None else x
        return super().forward(x, state, lengths)


def test_padding_leaks_values():
    fails(PaddingLeak(), "padding")


class NanLeak(Leaky):
    """Right in every value; the backward pass multiplies a zero by NaN."""

    def forward(self, x, state=None, lengths=None):
        state = self.initial_state(len(x)) if state is None else state
        if lengths is None:
            return super().forward(x, state)
        outputs, h = [], state.h
        for t, x_t in enumerate(x.unbind(1)):
            keep = (t < lengths)[:, None]
            h_t, _ = self.step(x_t, LeakState(h))
            h = torch.where(keep, h_t, h)
            outputs.append(h_t.masked_fill(~keep, 0))
        return torch.stack(outputs, 1), LeakState(h)


def test_padding_leaks_nan_into_gradients():
    message = fails(NanLeak(), "padding")
    assert "gradient of" in message
    assert "got nan" in message


class StaleFinalState(Leaky):
    """The final state is the one after the padding."""

    def forward(self, x, state=None, lengths=None):
        y, final = super().forward(x, state, lengths)
        if lengths is not None:
            real = torch.arange(x.shape[1]) < lengths[:, None]
            _, final = scan(self, x.masked_fill(~real[..., None], 0), state)
        return y, final


def test_final_state_after_the_padding():
    assert "final state.h" in fails(StaleFinalState(), "padding")


class OutputsBeyondLength(Leaky):
    def forward(self, x, state=None, lengths=None):
        y, final = super().forward(x, state, lengths)
        if lengths is not None:
            past = torch.arange(x.shape[1]) >= lengths[:, None]
            y = y + 1e-12 * past[..., None]
        return y, final


def test_outputs_beyond_a_length():
    message = fails(OutputsBeyondLength(), "padding")
    assert "is not zero in the padding" in message


class ShortOutputs(Leaky):
    """As torch's pad_packed_sequence without total_length."""

    def forward(self, x, state=None, lengths=None):
        y, final = super().forward(x, state, lengths)
        return (y if lengths is None else y[:, : int(lengths.max())]), final


def test_outputs_cut_at_the_longest_length():
    assert "has shape" in fails(ShortOutputs(), "padding")


class NoZeroLength(Leaky):
    def forward(self, x, state=None, lengths=None):
        if lengths is not None and (lengths == 0).any():
            raise ValueError("a length is 0")
        return super().forward(x, state, lengths)


def test_refused_length_of_zero():
    assert "the layer raised ValueError('a length is 0')" in fails(
        NoZeroLength(), "padding"
    )


class StateOnModule(Leaky):
    def forward(self, x, state=None, lengths=None):
        if state is None:
            state = getattr(self, "last", None) or self.initial_state(len(x))
        y, final = super().forward(x, state, lengths)
        self.last = LeakState(final.h.detach())
        return y, final


class StateKeptUnused(Leaky):
    def __init__(self):
        super().__init__()
        self.register_buffer("last", None)

    def step(self, x_t, state):
        y_t, state = super().step(x_t, state)
        self.last = state.h
        return y_t, state


class StateKeptInDict(Leaky):
    def __init__(self):
        super().__init__()
        self.cache = {}

    def step(self, x_t, state):
        y_t, self.cache["last"] = super().step(x_t, state)
        return y_t, self.cache["last"]


def test_state_kept_on_the_module():
    assert "a call without a state" in fails(StateOnModule(), "module state")
    assert "`last`" in fails(StateKeptUnused(), "module state")
    assert "`cache`" in fails(StateKeptInDict(), "module state")


class ReusedBuffer(Leaky):
    """Each step answers in the same memory."""

    def step(self, x_t, state):
        y_t, state = super().step(x_t, state)
        if torch.is_grad_enabled():
            return y_t, state
        if getattr(self, "memory", None) is None or self.memory.shape != y_t.shape:
            self.memory = torch.empty_like(y_t)
        return y_t, LeakState(self.memory.copy_(y_t))


def test_second_step_overwrites_the_first():
    message = fails(ReusedBuffer(), "steps")
    assert "changed final state.h that the first had returned" in message


class Noisy(Leaky):
    def forward(self, x, state=None, lengths=None):
        return super().forward(nn.functional.dropout(x, 0.5), state, lengths)


def test_dropout_is_named():
    assert "call layer.eval() first" in fails(Noisy(), "determinism")


class OffByOneAtCuts(Leaky):
    """Carries its state right; its first step of a call is damped."""

    def forward(self, x, state=None, lengths=None):
        if lengths is None and 1 < x.shape[1] < 13:
            x = torch.cat([0.9 * x[:, :1], x[:, 1:]], dim=1)
        return super().forward(x, state, lengths)


def test_parts_differ_from_the_whole():
    assert "beside the whole" in fails(OffByOneAtCuts(), "chunks")


class WrongWhenEmpty(Leaky):
    def forward(self, x, state=None, lengths=None):
        if x.shape[1] == 0:
            return x.new_zeros(len(x), 0, 4), self.initial_state(len(x))
        return super().forward(x, state, lengths)


class RefusesEmpty(Leaky):
    """And takes no lengths at all."""

    supports_lengths = False

    def forward(self, x, state=None):
        if x.shape[1] == 0:
            raise RuntimeError("no time")
        return super().forward(x, state)


def test_no_steps():
    fails(WrongWhenEmpty(), "padding")
    assert "the layer raised RuntimeError('no time')" in fails(RefusesEmpty(), "empty")


class PlainTupleState(Leaky):
    def forward(self, x, state=None, lengths=None):
        y, final = super().forward(x, state, lengths)
        return y, tuple(final)


class ListState(Leaky):
    def initial_state(self, batch_size):
        return [torch.zeros(batch_size, 4)]


class WrongDtype(Leaky):
    def forward(self, x, state=None, lengths=None):
        y, final = super().forward(x, state, lengths)
        return y.float(), final


class TimeFirst(Leaky):
    def forward(self, x, state=None, lengths=None):
        y, final = super().forward(x, state, lengths)
        return y.transpose(0, 1), final


class Raises(Leaky):
    def step(self, x_t, state):
        raise NotImplementedError("later")


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (PlainTupleState, "must return a LeakState as state, got tuple"),
        (ListState, "the layer raised"),
        (WrongDtype, "must have dtype torch.float64, got torch.float32"),
        (TimeFirst, "output must have shape (2, 13, 4), got (13, 2, 4)"),
        (Raises, "the layer raised NotImplementedError('later')"),
    ],
)
def test_protocol(broken, words):
    assert words in fails(broken(), "protocol")


# What a layer declares, and what the check then says.


class Segmented(Leaky):
    """Results depend on the cuts, and no gradient reaches the state."""

    chunk_invariant = False
    differentiable_state = False

    def forward(self, x, state=None, lengths=None):
        state = self.initial_state(len(x)) if state is None else state
        y, final = super().forward(x, LeakState(state.h.detach()), lengths)
        if x.shape[1] > 1:
            y = y * (1 + 0.1 * (torch.arange(x.shape[1]) % 2)[:, None])
        return y, LeakState(final.h.detach())


def test_declared_limits_are_skipped_and_said(capsys):
    fails(type("Silent", (Segmented,), {"chunk_invariant": True})(), "forward")
    capsys.readouterr()
    report = check_sequence_layer(Segmented(), inputs())
    assert "chunks" not in report.checked
    assert report.skipped["chunks"] == "the layer declares chunk_invariant = False"
    printed = capsys.readouterr().out
    for name, reason in report.skipped.items():
        line = f"check_sequence_layer(Segmented): skipped {name}: {reason}\n"
        assert line in printed


class NoLengths(Leaky):
    supports_lengths = False

    def forward(self, x, state=None, lengths=None):
        if lengths is not None:
            raise TypeError("NoLengths.forward: `lengths` has no meaning here")
        return super().forward(x, state)


def test_lengths_declared_as_refused():
    report = check_sequence_layer(NoLengths(), inputs())
    assert report.skipped == {"padding": "the layer declares supports_lengths = False"}
    accepting = type("Accepting", (Leaky,), {"supports_lengths": False})()
    assert "and accepts lengths" in fails(accepting, "padding")


class DetachingState(DetachedStateEverywhere):
    differentiable_state = False


def test_state_without_gradient_may_be_declared():
    report = check_sequence_layer(DetachingState(), inputs(1))
    assert report.skipped["gradients of the state"]
    assert "gradients beside the loop" in report.skipped


# Bad arguments.


@pytest.mark.errors
@pytest.mark.parametrize(
    ("layer", "x", "options", "error", "message"),
    [
        (
            len,
            inputs(),
            {},
            TypeError,
            r"`layer` must be a torch\.nn\.Module, got buil",
        ),
        (
            nn.LSTM(3, 4),
            inputs(),
            {},
            TypeError,
            r"method initial_state, and LSTM has n",
        ),
        (Leaky(), [1.0], {}, TypeError, r"`x` must be a torch\.Tensor, got list"),
        (Leaky(), inputs().long(), {}, TypeError, r"floating dtype, got torch\.int64"),
        (Leaky(), inputs(batch=1), {}, ValueError, r"batch at least 2 .* \(1, 13, 3\)"),
        (Leaky(), inputs(0), {}, ValueError, r"time at least 1, got \(2, 0, 3\)"),
        (Leaky(), torch.ones(3), {}, ValueError, r"\(batch, time, \.\.\.\) .* \(3,\)"),
        (Leaky(), inputs() / 0, {}, ValueError, r"`x` must be finite"),
        (Leaky(), inputs(), {"rtol": -1.0}, ValueError, r"`rtol` must be at least 0"),
        (Leaky(), inputs(), {"atol": "0"}, TypeError, r"`atol` must be a number, got"),
        (
            Leaky(),
            inputs(),
            {"dtype": torch.float16},
            ValueError,
            r"torch\.float64 or torch\.float32, got torch\.float16",
        ),
    ],
)
def test_refused(layer, x, options, error, message):
    with pytest.raises(error, match=message):
        check_sequence_layer(layer, x, **options)


# Failures that are expected.


class Shifted(Leaky):
    """The call differs from the step, and from nothing else."""

    def forward(self, x, state=None, lengths=None):
        y, state = super().forward(x, state, lengths)
        return 2 * y, state


BROKEN = ("forward", "gradients")


def test_an_expected_failure_is_reported_with_its_reason(capsys):
    reasons = dict.fromkeys(BROKEN, "twice the output")
    report = check_sequence_layer(Shifted(), inputs(), expected_failures=reasons)
    assert report.failed == reasons
    assert report.checked == tuple(name for name in PROPERTIES if name not in BROKEN)
    assert capsys.readouterr().out.splitlines() == [
        f"check_sequence_layer(Shifted): {name} fails, as expected: twice the output"
        for name in BROKEN
    ]


def test_a_failure_beside_the_expected_one_is_raised():
    with pytest.raises(AssertionError, match=r"^gradients: "):
        check_sequence_layer(
            Shifted(), inputs(), expected_failures={"forward": "twice the output"}
        )


@pytest.mark.parametrize("name", PROPERTIES[1:])
def test_an_expected_failure_that_does_not_happen_is_an_error(name):
    message = rf"^{name}: holds, and was expected to fail \(once, it was\): take it out"
    with pytest.raises(AssertionError, match=message):
        check_sequence_layer(
            Leaky(), inputs(3), expected_failures={name: "once, it was"}
        )


def test_what_is_skipped_is_neither_expected_to_fail_nor_to_hold():
    report = check_sequence_layer(
        Leaky(), inputs(1), expected_failures={"causality": "it looks ahead"}
    )
    assert report.failed == {}
    assert report.skipped["causality"] == "`x` has one step"


@pytest.mark.errors
@pytest.mark.parametrize(
    ("expected", "error", "message"),
    [
        (["forward"], TypeError, "must map names of properties to reasons, got list$"),
        ({"speed": "slow"}, ValueError, r"\(arguments, .*, empty\), got 'speed'$"),
        ({"protocol": "none"}, ValueError, "must name properties .* got 'protocol'$"),
        ({"rows": True}, TypeError, r"\['rows'\]` must be a str, .* got bool$"),
        ({"rows": " "}, ValueError, r"\['rows'\]` must give a reason, got ' '$"),
    ],
)
def test_expected_failures_that_say_nothing_are_refused(expected, error, message):
    with pytest.raises(error, match=rf"^check_sequence_layer: .*{message}"):
        check_sequence_layer(Leaky(), inputs(), expected_failures=expected)


def test_the_table_in_the_docstring_names_every_property():
    rows = re.findall(r"^ *\| ([a-z ]+) \|", check_sequence_layer.__doc__, re.M)
    assert rows == ["property", *PROPERTIES]
