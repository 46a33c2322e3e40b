import math

import pytest
import torch
from torch import nn

from seqref import (
    LSTM,
    RNN,
    Bidirectional,
    ProjectedLSTM,
    Stacked,
)
from seqref.models import LanguageModel
from seqref.recurrence import map_state
from seqref.testing import check_causality, check_state_carry, check_target_shift
from tests.layers import LAYERS, UNCUT

VOCAB = 7


@pytest.fixture(params=UNCUT)
def model(request):
    torch.manual_seed(0)
    # Noise is for training: in evaluation each of the layers is a function.
    return LanguageModel(VOCAB, LAYERS[request.param]()).double().eval()


def tensors(state):
    """The tensors of a state, in order."""
    parts = []
    map_state(lambda tensor: parts.append(tensor) or tensor, state)
    return parts


def tokens(batch=2, time=13, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB, (batch, time), generator=generator)


def test_forward_equals_the_equations(model):
    x = tokens()
    logits, _ = model(x)
    h, _ = model.layer(model.embedding.weight[x])
    expected = h @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)


def test_step_equals_forward(model):
    x = tokens()
    logits, final = model(x)
    state = model.initial_state(2)
    for t in range(x.shape[1]):
        scores, state = model.step(x[:, t], state)
        torch.testing.assert_close(scores, logits[:, t], rtol=1e-10, atol=1e-10)
    for got, expected in zip(tensors(state), tensors(final), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_two_parts_with_carried_state_equal_the_whole(model):
    x = tokens()
    whole, final = model(x)
    first, state = model(x[:, :5])
    second, state = model(x[:, 5:], state)
    torch.testing.assert_close(
        torch.cat([first, second], 1), whole, rtol=1e-10, atol=1e-10
    )
    for got, expected in zip(tensors(state), tensors(final), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_no_look_ahead(model):
    x = tokens()
    changed = x.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % VOCAB
    before, after = model(x)[0], model(changed)[0]
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6], after[:, 6])


def test_the_checks_for_any_model_find_nothing(model):
    x = tokens()
    check_causality(model, x)
    check_state_carry(model, x)
    check_target_shift(model, x, call=lambda m, t: (m(t[:, :-1])[0], t[:, 1:]))


def test_the_head_is_as_wide_as_the_outputs():
    torch.manual_seed(0)
    model = LanguageModel(VOCAB, ProjectedLSTM(3, 5, proj_size=2)).double()
    assert model.head.in_features == 2
    logits, _ = model(tokens())
    assert logits.shape == (2, 13, VOCAB)


def test_empty_sequence_and_empty_batch(model):
    # One that can be reached: of a cache not every content can.
    state = model(tokens(time=2))[1]
    logits, after = model(tokens(time=0), state)
    assert logits.shape == (2, 0, VOCAB)
    pairs = zip(tensors(after), tensors(state), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert model(tokens(batch=0))[0].shape == (0, 13, VOCAB)


def test_parameter_count():
    model = LanguageModel(VOCAB, LSTM(3, 5))
    expected = VOCAB * 3 + 4 * 5 * (3 + 5 + 2) + (5 * VOCAB + VOCAB)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_sample_repeats_with_its_generator(model):
    prompt = tokens(time=4)
    first, again = (
        model.sample(prompt, 20, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert first.shape == (2, 20)
    assert torch.equal(first, again)
    other = model.sample(prompt, 20, generator=torch.Generator().manual_seed(4))
    assert not torch.equal(first, other)


def test_the_default_temperature_is_one(model):
    drawn = [
        model.sample(
            tokens(batch=1, time=4).expand(50, -1),
            5,
            generator=torch.Generator().manual_seed(3),
            **options,
        )
        for options in ({}, {"temperature": 1.0}, {"temperature": 1.5})
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("training", [True, False])
def test_sampling_keeps_the_mode_and_noise_is_of_training_alone(training):
    torch.manual_seed(0)
    layer = Stacked([LSTM(3, 6), LSTM(6, 5)], dropout=0.5)
    model = LanguageModel(VOCAB, layer).train(training)
    before = torch.get_rng_state()
    model.sample(tokens(), 4, generator=torch.Generator().manual_seed(3))
    assert model.training == layer.training == training
    assert torch.equal(torch.get_rng_state(), before) == (not training)


def test_scores_near_the_end_of_the_range_are_sampled():
    torch.manual_seed(0)
    model = LanguageModel(VOCAB, LSTM(3, 5))
    with torch.no_grad():
        model.head.bias[2] = 3e38
    assert (model.sample(tokens(), 4, temperature=0.5) == 2).all()


def test_temperature_zero_takes_the_likeliest_token_each_time(model):
    prompt = tokens(time=4)
    drawn = model.sample(prompt, 6, temperature=0.0)
    for n in range(6):
        logits, _ = model(torch.cat([prompt, drawn[:, :n]], dim=1))
        assert torch.equal(drawn[:, n], logits[:, -1].argmax(-1))
    cold = model.sample(prompt, 6, temperature=1e-300)
    assert torch.equal(cold, drawn)


def test_a_temperature_that_float32_rounds_to_zero():
    torch.manual_seed(0)
    model = LanguageModel(VOCAB, LSTM(3, 5))
    prompt = tokens(time=4)
    cold = model.sample(prompt, 6, temperature=1e-300)
    assert torch.equal(cold, model.sample(prompt, 6, temperature=0.0))


@pytest.mark.errors
@pytest.mark.parametrize("temperature", [0.0, 1e-3, 1.0, math.inf])
def test_scores_without_a_likeliest_token_are_refused(temperature):
    for wrong, got in (
        ([math.nan, 1.0, 2.0], "nan"),
        ([1.0, 2.0, math.nan], "nan"),
        ([-math.inf] * 3, "-inf"),
        ([0.0, math.inf, 0.0], "inf"),
    ):
        model = LanguageModel(3, LSTM(2, 2))
        model.head.weight.data.zero_()
        model.head.bias.data.copy_(torch.tensor(wrong))
        message = (
            rf"^LanguageModel\.sample: .* no NaN, got a largest of {got} in row 0$"
        )
        with pytest.raises(ValueError, match=message):
            model.sample(
                torch.zeros(2, 1, dtype=torch.int64), 2, temperature=temperature
            )
    # Some scores of minus infinity forbid their tokens and no more.
    model.head.bias.data.copy_(torch.tensor([-math.inf, 1.0, -math.inf]))
    assert (
        model.sample(torch.zeros(2, 1).long(), 3, temperature=temperature) == 1
    ).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sample_frequencies_follow_the_softmax(temperature):
    torch.manual_seed(0)
    model = LanguageModel(VOCAB, LSTM(3, 5)).double()
    with torch.no_grad():
        model.head.weight.mul_(10)
    prompt = tokens(batch=1, time=4)
    count = 20_000
    generator = torch.Generator().manual_seed(5)
    drawn = model.sample(
        prompt.expand(count, -1), 1, temperature=temperature, generator=generator
    )
    p = torch.softmax(model(prompt)[0][0, -1] / temperature, -1)
    observed = torch.bincount(drawn.flatten(), minlength=VOCAB) / count
    # Four standard deviations of a binomial share.
    assert ((observed - p).abs() < 4 * (p * (1 - p) / count).sqrt() + 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sample_has_the_dtype_of_its_prompt(dtype, temperature):
    model, prompt = LanguageModel(VOCAB, LSTM(3, 5)), tokens().to(dtype)
    for length in (0, 3):
        assert model.sample(prompt, length, temperature=temperature).dtype == dtype


def test_sample_of_length_zero_and_no_gradient(model):
    assert model.sample(tokens(), 0).shape == (2, 0)
    assert all(p.grad is None for p in model.parameters())


def test_untrained_model_is_near_uniform():
    torch.manual_seed(0)
    model = LanguageModel(100, LSTM(16, 64))
    logits, _ = model(torch.randint(0, 100, (4, 50)))
    loss = nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.randint(0, 100, (200,))
    )
    assert loss.item() == pytest.approx(math.log(100), abs=0.1)


class Width(nn.Module):
    input_size = 3


def two_ways():
    return Bidirectional(LSTM(3, 5), LSTM(3, 5))


class LooksAhead(LSTM):
    causal = False


def test_a_model_is_made_like_its_layer():
    torch.manual_seed(0)
    model = LanguageModel(VOCAB, LSTM(3, 5, dtype=torch.float64))
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model(tokens())[0].dtype == torch.float64
    on_meta = LanguageModel(VOCAB, LSTM(3, 5, device="meta"))
    assert {p.device.type for p in on_meta.parameters()} == {"meta"}

    class Delay(nn.Module):
        """Without parameters there is nothing to be like."""

        input_size = hidden_size = 3

        def initial_state(self, batch_size):
            return RNN(3, 3).initial_state(batch_size)

        def step(self, x_t, state):
            return state.h, state._replace(h=x_t)

        def forward(self, x, state=None, lengths=None):
            state = self.initial_state(len(x)) if state is None else state
            y = torch.cat([state.h[:, None], x[:, :-1]], dim=1)
            return y, state._replace(h=x[:, -1])

    delayed = LanguageModel(VOCAB, Delay())
    assert {p.dtype for p in delayed.parameters()} == {torch.float32}
    check_causality(delayed, tokens())


def test_under_vmap_and_export():
    model = LanguageModel(VOCAB, LSTM(3, 5)).double()
    many = torch.stack([tokens(), tokens(seed=2)])
    mapped = torch.func.vmap(lambda each: model(each)[0])(many)
    exported = torch.export.export(model, (many[0],)).module()
    for each, logits in zip(many, mapped, strict=True):
        torch.testing.assert_close(logits, model(each)[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(exported(each)[0], logits, rtol=0, atol=1e-12)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m: LanguageModel(0, LSTM(3, 5)), ValueError, "at least 1, got 0"),
        (lambda m: LanguageModel(7.0, LSTM(3, 5)), TypeError, "`vocab_size`"),
        (lambda m: LanguageModel(7, nn.LSTM(3, 5)), TypeError, "causal layer.*LSTM"),
        (lambda m: LanguageModel(7, Width()), TypeError, "got Width"),
        (
            lambda m: LanguageModel(7, two_ways()),
            TypeError,
            "must be causal, and Bidirectional declares causal = False",
        ),
        (
            lambda m: LanguageModel(7, Stacked([two_ways(), LSTM(10, 5)])),
            TypeError,
            "must be causal, and Stacked declares causal = False",
        ),
        (
            lambda m: LanguageModel(
                7, Stacked([Stacked([two_ways(), LSTM(10, 5)]), LSTM(5, 5)])
            ),
            TypeError,
            "must be causal, and Stacked",
        ),
        (lambda m: LanguageModel(7, LooksAhead(3, 5)), TypeError, "and LooksAhead"),
        (lambda m: m(torch.zeros(3, dtype=torch.int64)), ValueError, "`tokens` must"),
        (
            lambda m: m(torch.zeros(2, 3)),
            TypeError,
            "int64 or int32, got torch.float32",
        ),
        (lambda m: m(tokens() + 1), ValueError, r"must lie in 0 to 6, got \d to 7"),
        (lambda m: m(tokens() - 1), ValueError, "must lie in 0 to 6, got -1"),
        (lambda m: m([[1]]), TypeError, "`tokens` must be a torch.Tensor"),
        (
            lambda m: m.step(tokens(), m.initial_state(2)),
            ValueError,
            r"LanguageModel.step: `token_t` must have shape \(batch,\)",
        ),
        (lambda m: m.sample(tokens(time=0), 3), ValueError, "at least 1 token"),
        (lambda m: m.sample(tokens(), -1), ValueError, "`length` must be at least 0"),
        (
            lambda m: m.sample(tokens(), 1, temperature=-0.5),
            ValueError,
            "`temperature` must be at least 0, got -0.5",
        ),
        (
            lambda m: m.sample(tokens(), 1, temperature="1"),
            TypeError,
            "number, got str",
        ),
        (lambda m: m.sample(tokens(), 1, temperature=True), TypeError, "got bool"),
        (lambda m: m.sample(tokens(), 1, generator=0), TypeError, "`generator` must"),
        (
            lambda m: m(tokens().to("meta")),
            ValueError,
            r"`tokens` must be on the parameters' device cpu, got meta",
        ),
        (
            lambda m: m.sample(tokens(), 1, temperature=math.nan),
            ValueError,
            "`temperature`",
        ),
    ],
)
def test_refuses(call, kind, message):
    model = LanguageModel(VOCAB, LSTM(3, 5))
    with pytest.raises(kind, match=message):
        call(model)
