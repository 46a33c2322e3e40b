"""The checks for any model catch planted faults and are silent on sound models.

Each specimen is a small model with one fault; its sound twin differs in that alone.
"""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, dropout, pad
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import seqref
from seqref._contract.inputs import other
from seqref.models import LanguageModel
from seqref.recurrence import grows
from seqref.testing import (
    check_causality,
    check_nonlinearity,
    check_padding_invariance,
    check_row_order,
    check_source_dependence,
    check_state_carry,
    check_target_shift,
)
from tests.layers import CAUSAL, LAYERS

LENGTHS = torch.tensor([3, 6, 1, 4])
KINDS = [nn.RNN, nn.LSTM, nn.GRU]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def inputs(batch=4, time=6):
    return torch.randn(batch, time, 3)


def ids(batch=4, time=6, vocab=9):
    return torch.randint(vocab, (batch, time))


def fails(name, check, *args, **kwargs):
    """The message of a check that must fail with this property's name."""
    with pytest.raises(AssertionError, match=f"^{name}: ") as caught:
        check(*args, **kwargs)
    return str(caught.value)


def mask_of(lengths, time):
    return torch.arange(time) >= lengths[:, None]


def causal_mask(time):
    return torch.ones(time, time, dtype=torch.bool).triu(1)


class Reader(nn.Module):
    """An LSTM whose rows are summed up in one of several ways."""

    def __init__(self, pooling):
        super().__init__()
        self.pooling = pooling
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x, lengths):
        y, (h, _) = self.lstm(x)
        beyond = mask_of(lengths, x.shape[1])[..., None]
        if self.pooling == "last":
            return h[-1]
        if self.pooling == "mean":
            return y.mean(dim=1)
        if self.pooling == "masked sum over the padded time":
            return y.masked_fill(beyond, 0).sum(dim=1) / x.shape[1]
        if self.pooling == "masked sum over the longest":
            return y.masked_fill(beyond, 0).sum(dim=1) / lengths.max()
        if self.pooling == "zeros in a maximum":
            return y.masked_fill(beyond, 0).amax(dim=1)
        if self.pooling == "backward without packing":
            return y.flip(1).cumsum(1).flip(1)
        if self.pooling == "masked mean":
            return y.masked_fill(beyond, 0).sum(dim=1) / lengths[:, None]
        return {"last": y[torch.arange(len(x)), lengths - 1], "steps": y}


FAULTY_POOLINGS = [
    "last",
    "mean",
    "masked sum over the padded time",
    "masked sum over the longest",
    "zeros in a maximum",
    "backward without packing",
]


@pytest.mark.parametrize("pooling", FAULTY_POOLINGS)
def test_padding_that_leaks_is_caught(pooling):
    x = inputs()
    message = fails(
        "padding invariance", check_padding_invariance, Reader(pooling), x, LENGTHS
    )
    assert "changes by" in message
    assert "at row" in message
    assert "Usual causes: the last step" in message


@pytest.mark.parametrize("pooling", ["masked mean", "last real step"])
def test_pooling_within_the_lengths_passes(pooling):
    assert check_padding_invariance(Reader(pooling), inputs(), LENGTHS) is None


def test_each_change_of_the_padding_is_needed():
    """Which change catches a fault is in the message."""
    x = inputs()
    expected = {
        "mean": "with other contents of the padding",
        "masked sum over the padded time": "with three more steps of padding",
        "masked sum over the longest": "alone and without padding",
    }
    for pooling, when in expected.items():
        model = Reader(pooling)
        message = fails(
            "padding invariance", check_padding_invariance, model, x, LENGTHS
        )
        assert when in message


class Attention(nn.Module):
    def __init__(self, masked):
        super().__init__()
        self.masked = masked
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.project = nn.Linear(3, 4)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x, lengths):
        mask = mask_of(lengths, x.shape[1]) if self.masked else None
        return self.encoder(self.project(x), src_key_padding_mask=mask)


def test_attention_without_a_padding_mask_is_caught():
    x = inputs()
    check_padding_invariance(Attention(True), x, LENGTHS)
    model = Attention(False)
    message = fails("padding invariance", check_padding_invariance, model, x, LENGTHS)
    assert "step" in message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_packed_layers_of_torch_pass(kind, bidirectional):
    layer = kind(3, 4, 2, batch_first=True, bidirectional=bidirectional, dropout=0.3)
    check_padding_invariance(layer, inputs(), LENGTHS)
    assert check_row_order(layer, inputs(), LENGTHS) is None


def test_an_unpacked_bidirectional_layer_is_caught():
    layer = nn.GRU(3, 4, batch_first=True, bidirectional=True)
    fails(
        "padding invariance",
        check_padding_invariance,
        layer,
        inputs(),
        LENGTHS,
        call=lambda model, x, lengths: model(x)[0],
    )


def outputs_alone(layer, x, lengths):
    return layer(x, lengths=lengths)[0]


# Layers that are linear in their input, and say so.
LINEAR = ("LTI",)


@pytest.mark.parametrize("name", CAUSAL)
def test_layers_of_seqref_pass(name):
    # Wide enough that no history leaves all units of a rectifier at zero.
    layer = LAYERS[name](3, 16)
    # A cache that grows has its steps behind the heads; the contract looks at that.
    call = outputs_alone if grows(layer.initial_state(1)) else None
    check_padding_invariance(layer, inputs(), LENGTHS, call=call)
    check_row_order(layer, inputs(), LENGTHS)
    check_causality(layer, inputs())
    if name in LINEAR:
        with pytest.raises(AssertionError, match="nonlinearity"):
            check_nonlinearity(layer, inputs())
    else:
        check_nonlinearity(layer, inputs())
    assert check_state_carry(layer, inputs()) is None


class Classifier(nn.Module):
    """Ids in, loss out; 0 is padding."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 4)
        self.head = nn.Linear(4, 9)

    def forward(self, x):
        return self.head(torch.tanh(self.embed(x)))


def loss_over(ignore):
    def call(model, x, lengths):
        labels = x.roll(-1, 1)
        labels[mask_of(lengths, x.shape[1])] = ignore
        labels[torch.arange(len(x)), lengths - 1] = 1
        return cross_entropy(model(x).transpose(1, 2), labels, ignore_index=-100)

    return call


def test_a_loss_over_the_padding_is_caught():
    x = ids()
    message = fails(
        "padding invariance",
        check_padding_invariance,
        Classifier(),
        x,
        LENGTHS,
        call=loss_over(0),
    )
    assert "row" not in message
    check_padding_invariance(Classifier(), x, LENGTHS, call=loss_over(-100))


def test_a_scalar_alone_is_not_asked_of_rows():
    """A loss of next steps has none for a row of one step."""
    layer = nn.GRU(3, 4, batch_first=True)

    def call(model, x, lengths):
        y = model(x[:, :-1])[0]
        beyond = mask_of(lengths, x.shape[1])[:, 1:, None]
        return (y - x[:, 1:, :1]).masked_fill(beyond, 0).square().sum()

    check = check_padding_invariance
    check(layer, inputs(), LENGTHS, call=call)
    message = fails(
        "padding invariance",
        check,
        layer,
        inputs(),
        LENGTHS,
        call=lambda m, x, n: m(x[:, :-1])[0].square().mean(),
    )
    assert "`output` changes by" in message


def test_a_model_that_finds_the_padding_by_its_value_needs_pad():
    def call(model, x, lengths):
        real = (x != 0)[..., None]
        y = torch.tanh(model.embed(x)) * real
        return y.sum(dim=1) / real.sum(dim=1)

    def over_the_padded_time(model, x, lengths):
        return (torch.tanh(model.embed(x)) * (x != 0)[..., None]).mean(dim=1)

    x = ids().clamp(min=1)
    model = Classifier()
    check_padding_invariance(model, x, LENGTHS, call=call, pad=0)
    check = check_padding_invariance
    fails("padding invariance", check, model, x, LENGTHS, call=call)
    message = fails(
        "padding invariance",
        check,
        model,
        x,
        LENGTHS,
        call=over_the_padded_time,
        pad=0,
    )
    assert "three more steps" in message


# Causality.


@pytest.mark.parametrize("kind", KINDS)
def test_a_bidirectional_layer_is_not_causal(kind):
    check_causality(kind(3, 4, batch_first=True), inputs())
    layer = kind(3, 4, batch_first=True, bidirectional=True)
    message = fails("causality", check_causality, layer, inputs())
    assert "when the inputs from step 1 on change" in message
    assert "step 0" in message


def attend(masked):
    def call(model, x):
        y = model.project(x)
        mask = causal_mask(x.shape[1]) if masked else None
        return model.encoder(y, mask=mask)

    return call


def test_attention_without_a_causal_mask_is_caught():
    model = Attention(False)
    check_causality(model, inputs(), call=attend(True))
    fails("causality", check_causality, model, inputs(), call=attend(False))


def test_a_mask_that_is_one_step_too_wide_is_caught():
    def call(model, x):
        wide = causal_mask(x.shape[1]).triu(2)
        return model.encoder(model.project(x), mask=wide)

    message = fails("causality", check_causality, Attention(False), inputs(), call=call)
    assert "attention without a causal mask" in message


def test_a_convolution_padded_on_both_sides_is_caught():
    layer = nn.Conv1d(3, 4, 3, padding=1)
    fails(
        "causality",
        check_causality,
        layer,
        inputs(),
        call=lambda model, x: model(x.transpose(1, 2)).transpose(1, 2),
    )
    layer = nn.Conv1d(3, 4, 3, padding=2)
    check_causality(
        layer,
        inputs(batch=1),
        call=lambda model, x: model(x.transpose(1, 2))[..., :-2].transpose(1, 2),
    )


# The order of rows.


class Sorted(nn.Module):
    """Sorts by length, packs, and gives back the last states, put back or not."""

    def __init__(self, put_back, states=True):
        super().__init__()
        self.put_back, self.states = put_back, states
        self.gru = nn.GRU(3, 4, batch_first=True)

    def forward(self, x, lengths):
        order = lengths.argsort(descending=True)
        packed = pack_padded_sequence(x[order], lengths[order], batch_first=True)
        y, h = self.gru(packed)
        result = h[-1] if self.states else pad_packed_sequence(y, batch_first=True)[0]
        return result[order.argsort()] if self.put_back else result


@pytest.mark.parametrize("states", [True, False])
def test_rows_left_in_sorted_order_are_caught(states):
    message = fails(
        "row order", check_row_order, Sorted(False, states), inputs(), LENGTHS
    )
    assert "row" in message
    assert check_row_order(Sorted(True, states), inputs(), LENGTHS) is None


def test_rows_that_are_right_and_misplaced_are_named_so():
    message = fails("row order", check_row_order, Sorted(False), inputs(), LENGTHS)
    assert "all rows are right and stand in the wrong order" in message


class TimeFirst(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.rnn = nn.RNN(3, 4, batch_first=batch_first)

    def forward(self, x):
        return self.rnn(x)[0]


def test_a_time_first_layer_on_a_batch_first_tensor_is_caught():
    check_row_order(TimeFirst(True), inputs())
    fails("row order", check_row_order, TimeFirst(False), inputs())


def test_a_norm_over_the_batch_is_caught():
    def call(model, x):
        return model(x)[0] - model(x)[0].mean(dim=0)

    layer = nn.RNN(3, 4, batch_first=True)
    message = fails("row order", check_row_order, layer, inputs(), call=call)
    assert "alone in the batch" in message
    check_row_order(nn.LayerNorm(3), inputs())


# The source.


class Translator(nn.Module):
    """An encoder, a decoder, and attention whose keys come from one of them."""

    def __init__(self, keys="encoder"):
        super().__init__()
        self.keys = keys
        self.encoder = nn.GRU(3, 4, batch_first=True)
        self.decoder = nn.GRU(3, 4, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, source, target):
        encoded, _ = self.encoder(source)
        decoded, _ = self.decoder(target)
        if self.keys == "batch":
            encoded = encoded.transpose(0, 1).reshape(encoded.shape)
        if self.keys == "one step short":
            encoded = encoded[:, :-1]
        if self.keys == "decoder":
            encoded = decoded
        weights_from = decoded if self.keys == "weights" else encoded
        y, weights = self.attention(decoded, weights_from, encoded)
        return decoded + y, weights


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("decoder", "whatever the source"),
        ("one step short", "depends on step 5 of the source"),
        ("batch", "when the source of row"),
    ],
)
def test_a_source_that_is_not_read_is_caught(keys, words):
    source, target = inputs(), inputs()
    check_source_dependence(Translator(), source, target)
    message = fails(
        "source dependence", check_source_dependence, Translator(keys), source, target
    )
    assert words in message


def test_weights_made_from_the_decoder_alone_are_caught():
    """The context still varies with the source, the weights do not."""
    source, target = inputs(), inputs()
    model = Translator("weights")
    check_source_dependence(model, source, target)

    def weights(model, source, target):
        return model(source, target)[1]

    check_source_dependence(Translator(), source, target, call=weights)
    message = fails(
        "source dependence",
        check_source_dependence,
        model,
        source,
        target,
        call=weights,
    )
    assert "row 0, step 0 is the same whatever the source (24 of 24" in message


def test_a_transformer_of_torch_reads_its_source():
    model = nn.Transformer(4, 2, 1, 1, 8, batch_first=True)
    source, target = torch.randn(3, 5, 4), torch.randn(3, 4, 4)
    check_source_dependence(model, source, target)

    def swapped(model, source, target):
        return model(target, target)

    check = check_source_dependence
    fails("source dependence", check, model, source, target, call=swapped)


# The shift of targets.


def language_model():
    return LanguageModel(9, seqref.GRU(4, 5))


def test_labels_that_were_not_shifted_are_caught():
    model, target = language_model(), ids()
    check_target_shift(model, target)
    check_target_shift(
        model, target, call=lambda m, y: (m(y)[0][:, :-1], y[:, 1:].clone())
    )
    message = fails(
        "target shift",
        check_target_shift,
        model,
        target,
        call=lambda m, y: (m(y)[0], y),
    )
    assert "row 0" in message or "row" in message
    assert "step 0 changes by" in message


def test_labels_shifted_twice_are_caught():
    message = fails(
        "target shift",
        check_target_shift,
        language_model(),
        ids(),
        call=lambda m, y: (m(y[:, :-2])[0], y[:, 2:]),
    )
    assert "the one before its own" in message


def test_labels_shifted_the_wrong_way_are_caught():
    fails(
        "target shift",
        check_target_shift,
        language_model(),
        ids(),
        call=lambda m, y: (m(y[:, 1:])[0], y[:, :-1]),
    )


def test_a_decoder_without_a_start_token_is_caught():
    model = nn.Transformer(4, 2, 1, 1, 8, batch_first=True)
    embed = nn.Embedding(9, 4).double()
    source = torch.randn(4, 5, 4, dtype=torch.float64)
    start = torch.zeros(4, 1, dtype=torch.long)

    def decode(model, y, given):
        mask = causal_mask(given.shape[1])
        return model(source, embed(given), tgt_mask=mask), y

    target = ids().clamp(min=1)
    check_target_shift(
        model,
        target,
        call=lambda m, y: decode(m, y, torch.cat([start, y[:, :-1]], dim=1)),
    )
    fails(
        "target shift",
        check_target_shift,
        model,
        target,
        call=lambda m, y: decode(m, y, y),
    )


# Nonlinearity.


class Char(nn.Module):
    """A recurrence over vectors or ids; what follows each sum is an argument."""

    def __init__(self, activation, softmax=False):
        super().__init__()
        self.activation, self.softmax = activation, softmax
        self.embed = nn.Embedding(9, 3)
        self.i2h = nn.Linear(3 + 4, 4)
        self.h2o = nn.Linear(4, 5)

    def forward(self, x):
        x = x if x.is_floating_point() else self.embed(x)
        h_t = torch.zeros(len(x), 4)
        steps = []
        for x_t in x.unbind(1):
            h_t = self.activation(self.i2h(torch.cat([x_t, h_t], dim=1)))
            y_t = self.h2o(h_t)
            steps.append(y_t.log_softmax(-1) if self.softmax else y_t)
        return torch.stack(steps, dim=1)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("make", [inputs, ids])
def test_a_recurrence_without_its_nonlinearity_is_caught(softmax, make):
    x = make()
    for activation in (torch.tanh, torch.relu, torch.sigmoid):
        check_nonlinearity(Char(activation, softmax), x)
    message = fails("nonlinearity", check_nonlinearity, Char(nn.Identity(), softmax), x)
    assert ("mean over the last axis" in message) == softmax
    assert "a recurrence without its tanh" in message


def test_a_nonlinearity_at_each_step_alone_is_caught():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    fails("nonlinearity", check_nonlinearity, model, inputs())


class Windowed(nn.Module):
    """A convolution whose steps meet within one half of the input alone."""

    def __init__(self, activation, dilation, stride, last):
        super().__init__()
        size = 2 if dilation > 1 else 3
        self.convolution = nn.Conv1d(3, 4, size, dilation=dilation, stride=stride)
        self.activation, self.last, self.head = activation, last, nn.Linear(4, 2)

    def forward(self, x):
        y = self.activation(self.convolution(x.transpose(1, 2)).transpose(1, 2))
        return self.head(y)[:, -1:] if self.last else self.head(y)


@pytest.mark.parametrize(
    ("dilation", "stride", "last"), [(1, 1, True), (1, 3, False), (2, 1, True)]
)
def test_a_nonlinearity_within_one_half_is_no_sum_over_steps(dilation, stride, last):
    for activation in (torch.tanh, torch.relu):
        model = Windowed(activation, dilation, stride, last)
        assert check_nonlinearity(model, inputs()) is None
    linear = Windowed(nn.Identity(), dilation, stride, last)
    fails("nonlinearity", check_nonlinearity, linear, inputs())


def test_other_ids_differ_everywhere_and_by_seed():
    x = torch.tensor([[1, 4, 7], [7, 4, 4]])
    others = [other(x, seed) for seed in range(4)]
    for one in others:
        assert (one != x).all()
        assert set(one.unique().tolist()) <= {1, 4, 7}
    assert not torch.equal(others[0], others[1])
    assert torch.equal(others[0], others[2])


def test_a_difference_counts_relative_to_the_largest_value():
    """From 1e-9 of it, as the page says."""

    def leaking(share):
        def call(model, x):
            return 1e8 * (model(x) + share * x[:, -1:, :1])

        return call

    step = nn.Linear(3, 4)
    check_causality(step, inputs(), call=leaking(1e-11))
    fails("causality", check_causality, step, inputs(), call=leaking(1e-7))


def test_a_row_that_depends_on_others_at_its_last_step_alone():
    """Of outputs as long as the longest row, each row's own steps are compared."""

    def call(model, x, lengths):
        y = model(x[:, : int(lengths.max())])
        last = torch.arange(y.shape[1]) == lengths[:, None] - 1
        return y + last[..., None] * y[:, :1].mean(dim=0)

    lengths = torch.tensor([3, 6, 2, 4])
    message = fails(
        "row order", check_row_order, nn.Linear(3, 4), inputs(), lengths, call=call
    )
    assert "when it is alone in the batch" in message


def test_the_faster_way_of_torch_without_gradients_is_not_taken():
    """It returns fewer steps, and the rows would have another shape alone."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    model = nn.TransformerEncoder(layer, 2)
    x = torch.randn(4, 6, 4).masked_fill(mask_of(LENGTHS, 6)[..., None], 0)

    def call(model, x):
        return model(x, src_key_padding_mask=(x == 0).all(dim=-1))

    with torch.no_grad():
        assert check_row_order(model, x, call=call) is None


@pytest.mark.parametrize("kind", KINDS)
def test_layers_of_torch_are_nonlinear(kind):
    check_nonlinearity(kind(3, 4, batch_first=True), inputs(batch=1))
    layer = kind(3, 4, batch_first=True)
    assert check_nonlinearity(layer, inputs(), call=lambda m, x: m(x)[0].sum()) is None


def test_a_nonlinear_head_hides_a_linear_recurrence():
    """What the page says that the check cannot see, and the way out."""
    model = Char(nn.Identity())
    check_nonlinearity(model, inputs(), call=lambda m, x: torch.tanh(m(x)))
    fails("nonlinearity", check_nonlinearity, model, inputs())


# The carried state.


class Carried(nn.Module):
    def __init__(self, fault=""):
        super().__init__()
        self.fault = fault
        self.cell = nn.GRUCell(3, 4)
        self.position = nn.Embedding(8, 3)

    def forward(self, x, state=None):
        h_t = torch.zeros(len(x), 4) if state is None else state
        first = h_t
        if self.fault == "forgets":
            h_t = torch.zeros(len(x), 4)
        if self.fault == "wrong row" and state is not None:
            h_t = h_t.roll(1, 0)
        steps = []
        for t, x_t in enumerate(x.unbind(1)):
            # A positive first feature says that a row begins anew.
            begins = (x_t[:, :1] > 0.5).to(x.dtype)
            if self.fault == "resets the wrong row":
                begins = begins.roll(1, 0)
            if self.fault == "resets all rows":
                begins = begins.amax(dim=0, keepdim=True)
            if self.fault == "positions":
                x_t = x_t + self.position.weight[t]
            h_t = self.cell(x_t, h_t * (1 - begins))
            steps.append(h_t)
        return torch.stack(steps, dim=1), first if self.fault == "old state" else h_t


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("forgets", "cut before step 1"),
        ("wrong row", "cut before step 1"),
        ("old state", "cut before step 1"),
        ("positions", "cut before step 1"),
        ("resets the wrong row", "when the history of row"),
        ("resets all rows", "when the history of row"),
    ],
)
def test_a_state_that_is_not_carried_is_caught(fault, words):
    x = inputs(time=4)
    # The second half must not begin anew, or no history could reach it.
    x[:, 2:, 0] = -1
    check_state_carry(Carried(), x)
    message = fails("state carry", check_state_carry, Carried(fault), x)
    assert words in message


@pytest.mark.parametrize("kind", KINDS)
def test_layers_of_torch_carry_their_state(kind):
    check_state_carry(kind(3, 4, 2, batch_first=True, dropout=0.5), inputs())
    layer = kind(3, 4, batch_first=True)

    def rolled(model, x, state):
        y, state = model(x, state)
        parts = state if isinstance(state, tuple) else (state,)
        parts = tuple(part.roll(1, 1) for part in parts)
        return y, parts if isinstance(state, tuple) else parts[0]

    fails("state carry", check_state_carry, layer, inputs(), call=rolled)


def test_a_row_without_memory_is_caught():
    def call(model, x, state):
        return torch.tanh(model(x)), torch.zeros(1)

    message = fails(
        "state carry", check_state_carry, nn.Linear(3, 4), inputs(), call=call
    )
    assert "whatever its history" in message


# What all checks have in common.


class Random(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.rnn = nn.RNN(3, 4, batch_first=True)
        self.kept = None

    def forward(self, x):
        state = torch.randn(1, len(x), 4) if self.kind == "initial state" else self.kept
        y, state = self.rnn(x, state)
        if self.kind == "kept state":
            self.kept = state.detach()
        return dropout(y) if self.kind == "dropout" else y


@pytest.mark.parametrize("kind", ["initial state", "kept state", "dropout"])
@pytest.mark.parametrize(
    "check", [check_causality, check_row_order, check_nonlinearity]
)
def test_a_model_that_gives_two_results_is_refused_in_words(kind, check):
    with pytest.raises(AssertionError, match="between two calls with the same"):
        check(Random(kind), inputs())
    assert check(Random(""), inputs()) is None


def test_nothing_of_the_callers_changes():
    layer = nn.LSTM(3, 4, 2, batch_first=True, dropout=0.5).train()
    x = inputs().requires_grad_()
    before = {n: p.detach().clone() for n, p in layer.named_parameters()}
    random = Random("initial state")
    state, kept = torch.random.get_rng_state(), x.detach().clone()
    check_padding_invariance(layer, x, LENGTHS)
    check_causality(layer, x)
    check_row_order(layer, x)
    check_nonlinearity(layer, x)
    check_state_carry(layer, x)
    with pytest.raises(AssertionError):
        check_causality(random, x)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(x, kept)
    assert x.grad is None
    assert layer.training
    for name, parameter in layer.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.dtype == torch.float32
        assert parameter.grad is None


def test_a_method_and_a_function_can_be_checked():
    model = Char(torch.tanh)
    check_causality(model.forward, inputs())
    check_causality(lambda x: x.cumsum(1), inputs())
    fails("causality", check_causality, lambda x: x.flip(1), inputs())
    seen = []

    def call(model, x):
        seen.append(x.dtype)
        return model(x)

    check_causality(torch.tanh, inputs(), call=call)
    check_causality(nn.Tanh(), inputs(), call=call)
    check_causality(nn.Tanh(), inputs(), call=call, dtype=torch.float32)
    assert list(dict.fromkeys(seen)) == [torch.float32, torch.float64]
    assert seen[-1] == torch.float32


class Loose(nn.Module):
    """Keeps tensors that are neither parameters nor buffers."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.table = torch.randn(4, 4)
        self.seen = ()

    def forward(self, x):
        y = torch.tanh(self.linear(x) @ self.table).cumsum(1)
        return y if not self.seen else y + self.seen[0]["mean"]


def test_tensors_that_are_plain_attributes_are_converted_too():
    model = Loose()
    check_causality(model, inputs())
    # With a graph, as after a training step, torch's deepcopy alone would refuse it.
    model.seen = ({"mean": model(inputs()).mean()},)
    check_causality(model, inputs())
    assert model.table.dtype == torch.float32
    assert model.seen[0]["mean"].requires_grad
    fails("causality", check_causality, model, inputs(), call=lambda m, x: m(x.flip(1)))


@pytest.mark.parametrize("detach", [True, False])
def test_a_kept_state_is_named_after_the_model_was_used(detach):
    model = Random("kept state")
    _, state = model.rnn(inputs())
    model.kept = state.detach() if detach else state
    with pytest.raises(AssertionError, match="a state kept on the module"):
        check_causality(model, inputs())


@pytest.mark.parametrize("kind", KINDS)
def test_the_copy_of_a_layer_uses_its_own_weights(kind):
    """torch.nn keeps its weights in a list as well."""
    layer = kind(3, 4, batch_first=True)

    def zeroed(model, x):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        return model(x)[0] + x.sum(dim=-1, keepdim=True).cumsum(1)

    check_causality(layer, inputs(), call=zeroed)
    assert all(parameter.abs().sum() > 0 for parameter in layer.parameters())
    fails(
        "causality",
        check_causality,
        layer,
        inputs(),
        call=lambda m, x: zeroed(m, x).flip(1),
    )


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, dtype=torch.complex64))

    def forward(self, x):
        return (x * self.weight).cumsum(1)


def test_complex_parameters_and_outputs():
    check_causality(Complex(), inputs())
    fails(
        "causality",
        check_causality,
        Complex(),
        inputs(),
        call=lambda m, x: m(x) + 1j * x.mean(dim=1, keepdim=True),
    )
    seen = []
    check_causality(
        Complex(), inputs(), call=lambda m, x: seen.append(m.weight.dtype) or m(x)
    )
    assert set(seen) == {torch.complex128}


class TwoWays(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x):
        return self.linear(x).cumsum(1)

    def from_the_end(self, x):
        return self(x.flip(1))


def test_a_method_other_than_forward_is_the_one_that_is_checked():
    check_causality(TwoWays(), inputs())
    fails("causality", check_causality, TwoWays().from_the_end, inputs())


def test_infinite_outputs_and_nan_in_the_padding_are_no_difference():
    def infinite(x):
        return torch.cat([x.cumsum(1), torch.full_like(x, -torch.inf)], dim=-1)

    check_causality(infinite, inputs().double())

    def spoiled(x, lengths):
        beyond = mask_of(lengths, x.shape[1])[..., None]
        return torch.tanh(x).masked_fill(beyond, torch.nan)

    check_padding_invariance(spoiled, inputs().double(), LENGTHS)

    def spoils(x, lengths):
        padding = x * mask_of(lengths, x.shape[1])[..., None]
        padded = padding.abs().amax(dim=(1, 2), keepdim=True) > 0
        return torch.tanh(x).masked_fill(padded, torch.nan)

    x = inputs().double().masked_fill(mask_of(LENGTHS, 6)[..., None], 0)
    message = fails("padding invariance", check_padding_invariance, spoils, x, LENGTHS)
    assert "changes by inf" in message
    assert "to nan" in message


def test_a_model_that_writes_to_its_input_spoils_no_check():
    x = inputs()
    kept = x.clone()
    check_causality(lambda x: x.mul_(2).cumsum(1), x)
    assert torch.equal(x, kept)


def test_a_final_state_that_differs_is_caught():
    """The outputs are right, and the state counts the steps of its part alone."""

    def call(model, x, state):
        y, h = model(x, None if state is None else state["h"])
        return y, {"h": h, "steps": torch.tensor(x.shape[1])}

    layer = nn.GRU(3, 4, batch_first=True)
    message = fails("state carry", check_state_carry, layer, inputs(), call=call)
    assert (
        "`state.steps` changes by 1 when the sequence is cut before step 1" in message
    )


class Cached(nn.Module):
    """A causal convolution of four steps; its state is a part's last three inputs."""

    def __init__(self, fault=""):
        super().__init__()
        self.fault = fault
        self.convolution = nn.Conv1d(3, 4, 4)

    def forward(self, x, state=None):
        x = x.transpose(1, 2)
        state = torch.zeros(len(x), 3, 3) if state is None else state
        seen = torch.cat([pad(state, (3 - state.shape[-1], 0)), x], dim=-1)
        kept = {"": seen, "shorter": x, "zeros": pad(x, (3, 0))}[self.fault]
        y = torch.tanh(self.convolution(seen)).transpose(1, 2)
        return y, kept[..., -3:]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            "shorter",
            "`state` has shape (4, 3, 2) when the sequence is cut before step 4",
        ),
        ("zeros", "`state` at position"),
    ],
)
def test_a_cache_that_is_short_after_a_short_part_is_caught(fault, words):
    check_state_carry(Cached(), inputs())
    assert words in fails("state carry", check_state_carry, Cached(fault), inputs())


def test_a_state_of_another_make_is_caught():
    def call(model, x, state):
        y, h = model(x, state)
        return y, h if state is None else (h, h)

    layer = nn.GRU(3, 4, batch_first=True)
    message = fails("state carry", check_state_carry, layer, inputs(), call=call)
    assert "holds `state[0]`, `state[1]` when the sequence is cut before step 1" in (
        message
    )


def test_float32_leaves_room_for_rounding():
    for kind in KINDS:
        layer = kind(3, 4, batch_first=True)
        check_padding_invariance(layer, inputs(), LENGTHS, dtype=torch.float32)
        check_state_carry(layer, inputs(), dtype=torch.float32)
        check_nonlinearity(layer, inputs(), dtype=torch.float32)
    fails(
        "nonlinearity",
        check_nonlinearity,
        Char(nn.Identity()),
        inputs(),
        dtype=torch.float32,
    )


@pytest.mark.parametrize(
    "check", [check_causality, check_row_order, check_nonlinearity, check_target_shift]
)
def test_outputs_that_do_not_depend_on_the_inputs_fail(check):
    if check is check_target_shift:
        with pytest.raises(ValueError, match="none changed with it"):
            check(nn.Identity(), inputs(), call=lambda m, x: (m(x), 0 * x))
        return
    with pytest.raises(AssertionError, match="nothing to check"):
        check(nn.Identity(), inputs(), call=lambda m, x: 0 * x)


def test_what_the_model_raises_comes_with_a_note():
    short = torch.zeros(4, 6, 3)
    layer = nn.RNN(3, 4, batch_first=True)
    with pytest.raises((RuntimeError, ValueError)) as caught:
        check_causality(layer, inputs(), call=lambda m, x: m(short)[0])
    (note,) = caught.value.__notes__
    assert "check_causality called a copy of the model in torch.float64" in note


@pytest.mark.errors
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": [1.0]}, TypeError, "`x` must be a torch.Tensor, got list"),
        ({"x": torch.ones(4)}, ValueError, r"must have shape \(batch, time, ...\)"),
        ({"x": torch.ones(1, 6, 3)}, ValueError, "batch at least 2"),
        ({"x": torch.ones(4, 6, 3)}, ValueError, "different values, and no row twice"),
        ({"x": torch.full((4, 6, 3), torch.nan)}, ValueError, "must be finite"),
        ({"x": torch.ones(4, 6) > 0}, TypeError, "real values or ids"),
        ({"lengths": torch.tensor([3, 3, 3, 3])}, ValueError, "two different"),
        ({"lengths": torch.tensor([0, 3, 3, 3])}, ValueError, "different values above"),
        ({"lengths": torch.tensor([-1, 1, 2, 3])}, ValueError, "at least 0, got -1"),
        ({"lengths": torch.tensor([7, 1, 2, 3])}, ValueError, "at most time=6"),
        ({"model": 3}, TypeError, "must be a torch.nn.Module or another callable"),
        ({"dtype": torch.float16}, ValueError, "torch.float64 or torch.float32"),
        ({"model": nn.LSTM(3, 4)}, ValueError, "has batch_first=False"),
        ({"call": lambda m, x, n: 3}, TypeError, "returned no tensor"),
        ({"call": lambda m, x, n: x[:3]}, ValueError, "begin with batch=4"),
        (
            {"call": lambda m, x, n: x.transpose(1, 2), "pad": 0},
            ValueError,
            "has the steps on axis 2, and its shape must be",
        ),
        (
            {"call": lambda m, x, n: nn.utils.rnn.pack_sequence(list(x))},
            TypeError,
            "PackedSequence",
        ),
    ],
)
def test_bad_arguments(change, error, words):
    given = {"model": nn.Identity(), "x": inputs(), "lengths": LENGTHS} | change
    with pytest.raises(error, match=words):
        check_padding_invariance(**given)


@pytest.mark.errors
def test_bad_outputs():
    x = inputs()
    with pytest.raises(ValueError, match=r"\(batch=4, time=6, ...\), got \(6, 4, 3\)"):
        check_causality(nn.Identity(), x, call=lambda m, x: x.transpose(0, 1))
    with pytest.raises(TypeError, match="must return outputs and state, got Tensor"):
        check_state_carry(nn.Identity(), x, call=lambda m, x, state: x)
    with pytest.raises(TypeError, match="predictions and labels, two tensors"):
        check_target_shift(nn.Identity(), x, call=lambda m, y: y)
    with pytest.raises(ValueError, match=r"\(batch, steps\), got"):
        check_target_shift(nn.Identity(), x, call=lambda m, y: (y[:, 1:], y))
    with pytest.raises(ValueError, match=r"must have shape \(batch=4, time, ...\)"):
        check_source_dependence(nn.Identity(), x, x, call=lambda m, s, y: s.sum())
