r"""Recurrent layers on top of each other: depth in layers beside depth in time."""

from collections.abc import Iterable
from functools import partial
from typing import Any, cast

import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from seqref.errors import (
    Axis,
    check_lengths,
    check_probability,
    check_shape,
    check_size,
    check_tensor,
)
from seqref.ops._padding import blank_padding, real_steps
from seqref.recurrence import output_width, width_of
from seqref.recurrent._base import RefusesTorchWeights


class Stacked(RefusesTorchWeights):
    r"""Layers on top of each other: each reads the outputs of the one below.

    $$ (y_t^{(l)}, s_t^{(l)}) = \text{layer}^{(l)}\bigl(x_t^{(l)}, s_{t-1}^{(l)}\bigr)
    \qquad x_t^{(1)} = x_t \qquad x_t^{(l+1)} = \delta_t^{(l)} \odot u_t^{(l)}
    \qquad y_t = u_t^{(L)} $$

    for $l = 1, \dots, L$, where $u_t^{(l)} = y_t^{(l)}$; with `residual`,
    $u_t^{(l)} = y_t^{(l)} + u_t^{(l-1)}$ and $u_t^{(0)} = x_t$. In training each
    entry of $\delta_t^{(l)}$ is 0 with probability $p$ = `dropout` and
    $1 / (1 - p)$ else, drawn anew for each layer, row and step; in evaluation it is 1.

    A stack of causal layers is a causal layer, so stacks can be stacked.

    Args:
        layers: Causal layers (`initial_state`, `step`, call), or `Bidirectional` ones,
            which have no `step`; the lowest comes first.
        dropout: Probability that a number is zeroed on its way from one layer to the
            next, in training; at least 0, below 1. There is none before the first
            layer, after the last, along time, or on the path that `residual` adds.
        residual: Whether to add to the output of each layer what came from below.

    Shapes:
        - `x`: (batch, time, input); `state`: a tuple of the layers' states, the lowest
          first, or None for `initial_state`; `lengths`: (batch,) integers, the rest of
          each row is padding
        - returns: `y` (batch, time, output) of the last layer, zero in the padding, and
          the tuple of the states after each row's last real step

    Cost:
        The sum of the layers': for L layers of width D over T steps $O(L T D^2)$ time
        and $O(L D)$ state.

    Initialisation:
        That of the layers; the stack has no parameters of its own.

    Forms:
        `step` (each layer's `step` in turn), `scan` (a loop over it), and `forward`,
        which runs each layer over the whole sequence before the next.

    Raises:
        ValueError: `layers` is empty; the widths of two neighbours, or with `residual`
            those of one layer, do not fit; `dropout` is below 0 or not below 1, or
            above 0 for one layer; one module is in two places; `x` or `lengths` has
            the wrong shape; `state` has another number of layers.
        TypeError: `layers` holds something else than layers; `dropout` is no number,
            `residual` no bool; `state` is no plain tuple; `lengths` is not of an
            integer dtype, or a layer does not support it; `step` is called and a layer
            has none.
        RuntimeError: `load_state_dict` is given the weights of a `torch.nn` layer.

    Source:
        Layers on top of each other that all run at every step: Graves (2013), section
        2; earlier hierarchies of recurrent networks: Schmidhuber (1992), El Hihi &
        Bengio (1995). Dropout between layers alone: Zaremba, Sutskever & Vinyals
        (2014). `residual`: Wu et al. (2016), section 3.1, eqs. 5 and 6.
        Differs: no connections past a layer but `residual`; dropout neither on the
        first input nor on the last output, as in `torch.nn.LSTM`; with `residual` every
        layer is added to, the last one too, where eq. 6 speaks of the input of the
        layer above.
    """

    def __init__(
        self,
        layers: Iterable[nn.Module],
        *,
        dropout: float = 0.0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_checked_layers(layers))
        _check_widths(self.layers, residual)
        _check_dropout(dropout, len(self.layers))
        self.dropout = float(dropout)
        self.residual = residual

    @property
    def input_size(self) -> int | None:
        r"""Width of the inputs; None where the first layer does not tell it."""
        return width_of(self.layers[0], "input_size")

    @property
    def hidden_size(self) -> int | None:
        r"""The last layer's; None where it has none, as one of two directions."""
        return width_of(self.layers[-1], "hidden_size")

    @property
    def output_size(self) -> int | None:
        r"""Width of the outputs; None where the last layer does not tell it."""
        return output_width(self.layers[-1])

    @property
    def causal(self) -> bool:
        r"""Whether no output depends on a later input: all layers'."""
        return self._all("causal")

    @property
    def chunk_invariant(self) -> bool:
        r"""Whether results do not depend on where a sequence is cut: all layers'."""
        return self._all("chunk_invariant")

    @property
    def differentiable_state(self) -> bool:
        r"""Whether gradients pass through a carried state: all layers'."""
        return self._all("differentiable_state")

    @property
    def supports_lengths(self) -> bool:
        r"""Whether `lengths` may be given: every layer must support it."""
        return self._all("supports_lengths")

    def _all(self, declared: str) -> bool:
        return all(getattr(layer, declared, True) for layer in self.layers)

    def initial_state(self, batch_size: int) -> tuple[Any, ...]:
        r"""The initial states of the layers, the lowest first.

        Shapes:
            - returns: a tuple of states, one for each layer

        Raises:
            ValueError: `batch_size` is below 0.
            TypeError: `batch_size` is no int.
        """
        check_size("Stacked.initial_state", "batch_size", batch_size, minimum=0)
        return tuple(
            cast(Any, layer).initial_state(batch_size) for layer in self.layers
        )

    def step(
        self, x_t: Float[Tensor, "batch ..."], state: tuple[Any, ...] | None = None
    ) -> tuple[Float[Tensor, "batch output"], tuple[Any, ...]]:
        r"""One step through all layers; None starts from `initial_state`.

        Raises:
            TypeError: a layer has no step, since it needs inputs that are still to
                come.
        """
        where = "Stacked.step"
        for i, layer in enumerate(self.layers):
            _check_has_step(where, i, layer)
        _check_input(self, where, "x_t", x_t, ("batch",))
        if state is None:
            state = self.initial_state(x_t.shape[0])
        _check_state(self, where, state)
        return _run(self, where, x_t, state, lambda layer: layer.step)

    def forward(
        self,
        x: Float[Tensor, "batch time ..."],
        state: tuple[Any, ...] | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], tuple[Any, ...]]:
        where = "Stacked.forward"
        _check_input(self, where, "x", x, ("batch", "time"))
        if state is None:
            states: tuple[Any, ...] = (None,) * len(self.layers)
        else:
            _check_state(self, where, state)
            states = state
        if lengths is None:
            return _run(self, where, x, states, lambda layer: layer)
        _check_lengths(self, where, lengths, x)
        if self.residual:
            # The sum would carry what the padding holds past the layers' own masks.
            x = blank_padding(x, real_steps(lengths.to(x.device), x.shape[1]))
        return _run(
            self, where, x, states, lambda layer: partial(layer, lengths=lengths)
        )

    def extra_repr(self) -> str:
        return f"dropout={self.dropout}, residual={self.residual}"


def _run(
    stack: Stacked, where: str, x: Tensor, states: tuple[Any, ...], form: Any
) -> tuple[Tensor, tuple[Any, ...]]:
    r"""Each layer in turn; `form` makes of a layer the call that is wanted."""
    after = []
    for i, (layer, state) in enumerate(zip(stack.layers, states, strict=True)):
        below = x
        if i > 0 and stack.dropout > 0:
            below = F.dropout(x, stack.dropout, stack.training)
        try:
            y, state = form(layer)(below, state)
        except (TypeError, ValueError) as error:
            error.add_note(f"{where}: in layers[{i}], {type(layer).__name__}")
            raise
        if stack.residual:
            _check_sum(where, i, x, y)
            y = y + x
        x = y
        after.append(state)
    return x, tuple(after)


def _check_input(
    stack: Stacked, where: str, name: str, x: Tensor, axes: tuple[str, ...]
) -> None:
    check_tensor(where, name, x)
    hint = ""
    if x.dim() == 3 and name == "x_t":
        hint = "a whole sequence? call the layer, not the step"
    elif x.dim() == 2 and name == "x":
        hint = "one step? call step; one sequence? pass x.unsqueeze(0)"
    named: list[Axis] = [(axis, None) for axis in axes]
    if stack.input_size is not None:
        check_shape(where, name, x, [*named, ("input_size", stack.input_size)], hint)
    elif x.dim() < len(axes):
        raise ValueError(
            f"{where}: `{name}` must have shape ({', '.join(axes)}, ...), got "
            f"{tuple(x.shape)}"
        )


def _check_state(stack: Stacked, where: str, state: Any) -> None:
    n_layers = len(stack.layers)
    wanted = (
        f"{where}: `state` must be a tuple of {n_layers} states, one for each layer"
    )
    # A NamedTuple is a tuple too: the pair (h, c) must not pass for two layers.
    if type(state) is not tuple:
        raise TypeError(f"{wanted}, got {type(state).__name__}")
    if len(state) != n_layers:
        raise ValueError(f"{wanted}, got {len(state)}")
    for i, part in enumerate(state):
        if part is None:
            raise TypeError(f"{where}: `state[{i}]` must be a state, got NoneType")


def _check_lengths(stack: Stacked, where: str, lengths: Tensor, x: Tensor) -> None:
    for i, layer in enumerate(stack.layers):
        if not getattr(layer, "supports_lengths", True):
            raise TypeError(
                f"{where}: `lengths` must be None, since layers[{i}], "
                f"{type(layer).__name__}, does not support it"
            )
    check_lengths(where, lengths, x.shape[0], x.shape[1])


def _checked_layers(layers: Any) -> list[nn.Module]:
    if not isinstance(layers, Iterable):
        raise TypeError(
            "Stacked: `layers` must be a sequence of layers, got "
            f"{type(layers).__name__} (pass [layer])"
        )
    given = list(layers)
    if not given:
        raise ValueError("Stacked: `layers` must hold at least 1 layer, got 0")
    for i, layer in enumerate(given):
        is_layer = isinstance(layer, nn.Module) and callable(
            getattr(layer, "initial_state", None)
        )
        if not is_layer:
            kind = type(layer)
            raise TypeError(
                f"Stacked: `layers[{i}]` must be a layer with `initial_state`, such as "
                f"seqref.LSTM, got {kind.__module__}.{kind.__qualname__}"
            )
        first = next(j for j in range(i + 1) if given[j] is layer)
        if first != i:
            raise ValueError(
                f"Stacked: `layers[{i}]` must be a module of its own, got "
                f"layers[{first}] again ([layer] * n? make a layer for each place; to "
                "share weights on purpose, give two layers one cell)"
            )
    return given


def _check_dropout(dropout: Any, n_layers: int) -> None:
    check_probability("Stacked", "dropout", dropout)
    if dropout > 0 and n_layers == 1:
        raise ValueError(
            "Stacked: `dropout` must be 0 for one layer, since it acts between layers, "
            f"got {dropout} (after the layer? apply torch.nn.Dropout to its output)"
        )


def _check_widths(layers: nn.ModuleList, residual: bool) -> None:
    if not isinstance(residual, bool):
        kind = type(residual).__name__
        raise TypeError(f"Stacked: `residual` must be a bool, got {kind}")
    below: int | None = None
    for i, layer in enumerate(layers):
        takes, gives = width_of(layer, "input_size"), output_width(layer)
        kind = type(layer).__name__
        if None not in (below, takes) and below != takes:
            raise ValueError(
                f"Stacked: `layers[{i}]`, {kind}, must have input_size={below}, the "
                f"width of what layers[{i - 1}] returns, got {takes}"
            )
        if residual and None not in (takes, gives) and takes != gives:
            raise ValueError(
                f"Stacked: with `residual`, `layers[{i}]`, {kind}, must return its "
                f"input's width {takes}, got {gives} (leave it outside: Stacked([..., "
                "Stacked([...], residual=True)]))"
            )
        below = gives


def _check_has_step(where: str, i: int, layer: nn.Module) -> None:
    kind = type(layer).__name__
    if not getattr(layer, "causal", True):
        raise TypeError(
            f"{where}: layers[{i}], {kind}, has no step, since its outputs need inputs "
            "that are still to come; call the stack on whole sequences"
        )
    if not callable(getattr(layer, "step", None)):
        raise TypeError(
            f"{where}: layers[{i}], {kind}, has no method step; call the stack on "
            "whole sequences"
        )


def _check_sum(where: str, i: int, below: Tensor, y: Tensor) -> None:
    # Two widths of which one is 1 would be added without an error.
    if below.shape != y.shape:
        raise ValueError(
            f"{where}: with `residual`, the output of layers[{i}] must have its "
            f"input's shape {tuple(below.shape)}, got {tuple(y.shape)}"
        )
