r"""A block of one layer: norm, layer, residual sum."""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from seqref.errors import check_lengths, check_probability, check_shape
from seqref.models._like import made_like
from seqref.models.encoder_decoder.bound import blank
from seqref.models.transformer.blocks import Norm, called
from seqref.recurrence import output_width, width_of


class ResidualBlock(nn.Module):
    r"""A layer with its norm before it, added to its input: a block without a network.

    $$ y = x + \mathrm{layer}(\mathrm{norm}(x)) $$

    The block of Mamba, whose layer has a gate and wide projections of its own, so that
    no `FeedForward` follows it. No norm stands on the way from $x$ to $y$, so that a
    stack needs one at its end. It is a causal layer where `layer` is; its state is the
    layer's.

    Args:
        layer: A layer that returns its input's width, such as `Mamba`.
        norm: Makes the norm, from the width: `torch.nn.LayerNorm`, `torch.nn.RMSNorm`.
        dropout: Probability that a number of the layer's output is zeroed before it is
            added, in training.

    Shapes:
        - `x`: (batch, time, model); `x_t`: (batch, model); `lengths`: (batch,)
          integers, the rest of each row is padding on the right; `state`: the layer's,
          or None for `initial_state`
        - returns: `y`, as `x`, zero in the padding, and the state

    Cost:
        The layer's.

    Initialisation:
        Layer and norm keep their own.

    Forms:
        `step`, `scan` (a loop over it), and `forward`, the layer's over the whole
        sequence.

    Raises:
        TypeError: `layer` is no layer that tells its width; `lengths` is not of an
            integer dtype.
        ValueError: widths that differ; `dropout` outside 0 to 1; a wrong shape or
            length.

    Source:
        Gu & Dao (2023), sec. 3.4: the layer between norms and residual sums.
    """

    def __init__(
        self, layer: nn.Module, *, norm: Norm = nn.LayerNorm, dropout: float = 0.0
    ) -> None:
        super().__init__()
        where = "ResidualBlock"
        width = width_of(layer, "input_size")
        has_state = callable(getattr(layer, "initial_state", None))
        if not isinstance(layer, nn.Module) or width is None or not has_state:
            raise TypeError(
                f"{where}: `layer` must be a layer with `initial_state` and "
                f"`input_size`, such as seqref.Mamba, got {type(layer).__name__}"
            )
        if output_width(layer) != width:
            raise ValueError(
                f"{where}: `layer` must return its input's width {width}, since the "
                f"two are added, got {output_width(layer)}"
            )
        check_probability(where, "dropout", dropout)
        self.input_size = self.output_size = width
        self.layer: Any = layer
        self.norm = norm(width).to(**made_like(layer))
        self.dropout = float(dropout)

    @property
    def causal(self) -> bool:
        r"""Whether no output depends on a later input: the layer's."""
        return getattr(self.layer, "causal", True)

    @property
    def chunk_invariant(self) -> bool:
        r"""Whether results do not depend on where a sequence is cut."""
        return getattr(self.layer, "chunk_invariant", True)

    @property
    def differentiable_state(self) -> bool:
        r"""Whether gradients pass through a carried state: the layer's."""
        return getattr(self.layer, "differentiable_state", True)

    @property
    def supports_lengths(self) -> bool:
        r"""Whether `lengths` may be given: the layer's."""
        return getattr(self.layer, "supports_lengths", True)

    def initial_state(self, batch_size: int) -> Any:
        r"""The layer's initial state."""
        return self.layer.initial_state(batch_size)

    def step(
        self, x_t: Float[Tensor, "batch {self.input_size}"], state: Any
    ) -> tuple[Float[Tensor, "batch {self.input_size}"], Any]:
        r"""One step, the definition of the layer."""
        where = "ResidualBlock.step"
        check_shape(where, "x_t", x_t, (("batch", None), ("d_model", self.input_size)))
        y_t, state = self.layer.step(self.norm(x_t), state)
        return x_t + self._dropped(y_t), state

    def forward(
        self,
        x: Float[Tensor, "batch time {self.input_size}"],
        state: Any = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.input_size}"], Any]:
        where = "ResidualBlock.forward"
        axes = ("batch", None), ("time", None), ("d_model", self.input_size)
        check_shape(where, "x", x, axes)
        if lengths is not None:
            check_lengths(where, lengths, *x.shape[:2])
        # The sum would carry what the padding holds past the layer's own mask.
        x = blank(x, lengths)
        y, state = called(self.layer, self.norm(x), state, lengths)
        return x + self._dropped(y), state

    def _dropped(self, y: Tensor) -> Tensor:
        return F.dropout(y, self.dropout, self.training)

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}"
