"""A single check takes a failure that it is told to expect, and asks for it to come."""

import itertools
import re

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from seqref.testing import (
    check_attention,
    check_cached_continuation,
    check_causality,
    check_linear_cost,
    check_nonlinearity,
    check_padding_invariance,
    check_row_order,
    check_source_dependence,
    check_state_carry,
    check_state_fork,
    check_target_shift,
)

X = torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([6, 4, 2])
PROMPTS = torch.tensor([4, 3, 2])
REASON = "so it was built"


def running(x):
    return x.cumsum(dim=1)


def backwards(x):
    return x.flip(1).cumsum(dim=1).flip(1)


def beside_the_mean(x):
    return x - x.mean(dim=0, keepdim=True)


def padded_mean(x, lengths):
    return x.mean(dim=1)


def real_mean(x, lengths):
    real = torch.arange(x.shape[1]) < lengths[:, None]
    return (x * real[..., None]).sum(dim=1) / lengths[:, None]


def forgetful(x, state):
    return running(x), x.sum(dim=1)


def carried(x, state):
    y = running(x) if state is None else running(x) + state[:, None]
    return y, y[:, -1]


def went_on(x, state, lengths=None):
    return carried(x, state)


def ended(x, state, lengths=None):
    real = torch.ones(x.shape[:2], dtype=torch.bool)
    if lengths is not None:
        real = torch.arange(x.shape[1]) < lengths[:, None]
    return carried(x * real[..., None], state)


def target_alone(source, target):
    return running(target)


def of_both(source, target):
    return running(target) + source.sum(dim=1, keepdim=True)


def shifted(model, target):
    return model(target[:, :-1]), target[:, 1:]


def unshifted(model, target):
    return model(target), target


def saturating(x):
    return running(x).tanh()


def over_all(x):
    return (x @ x.mT) @ x


def unscaled(q, k, v):
    return (q @ k.mT).softmax(-1) @ v


def appended(x, state):
    state = [] if state is None else state
    state.append(x)
    return running(torch.cat(state, dim=1))[:, -x.shape[1] :], state


# The property, its check, one that fails it and one that does not.
CHECKS = {
    "attention": (
        check_attention,
        (unscaled, X, X, X),
        (scaled_dot_product_attention, X, X, X),
    ),
    "cached continuation": (
        check_cached_continuation,
        (went_on, X, PROMPTS),
        (ended, X, PROMPTS),
    ),
    "causality": (check_causality, (backwards, X), (running, X)),
    "linear cost": (check_linear_cost, (over_all, X), (running, X)),
    "nonlinearity": (check_nonlinearity, (running, X), (saturating, X)),
    "padding invariance": (
        check_padding_invariance,
        (padded_mean, X, LENGTHS),
        (real_mean, X, LENGTHS),
    ),
    "row order": (check_row_order, (beside_the_mean, X), (running, X)),
    "source dependence": (
        check_source_dependence,
        (target_alone, X, X),
        (of_both, X, X),
    ),
    "state carry": (check_state_carry, (forgetful, X), (carried, X)),
    "state fork": (check_state_fork, (appended, X), (carried, X)),
    "target shift": (
        lambda call, x, **more: check_target_shift(running, x, call=call, **more),
        (unshifted, X),
        (shifted, X),
    ),
}
each = pytest.mark.parametrize("name", CHECKS)


@each
def test_an_expected_failure_passes_and_is_told(name, capsys):
    check, broken, _ = CHECKS[name]
    with pytest.raises(AssertionError, match=rf"^{name}: "):
        check(*broken)
    check(*broken, expected_failures={name: REASON})
    where = "check_" + name.replace(" ", "_")
    said = f"{where}: {name} fails, as expected: {REASON}\n"
    assert capsys.readouterr().out == said


@each
def test_an_expected_failure_that_does_not_come_is_an_error(name):
    check, _, sound = CHECKS[name]
    check(*sound, expected_failures={})
    message = f"{name}: holds, and was expected to fail ({REASON}): take it out of"
    with pytest.raises(AssertionError, match="^" + re.escape(message)):
        check(*sound, expected_failures={name: REASON})


@pytest.mark.errors
@each
@pytest.mark.parametrize(
    ("expected", "error", "message"),
    [
        (["causality"], TypeError, "must map names of properties to reasons, got list"),
        ({"chunks": "x"}, ValueError, r"must name properties \({name}\), got 'chunks'"),
        ({"{name}": 1}, TypeError, r"\['{name}'\]` must be a str, the reason, got int"),
        ({"{name}": " "}, ValueError, r"\['{name}'\]` must give a reason, got ' '"),
    ],
    ids=["list", "other name", "no text", "no reason"],
)
def test_expected_failures_that_say_nothing_are_refused(name, expected, error, message):
    check, broken, _ = CHECKS[name]
    if isinstance(expected, dict):
        expected = {key.format(name=name): value for key, value in expected.items()}
    with pytest.raises(error, match=f"{message.format(name=name)}$"):
        check(*broken, expected_failures=expected)


class Restless(torch.nn.Module):
    def forward(self, x):
        return backwards(x) + torch.rand(())


class Deaf(torch.nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


def failing():
    """A function that refuses its sixth call."""
    calls = itertools.count()

    def model(x):
        assert next(calls) < 5, "of its own"
        return running(x)

    return model


def tiring():
    """A function that gives other results from its sixth call on."""
    calls = itertools.count()
    return lambda x: running(x) + max(next(calls) - 4, 0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Restless(), "so nothing can be compared"),
        (tiring(), "so nothing can be compared"),
        (Deaf(), "do not depend on the inputs"),
        (failing(), "^of its own"),
    ],
    ids=["two results", "other results later", "deaf", "error of the model"],
)
def test_what_leaves_the_property_open_is_no_expected_failure(model, message):
    with pytest.raises(AssertionError, match=message):
        check_causality(model, X, expected_failures={"causality": REASON})
