r"""The blocks of a transformer: where the norm stands is the class."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from seqref.errors import check_lengths, check_probability, check_shape
from seqref.models._like import made_like
from seqref.models.encoder_decoder.bound import blank
from seqref.recurrence import output_width, width_of

Norm = Callable[..., nn.Module]
Sublayer = Callable[[Tensor], tuple[Tensor, Any]]


class Block(nn.Module):
    r"""What both kinds of block share: attention and a network, each in a residual sum.

    A concrete one has `residual`, which says where the norm stands.
    """

    def __init__(
        self, attention: nn.Module, feed_forward: nn.Module, norm: Norm, dropout: float
    ) -> None:
        super().__init__()
        where = type(self).__name__
        width = width_of(attention, "input_size")
        has_state = callable(getattr(attention, "initial_state", None))
        if not isinstance(attention, nn.Module) or width is None or not has_state:
            raise TypeError(
                f"{where}: `attention` must be a layer with `initial_state` and "
                "`input_size`, such as seqref.MultiHeadAttention, got "
                f"{type(attention).__name__}"
            )
        if output_width(attention) != width:
            raise ValueError(
                f"{where}: `attention` must return its input's width {width}, since "
                f"the two are added, got {output_width(attention)}"
            )
        network = width_of(feed_forward, "d_model")
        if network is not None and network != width:
            raise ValueError(
                f"{where}: `feed_forward` must have d_model={width}, the width of "
                f"`attention`, got {network}"
            )
        check_probability(where, "dropout", dropout)
        self.input_size = self.output_size = width
        self.attention: Any = attention
        self.feed_forward: Any = feed_forward
        self.dropout = float(dropout)
        self.norm_attention = self.made(norm)
        self.norm_feed_forward = self.made(norm)

    def made(self, norm: Norm) -> nn.Module:
        r"""A norm of the block's width, where and in what the attention is."""
        return norm(self.input_size).to(**made_like(self.attention))

    def residual(
        self, norm: nn.Module, x: Tensor, sublayer: Sublayer
    ) -> tuple[Tensor, Any]:
        r"""A sublayer with its norm, added to its input; and what else it returned."""
        raise NotImplementedError

    @property
    def causal(self) -> bool:
        r"""Whether no output depends on a later input: the attention's."""
        return getattr(self.attention, "causal", True)

    @property
    def chunk_invariant(self) -> bool:
        r"""Whether results do not depend on where a sequence is cut."""
        return getattr(self.attention, "chunk_invariant", True)

    @property
    def differentiable_state(self) -> bool:
        r"""Whether gradients pass through a carried state: the attention's."""
        return getattr(self.attention, "differentiable_state", True)

    @property
    def supports_lengths(self) -> bool:
        r"""Whether `lengths` may be given: the attention's."""
        return getattr(self.attention, "supports_lengths", True)

    def initial_state(self, batch_size: int) -> Any:
        r"""The attention's initial state."""
        return self.attention.initial_state(batch_size)

    def dropped(self, y: Tensor) -> Tensor:
        return F.dropout(y, self.dropout, self.training)

    def network(self, x: Tensor) -> Tensor:
        r"""The second half: the same at every position, without a state."""
        y, _ = self.residual(
            self.norm_feed_forward, x, lambda x: (self.feed_forward(x), None)
        )
        return y

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}"


class SelfBlock(Block):
    r"""A block that reads its own sequence alone: a layer, causal if its attention is.

    A concrete one has `residual`.
    """

    def step(
        self, x_t: Float[Tensor, "batch {self.input_size}"], state: Any
    ) -> tuple[Float[Tensor, "batch {self.input_size}"], Any]:
        r"""One step, the definition of the layer.

        Raises:
            TypeError: the attention has no step, since it reads both ways.
        """
        where = f"{type(self).__name__}.step"
        check_shape(where, "x_t", x_t, (("batch", None), ("d_model", self.input_size)))
        x_t, state = self.residual(
            self.norm_attention, x_t, lambda x: self.attention.step(x, state)
        )
        return self.network(x_t), state

    def forward(
        self,
        x: Float[Tensor, "batch time {self.input_size}"],
        state: Any = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.input_size}"], Any]:
        where = f"{type(self).__name__}.forward"
        axes = ("batch", None), ("time", None), ("d_model", self.input_size)
        check_shape(where, "x", x, axes)
        if lengths is not None:
            check_lengths(where, lengths, *x.shape[:2])
        # A residual sum would carry what the padding holds past the attention's mask.
        x = blank(x, lengths)
        x, state = self.residual(
            self.norm_attention, x, lambda x: called(self.attention, x, state, lengths)
        )
        return blank(self.network(x), lengths), state


def called(
    layer: Any, x: Tensor, state: Any, lengths: Tensor | None
) -> tuple[Tensor, Any]:
    r"""A layer's call; one that refuses lengths need not take the argument."""
    return layer(x, state) if lengths is None else layer(x, state, lengths)


def pre_norm(
    self: Block, norm: nn.Module, x: Tensor, sublayer: Sublayer
) -> tuple[Tensor, Any]:
    r"""The sum is never normalised: x + sublayer(norm(x))."""
    y, rest = sublayer(norm(x))
    return x + self.dropped(y), rest


def post_norm(
    self: Block, norm: nn.Module, x: Tensor, sublayer: Sublayer
) -> tuple[Tensor, Any]:
    r"""The sum is normalised: norm(x + sublayer(x))."""
    y, rest = sublayer(x)
    return norm(x + self.dropped(y)), rest


class PreNormBlock(SelfBlock):
    r"""A block whose norms stand before attention and network, inside the sums.

    $$ u = x + \mathrm{attention}(\mathrm{norm}_1(x)) \qquad
       y = u + \mathrm{FFN}(\mathrm{norm}_2(u)) $$

    No norm stands on the way from $x$ to $y$, so that a stack needs one at its end.
    It is a causal layer where `attention` is; its state is the attention's.

    Args:
        attention: A layer that returns its input's width, such as `MultiHeadAttention`,
            or `TwoWayAttention` in an encoder. Any causal layer will do.
        feed_forward: `FeedForward`, `GatedFeedForward`, or any module from (..., model)
            to the same.
        norm: Makes the norms, from the width: `torch.nn.LayerNorm`, `torch.nn.RMSNorm`.
        dropout: Probability that a number of a sublayer's output is zeroed before it is
            added, in training.

    Shapes:
        - `x`: (batch, time, model); `x_t`: (batch, model); `lengths`: (batch,)
          integers, the rest of each row is padding on the right; `state`: the
          attention's, or None for `initial_state`
        - returns: `y`, as `x`, zero in the padding, and the state

    Cost:
        The attention's and the network's: $12 D^2$ multiply-adds a position at $4 D$
        hidden values, and $2 D$ for each position that is attended to.

    Initialisation:
        Attention, network and norms keep their own.

    Forms:
        `step`, `scan` (a loop over it), and `forward`, the attention's over the whole
        sequence.

    Raises:
        TypeError: `attention` is no layer that tells its width; `step` is called and
            the attention reads both ways; `lengths` is not of an integer dtype.
        ValueError: widths that do not fit; `dropout` outside 0 to 1; a wrong shape or
            length.

    Source:
        Xiong et al. (2020), fig. 1 (b); earlier Baevski & Auli (2019), and Radford et
        al. (2019), sec. 2.3.
    """

    def __init__(
        self,
        attention: nn.Module,
        feed_forward: nn.Module,
        *,
        norm: Norm = nn.LayerNorm,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(attention, feed_forward, norm, dropout)

    residual = pre_norm


class PostNormBlock(SelfBlock):
    r"""A block whose norms stand behind the sums, as in the first transformer.

    $$ u = \mathrm{norm}_1(x + \mathrm{attention}(x)) \qquad
       y = \mathrm{norm}_2(u + \mathrm{FFN}(u)) $$

    It is a causal layer where `attention` is; its state is the attention's.

    Args:
        attention: A layer that returns its input's width, such as `MultiHeadAttention`,
            or `TwoWayAttention` in an encoder. Any causal layer will do.
        feed_forward: `FeedForward`, `GatedFeedForward`, or any module from (..., model)
            to the same.
        norm: Makes the norms, from the width: `torch.nn.LayerNorm`, `torch.nn.RMSNorm`.
        dropout: Probability that a number of a sublayer's output is zeroed before it is
            added, in training.

    Shapes:
        - `x`: (batch, time, model); `x_t`: (batch, model); `lengths`: (batch,)
          integers, the rest of each row is padding on the right; `state`: the
          attention's, or None for `initial_state`
        - returns: `y`, as `x`, zero in the padding, and the state

    Cost:
        As `PreNormBlock`.

    Initialisation:
        Attention, network and norms keep their own.

    Forms:
        `step`, `scan` (a loop over it), and `forward`, the attention's over the whole
        sequence.

    Raises:
        TypeError: `attention` is no layer that tells its width; `step` is called and
            the attention reads both ways; `lengths` is not of an integer dtype.
        ValueError: widths that do not fit; `dropout` outside 0 to 1; a wrong shape or
            length.

    Source:
        Vaswani et al. (2017), sec. 3.1 and 5.4: LayerNorm(x + Sublayer(x)), with
        dropout on the sublayer's output before it is added.
    """

    def __init__(
        self,
        attention: nn.Module,
        feed_forward: nn.Module,
        *,
        norm: Norm = nn.LayerNorm,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(attention, feed_forward, norm, dropout)

    residual = post_norm
