"""Shift and loss by hand, padding, the limits of scheduled sampling, its optimum."""

import copy
import math
import re

import pytest
import torch
from torch.nn.functional import cross_entropy

from seqref import GRU, LSTM
from seqref.decoding import greedy
from seqref.models import LanguageModel
from seqref.testing import check_target_shift
from seqref.training import (
    exponential_schedule,
    inverse_sigmoid_schedule,
    linear_schedule,
    scheduled_sampling,
    shift_target,
    target_loss,
)

BEGIN, END, PAD = 0, 1, -100
F64 = torch.float64


def case(batch=3, time=5, vocab=7, layer=LSTM):
    model = LanguageModel(vocab, layer(4, 6)).double()
    target = torch.randint(2, vocab, (batch, time))
    return model, target


def gradients(loss, model):
    return torch.autograd.grad(loss, list(model.parameters()))


def assert_all_close(got, expected):
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=1e-10)


# The shift.


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_the_table_of_the_page(dtype):
    target = torch.tensor([[5, 6, 7], [8, 99, 99], [99, 99, 99]], dtype=dtype)
    lengths = torch.tensor([3, 1, 0])
    shifted = shift_target(target, lengths, begin=BEGIN, end=END)
    assert shifted.inputs.tolist() == [[0, 5, 6, 7], [0, 8, 1, 1], [0, 1, 1, 1]]
    assert shifted.targets.tolist() == [
        [5, 6, 7, 1],
        [8, 1, PAD, PAD],
        [1, PAD, PAD, PAD],
    ]
    assert shifted.lengths.tolist() == [4, 2, 1]
    assert shifted.inputs.dtype == shifted.targets.dtype == dtype


def test_row_by_row_it_is_the_list_with_a_token_at_either_end():
    torch.manual_seed(0)
    target = torch.randint(2, 50, (20, 9))
    lengths = torch.randint(0, 10, (20,))
    shifted = shift_target(target, lengths, begin=BEGIN, end=END)
    for row, n in enumerate(lengths.tolist()):
        real = target[row, :n].tolist()
        assert shifted.inputs[row, : n + 1].tolist() == [BEGIN, *real]
        assert shifted.targets[row, : n + 1].tolist() == [*real, END]
        assert set(shifted.targets[row, n + 1 :].tolist()) <= {PAD}


def test_what_the_padding_held_is_gone():
    target = torch.randint(2, 9, (3, 4))
    lengths = torch.tensor([2, 0, 3])
    before = target.clone()
    expected = shift_target(target, lengths, begin=BEGIN, end=END)
    assert torch.equal(target, before)
    for filler in (BEGIN, END, -100, 10**6):
        for row, n in enumerate(lengths.tolist()):
            target[row, n:] = filler
        got = shift_target(target, lengths, begin=BEGIN, end=END)
        assert all(map(torch.equal, got, expected))


def test_without_lengths_every_token_is_real():
    target = torch.randint(2, 9, (2, 4))
    full = shift_target(target, torch.tensor([4, 4]), begin=BEGIN, end=END)
    assert all(map(torch.equal, shift_target(target, begin=BEGIN, end=END), full))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_without_rows_or_tokens(shape):
    shifted = shift_target(torch.zeros(shape, dtype=torch.int64), begin=BEGIN, end=END)
    assert shifted.inputs.tolist() == [[BEGIN]] * shape[0] if shape[1] == 0 else True
    assert shifted.targets.shape == (shape[0], shape[1] + 1)


def test_narrow_lengths_have_room_for_one_more():
    target = torch.full((1, 127), 5)
    lengths = torch.tensor([127], dtype=torch.int8)
    shifted = shift_target(target, lengths, begin=BEGIN, end=END)
    assert shifted.lengths.tolist() == [128]
    assert shifted.targets[0, 127] == END


def test_one_token_may_begin_and_end():
    shifted = shift_target(torch.tensor([[5]]), begin=2, end=2)
    assert shifted.inputs.tolist() == [[2, 5]]
    assert shifted.targets.tolist() == [[5, 2]]


def test_two_slices_are_the_shift_where_both_tokens_are_written_in():
    """And where the padding has a token of its own, which the loss passes over."""
    target, lengths = torch.randint(2, 9, (3, 4)), torch.tensor([4, 2, 0])
    inputs, targets, steps = shift_target(target, lengths, begin=BEGIN, end=END)
    for filler, kept in ((99, steps.sum()), (END, lengths.sum())):
        whole = torch.full((3, 6), filler)
        whole[:, 0] = BEGIN
        for row, n in enumerate(lengths.tolist()):
            whole[row, 1 : n + 1] = target[row, :n]
            whole[row, n + 1] = END
        read, labels = whole[:, :-1], whole[:, 1:]
        labels = labels.masked_fill(labels == filler, PAD)
        assert (labels != PAD).sum() == kept
        assert torch.equal(labels, targets) == (filler == 99)
        real = targets != PAD
        assert torch.equal(read[real], inputs[real])
        # What is read beyond the real steps: the end token, then the filler.
        assert (read[1, 3:] == torch.tensor([END, filler])).all()


def test_each_prediction_sees_the_targets_before_its_own():
    model, target = case(batch=2, time=6)

    def step(model, target):
        shifted = shift_target(target, begin=BEGIN, end=END)
        return model(shifted.inputs)[0], shifted.targets

    check_target_shift(model, target, call=step)

    def unshifted(model, target):
        targets = shift_target(target, begin=BEGIN, end=END).targets
        return model(targets)[0], targets

    with pytest.raises(AssertionError, match="label"):
        check_target_shift(model, target, call=unshifted)


# The loss.


def test_the_loss_is_the_mean_over_real_tokens():
    torch.manual_seed(1)
    logits = torch.randn(3, 4, 7, dtype=F64)
    target, lengths = torch.randint(2, 7, (3, 3)), torch.tensor([3, 1, 0])
    targets = shift_target(target, lengths, begin=BEGIN, end=END).targets
    log_p = logits.log_softmax(dim=-1)
    terms = [
        -log_p[row, t, token]
        for row, tokens in enumerate(targets.tolist())
        for t, token in enumerate(tokens)
        if token != PAD
    ]
    assert len(terms) == 4 + 2 + 1
    torch.testing.assert_close(target_loss(logits, targets), sum(terms) / len(terms))
    judge = cross_entropy(logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(target_loss(logits, targets), judge)


@pytest.mark.parametrize("spoilt", [math.nan, math.inf, -math.inf])
def test_what_logits_hold_in_the_padding_gives_no_gradient(spoilt):
    logits = torch.randn(2, 3, 5, dtype=F64)
    targets = torch.tensor([[2, 1, PAD], [1, PAD, PAD]])
    padding = targets == PAD
    clean = logits.clone().requires_grad_()
    bad = logits.masked_fill(padding[..., None], spoilt).requires_grad_()
    losses = target_loss(clean, targets), target_loss(bad, targets)
    assert torch.equal(*losses)
    (expected,) = torch.autograd.grad(losses[0], clean)
    (got,) = torch.autograd.grad(losses[1], bad)
    assert torch.equal(got, expected)
    assert (got[padding] == 0).all()
    assert (got[~padding] != 0).all()
    # Why the padding is blanked: torch's loss alone does not keep NaN out.
    judge = cross_entropy(bad.flatten(0, 1), targets.flatten())
    (theirs,) = torch.autograd.grad(judge, bad)
    assert theirs[padding].isnan().any()


def test_a_batch_is_its_rows_weighted_by_their_tokens():
    model, target = case()
    lengths = torch.tensor([5, 2, 0])
    shifted = shift_target(target, lengths, begin=BEGIN, end=END)
    loss = target_loss(model(shifted.inputs)[0], shifted.targets)
    alone = []
    for row, n in enumerate(lengths.tolist()):
        one = shift_target(target[row : row + 1, :n], begin=BEGIN, end=END)
        alone.append(target_loss(model(one.inputs)[0], one.targets) * (n + 1))
    expected = sum(alone) / (6 + 3 + 1)
    torch.testing.assert_close(loss, expected)
    assert_all_close(gradients(loss, model), gradients(expected, model))


def test_half_precision_is_summed_in_float32():
    torch.manual_seed(2)
    logits = torch.randn(8, 500, 5).bfloat16()
    targets = torch.randint(0, 5, (8, 500))
    loss = target_loss(logits, targets)
    assert loss.dtype == torch.float32
    exact = cross_entropy(logits.double().flatten(0, 1), targets.flatten())
    assert abs(loss.item() - exact.item()) < 1e-5


def test_of_no_real_target_the_mean_is_nan():
    assert target_loss(torch.zeros(1, 2, 3), torch.full((1, 2), PAD)).isnan()


# Scheduled sampling.


@pytest.mark.parametrize("layer", [LSTM, GRU])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_at_probability_1_it_is_teacher_forcing(layer, temperature):
    model, target = case(layer=layer)
    shifted = shift_target(target, torch.tensor([5, 1, 3]), begin=BEGIN, end=END)
    inputs, targets, _ = shifted
    run = scheduled_sampling(model, inputs, probability=1, temperature=temperature)
    logits, state = model(inputs)
    assert torch.equal(run.inputs, inputs)
    assert_all_close((run.logits, *run.state), (logits, *state))
    mine = gradients(target_loss(run.logits, targets), model)
    assert_all_close(mine, gradients(target_loss(logits, targets), model))


def test_at_probability_0_and_temperature_0_it_is_greedy_decoding():
    model, target = case()
    inputs = shift_target(target, begin=BEGIN, end=END).inputs
    run = scheduled_sampling(model, inputs, probability=0, temperature=0)
    own = greedy(model, inputs[:, 0], max_length=6)
    assert torch.equal(run.inputs[:, 1:], own.tokens[:, :-1])
    assert torch.equal(run.logits[:, -1].argmax(dim=-1), own.tokens[:, -1])
    other = shift_target(torch.full_like(target, 2), begin=BEGIN, end=END).inputs
    again = scheduled_sampling(model, other, probability=0, temperature=0)
    assert torch.equal(again.logits, run.logits)


class Table:
    """A Markov chain; its state is nothing."""

    def __init__(self, p):
        self.log_p = torch.tensor(p, dtype=F64).log()

    def initial_state(self, batch_size):
        return ()

    def step(self, token_t, state):
        return self.log_p[token_t], state


def test_free_running_draws_from_the_model():
    p = [[0.0, 0.7, 0.3], [0.0, 0.2, 0.8], [0.0, 0.9, 0.1]]
    inputs = torch.zeros(40_000, 3, dtype=torch.int64)
    random = torch.Generator().manual_seed(0)
    run = scheduled_sampling(Table(p), inputs, probability=0, generator=random)
    first, second = run.inputs[:, 1], run.inputs[:, 2]
    assert abs((first == 1).double().mean().item() - 0.7) < 0.01
    for token, expected in ((1, 0.2), (2, 0.9)):
        share = (second[first == token] == 1).double().mean().item()
        assert abs(share - expected) < 0.015


@pytest.mark.parametrize("probability", [0.25, 0.8])
def test_each_token_has_a_draw_of_its_own(probability):
    """The model always says 2, and the truth is 1."""
    table = Table([[0.0, 0.0, 1.0]] * 3)
    inputs = torch.ones(4000, 6, dtype=torch.int64)
    random = torch.Generator().manual_seed(1)
    run = scheduled_sampling(
        table, inputs, probability=probability, temperature=0, generator=random
    )
    true = (run.inputs == 1).double()
    assert (true[:, 0] == 1).all()
    shares = true[:, 1:].mean(dim=0)
    assert (shares - probability).abs().max() < 0.03
    # Two places of a row are independent, and so not one draw for each row.
    both = (true[:, 1] * true[:, 4]).mean().item()
    assert abs(both - probability**2) < 0.03
    counts = true[:, 1:].sum(dim=1)
    assert len(set(counts.tolist())) >= 5


def test_no_gradient_passes_through_the_choice():
    """With the tokens that were fed it is teacher forcing, gradients included."""
    model, target = case(batch=8)
    inputs, targets, _ = shift_target(target, begin=BEGIN, end=END)
    random = torch.Generator().manual_seed(2)
    run = scheduled_sampling(model, inputs, probability=0.4, generator=random)
    assert not torch.equal(run.inputs, inputs)
    logits, _ = model(run.inputs)
    assert_all_close([run.logits], [logits])
    mine = gradients(target_loss(run.logits, targets), model)
    assert_all_close(mine, gradients(target_loss(logits, targets), model))


def test_a_seed_gives_one_result_and_torchs_own_is_left_alone():
    model, target = case()
    before = torch.get_rng_state()
    runs = [
        scheduled_sampling(
            model,
            target,
            probability=0.5,
            generator=torch.Generator().manual_seed(seed),
        ).inputs
        for seed in (3, 3, 4)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("probability", [1, 0.5, 0])
def test_padding_changes_nothing(probability):
    model, target = case()
    inputs, targets, lengths = shift_target(
        target, torch.tensor([5, 2, 0]), begin=BEGIN, end=END
    )
    before = inputs.clone()

    def run(inputs):
        random = torch.Generator().manual_seed(5)
        return scheduled_sampling(
            model, inputs, lengths, probability=probability, generator=random
        )

    first = run(inputs)
    other = inputs.clone()
    other[1, 3:], other[2, 1:] = -7, 10**6
    second = run(other)
    assert torch.equal(inputs, before)
    assert all(map(torch.equal, first[:2], second[:2]))
    assert all(map(torch.equal, first.state, second.state))
    assert (first.logits[1, 3:] == 0).all()
    for row, n in enumerate(lengths.tolist()):
        logits, state = model(first.inputs[row : row + 1, :n])
        assert_all_close([first.logits[row : row + 1, :n]], [logits])
        mine = [part[row : row + 1] for part in first.state]
        assert_all_close(mine, state)
    loss = target_loss(first.logits, targets)
    assert all(grad.isfinite().all() for grad in gradients(loss, model))


def test_a_state_goes_on():
    model, target = case()
    inputs = shift_target(target, begin=BEGIN, end=END).inputs
    prefix = torch.randint(2, 7, (3, 4))
    with torch.no_grad():
        _, state = model(prefix)
    kept = copy.deepcopy(state)
    run = scheduled_sampling(model, inputs, probability=1, state=state)
    whole, _ = model(torch.cat([prefix, inputs], dim=1))
    assert_all_close([run.logits], [whole[:, 4:]])
    assert all(map(torch.equal, state, kept))


def test_narrow_tokens_and_half_precision():
    model = LanguageModel(7, LSTM(4, 6)).bfloat16()
    inputs = torch.randint(0, 7, (2, 5), dtype=torch.int32)
    run = scheduled_sampling(model, inputs, probability=0.5)
    assert run.inputs.dtype == torch.int32
    assert run.logits.dtype == torch.float32


def test_scores_of_rows_that_take_the_true_token_may_be_anything():
    table = Table([[0.5, 0.5]] * 2)
    table.log_p[1] = torch.nan
    inputs = torch.tensor([[0, 1, 1, 0]])
    run = scheduled_sampling(table, inputs, probability=1)
    assert run.logits[0, 1].isnan().all()
    with pytest.raises(ValueError, match="row 0"):
        scheduled_sampling(table, inputs[:, 1:], probability=0)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_its_optimum_is_a_mixture_of_conditional_and_marginal(epsilon):
    """The gradient of the expected loss is zero there, and at the truth it is not.

    Two tokens. All cases are enumerated, so that the expectation is exact.
    """
    p_1 = torch.tensor([0.3, 0.7], dtype=F64)
    p_2 = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=F64)
    marginal = p_1 @ p_2
    optimum = epsilon * p_2 + (1 - epsilon) * marginal

    def slope(first, second):
        first = first.log().requires_grad_()
        second = second.log().requires_grad_()
        q_1, q_2 = first.log_softmax(-1), second.log_softmax(-1)
        joint = p_1[:, None] * p_2
        fed = epsilon * joint + (1 - epsilon) * q_1.detach().exp()[:, None] * marginal
        loss = -(p_1 * q_1).sum() - (fed * q_2).sum()
        return max(g.abs().max() for g in torch.autograd.grad(loss, (first, second)))

    assert slope(p_1, optimum) < 1e-12
    assert (slope(p_1, p_2) < 1e-12) == (epsilon == 1)


# The schedules.


def test_schedules_by_their_formulas():
    for i in range(60):
        assert linear_schedule(i, k=0.9, c=0.02, floor=0.1) == max(0.1, 0.9 - 0.02 * i)
        assert exponential_schedule(i, k=0.95) == pytest.approx(0.95**i, rel=1e-14)
        expected = 7 / (7 + math.exp(i / 7))
        assert inverse_sigmoid_schedule(i, k=7) == pytest.approx(expected, rel=1e-14)


def test_where_schedules_begin_and_end():
    assert linear_schedule(0, k=1, c=0.1) == 1
    assert linear_schedule(10**6, k=1, c=0.1) == 0
    assert linear_schedule(10**6, k=1, c=0.1, floor=0.25) == 0.25
    assert linear_schedule(10**6, k=0.7, c=0) == 0.7
    assert exponential_schedule(0, k=0.5) == 1
    assert exponential_schedule(10**9, k=0.999) == 0
    for k in (1, 3.5, 1000):
        assert inverse_sigmoid_schedule(0, k=k) == pytest.approx(k / (k + 1))
        # exp(i / k) alone would be beyond the largest float64.
        assert inverse_sigmoid_schedule(10**12, k=k) == 0
    half = round(1000 * math.log(1000))
    assert inverse_sigmoid_schedule(half, k=1000) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda i: linear_schedule(i, k=1.0, c=0.003, floor=0.2),
        lambda i: exponential_schedule(i, k=0.99),
        lambda i: inverse_sigmoid_schedule(i, k=50),
    ],
)
def test_schedules_are_probabilities_and_never_rise(schedule):
    values = [schedule(i) for i in range(0, 5000, 7)]
    assert all(0 <= value <= 1 for value in values)
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]
    assert all(type(value) is float for value in values)


# What is refused.

TOKENS = torch.full((2, 3), 5)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": [[5]]}, TypeError, "`target` must be a torch.Tensor, got list"),
        ({"target": TOKENS.float()}, TypeError, "`target` must have dtype int64 or"),
        ({"target": TOKENS[0]}, ValueError, "`target` must have shape (batch, time)"),
        ({"lengths": torch.tensor([3, 4])}, ValueError, "at most time=3, got 4"),
        ({"lengths": torch.tensor([3, -1])}, ValueError, "at least 0, got -1"),
        ({"lengths": torch.tensor([1.0, 2.0])}, TypeError, "an integer dtype"),
        ({"lengths": torch.tensor([3])}, ValueError, "shape (batch=2,), got (1,)"),
        ({"begin": -1}, ValueError, "`begin` must be at least 0, got -1"),
        ({"end": 1.0}, TypeError, "`end` must be an int, got float"),
        ({"end": 5}, ValueError, "must not hold the end token 5"),
        ({"begin": 5}, ValueError, "must not hold the begin token 5"),
        ({"target": -TOKENS}, ValueError, "tokens of at least 0 within the lengths"),
    ],
)
def test_shift_target_refuses(arguments, error, message):
    given = {"target": TOKENS, "lengths": None, "begin": BEGIN, "end": END}
    with pytest.raises(error, match="shift_target: .*" + re.escape(message)):
        shift_target(**{**given, **arguments})


@pytest.mark.errors
@pytest.mark.parametrize(
    ("logits", "targets", "error", "message"),
    [
        (torch.zeros(2, 3), TOKENS, ValueError, "shape (batch, steps, vocab)"),
        (torch.zeros(2, 4, 7), TOKENS, ValueError, "shape (batch=2, steps=4)"),
        (torch.zeros(2, 3, 7).long(), TOKENS, TypeError, "floating-point numbers"),
        (torch.zeros(2, 3, 5), TOKENS, ValueError, "in 0 to 4, or be -100"),
        (torch.zeros(2, 3, 7), TOKENS - 6, ValueError, "got -1 to -1"),
        (torch.zeros(2, 3, 7), TOKENS.short(), TypeError, "int64 or int32"),
    ],
)
def test_target_loss_refuses(logits, targets, error, message):
    with pytest.raises(error, match="target_loss: .*" + re.escape(message)):
        target_loss(logits, targets)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": torch.nn.Linear(2, 2)}, TypeError, "`initial_state` and `step`"),
        ({"inputs": TOKENS.float()}, TypeError, "`inputs` must have dtype int64"),
        ({"inputs": TOKENS[:, :0]}, ValueError, "at least 1 token a row, got 0"),
        ({"lengths": torch.tensor([3, 4])}, ValueError, "at most time=3, got 4"),
        ({"probability": 1.5}, ValueError, "`probability` must be at least 0 and"),
        ({"probability": True}, TypeError, "`probability` must be a number, got bool"),
        ({"temperature": -1}, ValueError, "`temperature` must be at least 0, got -1"),
        ({"generator": 3}, TypeError, "`generator` must be a torch.Generator or None"),
    ],
)
def test_scheduled_sampling_refuses(arguments, error, message):
    model = LanguageModel(7, LSTM(4, 6))
    given = {"model": model, "inputs": TOKENS, "probability": 0.5}
    with pytest.raises(error, match=re.escape(message)):
        scheduled_sampling(**{**given, **arguments})


@pytest.mark.errors
@pytest.mark.parametrize(
    ("schedule", "arguments", "error", "message"),
    [
        (linear_schedule, {"k": 1, "c": 0.1, "update": -1}, ValueError, "`update`"),
        (linear_schedule, {"k": 1, "c": 0.1, "update": 1.0}, TypeError, "`update`"),
        (linear_schedule, {"k": 1.1, "c": 0.1}, ValueError, "`k` must be at least 0"),
        (linear_schedule, {"k": 1, "c": -0.1}, ValueError, "`c` must be at least 0"),
        (linear_schedule, {"k": 0.5, "c": 0, "floor": 0.6}, ValueError, "`floor`"),
        (exponential_schedule, {"k": 1}, ValueError, "`k` must be above 0 and below 1"),
        (exponential_schedule, {"k": 0}, ValueError, "`k` must be above 0 and below 1"),
        (inverse_sigmoid_schedule, {"k": 0.9}, ValueError, "`k` must be at least 1"),
        (inverse_sigmoid_schedule, {"k": math.nan}, ValueError, "`k` must be at least"),
        (exponential_schedule, {"k": 0.5, "update": 10**400}, ValueError, "`update`"),
    ],
)
def test_schedules_refuse(schedule, arguments, error, message):
    with pytest.raises(error, match=f"{schedule.__name__}: {re.escape(message)}"):
        schedule(**{"update": 0, **arguments})
