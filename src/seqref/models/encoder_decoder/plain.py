r"""The decoder without attention."""

from typing import Any

from jaxtyping import Float, Integer
from torch import Tensor, nn

from seqref.models.encoder_decoder.bound import BoundDecoder, Source
from seqref.models.encoder_decoder.fits import widths


class PlainDecoder(nn.Module):
    r"""A decoder that knows its source by its first state alone.

    $$ (y_t, s_t) = \text{layer}(x_t, s_{t-1}) \qquad s_0 \text{ handed over} $$

    Args:
        layer: Any causal layer.

    Shapes:
        - `x_t`: (rows, input of the layer); state: the layer's; `y_t`: the layer's

    Cost:
        The layer's, whatever the length of the source.

    Raises:
        TypeError: `layer` is no causal layer that tells its widths.

    Source:
        Sutskever, Vinyals & Le (2014), sec. 2, with an LSTM; Cho et al. (2014) hand the
        encoder's last state to every step as well, which is not done here.
    """

    attends = False
    state_type = None

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.input_size, self.output_size = widths("PlainDecoder", layer)
        self.layer: Any = layer

    def attend(
        self,
        memory: Float[Tensor, "batch source memory"],
        lengths: Integer[Tensor, " batch"] | None = None,
        start: Any = None,
    ) -> BoundDecoder:
        r"""Bind the decoder to `start`; of the memory only the batch is read."""
        return BoundDecoder(self, Source((), start, len(memory)))

    def layer_state(self, rows: int) -> Any:
        return self.layer.initial_state(rows)

    def state_from(self, start: Any, source: Source) -> Any:
        return start

    def advance(self, x_t: Tensor, state: Any, source: Source) -> tuple[Tensor, Any]:
        return self.layer.step(x_t, state)

    def sequence(
        self, x: Tensor, state: Any, source: Source, lengths: Tensor | None
    ) -> tuple[Tensor, Any, Tensor]:
        # A layer that refuses lengths need not take the argument.
        given = (x, state) if lengths is None else (x, state, lengths)
        y, state = self.layer(*given)
        return y, state, y.new_zeros(*y.shape[:2], 0)
