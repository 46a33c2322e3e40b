r"""The decoder: blocks that also attend to a source, and the stack of them."""

from collections.abc import Iterable
from typing import Any

from jaxtyping import Float, Integer
from torch import Tensor, nn

from seqref.models.encoder_decoder.bound import BoundDecoder, Source, blank
from seqref.models.transformer.blocks import (
    Block,
    Norm,
    called,
    post_norm,
    pre_norm,
)
from seqref.models.transformer.stack import check_layers, check_norm, check_states
from seqref.recurrence import width_of


class SourceBlock(Block):
    r"""A block with a third sublayer between the two: attention to a source.

    A concrete one has `residual`. It is no layer by itself: `TransformerDecoder` binds
    its blocks to a source.
    """

    def __init__(
        self,
        attention: nn.Module,
        cross_attention: nn.Module,
        feed_forward: nn.Module,
        norm: Norm,
        dropout: float,
    ) -> None:
        super().__init__(attention, feed_forward, norm, dropout)
        where = type(self).__name__
        if not self.causal:
            raise TypeError(
                f"{where}: `attention` must be causal, and {type(attention).__name__} "
                "declares causal = False: its outputs depend on tokens that are still "
                "to be written"
            )
        if not all(hasattr(cross_attention, name) for name in ("prepare", "attend")):
            raise TypeError(
                f"{where}: `cross_attention` must have `prepare` and `attend`, such as "
                f"seqref.CrossAttention, got {type(cross_attention).__name__}"
            )
        self.cross_attention: Any = cross_attention
        self.norm_cross_attention = self.made(norm)

    def advance(
        self, x_t: Tensor, state: Any, prepared: Any, batch: int
    ) -> tuple[Tensor, Any]:
        r"""One step over what the cross-attention made of `batch` sources."""
        x_t, state = self.residual(
            self.norm_attention, x_t, lambda x: self.attention.step(x, state)
        )
        x_t = self._asked(x_t[:, None], prepared, batch)[:, 0]
        return self.network(x_t), state

    def sequence(
        self,
        x: Tensor,
        state: Any,
        prepared: Any,
        batch: int,
        lengths: Tensor | None,
    ) -> tuple[Tensor, Any]:
        r"""All steps over what the cross-attention made of `batch` sources."""
        x, state = self.residual(
            self.norm_attention, x, lambda x: called(self.attention, x, state, lengths)
        )
        x = self._asked(x, prepared, batch)
        return blank(self.network(x), lengths), state

    def _asked(self, x: Tensor, prepared: Any, batch: int) -> Tensor:
        def ask(x: Tensor) -> tuple[Tensor, None]:
            rows, time, width = x.shape
            each = rows // batch if batch else 0
            # Rows that share a source ask one after the other, as one longer row.
            shared = x.reshape(batch, each * time, width)
            context = self.cross_attention.attend(shared, prepared)
            return context.reshape(rows, time, context.shape[2]), None

        return self.residual(self.norm_cross_attention, x, ask)[0]


class PreNormDecoderBlock(SourceBlock):
    r"""`PreNormBlock` with attention to a source between attention and network.

    $$ u = x + \mathrm{attention}(\mathrm{norm}_1(x)) \qquad
       v = u + \mathrm{cross}(\mathrm{norm}_2(u), m) \qquad
       y = v + \mathrm{FFN}(\mathrm{norm}_3(v)) $$

    Args:
        attention: A causal layer that returns its input's width.
        cross_attention: With `prepare(memory, lengths)` and `attend(query, prepared)`:
            `CrossAttention`.
        feed_forward: As in `PreNormBlock`.
        norm: Makes the norms, from the width.
        dropout: On each sublayer's output before it is added, in training.

    Shapes:
        - within `TransformerDecoder`: as there

    Cost:
        As `PreNormBlock`, and $2 D^2 + 2 S D$ for a source of S positions, whose keys
        and values cost $2 S D^2$ once.

    Initialisation:
        All parts keep their own.

    Raises:
        TypeError: `attention` is no causal layer that tells its width;
            `cross_attention` lacks a method.
        ValueError: widths that do not fit; `dropout` outside 0 to 1.

    Source:
        Vaswani et al. (2017), sec. 3.1, with the norms of Xiong et al. (2020), fig. 1.
    """

    def __init__(
        self,
        attention: nn.Module,
        cross_attention: nn.Module,
        feed_forward: nn.Module,
        *,
        norm: Norm = nn.LayerNorm,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(attention, cross_attention, feed_forward, norm, dropout)

    residual = pre_norm


class PostNormDecoderBlock(SourceBlock):
    r"""`PostNormBlock` with attention to a source between attention and network.

    $$ u = \mathrm{norm}_1(x + \mathrm{attention}(x)) \qquad
       v = \mathrm{norm}_2(u + \mathrm{cross}(u, m)) \qquad
       y = \mathrm{norm}_3(v + \mathrm{FFN}(v)) $$

    Args:
        attention: A causal layer that returns its input's width.
        cross_attention: With `prepare(memory, lengths)` and `attend(query, prepared)`:
            `CrossAttention`.
        feed_forward: As in `PostNormBlock`.
        norm: Makes the norms, from the width.
        dropout: On each sublayer's output before it is added, in training.

    Shapes:
        - within `TransformerDecoder`: as there

    Cost:
        As `PreNormDecoderBlock`.

    Initialisation:
        All parts keep their own.

    Raises:
        TypeError: `attention` is no causal layer that tells its width;
            `cross_attention` lacks a method.
        ValueError: widths that do not fit; `dropout` outside 0 to 1.

    Source:
        Vaswani et al. (2017), sec. 3.1 and fig. 1.
    """

    def __init__(
        self,
        attention: nn.Module,
        cross_attention: nn.Module,
        feed_forward: nn.Module,
        *,
        norm: Norm = nn.LayerNorm,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(attention, cross_attention, feed_forward, norm, dropout)

    residual = post_norm


class TransformerDecoder(nn.Module):
    r"""A stack of decoder blocks; bound to a source it is a causal layer.

    $$ y = \mathrm{norm}(\text{block}_L(\dots \text{block}_1(x; m) \dots; m)) $$

    `attend` makes keys and values of the memory in each block, once for all steps.
    They are no part of the state, which holds what each layer keeps of its own
    sequence.

    Args:
        layers: From the bottom: `PreNormDecoderBlock` or `PostNormDecoderBlock`, and
            layers that read no source, such as `AddPositions`.
        last_norm: A norm of the outputs; pre-norm needs one.

    Shapes:
        - `memory`: (batch, source, memory); `lengths`: (batch,), None for all
        - bound, `x_t`: (rows, model), `x`: (rows, time, model), with rows the batch of
          the source or a multiple of it; state: a tuple of the layers' states
        - returns: `y_t` or `y`, as the input, zero in the padding, and the state

    Cost:
        The sum of the blocks'.

    Initialisation:
        The layers keep their own.

    Raises:
        TypeError: a layer of another kind; `state` is no plain tuple of as many states.
        ValueError: no block; widths that do not fit; a wrong shape or length.

    Source:
        Vaswani et al. (2017), sec. 3.1 and fig. 1, right.
    """

    # `BoundDecoder` leaves the state to the layers, and there are many weights.
    attends = False
    state_type = None

    def __init__(
        self, layers: Iterable[nn.Module], *, last_norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        where = "TransformerDecoder"
        made = check_layers(where, layers)
        blocks = [layer for layer in made if isinstance(layer, SourceBlock)]
        if not blocks:
            raise ValueError(
                f"{where}: `layers` must hold a block with cross-attention, such as "
                "PreNormDecoderBlock, got none (without a source? use Transformer)"
            )
        check_norm(where, last_norm)
        self.layers = nn.ModuleList(made)
        self.last_norm = last_norm
        width: Any = width_of(made[0], "input_size")
        self.input_size = self.output_size = width
        self.memory_size = width_of(blocks[0].cross_attention, "memory_size")

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
            start: The first state of the layers; None for their own.
        """
        layers: Any = self.layers
        prepared = tuple(
            layer.cross_attention.prepare(memory, lengths)
            if isinstance(layer, SourceBlock)
            else ()
            for layer in layers
        )
        return BoundDecoder(self, Source(prepared, start, len(memory)))

    def layer_state(self, rows: int) -> tuple[Any, ...]:
        layers: Any = self.layers
        return tuple(layer.initial_state(rows) for layer in layers)

    def state_from(self, start: Any, source: Source) -> Any:
        return start

    def advance(
        self, x_t: Tensor, state: Any, source: Source
    ) -> tuple[Tensor, tuple[Any, ...]]:
        check_states("TransformerDecoder.step", state, len(self.layers))
        after = []
        for layer, before, prepared in self._parts(state, source):
            if isinstance(layer, SourceBlock):
                x_t, following = layer.advance(x_t, before, prepared, source.batch)
            else:
                x_t, following = layer.step(x_t, before)
            after.append(following)
        return self._normed(x_t), tuple(after)

    def sequence(
        self, x: Tensor, state: Any, source: Source, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Any, ...], Tensor]:
        check_states("TransformerDecoder.forward", state, len(self.layers))
        x, after = blank(x, lengths), []
        for layer, before, prepared in self._parts(state, source):
            if isinstance(layer, SourceBlock):
                batch = source.batch
                x, following = layer.sequence(x, before, prepared, batch, lengths)
            else:
                x, following = called(layer, x, before, lengths)
            after.append(following)
        y = blank(self._normed(x), lengths)
        return y, tuple(after), y.new_zeros(*y.shape[:2], 0)

    def _parts(self, state: Any, source: Source) -> Any:
        return zip(self.layers, state, source.attended, strict=True)

    def _normed(self, x: Tensor) -> Tensor:
        return x if self.last_norm is None else self.last_norm(x)
