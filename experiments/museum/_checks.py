r"""How the checks of `seqref.testing` are applied to models of each kind."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from experiments import lab
from seqref import testing

BATCH, TIME, VOCAB, INPUT, HIDDEN = 4, 6, 9, 3, 4
LENGTHS = torch.tensor([3, 6, 1, 4])
EACH_STEP = ("row_order", "causality", "nonlinearity")
Build = Callable[[], Any]
Trials = dict[str, Callable[[Any], None]]


def vectors(seed: int, width: int = INPUT) -> Tensor:
    """A few rows of vectors."""
    return torch.randn(BATCH, TIME, width, generator=lab.generator(seed))


TOKENS = torch.randint(VOCAB, (BATCH, TIME), generator=lab.generator(1))
VECTORS, TARGET = vectors(1), vectors(2)
# A first feature above 1 says that a row begins anew: one does, in the first half.
STREAM = torch.cat([VECTORS[..., :1].clamp(max=0), VECTORS[..., 1:]], dim=-1)
STREAM[0, 1, 0] = 2
# A row of them has no source.
MISSING = torch.tensor([3, 6, 0, 4])


def trials(
    *names: str, on: Tensor | tuple[Tensor, ...], call: Callable[..., Any] | None = None
) -> Trials:
    """The checks of these names, all with the same arguments."""
    arguments = on if isinstance(on, tuple) else (on,)

    def trial(name: str) -> Callable[[Any], None]:
        check = getattr(testing, f"check_{name}")
        return lambda model: check(model, *arguments, call=call)

    return {name: trial(name) for name in names}


def messages(build: Build, applied: Trials) -> dict[str, str]:
    """By check the message with which it fails on a model, or nothing."""
    said = {}
    for name, trial in applied.items():
        with lab.seeded(0):
            model = build()
        said[name] = ""
        try:
            with lab.seeded(1):
                trial(model)
        except AssertionError as error:
            said[name] = str(error)
    return said


def reader(x: Tensor) -> Trials:
    """For `model(x, lengths)`: rows in, rows or one loss out."""
    whole = torch.full((BATCH,), TIME)
    return trials("padding_invariance", "row_order", on=(x, LENGTHS)) | trials(
        "nonlinearity", on=x, call=lambda model, x: model(x, whole)
    )


def carried(x: Tensor) -> Trials:
    """For `model(x, state)`, which returns outputs and state."""
    outputs = trials(*EACH_STEP, on=x, call=lambda model, x: model(x, None)[0])
    return outputs | trials("state_carry", on=x)


def language() -> Trials:
    """For a language model; what goes into its loss is a method."""
    return trials(*EACH_STEP, on=TOKENS) | trials(
        "target_shift",
        on=TOKENS,
        call=lambda model, target: model.predictions_and_labels(target),
    )


def translator() -> Trials:
    """For `model(source, target)`, which returns outputs and attention weights."""

    def both(model: Any, x: Tensor) -> Any:
        return model(x[..., :INPUT], x[..., INPUT:])

    def decoder(model: Any, target: Tensor) -> Tensor:
        return model(VECTORS.to(target), target)[0]

    def weights(model: Any, source: Tensor, target: Tensor) -> Tensor:
        return model(source, target)[1]

    return {
        **trials("row_order", on=torch.cat([VECTORS, TARGET], dim=-1), call=both),
        **trials("causality", "nonlinearity", on=TARGET, call=decoder),
        **trials("source_dependence", on=(VECTORS, TARGET), call=weights),
    }


def hand_over() -> Trials:
    """For `model(source, target)`, which returns outputs."""

    def both(model: Any, x: Tensor) -> Tensor:
        return model(x[..., :INPUT], x[..., INPUT:])

    def decoder(model: Any, target: Tensor) -> Tensor:
        return model(VECTORS.to(target), target)

    return {
        **trials("row_order", on=torch.cat([VECTORS, TARGET], dim=-1), call=both),
        **trials("causality", "nonlinearity", on=TARGET, call=decoder),
        **trials("source_dependence", on=(VECTORS, TARGET)),
    }


def speller() -> Trials:
    """For `model(source, inputs)` on ids; what goes into its loss is a method."""

    def decoder(model: Any, target: Tensor) -> Tensor:
        return model(TOKENS, target)

    return {
        **trials("causality", "nonlinearity", on=TOKENS.flip(0), call=decoder),
        **trials("source_dependence", on=(TOKENS, TOKENS.flip(0))),
        **trials(
            "target_shift",
            on=TOKENS.flip(0),
            call=lambda model, target: model.predictions_and_labels(TOKENS, target),
        ),
    }


def attending() -> Trials:
    """For a function of queries, keys, values and which of them are seen."""
    heads = [
        torch.randn(BATCH, 2, steps, HIDDEN, generator=lab.generator(steps))
        for steps in (TIME - 2, TIME, TIME)
    ]
    seen = torch.ones(TIME - 2, TIME, dtype=torch.bool).tril(2)
    return trials("attention", on=(*heads, seen))


def remembers() -> Trials:
    """For `model(x, state)` whose state a search goes on from more than once."""
    return carried(VECTORS) | trials("state_fork", on=VECTORS)


def asking() -> Trials:
    """For `model(target, source, lengths)`, of which one source is missing."""
    whole = torch.full((BATCH,), TIME)

    def reads(model: Any, source: Tensor, lengths: Tensor) -> Tensor:
        # Rows are tried alone: each asks the same.
        return model(TARGET[:1].to(source).expand(len(source), -1, -1), source, lengths)

    def decodes(model: Any, target: Tensor) -> Tensor:
        return model(target, VECTORS.to(target), whole)

    return {
        **trials("padding_invariance", on=(VECTORS, MISSING), call=reads),
        **trials("causality", on=TARGET, call=decodes),
        **trials(
            "source_dependence",
            on=(VECTORS, TARGET),
            call=lambda model, source, target: model(target, source, whole),
        ),
    }


def _causal(time: int) -> Tensor:
    return torch.ones(time, time, dtype=torch.bool).triu(1)


def _masked(model: Any, x: Tensor) -> Tensor:
    return model(x, src_mask=_causal(x.shape[1]))


def _without_padding(model: Any, x: Tensor, lengths: Tensor) -> Tensor:
    beyond = torch.arange(x.shape[1]) >= lengths[:, None]
    return model(x, src_key_padding_mask=beyond)


def _decode(model: Any, source: Tensor, target: Tensor) -> Tensor:
    return model(source, target, tgt_mask=_causal(target.shape[1]))


def _on_the_left(model: Any, x: Tensor) -> Tensor:
    return torch.tanh(model(pad(x.transpose(1, 2), (2, 0)))).transpose(1, 2)


def _next(model: Any, target: Tensor) -> tuple[Tensor, Tensor]:
    return model(target[:, :-1])[0], target[:, 1:]


def sound() -> dict[str, tuple[Build, Trials]]:
    """Models of torch.nn, used as they should be, and the checks that apply."""
    wide, size = vectors(3, HIDDEN), (INPUT, HIDDEN, 2)
    recurrent = {
        **trials(*EACH_STEP, on=VECTORS),
        **trials("padding_invariance", "row_order", on=(VECTORS, LENGTHS)),
        **trials("state_carry", "state_fork", on=VECTORS),
        **trials("target_shift", on=VECTORS, call=_next),
    }
    encoder = {
        **trials(*EACH_STEP, on=wide, call=_masked),
        **trials("padding_invariance", on=(wide, LENGTHS), call=_without_padding),
    }
    decoder = trials("source_dependence", on=(wide, wide.flip(0)), call=_decode)
    return {
        "nn.RNN": (partial(nn.RNN, *size, batch_first=True), recurrent),
        "nn.LSTM": (partial(nn.LSTM, *size, batch_first=True), recurrent),
        "nn.GRU": (partial(nn.GRU, *size, batch_first=True), recurrent),
        "nn.TransformerEncoderLayer, masked": (
            partial(nn.TransformerEncoderLayer, HIDDEN, 2, 8, batch_first=True),
            encoder,
        ),
        "nn.Transformer, masked": (
            partial(nn.Transformer, HIDDEN, 2, 1, 1, 8, batch_first=True),
            decoder,
        ),
        "nn.Conv1d, padded on the left": (
            partial(nn.Conv1d, INPUT, HIDDEN, 3),
            trials(*EACH_STEP, on=VECTORS, call=_on_the_left),
        ),
        "scaled_dot_product_attention, masked": (
            lambda: scaled_dot_product_attention,
            attending(),
        ),
    }
