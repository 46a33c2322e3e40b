r"""Self-attention in both directions, as encoders have it."""

from typing import Any, NoReturn

from jaxtyping import Float, Integer
from torch import Tensor, nn

from seqref.attention import CrossAttention
from seqref.errors import check_lengths, check_shape
from seqref.models.encoder_decoder.bound import blank


class TwoWayAttention(nn.Module):
    r"""Self-attention of an encoder: each position attends to the whole row.

    $$ y = \mathrm{cross}(x, x) $$

    Args:
        attention: What attends, with the sequence as query and as memory:
            `CrossAttention` of one width.

    Shapes:
        - `x`: (batch, time, model); `lengths`: (batch,) integers; `state`: None or ()
        - returns: `y`, as `x`, zero in the padding, and ()

    Cost:
        $4 D^2 + 2 T D$ multiply-adds a position.

    Initialisation:
        As `CrossAttention`.

    Forms:
        `forward` alone. `step` raises: the first output needs the last input.

    Raises:
        TypeError: `attention` is no `CrossAttention`; `step` was called; `lengths` is
            not of an integer dtype.
        ValueError: its query and memory differ in width; a wrong shape or length.

    Source:
        Vaswani et al. (2017), sec. 3.2.3, second item.
    """

    causal = False

    def __init__(self, attention: CrossAttention) -> None:
        super().__init__()
        where = "TwoWayAttention"
        if not isinstance(attention, CrossAttention):
            raise TypeError(
                f"{where}: `attention` must be a CrossAttention, got "
                f"{type(attention).__name__}"
            )
        widths = attention.d_model, attention.memory_size
        if widths[0] != widths[1]:
            raise ValueError(
                f"{where}: `attention` must have memory_size={widths[0]}, its queries' "
                f"width, since both are one sequence, got {widths[1]}"
            )
        self.attention = attention
        self.input_size = self.output_size = widths[0]

    def initial_state(self, batch_size: int) -> tuple[()]:
        r"""The empty state: nothing is carried on."""
        return ()

    def step(self, x_t: Tensor, state: Any = None) -> NoReturn:
        r"""Raise `TypeError`: there is no step without the whole sequence."""
        raise TypeError(
            "TwoWayAttention.step: attention in both directions has no step, since "
            "each output needs the inputs that come after it; call the layer on the "
            "whole sequence"
        )

    def forward(
        self,
        x: Float[Tensor, "batch time {self.input_size}"],
        state: tuple[()] | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.input_size}"], tuple[()]]:
        where = "TwoWayAttention.forward"
        axes = ("batch", None), ("time", None), ("d_model", self.input_size)
        check_shape(where, "x", x, axes)
        if lengths is not None:
            check_lengths(where, lengths, *x.shape[:2])
        x = blank(x, lengths)
        return blank(self.attention(x, x, lengths), lengths), ()
