r"""A decoder bound to its source is a causal layer."""

from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from seqref.errors import check_lengths, check_shape, check_size, check_tensor
from seqref.ops._padding import blank_padding, real_steps
from seqref.recurrence import map_state, scan, select_rows


class Source(NamedTuple):
    r"""What a decoder looks back at: its attention's source, and its first state.

    `attended` is what `attention.prepare` returned, () where nothing is attended to;
    `start` the first state of the decoder's layer, None for the layer's own.
    """

    attended: Any
    start: Any
    batch: int


class BoundDecoder(nn.Module):
    r"""A decoder together with one batch of sources: what `decoder.attend` returns.

    A causal layer with the three members of every layer of the package. The memory, its
    projected keys and the first state are kept here: neither in the state, nor on the
    decoder, which owns the parameters. A new batch of sources needs a new `attend`.
    Layers and their mode are shared: `train` and `eval` on one are so on the other.

    Shapes:
        - `x_t`: (rows, input), `x`: (rows, time, input), with rows the batch of the
          source, or a multiple of it: then the first rows belong to the source's first
          row, as the beams of a search do. The source is not repeated for them.
        - returns: `y_t` (rows, output) or `y` (rows, time, output), zero in the
          padding, and the state

    Raises:
        ValueError: a wrong shape, dtype, device or length; rows that are no multiple of
            the source's.
        TypeError: `state` is of another kind than the decoder's.
        RuntimeError: `copy.deepcopy` of one whose source has a graph.
    """

    def __init__(self, decoder: nn.Module, source: Source) -> None:
        super().__init__()
        self.decoder: Any = decoder
        self.source = source
        self.training = decoder.training

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # What moves a module to another device or dtype moves the source with it.
        super()._apply(fn, recurse)
        attended, start, batch = self.source
        if start is not None:
            start = map_state(fn, start)
        self.source = Source(map_state(fn, attended), start, batch)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "BoundDecoder":
        _check_no_graph(f"{self._name()}.__deepcopy__", self.source, memo)
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__dict__ = deepcopy(self.__dict__, memo)
        return made

    @property
    def input_size(self) -> int:
        return self.decoder.input_size

    @property
    def output_size(self) -> int:
        return self.decoder.output_size

    def initial_state(self, batch_size: int) -> Any:
        r"""The state before the first token, for each row of the source.

        Shapes:
            - `batch_size`: the rows of the source, or a multiple of them
        """
        where = f"{self._name()}.initial_state"
        check_size(where, "batch_size", batch_size, minimum=0)
        self._check_rows(where, "batch_size", batch_size)
        start = self.source.start
        if start is None:
            start = self.decoder.layer_state(batch_size)
        elif batch_size != self.source.batch:
            each = torch.arange(self.source.batch)
            times = batch_size // self.source.batch
            start = select_rows(start, each.repeat_interleave(times))
        return self.decoder.state_from(start, self.source)

    def step(self, x_t: Float[Tensor, "rows input"], state: Any) -> tuple[Tensor, Any]:
        r"""One step, the definition of the layer."""
        where = f"{self._name()}.step"
        check_tensor(where, "x_t", x_t)
        axes = (("rows", None), ("input_size", self.input_size))
        check_shape(where, "x_t", x_t, axes)
        self._check_rows(where, "rows of x_t", len(x_t))
        self._check_state(where, state, len(x_t))
        return self.decoder.advance(x_t, state, self.source)

    def forward(
        self,
        x: Float[Tensor, "rows time input"],
        state: Any = None,
        lengths: Integer[Tensor, " rows"] | None = None,
    ) -> tuple[Float[Tensor, "rows time output"], Any]:
        y, state, _ = self._run(f"{self._name()}.forward", x, state, lengths)
        return y, state

    def align(
        self,
        x: Float[Tensor, "rows time input"],
        state: Any = None,
        lengths: Integer[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, "rows time source"]:
        r"""The weights of attention at each step, zero in the padding.

        Shapes:
            - as the call; returns (rows, time, source)

        Raises:
            TypeError: the decoder has no attention.
        """
        where = f"{self._name()}.align"
        if not self.decoder.attends:
            raise TypeError(f"{where}: a {self._name()} has no attention")
        return self._run(where, x, state, lengths)[2]

    def _run(
        self, where: str, x: Tensor, state: Any, lengths: Tensor | None
    ) -> tuple[Tensor, Any, Tensor]:
        check_tensor(where, "x", x)
        axes = (("rows", None), ("time", None), ("input_size", self.input_size))
        check_shape(where, "x", x, axes)
        self._check_rows(where, "rows of x", len(x))
        if lengths is not None:
            check_lengths(where, lengths, *x.shape[:2])
        if state is None:
            state = self.initial_state(len(x))
        self._check_state(where, state, len(x))
        return self.decoder.sequence(x, state, self.source, lengths)

    def _name(self) -> str:
        return type(self.decoder).__name__

    def _check_rows(self, where: str, name: str, rows: int) -> None:
        batch = self.source.batch
        if rows != batch and (batch == 0 or rows % batch):
            raise ValueError(
                f"{where}: `{name}` must be the source's batch={batch} or a multiple "
                f"of it, got {rows}"
            )

    def _check_state(self, where: str, state: Any, rows: int) -> None:
        kind = self.decoder.state_type
        # Without attention the state is the layer's, which checks it.
        if kind is None:
            return
        if not isinstance(state, kind):
            raise TypeError(
                f"{where}: `state` must be {kind.__name__}, got "
                f"{type(state).__name__} (pass what initial_state or the step before "
                "returned)"
            )
        positions = self.source.attended.real.shape[1]
        axes = (("rows", rows), ("source", positions))
        check_shape(where, "state.weights", state.weights, axes, "of another source?")
        map_state(partial(_check_rows_of, where, rows), state)


class AttendingDecoder(nn.Module):
    r"""What every decoder with attention does alike: it is bound to a source.

    A concrete one has `state_type`, `state_from`, `advance` and `sequence`.
    """

    attends = True
    attention: Any

    def attend(
        self,
        memory: Float[Tensor, "batch source memory"],
        lengths: Integer[Tensor, " batch"] | None = None,
        start: Any = None,
    ) -> BoundDecoder:
        r"""Bind the decoder to a source: make it ready, once for all steps.

        Args:
            memory: The encoder's outputs.
            lengths: The real positions of each row.
            start: The first state of the layer, or of the layers; None for their own.
        """
        source = Source(self.attention.prepare(memory, lengths), start, len(memory))
        return BoundDecoder(self, source)


def _check_no_graph(where: str, source: Source, memo: dict[int, Any]) -> None:
    def check(tensor: Tensor) -> Tensor:
        if not tensor.is_leaf and id(tensor) not in memo:
            raise RuntimeError(
                f"{where}: the source has a graph, which leads to the layers that made "
                "it, and a copy would lose it (bind it under torch.no_grad(), or copy "
                "the model and bind that)"
            )
        return tensor

    for part in (source.attended, source.start):
        if part is not None:
            map_state(check, part)


def _check_rows_of(where: str, rows: int, part: Tensor) -> Tensor:
    if part.dim() == 0 or len(part) != rows:
        raise ValueError(
            f"{where}: each tensor of `state` must have rows={rows}, got "
            f"{tuple(part.shape)}"
        )
    return part


class WithWeights(NamedTuple):
    r"""A decoder whose output is followed by its attention's weights: a `step`."""

    decoder: Any
    source: Source

    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        y_t, state = self.decoder.advance(x_t, state, self.source)
        return torch.cat([y_t, state.weights], dim=1), state


def by_scan(
    decoder: Any, x: Tensor, state: Any, source: Source, lengths: Tensor | None
) -> tuple[Tensor, Any, Tensor]:
    r"""Outputs, last state and weights of all steps, one after the other."""
    # With a state given, `scan` asks for a step alone.
    stepped: Any = WithWeights(decoder, source)
    joined, last = scan(stepped, x, state, lengths)
    width = decoder.output_size
    return joined[..., :width], last, joined[..., width:]


def blank(x: Tensor, lengths: Tensor | None) -> Tensor:
    r"""`x` with zeros in the padding, where there is any."""
    if lengths is None:
        return x
    return blank_padding(x, real_steps(lengths.to(x.device), x.shape[1]))


def at_last_step(before: Tensor, values: Tensor, lengths: Tensor | None) -> Tensor:
    r"""Each row of `values` (rows, time, width) at its last step.

    Of a row without a step it is `before`, (rows, width).
    """
    joined = torch.cat([before[:, None], values], dim=1)
    if lengths is None:
        return joined[:, -1]
    index = lengths.to(joined.device, torch.int64)[:, None, None]
    return joined.gather(1, index.expand(-1, 1, joined.shape[2]))[:, 0]
