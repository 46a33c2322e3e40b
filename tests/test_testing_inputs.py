"""The checks for any model, on what users bring: layouts, masks, dtypes, randomness.

Each case was a false alarm, a miss or an error that named no way out.
"""

import random
import threading
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqref._contract.inputs import other
from seqref.testing import (
    check_causality,
    check_nonlinearity,
    check_padding_invariance,
    check_row_order,
    check_sequence_layer,
    check_source_dependence,
    check_state_carry,
    check_target_shift,
)

LENGTHS = torch.tensor([3, 6, 1, 4])
LOWEST = torch.finfo(torch.float64).min


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def inputs(batch=4, time=6):
    return torch.randn(batch, time, 3)


def mask_of(lengths, time):
    return torch.arange(time) >= lengths[:, None]


class Packed(nn.Module):
    """A packed recurrent layer; what it returns is an argument."""

    def __init__(self, returns, layers=1, bidirectional=False):
        super().__init__()
        self.returns = returns
        self.gru = nn.GRU(3, 4, layers, batch_first=True, bidirectional=bidirectional)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        y, h = self.gru(packed)
        y, _ = pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        return self.returns(y, h, lengths)


@pytest.mark.parametrize("check", [check_padding_invariance, check_row_order])
def test_masks_and_ids_beside_the_outputs_are_compared(check):
    def returns(y, h, lengths):
        real = ~mask_of(lengths, y.shape[1])
        return {"y": y, "real": real, "best": y.argmax(dim=-1), "n": lengths}

    assert check(Packed(returns), inputs(), LENGTHS) is None


@pytest.mark.parametrize("check", [check_padding_invariance, check_row_order])
def test_a_state_of_as_many_layers_as_rows_is_not_taken_for_a_batch(check):
    """Two layers in two directions beside a batch of four."""
    model = Packed(lambda y, h, lengths: (y, h), 2, True)
    with pytest.raises(ValueError, match=r"batch=1 for a row alone, got \(4, 1, 4\)"):
        check(model, inputs(), LENGTHS)
    batch_first = Packed(lambda y, h, lengths: (y, h.transpose(0, 1)), 2, True)
    assert check(batch_first, inputs(), LENGTHS) is None


@pytest.mark.parametrize(
    ("returns", "axes"),
    [
        (lambda y: torch.tanh(y).transpose(1, 2), "axis 2,"),
        (lambda y: y @ y.transpose(1, 2), "axis 1 and 2,"),
    ],
)
def test_time_on_another_axis_is_named(returns, axes):
    def model(x, lengths):
        return returns(x)

    with pytest.raises(ValueError, match=axes):
        check_padding_invariance(model, inputs(), LENGTHS)


def test_a_list_of_steps_is_named():
    def steps(x, lengths):
        return list(torch.tanh(x).unbind(1))

    with pytest.raises(ValueError, match=r"3 tensors in one call and 6 in another"):
        check_padding_invariance(steps, inputs(), LENGTHS)
    with pytest.raises(ValueError, match="a list of steps stacked"):
        check_causality(lambda x: list(x.unbind(1)), inputs())


def test_a_step_does_not_become_the_padding_that_a_model_looks_for():
    """A row of one step would have none, which packing refuses."""

    class Finds(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 4)
            self.gru = nn.GRU(4, 5, batch_first=True)

        def forward(self, x, lengths):
            packed = pack_padded_sequence(
                self.embed(x), (x != 0).sum(1), batch_first=True, enforce_sorted=False
            )
            return self.gru(packed)[1][-1]

    x = torch.randint(1, 9, (4, 6)).masked_fill(mask_of(LENGTHS, 6), 0)
    # The highest id, which would be followed by the lowest.
    x[2, 0] = 8
    x[0, 0] = 8
    assert check_padding_invariance(Finds(), x, LENGTHS, pad=0) is None
    assert not (other(x, without=0) == 0).any()


def masked_scores(fill, leak=0.0, bend=torch.tanh):
    """Scores of four classes, of which the last may not be chosen."""
    weight = torch.randn(3, 4, dtype=torch.float64)
    last = torch.tensor([False, False, False, True])

    def model(x):
        y = bend(x.cumsum(1)) @ weight + leak * x.mean(dim=1, keepdim=True)[..., :1]
        return y.masked_fill(last, fill)

    return model


@pytest.mark.parametrize("fill", [-1e9, LOWEST, -torch.inf])
def test_masked_scores_hide_neither_a_leak_nor_a_sum(fill):
    x = inputs().double()
    check_causality(masked_scores(fill), x)
    with pytest.raises(AssertionError, match=r"causality: .* 12 of 16 values differ"):
        check_causality(masked_scores(fill, leak=1e-3), x)
    check_nonlinearity(masked_scores(fill), x)
    with pytest.raises(AssertionError, match=r"nonlinearity: .* is a sum"):
        check_nonlinearity(masked_scores(fill, bend=lambda h: h), x)

    def log_p(model):
        return lambda x: model(x).log_softmax(dim=-1)

    check_nonlinearity(log_p(masked_scores(fill)), x)
    with pytest.raises(AssertionError, match="mean over the last axis taken off"):
        check_nonlinearity(log_p(masked_scores(fill, bend=lambda h: h)), x)


@pytest.mark.errors
def test_what_is_neither_scores_nor_finite_has_no_nonlinearity():
    for call in (
        lambda m, x: m(x).argmax(-1),
        lambda m, x: m(x) * torch.nan,
        lambda m, x: m(x).bfloat16(),
    ):
        with pytest.raises(ValueError, match="return scores or hidden states"):
            check_nonlinearity(nn.Linear(3, 4), inputs(), call=call)


def test_labels_of_another_row_are_found_in_a_loss():
    """A turned batch of turned labels has the same loss; a swap does not."""
    layer = nn.GRU(3, 4, batch_first=True)

    def loss(turn):
        def call(model, x):
            labels = x[:, 0, :1].roll(turn, 0)
            return (model(x)[0][:, -1] - labels).square().mean()

        return call

    check_row_order(layer, inputs(), call=loss(0))
    with pytest.raises(AssertionError, match="row order: `output` changes"):
        check_row_order(layer, inputs(), call=loss(1))


@pytest.mark.parametrize("draw", range(6))
def test_a_coin_in_the_model_is_no_leak(draw):
    """Two calls agree for every second seed; the message must not blame the future."""
    coin = random.Random(draw)

    def model(x):
        return x.cumsum(1) if coin.random() < 0.5 else x.cumsum(1) + 1

    with pytest.raises(AssertionError, match="between two calls with the same"):
        check_causality(model, inputs())


def test_a_function_is_not_said_to_be_in_evaluation_mode():
    layer = nn.GRU(3, 4, 2, batch_first=True, dropout=0.5)
    with pytest.raises(AssertionError, match="around a module in training mode") as e:
        check_causality(lambda x: layer(x)[0], inputs())
    assert "evaluation" not in str(e.value)
    layer.eval()
    assert check_causality(lambda x: layer(x)[0], inputs()) is None


def test_training_mode_is_looked_at_through_call():
    model = nn.Sequential(nn.Flatten(0, 1), nn.BatchNorm1d(3), nn.Unflatten(0, (-1, 6)))

    def training(model, x):
        return model.train()(x)

    check_row_order(model, inputs())
    with pytest.raises(AssertionError, match="row order"):
        check_row_order(model, inputs(), call=training)
    with pytest.raises(AssertionError, match="causality"):
        check_causality(model, inputs(), call=training)


def test_nan_is_named_and_not_blamed_on_the_change():
    def spoiled(x):
        return (torch.tanh(x) - 2).log()

    with pytest.raises(AssertionError, match="is NaN before anything is changed"):
        check_causality(spoiled, inputs())


def test_a_source_that_reaches_the_output_by_rounding_alone_is_caught():
    """Values less their mean add up to zero, to within rounding."""

    def summed(source, target):
        none = layer_norm(source, (8,)).sum(dim=(1, 2))
        return torch.tanh(target) + none[:, None, None]

    count = 0
    for draw in range(20):
        torch.manual_seed(draw)
        source, target = torch.randn(2, 6, 8).double(), inputs(2, 3).double()
        with pytest.raises(AssertionError, match="whatever the source"):
            check_source_dependence(summed, source, target)
        differs = summed(source, target) != summed(other(source), target)
        count += int(differs.any(dim=-1).all())
    # So often was there a difference at every step, which counted as reading.
    assert count > 5


@dataclass
class State:
    h: Tensor


def test_a_state_in_a_dataclass_is_compared():
    class Model(nn.Module):
        def __init__(self, wrong):
            super().__init__()
            self.wrong = wrong
            self.gru = nn.GRU(3, 4, batch_first=True)

        def forward(self, x, state=None):
            y, h = self.gru(x, None if state is None else state.h)
            # The state of six steps at once is never read again.
            return y, State(h + 1 if self.wrong and x.shape[1] == 6 else h)

    check_state_carry(Model(False), inputs())
    with pytest.raises(AssertionError, match=r"`state.h` at .* changes by 1"):
        check_state_carry(Model(True), inputs())


def test_a_leak_of_one_id_is_sought_with_three_others():
    """One other id in each place would find it in some of these batches alone."""

    def ends_with(x, last):
        return x[:, -1:] == last

    one, three = 0, 0
    for draw in range(40):
        x = torch.randint(9, (1, 6), generator=torch.Generator().manual_seed(draw))
        last = int(x.unique()[-1])
        one += int((ends_with(x, last) != ends_with(other(x), last)).any())
        try:
            check_causality(
                lambda x, last=last: torch.stack([x, x + 9 * ends_with(x, last)], -1), x
            )
        except AssertionError:
            three += 1
    assert one < 25
    assert three > one + 10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_function_in_half_precision_has_room_for_rounding(dtype):
    layer = nn.GRU(16, 32, batch_first=True).to(dtype).eval()
    x = torch.randn(8, 10, 16).to(dtype)
    check_row_order(lambda x: layer(x)[0], x)
    with pytest.raises(AssertionError, match="row order"):
        check_row_order(lambda x: layer(x.transpose(0, 1))[0].transpose(0, 1), x)


def test_float32_inside_a_model_is_named():
    class Inside(nn.Module):
        def forward(self, x, lengths):
            beyond = mask_of(lengths, x.shape[1])[:, None]
            scores = (x @ x.transpose(1, 2)).masked_fill(beyond, -torch.inf)
            return scores.softmax(dim=-1, dtype=torch.float32).to(x.dtype) @ x

    x, lengths = inputs(4, 24), torch.tensor([13, 24, 1, 7])
    with pytest.raises(AssertionError, match="as small as rounding in float32"):
        check_padding_invariance(Inside(), x, lengths)
    assert check_padding_invariance(Inside(), x, lengths, dtype=torch.float32) is None


def test_a_scripted_model_and_a_function_in_c_can_be_called_with_lengths():
    class Scripted(nn.Module):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            return x.cumsum(1)[torch.arange(x.shape[0]), lengths - 1]

    # A FutureWarning from torch 2.14 on.
    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit"):
        model = torch.jit.script(Scripted())
    check_padding_invariance(model, inputs(), LENGTHS)
    with pytest.raises(TypeError, match="2 were given") as caught:
        check_padding_invariance(torch.tanh, inputs(), LENGTHS)
    assert "pass `call`" in caught.value.__notes__[0]


@pytest.mark.errors
def test_what_cannot_be_copied_or_carried_names_a_way_out():
    class Locked(nn.Linear):
        def __init__(self):
            super().__init__(3, 4)
            self.lock = threading.Lock()

    with pytest.raises(TypeError, match="cannot pickle") as caught:
        check_causality(Locked(), inputs())
    assert "`lambda x: model(x)`" in caught.value.__notes__[0]
    model = Locked()

    def call_it(x):
        return model(x)

    assert check_causality(call_it, inputs()) is None
    layer = nn.LSTM(3, 4, batch_first=True)
    for call, words in (
        (lambda m, x, s: ({"y": m(x, s)[0]}, m(x, s)[1]), "must be a tensor, got dict"),
        (lambda m, x, s: (m(x, s)[0], *m(x, s)[1]), "got tuple of 3; return a pair"),
    ):
        with pytest.raises(TypeError, match=words):
            check_state_carry(layer, inputs(), call=call)
    with pytest.raises(AssertionError, match="so large that they saturate"):
        check_state_carry(nn.GRU(3, 4, batch_first=True), 1e6 * inputs())


def test_a_cache_with_one_part_more_for_each_call_is_named():
    def call(model, x, state):
        parts = [*(state or []), model(x)]
        return torch.cat(parts, dim=1).cumsum(1)[:, -x.shape[1] :], parts

    with pytest.raises(AssertionError, match="one part more with each call"):
        check_state_carry(nn.Linear(3, 4), inputs(), call=call)
    joined = check_state_carry(
        nn.Linear(3, 4),
        inputs(),
        call=lambda m, x, s: (
            call(m, x, None if s is None else [s])[0],
            torch.cat(call(m, x, None if s is None else [s])[1], dim=1),
        ),
    )
    assert joined is None


def squeezed(scores):
    layer, head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 1)

    def model(x, lengths=None):
        y = head(layer(x)[0])
        last = torch.full((len(x),), x.shape[1]) if lengths is None else lengths
        y = y[torch.arange(len(x)), last - 1] if scores else y
        return y.squeeze()

    return model


@pytest.mark.parametrize("scores", [True, False])
def test_a_batch_axis_that_is_squeezed_away_is_caught(scores):
    words = r": `output` has shape \(6?,?\) for a row alone"
    with pytest.raises(AssertionError, match="row order" + words):
        check_row_order(squeezed(scores), inputs())
    words = r": `output` has shape \(3?,?\) for a row alone"
    with pytest.raises(AssertionError, match="padding invariance" + words):
        check_padding_invariance(squeezed(scores), inputs(), LENGTHS)


def test_a_step_axis_that_is_squeezed_away_is_caught():
    def call(model, x, state):
        y, state = model(x, state)
        return y.squeeze(), state

    layer = nn.GRU(3, 4, batch_first=True)
    with pytest.raises(AssertionError, match=r"shape \(4, 4\) for a part of 1 steps"):
        check_state_carry(layer, inputs(), call=call)


def test_what_the_page_says_that_the_checks_cannot_see():
    """A limit that falls is a sentence to take away."""
    time_first = nn.GRU(3, 4, bidirectional=True)

    def first(model, x):
        return model(x)[0]

    def backwards(x):
        return time_first(x)[0]

    assert check_causality(backwards, inputs()) is None
    with pytest.raises(AssertionError, match="row order"):
        check_row_order(backwards, inputs())

    layer = nn.GRU(3, 3, batch_first=True)
    with pytest.raises(AssertionError, match="target shift"):
        check_target_shift(
            layer, inputs(), call=lambda m, y: (m(y[:, :-1])[0], y.diff(dim=1))
        )
    check_target_shift(layer, inputs())

    def ends_early(x, lengths):
        y = torch.tanh(x).cumsum(1)
        return y[torch.arange(len(x)), (lengths - 2).clamp(min=0)]

    assert check_padding_invariance(ends_early, inputs(), LENGTHS) is None

    def over_the_longest(x, lengths):
        y = torch.tanh(x).masked_fill(mask_of(lengths, x.shape[1])[..., None], 0)
        return y.sum() / lengths.max()

    assert check_padding_invariance(over_the_longest, inputs(), LENGTHS) is None

    def writes(model, x):
        return model(x.mul_(2))[0]

    assert check_causality(layer, inputs(), call=writes) is None
    assert check_causality(layer, inputs(), call=first) is None


def test_a_subclass_of_a_layer_of_torch_returns_what_it_likes():
    class Outputs(nn.GRU):
        def forward(self, x, lengths=None):
            y = super().forward(x)[0]
            return y if lengths is None else y[torch.arange(len(x)), lengths - 1]

    model = Outputs(3, 4, batch_first=True)
    check_causality(model, inputs(2))
    check_row_order(model, inputs(2))
    check_padding_invariance(model, inputs(), LENGTHS)
    time_first = Outputs(3, 4)
    with pytest.raises(AssertionError, match="row order"):
        check_row_order(time_first, inputs(2))


def test_another_default_device_does_not_matter():
    layer, x = nn.Linear(3, 4), inputs()
    with torch.device("meta"):
        check_causality(layer, x)
        check_row_order(layer, x)


def test_an_initial_state_of_fixed_dtype_is_named():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(3, 4)

        def initial_state(self, batch_size):
            return torch.zeros(batch_size, 4)

        def step(self, x_t, state):
            h_t = self.cell(x_t, state)
            return h_t, h_t

        def forward(self, x, state=None):
            state = self.initial_state(len(x)) if state is None else state
            steps = []
            for x_t in x.unbind(1):
                h_t, state = self.step(x_t, state)
                steps.append(h_t)
            return torch.stack(steps, 1), state

    with pytest.raises(AssertionError, match="follow the dtype of its parameters"):
        check_sequence_layer(Fixed(), inputs())


def test_a_source_that_is_too_long_is_named():
    """What an untrained network forgets is no fault of its attention."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.RNN(3, 4, batch_first=True)
            self.decoder = nn.RNN(3, 4, batch_first=True)

        def forward(self, source, target):
            return self.decoder(target, self.encoder(source)[1])[0]

    check_source_dependence(Model(), inputs(4, 20), inputs())
    with pytest.raises(AssertionError, match="a source so long that the influence"):
        check_source_dependence(Model(), inputs(4, 80), inputs())


class Positions(nn.Module):
    """Adds a row of a table that whole numbers in a buffer choose."""

    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.arange(9).flip(0))
        self.table = nn.Embedding(9, 3)

    def forward(self, x):
        return (x + self.table(self.order[: x.shape[1]])).cumsum(1)


def test_whole_numbers_in_a_buffer_stay_whole():
    check_causality(Positions(), inputs())


@pytest.mark.parametrize(
    "x", [torch.ones(4, 6, 3), torch.randn(1, 6, 3).repeat(4, 1, 1)]
)
def test_rows_that_are_alike_are_refused(x):
    with pytest.raises(
        ValueError, match="`x` must hold different values, and no row twice"
    ):
        check_row_order(nn.Linear(3, 2), x)
    with pytest.raises(ValueError, match="`x` must hold different values"):
        check_causality(nn.Linear(3, 2), torch.ones(1, 6, 3))


def fails(x):
    raise RuntimeError("broken")


class Fails(nn.Module):
    def forward(self, x):
        return fails(x)


@pytest.mark.parametrize(
    ("model", "dtype", "what", "hint"),
    [
        (Fails(), None, "a copy of the model in torch.float64", True),
        (Fails(), torch.float32, "a copy of the model in torch.float32", False),
        (fails, None, "the model", False),
    ],
)
def test_an_error_of_the_model_says_what_was_called(model, dtype, what, hint):
    with pytest.raises(RuntimeError, match="broken") as raised:
        check_causality(model, inputs(), dtype=dtype)
    (note,) = raised.value.__notes__
    assert note.startswith(
        f"check_causality called {what} with inputs of shape [(4, 6, 3)]"
    )
    assert ("fixes float32 inside" in note) == hint


def test_outputs_that_change_their_shape_are_named():
    def wider_than_the_batch_is_long(x, lengths):
        real = torch.arange(x.shape[1]) < lengths[:, None]
        return (x.sum(2) * real).sum(1).outer(torch.ones(x.shape[1] + 1))

    with pytest.raises(
        ValueError, match=r"has shape \(7,\) and \(10,\) with three more"
    ):
        check_padding_invariance(wider_than_the_batch_is_long, inputs(), LENGTHS)
