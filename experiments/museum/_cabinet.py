r"""The specimens in a row: what is broken, its fix, and the test that catches it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from experiments.museum import _formulas as formulas
from experiments.museum import _future as future
from experiments.museum import _judges as judges
from experiments.museum import _numbers as numbers
from experiments.museum import _padding as padding
from experiments.museum import _rows as rows
from experiments.museum import _state as state
from experiments.museum._checks import (
    HIDDEN,
    INPUT,
    TIME,
    VOCAB,
    Trials,
    carried,
    language,
    pooled,
    reader,
    stepwise,
    stream,
    tokens,
    translator,
    vectors,
)


@dataclass(frozen=True)
class Specimen:
    r"""One bug.

    Args:
        name: Key, and anchor of its section.
        label: A few words.
        page: Stem of its page.
        own: The check that catches it, or `own` for a test of its own.
        broken: Builds the broken model.
        mended: Builds the mended model.
        trials: The checks that apply to a model of its kind.
    """

    name: str
    label: str
    page: str
    own: str
    broken: Callable[[], Any]
    mended: Callable[[], Any]
    trials: Trials = field(default_factory=dict)


def _ids(kind: Callable[[int, int], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: kind(VOCAB, HIDDEN)


def _vectors(kind: Callable[[int, int], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: kind(INPUT, HIDDEN)


def padded() -> list[Specimen]:
    r"""Specimens that let padding count."""
    own, trials = "padding_invariance", reader(tokens())
    return [
        Specimen(
            "after-padding",
            "an encoder's state after the padding",
            "padding",
            own,
            _ids(padding.Encoder),
            _ids(padding.PackedEncoder),
            trials,
        ),
        Specimen(
            "last-column",
            "the last column of padded outputs",
            "padding",
            own,
            _ids(padding.LastColumn),
            _ids(padding.LastStep),
            trials,
        ),
        Specimen(
            "loss-of-padding",
            "a loss that counts the padding",
            "padding",
            own,
            _ids(padding.LossModel),
            _ids(padding.LossOfReal),
            trials,
        ),
    ]


def mixed() -> list[Specimen]:
    r"""Specimens that exchange or mix rows."""
    own = "row_order"
    return [
        Specimen(
            "sorted-rows",
            "rows left in the order of their lengths",
            "rows",
            own,
            _vectors(rows.PackingReader),
            _vectors(rows.PutBackReader),
            reader(vectors()),
        ),
        Specimen(
            "view-for-transpose",
            "`view` in the place of `transpose`",
            "rows",
            own,
            _vectors(rows.Viewed),
            _vectors(rows.Transposed),
            stepwise(vectors()),
        ),
        Specimen(
            "softmax-axis",
            "a softmax over the batch",
            "rows",
            own,
            _vectors(rows.AttentionPool),
            _vectors(rows.TimePool),
            pooled(),
        ),
    ]


def clairvoyant() -> list[Specimen]:
    r"""Specimens that read what they are to predict."""
    return [
        Specimen(
            "not-shifted",
            "labels that are the inputs",
            "future",
            "target_shift",
            _ids(future.LanguageModel),
            _ids(future.Shifted),
            language(),
        ),
        Specimen(
            "two-ways",
            "a bidirectional language model",
            "future",
            "causality",
            _ids(future.TwoWays),
            _ids(future.Shifted),
            language(),
        ),
        Specimen(
            "same-padding",
            "a convolution padded on both sides",
            "future",
            "causality",
            _ids(future.Convolution),
            _ids(future.CausalConvolution),
            language(),
        ),
    ]


def stateful() -> list[Specimen]:
    r"""Specimens that lose a state."""
    carry = carried(stream())
    return [
        Specimen(
            "reset-each-step",
            "a state that starts anew at each step",
            "state",
            "state_carry",
            _vectors(state.LoopedGRU),
            _vectors(state.Mindful),
            carry,
        ),
        Specimen(
            "reset-all-rows",
            "one row's end resets all rows",
            "state",
            "state_carry",
            _vectors(state.ResetAll),
            _vectors(state.ResetRows),
            carry,
        ),
    ]


def two_results() -> list[Specimen]:
    r"""Specimens that answer one question in several ways."""
    handed_on, steps = _vectors(state.HandedOn), stepwise(vectors())
    return [
        Specimen(
            "kept-state",
            "a state kept on the module",
            "state",
            "row_order",
            _vectors(state.Kept),
            handed_on,
            steps,
        ),
        Specimen(
            "random-start",
            "an initial state drawn at random",
            "state",
            "row_order",
            _vectors(state.RandomStart),
            handed_on,
            steps,
        ),
        Specimen(
            "dropout-always-on",
            "dropout that ignores the mode",
            "state",
            "row_order",
            _vectors(state.AlwaysDropping),
            _vectors(state.DroppingInTraining),
            steps,
        ),
    ]


def misread() -> list[Specimen]:
    r"""Specimens whose formula is another one."""
    return [
        Specimen(
            "no-nonlinearity",
            "a recurrence without its tanh",
            "formulas",
            "nonlinearity",
            _ids(formulas.CharacterModel),
            _ids(formulas.Nonlinear),
            stepwise(tokens()),
        ),
        Specimen(
            "blind-attention",
            "attention weights without the source",
            "formulas",
            "source_dependence",
            lambda: formulas.AttentionDecoder(INPUT, HIDDEN, TIME),
            lambda: formulas.SeeingAttention(INPUT, HIDDEN, TIME),
            translator(),
        ),
    ]


def unlike() -> list[Specimen]:
    r"""Specimens that are sound, and not what they stand for."""
    x = vectors()
    return [
        Specimen(
            "reset-before-product",
            "another GRU than the one it stands for",
            "formulas",
            "own",
            lambda: formulas.ResetFirst(judges.judge_gru()),
            lambda: formulas.ResetAfter(judges.judge_gru()),
            carried(x) | {"own": judges.like(judges.judge_gru())},
        ),
        Specimen(
            "order-of-gates",
            "weights in another order of gates",
            "formulas",
            "own",
            lambda: judges.imported(formulas.import_weights),
            lambda: judges.imported(formulas.import_reordered),
            carried(x) | {"own": judges.like(judges.judge_lstm())},
        ),
        Specimen(
            "wrong-block",
            "a forget bias in the block of another gate",
            "formulas",
            "own",
            lambda: formulas.remember(judges.judge_lstm(), 4.0),
            lambda: formulas.remember_right(judges.judge_lstm(), 4.0),
            carried(x) | {"own": judges.keeps_its_cell_state},
        ),
    ]


def numeric() -> list[Specimen]:
    r"""Specimens that are no models."""
    return [
        Specimen(
            "length-penalty",
            "a length penalty that rewards length",
            "numbers",
            "own",
            lambda: numbers.penalised,
            lambda: numbers.penalised_indeed,
            {"own": judges.never_longer},
        ),
        Specimen(
            "closed-form-scan",
            "a scan that divides by what has vanished",
            "numbers",
            "own",
            lambda: numbers.closed_form,
            lambda: numbers.by_pairs,
            {"own": judges.equals_the_loop},
        ),
    ]


def all_specimens() -> list[Specimen]:
    r"""The whole museum, in the order of its pages."""
    return [
        *padded(),
        *mixed(),
        *clairvoyant(),
        *stateful(),
        *two_results(),
        *misread(),
        *unlike(),
        *numeric(),
    ]
