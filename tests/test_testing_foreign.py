"""The checks for any model on what other people's models do.

Each fault stands beside a sound model that is as like it as can be: kept states, draws,
half precision, results in objects, losses made inside, padding found by its value.
"""

import collections
import dataclasses
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, dropout
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqref._contract.compare import TOLERANCE, changed, differ
from seqref._contract.draws import at_extreme
from seqref._contract.inputs import padding_of
from seqref._contract.outputs import flatten
from seqref.testing import (
    check_causality,
    check_nonlinearity,
    check_padding_invariance,
    check_row_order,
    check_source_dependence,
    check_state_carry,
    check_target_shift,
)

LENGTHS = torch.tensor([3, 6, 1, 4])
OUTPUTS_ALONE = [check_causality, check_row_order, check_nonlinearity]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def inputs(batch=4, time=6, width=3):
    return torch.randn(batch, time, width)


def ids(batch=4, time=6):
    return torch.randint(1, 9, (batch, time))


def function(model):
    """A plain function around a module, which the checks cannot copy."""

    def call(*args):
        return model(*args)

    return call


def mask_of(lengths, time):
    return torch.arange(time) >= lengths[:, None]


# A state that is kept on the module.


class Keeping(nn.Module):
    """Hands a state out, and reads the one that it was given or one of its own."""

    def __init__(self, kept):
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)
        self.kept, self.h, self.calls = kept, None, None
        self.register_buffer("table", torch.zeros(4, 4))

    def forward(self, x, state=None):
        if self.kept == "on self":
            self.h = None if state is None else self.h
            y, self.h = self.gru(x, self.h)
            return y, self.h
        if self.kept == "cache":
            # The state is where to go on in a cache of this module's own.
            start = 0 if state is None else state
            old = [] if start == 0 else [self.calls[:, :start]]
            self.calls = torch.cat([*old, x], dim=1)
            return self.gru(self.calls)[0][:, start:], start + x.shape[1]
        if self.kept == "buffer":
            y, h = self.gru(x, None if state is None else state[None])
            self.table.copy_(h[0].detach())
            return y, self.table
        return self.gru(x, state)


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ("on self", r"`output` at .* another one is read between the parts"),
        ("cache", r"`output` at .* another one is read between the parts"),
        ("buffer", r"`state` at .* changes by .* when another sequence is read"),
    ],
)
def test_a_state_that_another_sequence_overwrites_is_caught(kept, words):
    x = inputs()
    with pytest.raises(AssertionError, match=f"^state carry: {words}"):
        check_state_carry(Keeping(kept), x)
    # What they share with the sound model: rows, and one sequence read in two parts.
    model = Keeping(kept)
    check_row_order(model, x, call=lambda m, x: m(x)[0])
    assert check_state_carry(Keeping(""), x) is None


@dataclasses.dataclass
class Memory:
    parts: list


def test_a_cache_that_is_written_in_place_and_passed_on_is_sound():
    """Generation does so; the state of one sequence is not that of another."""

    class Growing(nn.Module):
        def __init__(self, shared):
            super().__init__()
            self.linear, self.shared = nn.Linear(3, 4), Memory([]) if shared else None

        def forward(self, x, state=None):
            state = (self.shared or Memory([])) if state is None else state
            state.parts[:] = [torch.cat([*state.parts, self.linear(x)], dim=1)]
            return torch.tanh(state.parts[0].cumsum(1))[:, -x.shape[1] :], state

    assert check_state_carry(Growing(False), inputs()) is None
    with pytest.raises(AssertionError, match="state carry"):
        check_state_carry(Growing(True), inputs())


class Settling(nn.Module):
    """Keeps its state, which has come to rest after many calls with one input."""

    def __init__(self):
        super().__init__()
        self.cell, self.h = nn.GRUCell(3, 4), None

    def forward(self, x):
        steps, h_t = [], x.new_zeros(len(x), 4) if self.h is None else self.h
        for x_t in x.unbind(1):
            h_t = self.cell(x_t, h_t)
            steps.append(h_t)
        self.h = h_t.detach()
        return torch.stack(steps, dim=1)


@pytest.mark.parametrize("as_function", [False, True])
@pytest.mark.parametrize("check", OUTPUTS_ALONE)
def test_a_kept_state_that_has_come_to_rest_is_caught(check, as_function):
    model, x = Settling().double().eval(), inputs().double()
    for _ in range(200):
        model(x)
    assert torch.equal(model(x), model(x))
    with pytest.raises(AssertionError, match="so nothing can be compared"):
        check(function(model) if as_function else model, x)


def test_a_mean_of_the_first_batch_that_is_kept_is_caught():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = None

        def forward(self, x):
            self.mean = x.mean() if self.mean is None else self.mean
            return (x - self.mean).cumsum(1)

    with pytest.raises(AssertionError, match="depends on the calls before in eval"):
        check_causality(Centred(), inputs())


# Random numbers.


class Drawing(nn.Module):
    """Draws in evaluation mode, with or without an effect."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.mask = kind, None
        self.gru = nn.GRU(3, 8, batch_first=True)

    def forward(self, x):
        y = self.gru(x)[0]
        if self.kind == "mask that is kept":
            if self.mask is None:
                self.mask = dropout(torch.ones(1, 1, 8), 0.5)
            return y * self.mask
        if self.kind == "seldom":
            return dropout(y, 1e-4)
        if self.kind == "a step in a thousand":
            return y * (torch.rand(*y.shape[:2], 1) > 1e-3)
        if self.kind == "noise":
            return y + 1e-3 * torch.randn_like(y)
        if self.kind == "whole numbers":
            return y + torch.randint(3, (1,))
        if self.kind == "layers that may be left out":
            left_out = torch.rand(()) < 0.5
            return y * 0 if self.training and left_out else y
        if self.kind == "certain":
            forced = torch.rand(()) < 1.0
            kept = torch.bernoulli(torch.ones(8)) * torch.empty(8).bernoulli_(1.0)
            return y * kept if forced else y * 0
        if self.kind == "a coin of Python, never thrown":
            return y * 0 if random.random() < 0 else y
        return y


MATTER = [
    "mask that is kept",
    "seldom",
    "a step in a thousand",
    "noise",
    "whole numbers",
]
DO_NOT = [
    "layers that may be left out",
    "certain",
    "a coin of Python, never thrown",
    "",
]


@pytest.mark.parametrize("kind", MATTER)
@pytest.mark.parametrize("check", OUTPUTS_ALONE)
def test_a_draw_that_matters_is_named_however_seldom_it_shows(check, kind):
    """For each seed of the model: a look at two calls alone would miss it in many."""
    for number in range(5):
        torch.manual_seed(number)
        with pytest.raises(AssertionError, match="so nothing can be compared"):
            check(Drawing(kind), inputs())


@pytest.mark.parametrize("kind", DO_NOT)
@pytest.mark.parametrize("check", OUTPUTS_ALONE)
def test_a_draw_without_effect_is_no_fault(check, kind):
    assert check(Drawing(kind), inputs()) is None


def test_a_rare_draw_is_never_called_a_leak():
    words = "depends on random numbers that the model draws"
    with pytest.raises(AssertionError, match=words) as caught:
        check_causality(Drawing("seldom"), inputs())
    assert "a mask that is drawn at the first call and kept" in str(caught.value)
    model = Drawing("seldom").eval()
    with pytest.raises(AssertionError, match=words):
        check_causality(function(model), inputs())


def test_a_function_that_draws_in_its_first_call_alone_is_refused_in_words():
    model = Drawing("mask that is kept").eval()
    with pytest.raises(AssertionError, match="Pass the module itself"):
        check_causality(function(model), inputs())


def test_weights_that_are_made_by_the_first_call_are_no_random_result():
    model = nn.Sequential(nn.LazyLinear(4), nn.Tanh())
    check_row_order(model, inputs())
    with pytest.raises(AssertionError, match="row order: `output` at row"):
        check_row_order(model, inputs(), call=lambda m, x: m(x.flip(0)))


def test_the_ends_of_what_torch_draws():
    with at_extreme(high=False):
        low = torch.rand(3), torch.empty(3).bernoulli_(0.5), dropout(torch.ones(3))
    with at_extreme(high=True):
        high = torch.rand(3), torch.empty(3).bernoulli_(0.5), dropout(torch.ones(3))
        certain = torch.bernoulli(torch.tensor([0.0, 0.5, 1.0])).tolist()
    for tensor in low:
        assert tensor.tolist() == [0, 0, 0]
    assert ((high[0] < 1) & (high[0] > 0.999)).all()
    assert high[1].tolist() == [1, 1, 1]
    assert high[2].tolist() == [2, 2, 2]
    assert certain == [0, 1, 1]


@pytest.mark.draws
def test_generators_of_python_and_numpy_stay_as_they_were():
    def draws(x):
        np.random.rand()  # noqa: NPY002
        random.random()
        return x.cumsum(1)

    before = random.getstate(), np.random.get_state()[2]  # noqa: NPY002
    check_causality(draws, inputs())
    assert before == (random.getstate(), np.random.get_state()[2])  # noqa: NPY002


def test_a_coin_of_python_is_named():
    flipped = random.Random(3)

    def model(x):
        random.seed(flipped.random())
        return x.cumsum(1) + (random.random() < 0.3)

    with pytest.raises(AssertionError, match="between two calls with the same"):
        check_causality(model, inputs())


# Half precision.


class Encoder(nn.Module):
    """A transformer's layer and probabilities, each far below 1."""

    def __init__(self, classes=64):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, classes)

    def forward(self, x, mask=None):
        return self.head(self.layer(x, src_mask=mask)).softmax(dim=-1)


def causal(time):
    return torch.ones(time, time, dtype=torch.bool).triu(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("classes", [64, 500])
def test_a_result_in_low_precision_hides_no_leak(dtype, classes):
    model, x = Encoder(classes).eval(), inputs(width=8)
    message = "^causality: `output` at row"
    with pytest.raises(AssertionError, match=message):
        check_causality(model, x, call=lambda m, x: m(x).to(dtype))
    low = Encoder(classes).to(dtype).eval()
    with pytest.raises(AssertionError, match=message):
        check_causality(function(low), x.to(dtype))
    with pytest.raises(AssertionError, match=message):
        check_causality(low, x)
    masked = causal(6)
    check_causality(model, x, call=lambda m, x: m(x, masked).to(dtype))
    check_causality(lambda x: low(x, masked), x.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_sound_models_in_half_precision_pass(dtype, kind):
    layer = kind(8, 16, 2, batch_first=True).to(dtype).eval()
    head = nn.Linear(16, 50).to(dtype)
    x = inputs(width=8).to(dtype)
    for scores in (lambda y: y, lambda y: head(y).softmax(dim=-1)):

        def model(x, state=None, scores=scores):
            y, state = layer(x, state)
            return scores(y), state

        check_row_order(lambda x, model=model: model(x)[0], x)
        check_causality(lambda x, model=model: model(x)[0], x)
        check_state_carry(model, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_source_is_seen_in_half_precision(dtype):
    """A probability of one in fifty cannot move by a half."""
    encoder, decoder = nn.GRU(3, 8, batch_first=True), nn.GRU(3, 8, batch_first=True)
    head = nn.Linear(8, 50)
    for module in (encoder, decoder, head):
        module.to(dtype).eval()

    def model(source, target):
        return head(decoder(target, encoder(source)[1])[0]).softmax(dim=-1)

    x = inputs(time=3).to(dtype)
    check_source_dependence(model, x, x.flip(0))
    with pytest.raises(AssertionError, match="whatever the source"):
        check_source_dependence(lambda s, t: model(t, t), x, x.flip(0))


def test_atol_is_the_difference_that_may_be_left():
    def leaks(x):
        return x.cumsum(1) + 1e-3 * x[:, -1:]

    x = inputs().double()
    with pytest.raises(AssertionError, match="causality"):
        check_causality(leaks, x)
    with pytest.raises(AssertionError, match="causality"):
        check_causality(leaks, x, atol=1e-5)
    check_causality(leaks, x, atol=0.1)
    low = x.bfloat16()
    check_causality(lambda x: leaks(x.double()).bfloat16() * 0.01, low)
    with pytest.raises(AssertionError, match=r"may be rounding in torch.bfloat16"):
        check_causality(lambda x: leaks(x.double()).bfloat16() * 0.01, low, atol=0.0)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("atol", "error", "words"),
    [
        (-1.0, ValueError, "`atol` must be at least 0 and finite, got -1.0"),
        (float("nan"), ValueError, "`atol` must be at least 0 and finite, got nan"),
        ("1", TypeError, "`atol` must be a number, got str"),
        (True, TypeError, "`atol` must be a number, got bool"),
    ],
)
def test_bad_tolerances(atol, error, words):
    with pytest.raises(error, match=words):
        check_causality(nn.Linear(3, 4), inputs(), atol=atol)


@pytest.mark.parametrize(
    ("dtype", "share", "least"),
    [
        (torch.float64, 1e-9, 1e-9),
        (torch.float32, 1e-4, 1e-5),
        (torch.float16, 2**-7, 8e-6),
        (torch.bfloat16, 2**-4, 6e-5),
    ],
)
def test_the_tolerances_that_the_page_states(dtype, share, least):
    """A share of the largest value that differs, and a least size."""
    for value, allowed in ((4.0, 4 * share), (0.0, least)):
        want = torch.full((4,), value, dtype=dtype)
        for by, counts in ((allowed / 2, False), (allowed * 2, True)):
            got = want.clone()
            got[0] += by
            assert bool(differ(want, got).any()) == counts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_mask_is_no_large_value(dtype):
    """Beside a value near zero that is rounded like the others."""
    values = torch.tensor([-1e9, 0.5, 0.5, 1e-3, 0.25], dtype=dtype)
    got = values.clone()
    got[3] += TOLERANCE[dtype] / 4
    assert not differ(values, got).any()
    got[3] += TOLERANCE[dtype]
    assert differ(values, got).tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_reaction_in_half_precision_is_more_than_two_units(dtype):
    one = torch.full((3,), 0.0625, dtype=dtype)
    unit = torch.finfo(dtype).eps * 0.0625
    two = one + torch.tensor([0, 2, 4], dtype=dtype) * unit
    assert changed(one, two).tolist() == [False, False, True]


# Tensors in other objects.


class Slotted:
    __slots__ = ("__hidden", "shown")

    def __init__(self, shown, hidden):
        self.shown, self.__hidden = shown, hidden


class Plain:
    def __init__(self, value):
        self.value, self.again, self._itself = value, value, self

    def __iter__(self):
        """As the caches of transformers have it."""
        return iter([self.value])


def test_tensors_are_found_in_any_object():
    y = torch.ones(2, 3)
    point = collections.namedtuple("Point", ["a", "b"])(y, [y])
    tensors = flatten(
        {
            "categorical": torch.distributions.Categorical(logits=y),
            "normal": torch.distributions.Independent(
                torch.distributions.Normal(y, 2 * y), 1
            ),
            "plain": Plain(y + 1),
            "slots": Slotted(y + 2, y + 3),
            "point": point,
            "data": Memory([y + 4]),
            "deque": collections.deque([y + 5]),
            "user": collections.UserDict(y=y + 6),
            "array": np.ones((2, 3), np.float32),
            "scalar": np.float32(1),
            "nothing": (None, 1, 2.5, "words", len, nn.Linear(1, 1), torch.float32),
        }
    )
    names = [
        "categorical.logits",
        "normal.base_dist.loc",
        "normal.base_dist.scale",
        "plain.value",
        "slots.shown",
        "slots.__hidden",
        "point.a",
        "point.b[0]",
        "data.parts[0]",
        "deque[0]",
        "user.y",
        "array",
    ]
    assert [key for key in tensors if "[0].__" not in key] == [
        f"`output.{name}`" for name in names
    ]
    assert all(value.shape == (2, 3) for value in tensors.values())


@pytest.mark.errors
@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda y: (y for _ in range(2)), r"got generator as `output\[0\]`"),
        (lambda y: {"y": y}.values(), r"got dict_values as `output\[0\]`"),
        (lambda y: {y}, r"got set as `output\[0\]`"),
        (lambda y: nn.utils.rnn.pack_sequence(list(y)), "a PackedSequence"),
        (
            lambda y: torch.nested.as_nested_tensor(list(y), layout=torch.jagged),
            r"a nested tensor as `output\[0\]`",
        ),
    ],
)
def test_what_cannot_be_looked_into_is_refused_and_not_dropped(result, words):
    layer = nn.Linear(3, 4)
    with pytest.raises(TypeError, match=words):
        check_row_order(layer, inputs(), call=lambda m, x: (result(m(x)), m(x)))


def test_sparse_results_are_compared():
    def call(flip):
        return lambda m, x: (m(x).flip(flip).to_sparse(), m(x))

    check_row_order(nn.Linear(3, 4), inputs(), call=call([]))
    with pytest.raises(AssertionError, match=r"row order: `output\[0\]`"):
        check_row_order(nn.Linear(3, 4), inputs(), call=call([0]))


class Policy(nn.Module):
    """A distribution over actions and a value."""

    def __init__(self, swapped, in_state=False):
        super().__init__()
        self.swapped, self.in_state = swapped, in_state
        self.gru = nn.GRU(3, 8, batch_first=True)
        self.policy, self.value = nn.Linear(8, 4), nn.Linear(8, 1)

    def forward(self, x, state=None):
        y, h = self.gru(x, None if state is None else state.value)
        scores = self.policy(y.flip(0) if self.swapped else y)
        if self.in_state:
            return self.value(y), Plain(h + (x.shape[1] == 6 and self.swapped))
        return torch.distributions.Categorical(logits=scores), self.value(y)


def test_a_distribution_beside_a_tensor_is_compared():
    check_row_order(Policy(False), inputs())
    with pytest.raises(AssertionError, match=r"`output\[0\].logits` at row"):
        check_row_order(Policy(True), inputs())
    # Alone as well.
    check_causality(Policy(False), inputs(), call=lambda m, x: m(x)[0])


def test_a_state_in_an_object_is_compared():
    check_state_carry(Policy(False, True), inputs())
    with pytest.raises(AssertionError, match=r"`state.value` at .* changes by 1"):
        check_state_carry(Policy(True, True), inputs())


# Losses and labels that are made inside.


class Inside(nn.Module):
    """Shifts its labels itself by a number of steps, and returns loss and scores."""

    def __init__(self, shift, bidirectional=False, reduction="mean"):
        super().__init__()
        self.shift, self.reduction = shift, reduction
        self.embed = nn.Embedding(9, 8)
        self.gru = nn.GRU(8, 8, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(16 if bidirectional else 8, 9)

    def forward(self, x, labels=None):
        logits = self.head(self.gru(self.embed(x))[0])
        if labels is None:
            return {"loss": None, "logits": logits}
        kept = logits[:, : logits.shape[1] - self.shift]
        loss = cross_entropy(
            kept.transpose(1, 2), labels[:, self.shift :], reduction=self.reduction
        )
        return {"loss": loss, "logits": logits}


def loss_of(model, x, labels):
    return model(x, labels)["loss"]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_loss_made_inside_is_checked(reduction):
    check, target = check_target_shift, ids()
    assert check(Inside(1, reduction=reduction), target, loss=loss_of) is None
    with pytest.raises(AssertionError) as caught:
        check(Inside(0, reduction=reduction), target, loss=loss_of)
    assert str(caught.value).startswith(
        "target shift: the loss of the label of step 0 changes by "
    )
    assert "labels that were not shifted" in str(caught.value)
    with pytest.raises(AssertionError, match="does not depend on the input of step 1"):
        check(Inside(2, reduction=reduction), target, loss=loss_of)
    with pytest.raises(AssertionError, match="label of step 1 changes by"):
        check(Inside(1, True, reduction), target, loss=loss_of)


def test_a_loss_of_values_is_checked():
    layer = nn.GRU(3, 3, batch_first=True)

    def loss(shift):
        def call(model, x, labels):
            y = model(x)[0]
            return (y[:, : y.shape[1] - shift] - labels[:, shift:]).square().mean()

        return call

    check_target_shift(layer, inputs(), loss=loss(1))
    with pytest.raises(AssertionError, match="label of step 0 changes by"):
        check_target_shift(layer, inputs(), loss=loss(0))
    with pytest.raises(AssertionError, match="label of step 2 does not depend"):
        check_target_shift(layer, inputs(), loss=loss(2))


def test_a_model_that_returns_its_loss_is_told_of_loss():
    with pytest.raises(TypeError, match=r"got dict; .* pass `loss`, a function of"):
        check_target_shift(Inside(1), ids(), call=lambda m, y: m(y, y))
    with pytest.raises(ValueError, match="pass `loss`, a function of the model"):
        check_target_shift(Inside(1), ids(), call=lambda m, y: tuple(m(y, y).values()))


@pytest.mark.errors
def test_bad_losses():
    with pytest.raises(ValueError, match="`loss` must be None where `call` is given"):
        check_target_shift(Inside(1), ids(), call=loss_of, loss=loss_of)
    with pytest.raises(ValueError, match=r"must depend on `inputs`, .* of the labels"):
        check_target_shift(Inside(1), ids(), loss=lambda m, x, y: loss_of(m, y, y))
    with pytest.raises(ValueError, match="`loss` must depend on `labels`"):
        check_target_shift(Inside(1), ids(), loss=lambda m, x, y: loss_of(m, x, x))
    with pytest.raises(
        ValueError, match=r"a finite floating tensor, got torch.float64"
    ):
        check_target_shift(Inside(1), ids(), loss=lambda m, x, y: loss_of(m, x, y) / 0)
    with pytest.raises(ValueError, match=r"a finite floating tensor, got torch.int64"):
        check_target_shift(Inside(1), ids(), loss=lambda m, x, y: y)


@pytest.mark.parametrize("place", ["dict", "object", "tuple"])
def test_predictions_are_taken_out_of_what_a_model_returns(place):
    class Wrapped(Inside):
        def forward(self, x):
            logits = super().forward(x)["logits"]
            rest = {"logits": logits, "more": logits.sum()}
            return {"dict": rest, "object": Plain(logits), "tuple": (logits, None)}[
                place
            ]

    assert check_target_shift(Wrapped(1), ids()) is None
    # Read two ways, the predictions see their labels.
    with pytest.raises(AssertionError, match="target shift"):
        check_target_shift(Wrapped(1, True), ids())


# A leak has more to say than what is missing beside it.


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 8), nn.Linear(8, 9)
        self.gru = nn.GRU(8, 8, batch_first=True)

    def forward(self, y):
        return self.head(self.gru(self.embed(y))[0])


def replaced(model, y):
    start = torch.zeros_like(y[:, :1])
    return model(torch.cat([start, y[:, 1:]], dim=1)), y


def in_front(model, y):
    start = torch.zeros_like(y[:, :1])
    return model(torch.cat([start, y[:, :-1]], dim=1)), y


@pytest.mark.parametrize("call", [replaced, lambda m, y: (m(y[:, 1:]), y[:, :-1])])
def test_a_label_that_is_read_is_reported_before_one_that_is_not(call):
    with pytest.raises(AssertionError, match=r"changes by .* when the label of step"):
        check_target_shift(Decoder(), ids(), call=call)
    assert check_target_shift(Decoder(), ids(), call=in_front) is None


# Padding.


class Masked(nn.Module):
    """A mean over real steps, whose mask is left out for a batch of one."""

    def __init__(self, skips):
        super().__init__()
        self.skips, self.gru = skips, nn.GRU(3, 4, batch_first=True)

    def forward(self, x, lengths):
        y = self.gru(x)[0]
        if self.skips and len(x) == 1:
            return y.mean(dim=1)
        real = ~mask_of(lengths, x.shape[1])[..., None]
        return (y * real).sum(dim=1) / lengths[:, None]


def test_a_mask_that_is_left_out_for_a_batch_of_one_is_caught():
    check_padding_invariance(Masked(False), inputs(), LENGTHS)
    with pytest.raises(AssertionError, match="alone with its padding"):
        check_padding_invariance(Masked(True), inputs(), LENGTHS)


class Late(nn.Module):
    """Reads a step at or after the length, which a row alone does not have."""

    def __init__(self, offset, more=0):
        super().__init__()
        self.offset, self.gru = offset, nn.GRU(3, 4, batch_first=True)

    def forward(self, x, lengths):
        y = self.gru(x)[0]
        return y[torch.arange(len(x)), lengths - self.offset], y


def test_the_first_padded_step_is_named_though_a_row_alone_has_none():
    lengths = torch.tensor([3, 5, 1, 4])
    check_padding_invariance(Late(1), inputs(), lengths)
    with pytest.raises(
        AssertionError, match=r"`output\[0\]` at .* with other contents of the padding"
    ):
        check_padding_invariance(Late(0), inputs(), lengths)
    # With nothing to find, the model's own error stays.
    with pytest.raises(IndexError, match="out of bounds"):
        check_padding_invariance(
            Late(1),
            inputs(),
            lengths,
            call=lambda m, x, n: m(x, n)[0] + 0 * x[:, 2, :1],
        )


class Normed(nn.Module):
    """Batch norm over (batch, features), after the steps are pooled."""

    def __init__(self, norm):
        super().__init__()
        self.gru, self.norm = nn.GRU(3, 6, batch_first=True), norm

    def forward(self, x, lengths=None):
        lengths = torch.full((len(x),), x.shape[1]) if lengths is None else lengths
        return self.norm(self.gru(x)[0][torch.arange(len(x)), lengths - 1])


def training(model, *inputs):
    return model.train()(*inputs)


@pytest.mark.parametrize(
    ("norm", "call"),
    [
        (nn.BatchNorm1d(6), training),
        (nn.BatchNorm1d(6, track_running_stats=False), None),
    ],
)
def test_batch_norm_that_refuses_a_row_alone_is_named(norm, call):
    words = (
        r": `output` at .* when rows 0 and 1 are alone in the batch .*\n.* batch norm"
    )
    with pytest.raises(AssertionError, match="^row order" + words):
        check_row_order(Normed(norm), inputs(), call=call)
    with pytest.raises(AssertionError, match="^padding invariance" + words):
        check_padding_invariance(Normed(norm), inputs(), LENGTHS, call=call)
    check_row_order(Normed(nn.BatchNorm1d(6)), inputs())
    check_padding_invariance(Normed(nn.BatchNorm1d(6)), inputs(), LENGTHS)


class Strict(nn.Module):
    """Packs rows that must come sorted, the longest first; its rows may be mixed."""

    def __init__(self, mix=lambda y: y):
        super().__init__()
        self.mix, self.gru = mix, nn.GRU(3, 4, batch_first=True)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True)
        return self.mix(self.gru(packed)[1][-1])


def test_a_model_that_wants_its_rows_sorted_can_be_checked():
    falling = torch.tensor([6, 4, 3, 1])
    check_row_order(Strict(), inputs(), falling)
    check_padding_invariance(Strict(), inputs(), falling)
    for mix in (lambda h: h.flip(0), lambda h: h - h.mean(dim=0)):
        with pytest.raises(AssertionError, match="row order: `output` at row"):
            check_row_order(Strict(mix), inputs(), falling)
    with pytest.raises(RuntimeError, match="decreasing order") as caught:
        check_row_order(Strict(), inputs(), LENGTHS)
    assert "the longest first" in caught.value.__notes__[0]
    # A scalar moves with any contents: it cannot be checked so.
    with pytest.raises(RuntimeError, match="decreasing order"):
        check_row_order(Strict(torch.mean), inputs(), falling)


class Counting(nn.Module):
    """Packs by the number of ids that are not 0, which is padding."""

    def __init__(self, bidirectional=False):
        super().__init__()
        self.embed = nn.Embedding(9, 6, padding_idx=0)
        self.gru = nn.GRU(6, 6, batch_first=True, bidirectional=bidirectional)

    def forward(self, x):
        lengths = (x != 0).sum(1).clamp(min=1)
        packed = pack_padded_sequence(
            self.embed(x), lengths, batch_first=True, enforce_sorted=False
        )
        y, _ = self.gru(packed)
        return pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0]


def padded():
    x = ids()
    x[0, 3:] = 0
    x[2, 1:] = 0
    return x


def test_padding_that_a_causal_model_finds_by_its_value():
    x = padded()
    check_causality(Counting(), x, pad=0)
    with pytest.raises(ValueError, match=r"rows of `x` end with 0, .* pass pad=0"):
        check_causality(Counting(), x)
    for pad in (None, 0):
        with pytest.raises(AssertionError, match="causality"):
            check_causality(Counting(True), x, pad=pad)
    check_row_order(Counting(), x)
    with pytest.raises(AssertionError, match="Rows of `target` end with 0, which"):
        check_target_shift(Counting(), x)
    with pytest.raises(AssertionError, match="Rows of `source` end with 0, which"):
        check_source_dependence(Counting(), x, x, call=lambda m, s, _: m(s))
    # Without padding there is nothing to find.
    check_causality(Counting(), ids())


def test_padding_of_zeros_in_vectors():
    x = inputs().masked_fill(mask_of(LENGTHS, 6)[..., None], 0)

    def counting(x):
        real = (x != 0).any(dim=-1, keepdim=True)
        return (x * real).cumsum(1) / real.sum(dim=1, keepdim=True).clamp(min=1)

    def causal_one(x):
        real = (x != 0).any(dim=-1)
        lengths = real.sum(1, keepdim=True)
        inside = torch.arange(x.shape[1]) < lengths
        return x.cumsum(1) * inside[..., None]

    check_causality(causal_one, x, pad=0)
    with pytest.raises(AssertionError, match="causality"):
        check_causality(lambda x: x.flip(1).cumsum(1).flip(1), x, pad=0)
    with pytest.raises(AssertionError, match="causality"):
        check_causality(lambda x: counting(x) + x.mean(dim=1, keepdim=True), x, pad=0)


@pytest.mark.parametrize(
    ("x", "pad"),
    [
        ([[1, 2, 3, 4], [2, 1, 0, 0]], 0),
        ([[1, 2, 3, 4], [2, 1, 4, 0]], None),
        ([[1, 2, 0, 4], [2, 1, 0, 0]], None),
        ([[1, 2, 0, 0], [2, 1, 0, 0]], None),
        ([[0, 2, 7, 7], [0, 1, 3, 2]], 7),
    ],
)
def test_what_looks_like_padding(x, pad):
    assert padding_of(torch.tensor(x)) == pad


# A source, and steps that are no predictions.


class Tutorial(nn.Module):
    """Time first; fills its outputs from the second step on, as tutorials do."""

    def __init__(self, reads=True):
        super().__init__()
        self.reads, self.embed = reads, nn.Embedding(9, 8)
        self.encoder, self.decoder = nn.LSTM(8, 8), nn.LSTM(8, 8)
        self.head = nn.Linear(8, 9)

    def forward(self, source, target):
        _, state = self.encoder(self.embed(source))
        state = state if self.reads else None
        outputs = torch.zeros(*target.shape, 9)
        for t in range(1, len(target)):
            y, state = self.decoder(self.embed(target[t - 1])[None], state)
            outputs[t] = self.head(y[0])
        return outputs


def batch_first(model, source, target):
    return model(source.t(), target.t()).transpose(0, 1)


def test_a_first_step_of_zeros_is_no_prediction():
    check_source_dependence(Tutorial(), ids(), ids(), call=batch_first)
    with pytest.raises(AssertionError, match="row 0, step 1 is the same whatever"):
        check_source_dependence(Tutorial(False), ids(), ids(), call=batch_first)
    with pytest.raises(AssertionError, match="cut it off in `call`"):
        check_source_dependence(
            Tutorial(), ids(), ids(), call=lambda *a: batch_first(*a).log_softmax(-1)
        )
    cut = check_source_dependence(
        Tutorial(), ids(), ids(), call=lambda *a: batch_first(*a)[:, 1:].log_softmax(-1)
    )
    assert cut is None


def every_step(model, x):
    """The line that the page gives for a model without a decoder."""

    def call(model, source, _):
        return model(source, torch.full((len(source),), source.shape[1]))[:, None]

    check_source_dependence(model, x, x, call=call)


def test_that_every_real_step_counts():
    every_step(Masked(False), inputs())

    class Early(Late):
        def forward(self, x, lengths):
            return super().forward(x, lengths)[0]

    every_step(Early(1), inputs())
    with pytest.raises(AssertionError, match="depends on step 5 of the source"):
        every_step(Early(2), inputs())


def test_what_the_page_says_of_every_step_and_of_losses():
    """A limit that falls is a sentence to take away."""

    class LastOfBoth(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(3, 4, batch_first=True, bidirectional=True)

        def forward(self, x, lengths):
            return self.gru(x)[0][:, -1]

    every_step(LastOfBoth(), inputs())
    with pytest.raises(AssertionError, match="depends on step 0 of the source"):
        check_source_dependence(
            LastOfBoth(),
            inputs(),
            inputs(),
            call=lambda m, x, _: m(x, None)[:, None, 4:],
        )
    # The loss inside is not shifted, and the slices outside are.
    check_target_shift(
        Inside(0), ids(), call=lambda m, y: (m(y, y)["logits"][:, :-1], y[:, 1:])
    )

    def weighted(model, x, labels):
        logits = model(x)["logits"][:, :-1].transpose(1, 2)
        weight = torch.arange(9.0) + 1
        return cross_entropy(logits, labels[:, 1:], weight=weight)

    with pytest.raises(AssertionError, match="target shift"):
        check_target_shift(Inside(1), ids(), loss=weighted)


def test_what_a_model_held_before_is_a_weight_of_it():
    model = Drawing("mask that is kept").double().eval()
    model(inputs().double())
    assert check_causality(model, inputs()) is None
    assert check_causality(function(model), inputs().double()) is None


# A time-first module.


def test_a_time_first_module_in_parts_is_named():
    model = nn.GRU(3, 4)
    with pytest.raises(RuntimeError, match="hidden size") as caught:
        check_state_carry(model, inputs(), call=lambda m, x, s: m(x, s))
    assert any("takes its time axis first" in n for n in caught.value.__notes__)
    with pytest.raises(AssertionError, match="row order"):
        check_row_order(model, inputs(), call=lambda m, x: m(x)[0])
