r"""Words for the place of a difference, and the shapes that checks can compare."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from seqref._contract.outputs import Outputs
from seqref._contract.probe import Probe

Call = Callable[..., Any]

SQUEEZED = (
    "Usual causes: `squeeze()` without an axis, which takes away each axis of size 1"
)


def at(
    key: str, row: int | None = None, steps: bool = False, first_step: int = 0
) -> Callable[[tuple[int, ...]], str]:
    r"""Words for a place: which output, row, step and position within the rest."""

    def words(index: tuple[int, ...]) -> str:
        parts, rest = [], list(index)
        if row is not None:
            parts.append(f"row {row}")
        if steps and rest:
            if row is None:
                parts.append(f"row {rest.pop(0)}")
            if rest:
                parts.append(f"step {first_step + rest.pop(0)}")
        if rest:
            parts.append(f"position {rest}")
        return f"{key} at {', '.join(parts)}" if parts else key

    return words


def needs_steps(probe: Probe, key: str, y: Tensor, x: Tensor) -> None:
    if y.shape[:2] != x.shape[:2]:
        raise ValueError(
            f"{probe.where}: {key} must have shape (batch={x.shape[0]}, "
            f"time={x.shape[1]}, ...), got {tuple(y.shape)}; return from `call` what "
            "has a step for each input, a list of steps stacked"
        )


def needs_batch_first(probe: Probe, outputs: Outputs, batch: int) -> None:
    for key, value in outputs.items():
        if value.dim() and value.shape[0] != batch:
            alone = " for a row alone" if batch == 1 else ""
            raise ValueError(
                f"{probe.where}: {key} must be a scalar or begin with batch={batch}"
                f"{alone}, got {tuple(value.shape)}; move the axis, or leave it out, in"
                " `call`"
            )


def needs_a_batch_of_one(probe: Probe, whole: Outputs, alone: Outputs) -> None:
    for key, value in whole.items():
        if value.dim() != alone[key].dim():
            raise AssertionError(
                f"{probe.name}: {key} has shape {tuple(alone[key].shape)} for a row "
                f"alone and {tuple(value.shape)} for the batch.\n{SQUEEZED}"
            )
    needs_batch_first(probe, alone, 1)
