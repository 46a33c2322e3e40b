r"""Two layers over one sequence, one from each end."""

from typing import Any, NamedTuple, NoReturn

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from seqref.errors import Axis, check_lengths, check_shape, check_tensor
from seqref.ops._padding import reverse_rows
from seqref.recurrence import Recurrent, output_width, width_of
from seqref.recurrent._base import RefusesTorchWeights


class BidirectionalState(NamedTuple):
    r"""The states of both directions, each of the kind that its layer has.

    After a call, `forward` has read up to each row's last real step and `backward` down
    to its first. So only `forward` can be carried to the chunk that follows; `backward`
    belongs to the chunk before.
    """

    forward: Any
    backward: Any


class Bidirectional(RefusesTorchWeights):
    r"""Two causal layers over one sequence, the second from its end to its start.

    $$
    \begin{aligned}
    (\overrightarrow{y}_t, \overrightarrow{s}_t) &=
      \overrightarrow{f}(x_t, \overrightarrow{s}_{t-1}) && t = 1, \dots, n \\
    (\overleftarrow{y}_t, \overleftarrow{s}_t) &=
      \overleftarrow{f}(x_t, \overleftarrow{s}_{t+1}) && t = n, \dots, 1 \\
    y_t &= [\overrightarrow{y}_t; \overleftarrow{y}_t]
    \end{aligned}
    $$

    with $n$ the length of the row. The layer is not causal: every output depends on
    every input. So it has no `step`, and it declares `causal = False`.

    Args:
        forward_layer: A causal layer; it reads from the first step to the last.
        backward_layer: A causal layer, of the same input size where both tell it; kind
            and width may differ. The module that is `forward_layer` itself is legal: it
            ties the weights of both directions, whose gradients then add up.

    Shapes:
        - `x`: (batch, time, input); `state`: `BidirectionalState(forward, backward)`,
          $\overrightarrow{s}_0$ and $\overleftarrow{s}_{n+1}$, or None for the layers'
          initial states; `lengths`: (batch,) integers, the rest of each row is padding
        - returns: `y` (batch, time, output), the forward layer's features first, zero
          in the padding, and `BidirectionalState`: $\overrightarrow{s}_n$, after each
          row's last real step, and $\overleftarrow{s}_1$, after its first

    Cost:
        The sum of both layers', and two reversed copies.

    Initialisation:
        The layers keep their own.

    Forms:
        `forward` alone. `step` raises: the first output needs the last input.

    Raises:
        ValueError: the layers differ in `input_size`, or have their parameters on two
            devices or in two dtypes; `x`, `state` or `lengths` has the wrong shape,
            dtype or device; a length is below 0 or above time.
        TypeError: a layer is no module with `initial_state` and `step`; `state` is no
            `BidirectionalState`; `lengths` is not of an integer dtype; `step` was
            called.
        RuntimeError: `load_state_dict` is given the weights of a `torch.nn` layer.

    Source:
        Schuster & Paliwal (1997).
        Differs: any two layers; their outputs are concatenated, as in `torch.nn`, and
        there is no output layer.
    """

    causal = False

    def __init__(self, forward_layer: nn.Module, backward_layer: nn.Module) -> None:
        super().__init__()
        _check_layer("forward_layer", forward_layer)
        _check_layer("backward_layer", backward_layer)
        both = forward_layer, backward_layer
        sizes = [width_of(each, "input_size") for each in both]
        if None not in sizes and sizes[0] != sizes[1]:
            raise ValueError(
                "Bidirectional: `forward_layer` and `backward_layer` must have one "
                f"input_size, got {type(forward_layer).__name__} with {sizes[0]} and "
                f"{type(backward_layer).__name__} with {sizes[1]}"
            )
        # `forward` is the name of the call itself.
        self.forward_layer: Any = forward_layer
        self.backward_layer: Any = backward_layer

    @property
    def input_size(self) -> int | None:
        r"""The width of an input, or None where neither layer tells it."""
        size = width_of(self.forward_layer, "input_size")
        return width_of(self.backward_layer, "input_size") if size is None else size

    @property
    def output_size(self) -> int | None:
        r"""The width of both outputs together, or None where a layer does not tell."""
        widths = [output_width(self.forward_layer), output_width(self.backward_layer)]
        return None if None in widths else sum(w for w in widths if w is not None)

    def initial_state(self, batch_size: int) -> BidirectionalState:
        r"""The pair of the layers' initial states.

        Shapes:
            - returns: as the layers give them, batch first
        """
        return BidirectionalState(
            self.forward_layer.initial_state(batch_size),
            self.backward_layer.initial_state(batch_size),
        )

    def step(self, x_t: Tensor, state: Any = None) -> NoReturn:
        r"""Raise `TypeError`: there is no step without the whole sequence."""
        raise TypeError(
            "Bidirectional.step: a bidirectional layer has no step, since its backward "
            "layer reads from the last input to the first and each output needs the "
            "inputs that come after it; call the layer on the whole sequence"
        )

    def forward(
        self,
        x: Float[Tensor, "batch time ..."],
        state: BidirectionalState | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time ..."], BidirectionalState]:
        self._check(x, state, lengths)
        first, second = (None, None) if state is None else state
        ahead, last = _call(self.forward_layer, x, first, lengths)
        mirrored = reverse_rows(x, lengths)
        behind, earliest = _call(self.backward_layer, mirrored, second, lengths)
        y = torch.cat([ahead, reverse_rows(behind, lengths)], dim=-1)
        return y, BidirectionalState(last, earliest)

    def _check(self, x: Any, state: Any, lengths: Any) -> None:
        where = "Bidirectional.forward"
        check_tensor(where, "x", x)
        axes: tuple[Axis, ...] = (("batch", None), ("time", None))
        if self.input_size is not None:
            axes = (*axes, ("input_size", self.input_size))
            check_shape(where, "x", x, axes)
        elif x.dim() < 2:
            raise ValueError(
                f"{where}: `x` must have shape (batch, time, ...), got {tuple(x.shape)}"
            )
        if lengths is not None:
            check_lengths(where, lengths, *x.shape[:2])
        if state is not None and not isinstance(state, BidirectionalState):
            raise TypeError(
                f"{where}: `state` must be BidirectionalState(forward, backward), got "
                f"{type(state).__name__} (pass BidirectionalState(forward, backward))"
            )
        self._check_layers_are_alike(where)

    def _check_layers_are_alike(self, where: str) -> None:
        # Not when the pair is made: one of the two may be moved later, or both.
        one, two = _parameter(self.forward_layer), _parameter(self.backward_layer)
        if one is None or two is None:
            return
        if (one.device, one.dtype) != (two.device, two.dtype):
            raise ValueError(
                f"{where}: both layers must be on one device and of one dtype, got "
                f"`forward_layer` on {one.device} with {one.dtype} and "
                f"`backward_layer` on {two.device} with {two.dtype}"
            )


def _check_layer(name: str, layer: Any) -> None:
    if isinstance(layer, nn.Module) and isinstance(layer, Recurrent):
        return
    got = type(layer)
    raise TypeError(
        f"Bidirectional: `{name}` must be a layer with `initial_state` and `step`, "
        f"such as seqref.LSTM, got {got.__module__}.{got.__qualname__}"
    )


def _parameter(layer: nn.Module) -> Tensor | None:
    floating = (p for p in layer.parameters() if p.is_floating_point())
    return next(floating, None)


def _call(
    layer: Any, x: Tensor, state: Any, lengths: Tensor | None
) -> tuple[Tensor, Any]:
    # A layer that refuses lengths need not take the argument.
    return layer(x, state) if lengths is None else layer(x, state, lengths)
