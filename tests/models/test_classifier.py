import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from seqref import (
    GRU,
    LSTM,
    Bidirectional,
    ProjectedLSTM,
    Stacked,
)
from seqref.interop import from_torch
from seqref.models import SequenceClassifier
from seqref.testing import check_padding_invariance, check_row_order
from tests.layers import HIDDEN, INPUT, LAYERS

CLASSES = 4
LENGTHS = torch.tensor([7, 2, 9, 1])


def both(kind=LSTM, width=INPUT):
    return Bidirectional(kind(width, HIDDEN), kind(width, HIDDEN))


COMPOSITIONS = {
    "two projections": lambda: Bidirectional(
        ProjectedLSTM(INPUT, 6, 4), ProjectedLSTM(INPUT, 6, 3)
    ),
    "two kinds": lambda: Bidirectional(LSTM(INPUT, HIDDEN), GRU(INPUT, 4)),
    "stack of both": lambda: Stacked([both(), both(width=2 * HIDDEN)]),
    "three layers": lambda: Stacked([LSTM(INPUT, 6), both(width=6), GRU(10, HIDDEN)]),
    "both below one": lambda: Stacked([both(), GRU(2 * HIDDEN, HIDDEN)]),
}


@pytest.fixture(params=[*LAYERS, *COMPOSITIONS])
def model(request):
    torch.manual_seed(0)
    layer = (LAYERS | COMPOSITIONS)[request.param]()
    return SequenceClassifier(layer, CLASSES).double().eval()


def batch(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 9, INPUT, generator=generator, dtype=torch.float64)


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_padding_changes_nothing(model):
    check_padding_invariance(model, batch(), LENGTHS)


def test_rows_keep_their_order(model):
    check_row_order(model, batch(), LENGTHS)


def test_padding_of_nan_reaches_neither_value_nor_gradient(model):
    clean = batch().requires_grad_()
    beyond = torch.arange(9) >= LENGTHS[:, None]
    soiled = batch().masked_fill(beyond[..., None], torch.nan).requires_grad_()
    seed = torch.randn(4, CLASSES, dtype=torch.float64)
    results = []
    for x in (clean, soiled):
        logits = model(x, LENGTHS)
        results.append(
            (logits, *torch.autograd.grad(logits, [x, *model.parameters()], seed))
        )
    for one, other in zip(*results, strict=True):
        close(other, one)
    assert results[0][1][beyond].abs().max() == 0
    assert all(g.abs().max() > 0 for g in results[0][1:])


def test_each_row_equals_itself_alone(model):
    x = batch()
    together = model(x, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        close(together[row : row + 1], model(x[row : row + 1, :length]))


def test_without_lengths_every_step_counts(model):
    x = batch()
    close(model(x), model(x, torch.full((4,), 9)))


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_equals_torch(kind, n_layers, bidirectional):
    torch.manual_seed(0)
    theirs = kind(
        INPUT, HIDDEN, n_layers, batch_first=True, bidirectional=bidirectional
    ).double()
    model = SequenceClassifier(from_torch(theirs), CLASSES).double()
    x, y = batch().requires_grad_(), batch().requires_grad_()
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    _, state = theirs(packed)
    h_n = state[0] if isinstance(state, tuple) else state
    summary = torch.cat([h_n[-2], h_n[-1]], 1) if bidirectional else h_n[-1]
    expected, got = model.head(summary), model(y, LENGTHS)
    close(got, expected)
    seed = torch.randn(4, CLASSES, dtype=torch.float64)
    close(
        torch.autograd.grad(got, y, seed)[0], torch.autograd.grad(expected, x, seed)[0]
    )


def test_the_summary_of_both_directions_is_what_each_reads_last():
    torch.manual_seed(0)
    model = SequenceClassifier(COMPOSITIONS["two kinds"](), CLASSES).double()
    x = batch()
    _, state = model.layer(x, None, LENGTHS)
    close(
        model(x, LENGTHS),
        model.head(torch.cat([state.forward.h, state.backward.h], 1)),
    )
    # The backward half at the last real step has read one input only.
    y, _ = model.layer(x, None, LENGTHS)
    usual = model.head(y[torch.arange(4), LENGTHS - 1])
    assert (usual - model(x, LENGTHS)).abs().max() > 0.01


def test_tokens_through_an_embedding():
    torch.manual_seed(0)
    embedding = nn.Embedding(11, INPUT, padding_idx=0)
    model = SequenceClassifier(both(), CLASSES, embedding).double()
    tokens = torch.randint(1, 11, (4, 9))
    plain = SequenceClassifier(model.layer, CLASSES).double()
    plain.head = model.head
    close(model(tokens, LENGTHS), plain(embedding(tokens), LENGTHS))
    check_padding_invariance(model, tokens, LENGTHS)


def test_head_and_parameters():
    model = SequenceClassifier(both(), CLASSES)
    assert model.head.in_features == 2 * HIDDEN
    assert model.head.weight.abs().max() <= (2 * HIDDEN) ** -0.5
    names = {name.partition(".")[0] for name, _ in model.named_parameters()}
    assert names == {"layer", "head"}


def test_one_update_lowers_the_loss():
    torch.manual_seed(0)
    model = SequenceClassifier(GRU(INPUT, HIDDEN), CLASSES).double()
    x, labels = batch(), torch.tensor([0, 1, 2, 3])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(2):
        loss = nn.functional.cross_entropy(model(x, LENGTHS), labels)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[1] < losses[0]


def test_empty_batch():
    model = SequenceClassifier(LSTM(INPUT, HIDDEN), CLASSES)
    assert model(torch.zeros(0, 9, INPUT)).shape == (0, CLASSES)


class Widthless(nn.Module):
    def initial_state(self, batch_size):
        raise AssertionError("not asked for")

    def step(self, x_t, state):
        raise AssertionError("not asked for")


def test_a_head_is_made_like_the_layer():
    model = SequenceClassifier(both(), CLASSES)
    assert model.head.weight.dtype == torch.float32
    for options in ({"dtype": torch.float64}, {"device": "meta"}):
        layer = Stacked([both(), LSTM(2 * HIDDEN, HIDDEN)]).to(**options)
        model = SequenceClassifier(layer, CLASSES)
        first = next(layer.parameters())
        assert (model.head.weight.dtype, model.head.weight.device) == (
            first.dtype,
            first.device,
        )
        assert model(torch.zeros(2, 3, INPUT).to(first)).shape == (2, CLASSES)


class EverySecond(nn.Module):
    def forward(self, x):
        return x[:, ::2]


@pytest.mark.errors
@pytest.mark.parametrize("lengths", [None, torch.tensor([2, 3])])
def test_an_embedding_that_changes_the_number_of_steps(lengths):
    model = SequenceClassifier(LSTM(INPUT, HIDDEN), CLASSES, EverySecond())
    message = r"`embedding` must keep batch and time, \(2, 6\), got \(2, 3, 3\)"
    with pytest.raises(ValueError, match=message):
        model(torch.zeros(2, 6, INPUT), lengths)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda m: SequenceClassifier(nn.LSTM(3, 5), 4),
            TypeError,
            r"`layer` must be a layer with .* got torch.nn.modules.rnn.LSTM",
        ),
        (lambda m: SequenceClassifier(Widthless(), 4), TypeError, "got .*Widthless"),
        (
            lambda m: SequenceClassifier(Bidirectional(both(), LSTM(3, 5)), 4),
            TypeError,
            "causal in each direction, and Bidirectional within Bidirectional",
        ),
        (
            lambda m: SequenceClassifier(
                Stacked([Bidirectional(LSTM(3, 5), Stacked([both()]))]), 4
            ),
            TypeError,
            "and Stacked within Bidirectional declares causal = False",
        ),
        (lambda m: SequenceClassifier(LSTM(3, 5), 0), ValueError, "at least 1, got 0"),
        (lambda m: SequenceClassifier(LSTM(3, 5), 2.0), TypeError, "`n_classes`"),
        (
            lambda m: SequenceClassifier(LSTM(3, 5), 4, 11),
            TypeError,
            "`embedding` must be a module or None, got int",
        ),
        (
            lambda m: m(torch.zeros(2, 0, 3)),
            ValueError,
            r"`x` must have shape \(batch, time, \.\.\.\) with at least one step, "
            r"got \(2, 0, 3\)",
        ),
        (lambda m: m(torch.zeros(3)), ValueError, "with at least one step"),
        (lambda m: m([[1.0]]), TypeError, "`x` must be a torch.Tensor"),
        (
            lambda m: m(torch.zeros(2, 3, 3), torch.tensor([3, 0])),
            ValueError,
            "SequenceClassifier.forward: `lengths` must be at least 1, got 0",
        ),
        (
            lambda m: m(torch.zeros(2, 3, 3), torch.tensor([3, 4])),
            ValueError,
            "at most time=3, got 4",
        ),
        (lambda m: m(torch.zeros(2, 3, 3), [3, 3]), TypeError, "`lengths` must be"),
        (lambda m: m(torch.zeros(2, 3, 4)), ValueError, "input_size=3"),
    ],
)
def test_refuses(call, kind, message):
    model = SequenceClassifier(LSTM(INPUT, HIDDEN), CLASSES)
    with pytest.raises(kind, match=message):
        call(model)
