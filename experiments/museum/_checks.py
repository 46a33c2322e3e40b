r"""How each kind of specimen is given to the checks of `seqref.testing`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from experiments.lab.seeding import generator, seeded
from seqref.testing import (
    check_causality,
    check_nonlinearity,
    check_padding_invariance,
    check_row_order,
    check_source_dependence,
    check_state_carry,
    check_target_shift,
)

CHECKS = (
    "padding_invariance",
    "row_order",
    "causality",
    "state_carry",
    "source_dependence",
    "target_shift",
    "nonlinearity",
)
BATCH, TIME, VOCAB, INPUT, HIDDEN = 4, 6, 9, 3, 4
LENGTHS = torch.tensor([3, 6, 1, 4])
FULL_LENGTHS = torch.full((BATCH,), TIME)
Trial = Callable[[Any], None]
Trials = dict[str, Trial]


def tokens() -> Tensor:
    """A few rows of ids."""
    return torch.randint(VOCAB, (BATCH, TIME), generator=generator(1))


def vectors(seed: int = 1) -> Tensor:
    """A few rows of vectors."""
    return torch.randn(BATCH, TIME, INPUT, generator=generator(seed))


def stream() -> Tensor:
    """Vectors of which one, in the first half, says that its row begins anew."""
    x = vectors()
    x[..., 0].clamp_(max=0)
    x[0, 1, 0] = 2
    return x


def reader(x: Tensor) -> Trials:
    r"""For ``model(x, lengths)``: rows in, rows or one loss out."""

    def whole(model: Any, x: Tensor) -> Any:
        return model(x, FULL_LENGTHS)

    return {
        "padding_invariance": lambda m: check_padding_invariance(m, x, LENGTHS),
        "row_order": lambda m: check_row_order(m, x, LENGTHS),
        "nonlinearity": lambda m: check_nonlinearity(m, x, call=whole),
    }


def stepwise(x: Tensor, call: Callable[..., Any] | None = None) -> Trials:
    r"""For ``model(x)``, which gives an output for each step."""
    return {
        "row_order": lambda m: check_row_order(m, x, call=call),
        "causality": lambda m: check_causality(m, x, call=call),
        "nonlinearity": lambda m: check_nonlinearity(m, x, call=call),
    }


def pooled() -> Trials:
    r"""For ``model(x)``, which gives one vector for each row."""
    trials = stepwise(vectors())
    del trials["causality"]
    return trials


def carried(x: Tensor) -> Trials:
    r"""For ``model(x, state)``, which returns outputs and state."""

    def outputs(model: Any, x: Tensor) -> Tensor:
        return model(x, None)[0]

    carry: Trials = {"state_carry": lambda m: check_state_carry(m, x)}
    return stepwise(x, outputs) | carry


def language() -> Trials:
    r"""For a language model; what goes into its loss is a method."""

    def pair(model: Any, target: Tensor) -> Any:
        return model.predictions_and_labels(target)

    shift: Trials = {
        "target_shift": lambda m: check_target_shift(m, tokens(), call=pair)
    }
    return stepwise(tokens()) | shift


def translator() -> Trials:
    r"""For ``model(source, target)``, which returns outputs and attention weights."""
    source, target = vectors(), vectors(seed=2)

    def weights(model: Any, source: Tensor, target: Tensor) -> Tensor:
        return model(source, target)[1]

    def both(model: Any, x: Tensor) -> Any:
        return model(x[..., :INPUT], x[..., INPUT:])

    def decoder(model: Any, target: Tensor) -> Tensor:
        return model(source.to(target), target)[0]

    joined = torch.cat([source, target], dim=-1)
    return {
        "row_order": lambda m: check_row_order(m, joined, call=both),
        "causality": lambda m: check_causality(m, target, call=decoder),
        "source_dependence": lambda m: check_source_dependence(
            m, source, target, call=weights
        ),
        "nonlinearity": lambda m: check_nonlinearity(m, target, call=decoder),
    }


def outcome(build: Callable[[], Any], trial: Trial) -> str:
    r"""The message of a check that fails on a model, or nothing."""
    with seeded(0):
        model = build()
    try:
        with seeded(1):
            trial(model)
    except AssertionError as error:
        return str(error)
    return ""


def _masked(model: Any, x: Tensor) -> Tensor:
    later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    return model(x, src_mask=later)


def _without_padding(model: Any, x: Tensor, lengths: Tensor) -> Tensor:
    beyond = torch.arange(x.shape[1]) >= lengths[:, None]
    return model(x, src_key_padding_mask=beyond)


def _on_the_left(model: Any, x: Tensor) -> Tensor:
    padded = nn.functional.pad(x.transpose(1, 2), (2, 0))
    return torch.tanh(model(padded)).transpose(1, 2)


def _decode(model: Any, source: Tensor, target: Tensor) -> Tensor:
    mask = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1)
    return model(source, target, tgt_mask=mask)


def _next(model: Any, target: Tensor) -> tuple[Tensor, Tensor]:
    return model(target[:, :-1])[0], target[:, 1:]


def sound() -> dict[str, tuple[Callable[[], nn.Module], Trials]]:
    r"""Models of torch.nn, used as they should be, and the checks that apply."""
    x = vectors()
    wide = torch.randn(BATCH, TIME, HIDDEN, generator=generator(3))
    recurrent: Trials = stepwise(x) | {
        "padding_invariance": lambda m: check_padding_invariance(m, x, LENGTHS),
        "row_order": lambda m: check_row_order(m, x, LENGTHS),
        "state_carry": lambda m: check_state_carry(m, x),
        "target_shift": lambda m: check_target_shift(m, x, call=_next),
    }
    encoder: Trials = stepwise(wide, _masked) | {
        "padding_invariance": lambda m: check_padding_invariance(
            m, wide, LENGTHS, call=_without_padding
        )
    }
    decoder: Trials = {
        "source_dependence": lambda m: check_source_dependence(
            m, wide, wide.flip(0), call=_decode
        )
    }
    size = (INPUT, HIDDEN, 2)
    return {
        "nn.RNN": (lambda: nn.RNN(*size, batch_first=True), recurrent),
        "nn.LSTM": (lambda: nn.LSTM(*size, batch_first=True), recurrent),
        "nn.GRU": (lambda: nn.GRU(*size, batch_first=True), recurrent),
        "nn.TransformerEncoderLayer, masked": (
            lambda: nn.TransformerEncoderLayer(HIDDEN, 2, 8, batch_first=True),
            encoder,
        ),
        "nn.Transformer, masked": (
            lambda: nn.Transformer(HIDDEN, 2, 1, 1, 8, batch_first=True),
            decoder,
        ),
        "nn.Conv1d, padded on the left": (
            lambda: nn.Conv1d(INPUT, HIDDEN, 3),
            stepwise(x, _on_the_left),
        ),
    }
