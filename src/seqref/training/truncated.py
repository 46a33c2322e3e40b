r"""Truncated backpropagation through time over streams whose state is carried."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from seqref.errors import check_size
from seqref.models import LanguageModel
from seqref.recurrence import detach_state
from seqref.training._extras import extra

# Anything that yields (inputs, targets) anew each time it is iterated.
Chunks = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Step:
    r"""What one step of training reports.

    `loss` is in nats per character, before the step's update; `grad_norm` is the norm
    of all gradients together, before clipping; `characters` were read so far.
    """

    number: int
    loss: float
    grad_norm: float
    characters: int


class NonFiniteLossError(ArithmeticError):
    r"""The loss or the gradient became infinite or NaN; no update was made from it."""


def chunk_loss(
    model: LanguageModel,
    inputs: Int[Tensor, "batch time"],
    targets: Int[Tensor, "batch time"],
    state: Any = None,
) -> tuple[Tensor, Any]:
    r"""Mean cross-entropy of one chunk, and the state after it, not detached.

    Shapes:
        - `inputs`, `targets`: (batch, time); `state`: the model's, or None
        - returns: the loss, a scalar, and the state after the last input

    Units:
        Nats per character.

    Raises:
        ValueError: `inputs` and `targets` differ in shape.

    Source:
        None: the definition of cross-entropy.
    """
    if inputs.shape != targets.shape:
        raise ValueError(
            "chunk_loss: `inputs` and `targets` must have one shape, got "
            f"{tuple(inputs.shape)} and {tuple(targets.shape)}"
        )
    logits, state = model(inputs, state)
    return cross_entropy(logits.flatten(0, 1), targets.flatten()), state


def train(
    model: LanguageModel,
    chunks: Chunks,
    optimizer: torch.optim.Optimizer,
    steps: int,
    *,
    max_norm: float = 1.0,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    on_step: Callable[[Step], bool | None] | None = None,
    progress: bool = False,
) -> Step | None:
    r"""Truncated backpropagation through time (BPTT) with carried state.

    Each step takes one chunk: forward from the state that the chunk before left,
    backward to the chunk's first input and no further, clip, update, and hand on the
    state cut off from its graph. Values flow through the whole stream; gradients
    reach back at most one chunk. When the chunks are used up, they are read again
    from the start, from a fresh state.

    Args:
        model: The model; updated in place.
        chunks: Yields (inputs, targets), row r going on from row r of the chunk
            before: `seqref.tasks.Streams`.
        optimizer: Over the model's parameters.
        steps: Number of chunks to learn from.
        max_norm: Gradients are scaled down to this norm, all together.
        scheduler: Stepped once a step.
        on_step: Called after each update; training ends where it returns True.
        progress: Whether to show a bar on standard error (needs tqdm).

    Shapes:
        - returns: the last `Step`, or None where `steps` is 0

    Cost:
        Time of one forward and backward pass over each chunk; memory for one chunk,
        however long the stream.

    Raises:
        NonFiniteLossError: the loss or the gradient's norm is not finite. The
            parameters are those before that step.
        ValueError: `steps` is below 0, `max_norm` is not positive, or there are no
            chunks.
        RuntimeError: `progress` without tqdm.

    Source:
        Williams & Peng (1990), truncated backpropagation through time.
        Differs: non-overlapping chunks, so the horizon of a loss is its place in its
        chunk, from one input to the chunk's length.
    """
    check_size("train", "steps", steps, minimum=0)
    if not max_norm > 0:
        raise ValueError(f"train: `max_norm` must be positive, got {max_norm}")
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.train()
    report, characters, state = None, 0, None
    with _bar(steps) if progress else nullcontext() as bar:
        for number, first, inputs, targets in _cycle(chunks, steps):
            if first:
                state = None
            loss, state = chunk_loss(model, inputs, targets, state)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            grad_norm = nn.utils.clip_grad_norm_(parameters, max_norm)
            characters += inputs.numel()
            report = Step(number, loss.item(), grad_norm.item(), characters)
            _check_finite(report, optimizer, max_norm)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            # Without this the next backward would walk into a graph that is gone.
            state = detach_state(state)
            _show(bar, report)
            if on_step is not None and on_step(report):
                break
    return report


@torch.no_grad()
def evaluate(model: LanguageModel, chunks: Chunks, *, carry: bool = True) -> float:
    r"""Mean cross-entropy over all targets of `chunks`.

    Args:
        model: The model; its training flag is put back.
        chunks: As for `train`; read once.
        carry: Whether the state is carried from chunk to chunk. Without, each chunk
            starts from the initial state.

    Shapes:
        - returns: a float

    Units:
        Nats per character; divide by ln 2 for bits.

    Raises:
        ValueError: there are no chunks.

    Source:
        None: the definition of cross-entropy.
    """
    was_training = model.training
    model.eval()
    total, count, state = 0.0, 0, None
    try:
        for inputs, targets in chunks:
            loss, after = chunk_loss(model, inputs, targets, state)
            state = after if carry else None
            total += loss.item() * targets.numel()
            count += targets.numel()
    finally:
        model.train(was_training)
    if count == 0:
        raise ValueError("evaluate: `chunks` must hold at least one target, got none")
    return total / count


def _cycle(chunks: Chunks, steps: int) -> Iterator[tuple[int, bool, Tensor, Tensor]]:
    r"""`steps` numbered chunks, and whether each is the first of a pass."""
    number = 0
    while number < steps:
        before = number
        for inputs, targets in chunks:
            if number == steps:
                return
            number += 1
            yield number, number == before + 1, inputs, targets
        if number == before:
            raise ValueError("train: `chunks` must hold at least one chunk, got none")


def _check_finite(
    report: Step, optimizer: torch.optim.Optimizer, max_norm: float
) -> None:
    for name, value in (("loss", report.loss), ("gradient norm", report.grad_norm)):
        if not math.isfinite(value):
            rates = ", ".join(f"{group['lr']:g}" for group in optimizer.param_groups)
            raise NonFiniteLossError(
                f"train: the {name} is {value} at step {report.number}; lower the "
                f"learning rate (now {rates}) or `max_norm` (now {max_norm:g})"
            )


def _show(bar: Any, report: Step) -> None:
    if bar is not None:
        bar.update()
        bar.set_postfix(bits=f"{report.loss / math.log(2):.3f}", refresh=False)


def _bar(steps: int) -> Any:
    tqdm = extra("tqdm", "a progress bar")
    return tqdm.tqdm(total=steps, unit="step", dynamic_ncols=True)
