r"""What all recurrent cells and layers of this family share: parameters and checks."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, Generic, NoReturn, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from seqref.errors import (
    check_lengths,
    check_like_parameters,
    check_shape,
    check_size,
    check_tensor,
)
from seqref.recurrent._docstrings import layer_docstring

State = TypeVar("State", bound=tuple[Tensor, ...])
Cell = TypeVar("Cell", bound="InputCell[Any]")
Arguments = ParamSpec("Arguments")


class HasState(nn.Module, ABC, Generic[State]):
    r"""`initial_state`, the same for a cell and for its layer."""

    def initial_state(self, batch_size: int) -> State:
        r"""Zeros with the dtype and device of the parameters.

        A mask that is part of the state is drawn in training and one in evaluation.

        Shapes:
            - returns: each field (batch, hidden)

        Raises:
            ValueError: `batch_size` is below 0.
            TypeError: `batch_size` is no int.
        """
        where = f"{type(self).__name__}.initial_state"
        check_size(where, "batch_size", batch_size, minimum=0)
        return self._fresh_state(batch_size)

    @abstractmethod
    def _fresh_state(self, batch_size: int) -> State: ...


class InputCell(HasState[State]):
    r"""Sizes, parameters of the input, and the checks.

    A concrete cell sets `n_blocks`, the number of gates and candidates stacked in each
    parameter, `state_type`, its NamedTuple of (batch, hidden) tensors, and `forward`.
    """

    n_blocks: int
    state_type: type[State]
    least_hidden_size = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_size(where, "input_size", input_size)
        check_size(where, "hidden_size", hidden_size, minimum=self.least_hidden_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        empty = torch.empty((), device=device, dtype=dtype).new_empty
        self._make_parameters(self.n_blocks * hidden_size, empty)
        self.reset_parameters()

    def _make_parameters(self, rows: int, empty: Callable[..., Tensor]) -> None:
        self.weight_ih = nn.Parameter(empty(rows, self.input_size))
        self.bias_ih = nn.Parameter(empty(rows)) if self.bias else None

    def reset_parameters(self) -> None:
        r"""Draw every parameter anew, uniform in $(-1/\sqrt{I}, 1/\sqrt{I})$."""
        self._draw(1 / math.sqrt(self.input_size))

    def _draw(self, bound: float) -> None:
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def _fresh_state(self, batch_size: int) -> State:
        widths = [self._axis(field)[1] for field in self._fields()]
        fields = [self.weight_ih.new_zeros(batch_size, width) for width in widths]
        return self.state_type(*fields)

    def _axis(self, field: str) -> tuple[str, int]:
        r"""Name and size of the second axis of a field of the state."""
        return "hidden_size", self.hidden_size

    def _fields(self) -> tuple[str, ...]:
        return self.state_type._fields  # pyright: ignore[reportAttributeAccessIssue]

    def _checked(self, where: str, x_t: Tensor, state: State | None) -> State:
        r"""Check one step's input and state; zeros where no state came."""
        check_tensor(where, "x_t", x_t)
        hint = (
            "a whole sequence? call the layer, not the step" if x_t.dim() == 3 else ""
        )
        axes = (("batch", None), ("input_size", self.input_size))
        check_shape(where, "x_t", x_t, axes, hint)
        check_like_parameters(where, "x_t", x_t, self.weight_ih)
        if state is None:
            return self._fresh_state(x_t.shape[0])
        return self._checked_state(where, state, x_t.shape[0])

    def _checked_state(self, where: str, state: Any, batch: int) -> State:
        kind, fields = self.state_type, self._fields()
        if not isinstance(state, kind):
            call = f"{kind.__name__}({', '.join(fields)})"
            raise TypeError(
                f"{where}: `state` must be {call}, got {type(state).__name__} "
                f"(pass {call})"
            )
        for field, value in zip(fields, state, strict=True):
            axes = (("batch", batch), self._axis(field))
            check_shape(where, f"state.{field}", value, axes)
            check_like_parameters(where, f"state.{field}", value, self.weight_ih)
        return state

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, bias={self.bias}"


class RecurrentCell(InputCell[State]):
    r"""An `InputCell` with parameters of the state, all named as in `torch.nn`."""

    def _make_parameters(self, rows: int, empty: Callable[..., Tensor]) -> None:
        # In the order of torch.nn's, which the draws of a seed follow.
        self.weight_ih = nn.Parameter(empty(rows, self.input_size))
        self.weight_hh = nn.Parameter(empty(self._recurrent_shape()))
        self.bias_ih = nn.Parameter(empty(rows)) if self.bias else None
        self.bias_hh = nn.Parameter(empty(rows)) if self.bias else None

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        r"""weight_ih, weight_hh, bias_ih, bias_hh, as the ops take them."""
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def reset_parameters(self) -> None:
        r"""Draw every parameter anew, uniform in $(-1/\sqrt{D}, 1/\sqrt{D})$."""
        self._draw(1 / math.sqrt(self.hidden_size))

    def _recurrent_shape(self) -> tuple[int, ...]:
        r"""Shape of `weight_hh`, before anything is allocated or drawn."""
        return self.n_blocks * self.hidden_size, self.hidden_size


class RefusesTorchWeights(nn.Module):
    r"""A layer that, given the weights of a `torch.nn` layer, names the fix."""

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        if f"{prefix}weight_ih_l0" in state_dict:
            _refuse_torch_weights(type(self).__name__)
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )


class RecurrentLayer(RefusesTorchWeights, HasState[State], Generic[Cell, State]):
    r"""A cell over a whole sequence: `initial_state`, `step`, and the checks.

    A concrete layer is `built_from` its cell and sets `forward`.
    """

    cell: Cell

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cell_type = getattr(vars(cls).get("__init__"), "cell_type", None)
        # python -OO leaves no docstrings.
        if cell_type is not None and cls.__doc__ and cell_type.__doc__:
            cls.__doc__ = layer_docstring(cls.__doc__, cell_type.__doc__)

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    @property
    def input_size(self) -> int:
        return self.cell.input_size

    @property
    def hidden_size(self) -> int:
        return self.cell.hidden_size

    @property
    def bias(self) -> bool:
        return self.cell.bias

    def _fresh_state(self, batch_size: int) -> State:
        return self.cell._fresh_state(batch_size)

    @abstractmethod
    def step(self, x_t: Tensor, state: State | None = None) -> tuple[Tensor, State]: ...

    def _checked(self, x: Tensor, state: State | None, lengths: Tensor | None) -> State:
        r"""Check a sequence, its state and lengths; zeros where no state came."""
        where = f"{type(self).__name__}.forward"
        check_tensor(where, "x", x)
        axes = (("batch", None), ("time", None), ("input_size", self.input_size))
        hint = ""
        if x.dim() == 2:
            hint = "one step? call step; one sequence? pass x.unsqueeze(0)"
        check_shape(where, "x", x, axes, hint)
        check_like_parameters(where, "x", x, self.cell.weight_ih)
        batch, time = x.shape[:2]
        if lengths is not None:
            check_lengths(where, lengths, batch, time)
        if state is None:
            return self.cell._fresh_state(batch)
        return self.cell._checked_state(where, state, batch)


def built_from(
    cell_type: Callable[Arguments, InputCell[Any]],
) -> Callable[[Callable[[Any], None]], Callable[Concatenate[Any, Arguments], None]]:
    r"""Give a layer the constructor of its cell, and the cell's part of the docstring.

    The `__init__` that stands below it only holds the place.
    """

    def constructor(_: Callable[[Any], None]) -> Any:
        @wraps(cell_type.__init__)
        def from_arguments(self: Any, *args: Any, **kwargs: Any) -> None:
            try:
                cell = cell_type(*args, **kwargs)
            except (TypeError, ValueError) as error:
                _rename(error, cell_type, type(self).__name__)
                raise
            RecurrentLayer.__init__(self, cell)

        made: Any = from_arguments
        made.cell_type = cell_type
        return made

    return constructor


def _rename(error: Exception, cell_type: Any, layer: str) -> None:
    r"""Let a message that names a cell or its base name the layer that was called."""
    cells = "|".join(kind.__name__ for kind in cell_type.__mro__)
    error.args = (re.sub(rf"^({cells})\b", layer, str(error)),)


def _refuse_torch_weights(name: str) -> NoReturn:
    r"""Say how the weights of a `torch.nn` layer move into a layer of this package."""
    convert = "import seqref.interop, then seqref.interop.from_torch(module)"
    rename = (
        "for one layer and one direction, rename: layer.cell.load_state_dict("
        "{key.removesuffix('_l0'): value for key, value in state_dict.items()})"
    )
    if name == "ProjectedLSTM":
        # Its torch.nn.LSTM is the one that from_torch has no map for.
        raise RuntimeError(
            f"{name}.load_state_dict: these are the weights of a torch.nn.LSTM, whose "
            f"names end in a layer number; {rename}"
        )
    if not hasattr(nn, name):
        raise RuntimeError(
            f"{name}.load_state_dict: these are the weights of a torch.nn layer, whose "
            f"names end in a layer number, and torch.nn has no {name}. The layer that "
            f"computes what the module computes: {convert}"
        )
    raise RuntimeError(
        f"{name}.load_state_dict: these are the weights of a torch.nn.{name}, whose "
        f"names end in a layer number. Make the layer from the module: {convert}. Or, "
        f"{rename}"
    )
