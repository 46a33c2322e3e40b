r"""The stack of blocks."""

from collections.abc import Iterable
from typing import Any

from jaxtyping import Float, Integer
from torch import Tensor, nn

from seqref.errors import check_lengths, check_shape, check_size
from seqref.models.encoder_decoder.bound import blank
from seqref.models.transformer.blocks import called
from seqref.recurrence import output_width, width_of


class Transformer(nn.Module):
    r"""A stack of blocks; a causal layer where all of them are.

    $$ y = \mathrm{norm}(\text{block}_L(\dots \text{block}_1(x) \dots)) $$

    Args:
        layers: From the bottom: `PreNormBlock`, `PostNormBlock`, `AddPositions`, or any
            layer that returns its input's width.
        last_norm: A norm of the outputs, such as `torch.nn.LayerNorm(d_model)`. A stack
            of pre-norm blocks needs one; one of post-norm blocks ends in one.

    Shapes:
        - `x`: (batch, time, model); `x_t`: (batch, model); `lengths`: (batch,)
          integers, the rest of each row is padding on the right; `state`: a tuple of
          the layers' states, the lowest first, or None for `initial_state`
        - returns: `y`, as `x`, zero in the padding, and the tuple of states

    Cost:
        The sum of the blocks'.

    Initialisation:
        The layers keep their own.

    Forms:
        `step` (each layer's in turn), `scan` (a loop over it), and `forward`, which
        runs each layer over the whole sequence before the next.

    Raises:
        TypeError: something else than layers; `step` is called and a layer reads both
            ways; `state` is no plain tuple of as many states.
        ValueError: no layer; widths that do not fit; one module in two places; a wrong
            shape or length.

    Source:
        Vaswani et al. (2017), sec. 3.1 and fig. 1. The last norm of a pre-norm stack:
        Xiong et al. (2020), sec. 3.3.
    """

    def __init__(
        self, layers: Iterable[nn.Module], *, last_norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        made = check_layers("Transformer", layers)
        check_norm("Transformer", last_norm)
        for i, layer in enumerate(made):
            if hasattr(layer, "cross_attention"):
                raise TypeError(
                    f"Transformer: `layers[{i}]` must read its own sequence alone, got "
                    f"{type(layer).__name__} (with a source? use TransformerDecoder)"
                )
        self.layers = nn.ModuleList(made)
        self.last_norm = last_norm
        width: Any = width_of(made[0], "input_size")
        self.input_size = self.output_size = width

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
        r"""The initial states of the layers, the lowest first."""
        check_size("Transformer.initial_state", "batch_size", batch_size, minimum=0)
        layers: Any = self.layers
        return tuple(layer.initial_state(batch_size) for layer in layers)

    def step(
        self, x_t: Float[Tensor, "batch {self.input_size}"], state: tuple[Any, ...]
    ) -> tuple[Float[Tensor, "batch {self.input_size}"], tuple[Any, ...]]:
        r"""One step through all layers.

        Raises:
            TypeError: a layer has no step, since it reads both ways; `state` is no
                plain tuple.
        """
        where = "Transformer.step"
        if not self.causal:
            raise TypeError(
                f"{where}: this stack has no step, since a layer of it reads both ways "
                "and each output needs the inputs that come after it; call the stack "
                "on the whole sequence"
            )
        check_shape(where, "x_t", x_t, (("batch", None), ("d_model", self.input_size)))
        check_states(where, state, len(self.layers))
        layers: Any = self.layers
        after = []
        for layer, before in zip(layers, state, strict=True):
            x_t, following = layer.step(x_t, before)
            after.append(following)
        return self._normed(x_t), tuple(after)

    def forward(
        self,
        x: Float[Tensor, "batch time {self.input_size}"],
        state: tuple[Any, ...] | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.input_size}"], tuple[Any, ...]]:
        where = "Transformer.forward"
        axes = ("batch", None), ("time", None), ("d_model", self.input_size)
        check_shape(where, "x", x, axes)
        if lengths is not None:
            check_lengths(where, lengths, *x.shape[:2])
        if state is None:
            state = self.initial_state(len(x))
        check_states(where, state, len(self.layers))
        after = []
        for layer, before in zip(self.layers, state, strict=True):
            x, following = called(layer, x, before, lengths)
            after.append(following)
        return blank(self._normed(x), lengths), tuple(after)

    def _normed(self, x: Tensor) -> Tensor:
        return x if self.last_norm is None else self.last_norm(x)


def check_norm(where: str, norm: object) -> None:
    r"""Raise `TypeError` unless a norm is a module or None."""
    if norm is not None and not isinstance(norm, nn.Module):
        raise TypeError(
            f"{where}: a norm must be a module, such as torch.nn.LayerNorm(d_model), "
            f"or None, got {getattr(norm, '__name__', type(norm).__name__)}"
        )


def check_states(where: str, state: Any, n_layers: int) -> None:
    r"""Raise unless `state` is a plain tuple of one state for each layer.

    Raises:
        TypeError: it is no plain tuple.
        ValueError: it has another number of states.
    """
    wanted = (
        f"{where}: `state` must be a tuple of {n_layers} states, one for each layer"
    )
    # A NamedTuple is a tuple too: one layer's state must not pass for all.
    if type(state) is not tuple:
        raise TypeError(f"{wanted}, got {type(state).__name__}")
    if len(state) != n_layers:
        raise ValueError(f"{wanted}, got {len(state)}")


def check_layers(where: str, layers: Any) -> list[nn.Module]:
    r"""The layers as a list: each a module of one width, each in one place.

    Raises:
        TypeError: something else than layers.
        ValueError: none; widths that differ; one module in two places.
    """
    if not isinstance(layers, Iterable):
        raise TypeError(
            f"{where}: `layers` must be a sequence of layers, got "
            f"{type(layers).__name__} (pass [layer])"
        )
    given = list(layers)
    if not given:
        raise ValueError(f"{where}: `layers` must hold at least 1 layer, got 0")
    first = width_of(given[0], "input_size")
    for i, layer in enumerate(given):
        has_state = callable(getattr(layer, "initial_state", None))
        if not (isinstance(layer, nn.Module) and has_state):
            raise TypeError(
                f"{where}: `layers[{i}]` must be a layer with `initial_state`, such as "
                f"PreNormBlock, got {type(layer).__name__}"
            )
        widths = width_of(layer, "input_size"), output_width(layer)
        if widths != (first, first) or first is None:
            raise ValueError(
                f"{where}: `layers[{i}]` must read and return one width, that of the "
                f"stack, {first}, got {widths[0]} and {widths[1]}"
            )
        if any(layer is other for other in given[:i]):
            raise ValueError(
                f"{where}: `layers[{i}]` must be a module of its own, got one that "
                "stands below already ([block] * n? make a block for each place)"
            )
    return given
