r"""The specimens in a row: what is broken, its mend, and the test that catches it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from seqref.experiments.bug_museum_parts import (
    formulas,
    future,
    numbers,
    padding,
    rows,
    state,
)
from seqref.experiments.bug_museum_parts.checks import (
    HIDDEN,
    INPUT,
    TIME,
    VOCAB,
    Trial,
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

# Outputs of a beam search that stop at different lengths: log-probability and length.
CANDIDATES = ((-2.0, 3), (-2.8, 5), (-3.6, 8))
DECAY, LONG = 0.5, 200


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


def like(judge: Callable[[Tensor], tuple[Tensor, Any]]) -> Trial:
    r"""A test of a model beside a judge that others wrote."""

    def trial(model: Any) -> None:
        x = vectors()
        with torch.no_grad():
            assert_close(model(x)[0], judge(x)[0], atol=1e-5, rtol=1e-5)

    return trial


def judge_gru() -> nn.GRU:
    """The layer whose weights the rewritten GRU takes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return nn.GRU(INPUT, HIDDEN, batch_first=True)


def judge_lstm() -> nn.LSTM:
    """The layer whose weights are exported and imported."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return nn.LSTM(INPUT, HIDDEN, batch_first=True)


def exported(layer: nn.LSTM) -> dict[str, Tensor]:
    r"""The weights with their blocks in the order i, o, f, g, as ONNX has them."""
    found = {}
    for name, weight in layer.state_dict().items():
        i, f, g, o = weight.chunk(4)
        found[name] = torch.cat([i, o, f, g])
    return found


def imported(take: Callable[[nn.LSTM, dict[str, Tensor]], nn.LSTM]) -> nn.LSTM:
    """A new layer with the weights of the judge."""
    return take(nn.LSTM(INPUT, HIDDEN, batch_first=True), exported(judge_lstm()))


def keeps_its_cell_state(layer: nn.LSTM) -> None:
    r"""Raise unless at least nine tenths of a cell state are left after a step."""
    zeros = torch.zeros(1, 1, layer.hidden_size)
    x = torch.zeros(1, 1, layer.input_size)
    with torch.no_grad():
        _, (_, with_ones) = layer(x, (zeros, zeros + 1))
        _, (_, with_zeros) = layer(x, (zeros, zeros))
    left = (with_ones - with_zeros).min().item()
    if left < 0.9:
        raise AssertionError(f"{left:.2f} of the cell state is left after a step")


def never_longer(score: Callable[[float, int, float], float]) -> None:
    r"""Raise if a larger `alpha` chooses a longer output."""
    chosen = [numbers.chosen_length(score, CANDIDATES, k / 4) for k in range(9)]
    if chosen != sorted(chosen, reverse=True):
        raise AssertionError(f"lengths chosen as alpha grows: {chosen}")


def equals_the_loop(scan: Callable[[Tensor, Tensor], Tensor]) -> None:
    r"""Raise unless a scan equals the loop over many steps, in float32."""
    b = torch.randn(2, LONG, generator=torch.Generator().manual_seed(0))
    a = torch.full_like(b, DECAY)
    assert_close(scan(a, b), numbers.loop(a, b), atol=1e-5, rtol=1e-5)


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
    r"""Specimens that lose, keep or invent a state."""
    carry = carried(stream())
    handed_on, steps = _vectors(state.HandedOn), stepwise(vectors())
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
    x = vectors()
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
        Specimen(
            "reset-before-product",
            "another GRU than the one it stands for",
            "formulas",
            "own",
            lambda: formulas.ResetFirst(judge_gru()),
            lambda: formulas.ResetAfter(judge_gru()),
            carried(x) | {"own": like(judge_gru())},
        ),
        Specimen(
            "order-of-gates",
            "weights in another order of gates",
            "formulas",
            "own",
            lambda: imported(formulas.import_weights),
            lambda: imported(formulas.import_reordered),
            carried(x) | {"own": like(judge_lstm())},
        ),
        Specimen(
            "wrong-block",
            "a forget bias in the block of another gate",
            "formulas",
            "own",
            lambda: formulas.remember(judge_lstm(), 4.0),
            lambda: formulas.remember_right(judge_lstm(), 4.0),
            carried(x) | {"own": keeps_its_cell_state},
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
            {"own": never_longer},
        ),
        Specimen(
            "closed-form-scan",
            "a scan that divides by what has vanished",
            "numbers",
            "own",
            lambda: numbers.closed_form,
            lambda: numbers.by_pairs,
            {"own": equals_the_loop},
        ),
    ]


def all_specimens() -> list[Specimen]:
    r"""The whole museum, in the order of its pages."""
    return [*padded(), *mixed(), *clairvoyant(), *stateful(), *misread(), *numeric()]
