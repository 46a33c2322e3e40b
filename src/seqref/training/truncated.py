r"""Truncated backpropagation through time over streams whose state is carried."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from seqref.errors import check_shape, check_size, check_tensor
from seqref.models import LanguageModel
from seqref.recurrence import reset_rows
from seqref.training.checkpoint import Checkpoints
from seqref.training.loop import NonFiniteLossError, Schedule, Step, fit

__all__ = [
    "PADDING",
    "DocumentChunk",
    "Documents",
    "NonFiniteLossError",
    "Step",
    "chunk_loss",
    "evaluate",
    "train",
]

# Anything that yields (inputs, targets) anew each time it is iterated, or
# (inputs, targets, starts) with the rows that start a new text.
Chunks = Iterable[tuple[Tensor, ...]]
# A target that does not count: what cross_entropy ignores by default.
PADDING = -100


class DocumentChunk(NamedTuple):
    r"""One step of training on texts, and which rows start a new one."""

    inputs: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]
    starts: Bool[Tensor, " batch"]


class Documents:
    r"""Texts of any lengths, read side by side in chunks, each from an empty state.

    Row r reads its text chunk by chunk; when it is read, the row takes the next text
    that no row has begun, and `starts[r]` is True for that chunk. The tail of a text
    that does not fill its chunk is padded, with targets of -100, which `chunk_loss`
    leaves out.

    Args:
        documents: The texts as indices, at least 2 tokens each.
        batch_size: Number of rows.
        horizon: Tokens of a row in one chunk, at most.

    Shapes:
        - each of `documents`: (time,)
        - each chunk: `inputs` and `targets` (batch, time) with time <= horizon,
          `starts` (batch,)

    Raises:
        TypeError: a size is no int, or a text is no tensor of int64 or int32.
        ValueError: a size is below 1, there is no text, one is too short, or they
            differ in dtype or device.

    Source:
        None: a design of this package.
    """

    def __init__(
        self, documents: Sequence[Int[Tensor, " _time"]], batch_size: int, horizon: int
    ):
        check_size("Documents", "batch_size", batch_size)
        check_size("Documents", "horizon", horizon)
        if isinstance(documents, Tensor):
            raise TypeError(
                "Documents: `documents` must be a list of texts, got one tensor of "
                f"shape {tuple(documents.shape)} (pass list(documents) for its rows)"
            )
        if len(documents) == 0:
            raise ValueError("Documents: `documents` must hold at least one, got none")
        for index, document in enumerate(documents):
            name = f"documents[{index}]"
            check_tensor("Documents", name, document)
            check_shape("Documents", name, document, (("time", None),))
            _check_tokens("Documents", name, document)
            _check_alike(name, document, documents[0])
            if len(document) < 2:
                raise ValueError(
                    f"Documents: `{name}` must hold at least 2 tokens, got "
                    f"{len(document)}"
                )
        self.documents = list(documents)
        self.batch_size = batch_size
        self.horizon = horizon

    def __iter__(self) -> Iterator[DocumentChunk]:
        waiting = list(reversed(self.documents))
        rows = [self.documents[0][:0]] * self.batch_size
        while True:
            starts = []
            for index, row in enumerate(rows):
                # One token that is left is the last target: that text is read.
                begins = len(row) < 2 and len(waiting) > 0
                if len(row) < 2:
                    rows[index] = waiting.pop() if begins else row[:0]
                starts.append(begins)
            width = min(self.horizon, max(len(row) for row in rows) - 1)
            if width < 1:
                return
            yield self._chunk(rows, width, starts)
            rows = [row[width:] for row in rows]

    def _chunk(
        self, rows: list[Tensor], width: int, starts: list[bool]
    ) -> DocumentChunk:
        first = rows[0]
        inputs = first.new_zeros(len(rows), width)
        targets = first.new_full((len(rows), width), PADDING)
        for index, row in enumerate(rows):
            real = min(width, len(row) - 1)
            if real > 0:
                inputs[index, :real] = row[:real]
                targets[index, :real] = row[1 : real + 1]
        return DocumentChunk(inputs, targets, torch.tensor(starts, device=first.device))


def chunk_loss(
    model: LanguageModel,
    inputs: Int[Tensor, "batch time"],
    targets: Int[Tensor, "batch time"],
    state: Any = None,
) -> tuple[Tensor, Any]:
    r"""Mean cross-entropy of one chunk, and the state after it, not detached.

    Targets of -100 are padding and do not count; of none but these the mean is NaN.

    Shapes:
        - `inputs`, `targets`: (batch, time); `state`: the model's, or None
        - returns: the loss, a scalar, and the state after the last input

    Units:
        Nats per character.

    Raises:
        TypeError: `targets` are not of dtype int64 or int32.
        ValueError: `inputs` and `targets` differ in shape.

    Source:
        None: the definition of cross-entropy.
    """
    if inputs.shape != targets.shape:
        raise ValueError(
            "chunk_loss: `inputs` and `targets` must have one shape, got "
            f"{tuple(inputs.shape)} and {tuple(targets.shape)}"
        )
    _check_tokens("chunk_loss", "targets", targets)
    logits, state = model(inputs, state)
    # It takes no other integers.
    wide = targets.flatten().to(torch.int64)
    return cross_entropy(logits.flatten(0, 1), wide), state


def _check_tokens(where: str, name: str, tokens: Tensor) -> None:
    # -100 must fit in, and 8 or 16 bits are too few for a vocabulary.
    if tokens.dtype not in (torch.int64, torch.int32):
        raise TypeError(
            f"{where}: `{name}` must have dtype int64 or int32, got {tokens.dtype}"
        )


def _check_alike(name: str, document: Tensor, first: Tensor) -> None:
    for kind in ("dtype", "device"):
        actual, expected = getattr(document, kind), getattr(first, kind)
        if actual != expected:
            raise ValueError(
                f"Documents: `{name}` must have the {kind} of the first, {expected}, "
                f"got {actual}"
            )


def train(
    model: LanguageModel,
    chunks: Chunks,
    optimizer: torch.optim.Optimizer,
    steps: int,
    *,
    carry: bool = True,
    max_norm: float | None = 1.0,
    scheduler: Schedule | None = None,
    seed: int | None = None,
    checkpoints: Checkpoints | None = None,
    on_step: Callable[[Step], Any] | None = None,
    progress: bool = False,
) -> Step | None:
    r"""Truncated backpropagation through time (BPTT) with carried state.

    This is [`fit`](loop.md) with `chunk_loss`. Each step takes one chunk: forward from
    the state that the chunk before left, backward to the chunk's first input and no
    further, clip, update, and carry the state on, detached from its graph. Values flow
    through the whole stream; gradients reach back at most one chunk. When the chunks
    are used up, they are read again from the start, from a fresh state.

    Args:
        model: The model; updated in place.
        chunks: Yields (inputs, targets), row r going on from row r of the chunk
            before: `seqref.tasks.Streams`. Or (inputs, targets, starts): the rows where
            `starts` is True begin from the initial state: `Documents`.
        optimizer: Over the model's parameters.
        steps: Number of chunks to learn from, those before resuming included.
        carry: Whether the state is carried from chunk to chunk. Without, each chunk
            starts from the initial state: for a layer whose state grows with every
            step, as the cache of attention does.
        max_norm: Gradients are scaled down to this norm, all together; None leaves
            them.
        scheduler: As for `fit`: stepped once a step.
        seed: As for `fit`.
        checkpoints: As for `fit`: the carried state and the place in `chunks` are kept.
        on_step: As for `fit`: called after each update; True ends training.
        progress: Whether to show a bar on standard error (needs tqdm).

    Shapes:
        - returns: the last `Step`, or None where `steps` is 0

    Cost:
        Time of one forward and backward pass over each chunk; memory for one chunk,
        however long the stream.

    Raises:
        NonFiniteLossError: as for `fit`.
        ValueError: as for `fit`, or `inputs` and `targets` differ in shape.
        RuntimeError: an extra is not installed.

    Source:
        Williams & Peng (1990) discuss truncated backpropagation through time.
        Differs: non-overlapping chunks, so the horizon of a loss is its place in its
        chunk, from one input to the chunk's length.
    """
    return fit(
        model,
        chunks,
        optimizer,
        steps,
        _streamed if carry else _afresh,
        max_norm=max_norm,
        scheduler=scheduler,
        seed=seed,
        count=_real_targets,
        checkpoints=checkpoints,
        on_step=on_step,
        progress=_bits if progress else False,
    )


@torch.no_grad()
def evaluate(model: LanguageModel, chunks: Chunks, *, carry: bool = True) -> float:
    r"""Mean cross-entropy over all targets of `chunks`.

    Args:
        model: The model; the training flag of each part is put back.
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
    modes = {part: part.training for part in model.modules()}
    model.eval()
    total, count, state = 0.0, 0, None
    try:
        for chunk in chunks:
            loss, after = _streamed(model, chunk, state)
            state = after if carry else None
            real = _real_targets(chunk)
            # The mean over no target is NaN.
            total += loss.item() * real if real else 0.0
            count += real
    finally:
        # `model.train` would set a frozen part, too.
        for part, mode in modes.items():
            part.training = mode
    if count == 0:
        raise ValueError("evaluate: `chunks` must hold at least one target, got none")
    return total / count


def _streamed(
    model: LanguageModel, chunk: tuple[Tensor, ...], state: Any
) -> tuple[Tensor, Any]:
    inputs, targets, *starts = chunk
    if starts and state is not None:
        fresh = model.initial_state(inputs.shape[0])
        state = reset_rows(state, fresh, starts[0])
    return chunk_loss(model, inputs, targets, state)


def _afresh(
    model: LanguageModel, chunk: tuple[Tensor, ...], state: Any
) -> tuple[Tensor, None]:
    loss, _ = _streamed(model, chunk, None)
    return loss, None


def _real_targets(chunk: tuple[Tensor, ...]) -> int:
    return int((chunk[1] != PADDING).sum())


def _bits(step: Step) -> str:
    return f"bits={step.loss / math.log(2):.3f}"
