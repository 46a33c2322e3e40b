r"""A property of a model with a source: each output reads it, all of it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from seqref._contract.calls import plain_call
from seqref._contract.compare import steps_that_change
from seqref._contract.inputs import check_batch, other, without_padding
from seqref._contract.places import Call
from seqref._contract.probe import Probe
from seqref.errors import check_tensor

ALIKE = (
    ".\nThis step is the same in every row: if it is none of the model's outputs, cut "
    "it off in `call`"
)


def check_source_dependence(
    model: Call,
    source: Tensor,
    target: Tensor,
    *,
    call: Call | None = None,
    dtype: torch.dtype | None = None,
    atol: float | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> None:
    r"""Hold a model to this: each output reads its row's source, all of it.

    With another source every step of the output must change, but for first steps of
    zeros, which a loop that begins later left there; with another step of the source
    some output must; with the source of another row none may. The first tensor that
    the model returns is looked at: return the attention weights from `call` to ask the
    same of them.

    Args:
        model: A module, a method of one, or another callable.
        source: What the encoder reads, without padding and short: the influence of a
            step that is far back may round to nothing.
        target: What the decoder reads, without padding.
        call: ``call(model, source, target)``. None is ``model(source, target)``.
        dtype: torch.float64 or torch.float32. None is float64, and for a callable that
            is no module's the dtype that comes.
        atol: The largest difference that does not count where none may be. None is
            what rounding may leave, by the dtype of the result: see *Test your own
            model*.
        expected_failures: Why the property must fail, by its name: a mapping from
            ``"source dependence"`` to the reason. Then it is an error that it holds.

    Shapes:
        - `source`: (batch, source, ...); `target`: (batch, time, ...)
        - output: (batch, time, ...)

    Raises:
        AssertionError: an output ignores the source, a step of it is read by none, an
            output reads another row's, or the same call gives two results; or the
            property holds that was expected to fail.
        TypeError: an argument has the wrong kind, or the model returns no tensor.
        ValueError: an argument or the output has the wrong shape or values.
    """
    probe = Probe(
        "source dependence", model, call or plain_call, dtype, atol, expected_failures
    )
    check_batch(probe.where, "source", source)
    check_tensor(probe.where, "target", target)
    with (
        probe.expecting(),
        probe.quiet(source, target),
        without_padding(source=source, target=target),
    ):
        source, target = probe.cast(source), probe.cast(target)
        fresh = other(source)
        first, second = probe.run_twice((source, target), (fresh, target))
        key, y = next(iter(first.items()))
        if y.dim() < 2 or len(y) != len(source):
            raise ValueError(
                f"{probe.where}: {key} must have shape (batch={len(source)}, time, "
                f"...), got {tuple(y.shape)}"
            )
        _each_reads_it(probe, key, y, second[key])
        _own_source(probe, key, y, source, fresh, target)
        _every_step(probe, y, source, fresh, target)


def _each_reads_it(probe: Probe, key: str, y: Tensor, other_y: Tensor) -> None:
    reacts = steps_that_change(y, other_y) | _place_holders(y, other_y)
    if not reacts.all():
        row, step = (~reacts).nonzero()[0].tolist()
        alike = ALIKE if (y[:, step] == y[:1, step]).all() else ""
        raise AssertionError(
            f"{probe.name}: {key} at row {row}, step {step} is the same "
            f"whatever the source ({int((~reacts).sum())} of {reacts.numel()} "
            "steps are).\n"
            "Usual causes: attention whose queries, keys or values all come from "
            f"the decoder, an encoder state that is not handed over{alike}"
        )


def _place_holders(one: Tensor, two: Tensor) -> Tensor:
    r"""The first steps as long as they hold zeros alone, and no prediction.

    A loop that fills an output from its second step on leaves them there.
    """
    shape = (*one.shape[:2], -1)
    blank = (one.reshape(shape) == 0).all(dim=2) & (two.reshape(shape) == 0).all(dim=2)
    leading = blank.all(dim=0).long().cumprod(0).bool()
    # Where all is blank, none of it is a place-holder.
    return (leading & ~leading.all()).expand(blank.shape)


def _every_step(
    probe: Probe, y: Tensor, source: Tensor, fresh: Tensor, target: Tensor
) -> None:
    for s in range(source.shape[1]):
        one = source.clone()
        one[:, s] = fresh[:, s]
        # Any difference at all: a step that is far back may leave little more.
        differs = y != probe.sequence(one, target)
        reached = differs.flatten(start_dim=1).any(dim=1)
        if not reached.all():
            row = int((~reached).nonzero()[0])
            raise AssertionError(
                f"{probe.name}: no output of row {row} depends on step {s} of the "
                "source.\nUsual causes: a mask that is inverted or a step short, "
                "a loop that ends early, a fixed maximum length, a source so long that "
                "the influence of a far step rounds to nothing"
            )


def _own_source(
    probe: Probe, key: str, y: Tensor, source: Tensor, fresh: Tensor, target: Tensor
) -> None:
    for r in range(len(source)):
        one = source.clone()
        one[r] = fresh[r]
        got = probe.sequence(one, target)
        kept = [k for k in range(len(source)) if k != r]
        probe.same(
            lambda index, kept=kept: f"{key} at row {kept[index[0]]}" if index else key,
            f"when the source of row {r} changes",
            y[kept],
            got[kept],
            "keys or values reshaped across the batch, an encoder that is time-first "
            "beside a decoder that is batch-first",
        )
