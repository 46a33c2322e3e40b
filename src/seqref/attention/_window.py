r"""Local attention: where each query's window stands, and what lies in it."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.functional import linear

from seqref.attention._scores import check_option, wide
from seqref.errors import check_choice, check_shape, check_tensor, read_bounds
from seqref.ops._source import softmax_over_allowed, softmax_over_source

WINDOWS = ("monotonic", "predictive")

_FAR = torch.iinfo(torch.int64).max


def target_steps(
    where: str,
    position: Integer[Tensor, " positions"] | None,
    query: Float[Tensor, "rows query"] | Float[Tensor, "batch time query"],
    batch: int,
) -> Integer[Tensor, "batch time"]:
    r"""The target step of each query, counted from 0.

    `position` is the step of the first query of a row. For several steps the others
    follow; the beams of a row stand at one step, or have one each.

    Raises:
        ValueError: `position` is None, negative or of another shape.
        TypeError: it is not of an integer dtype.
    """
    if position is None:
        raise ValueError(
            f"{where}: `position` must be given where window='monotonic': the target "
            "step of the query, from 0, for each row"
        )
    check_tensor(where, "position", position)
    kind = position.dtype
    if kind == torch.bool or kind.is_floating_point or kind.is_complex:
        raise TypeError(f"{where}: `position` must have an integer dtype, got {kind}")
    rows = query.shape[0]
    one_step = query.dim() == 2
    beams = one_step and rows != batch and position.shape == (rows,)
    axis = ("rows", rows) if beams else ("batch", batch)
    check_shape(where, "position", position, (axis,))
    bounds = read_bounds(where, "position", position, 0, _FAR)
    if bounds is not None and bounds[0] < 0:
        raise ValueError(f"{where}: `position` must be at least 0, got {bounds[0]}")
    each = rows // batch if beams else 1
    first = position.to(query.device, torch.int64).view(batch, each)
    if one_step:
        return first
    return first + torch.arange(query.shape[1], device=query.device)


class Global(nn.Module):
    r"""Every real position."""

    def forward(
        self, scores: Tensor, query: Tensor, real: Tensor, steps: Tensor | None
    ) -> Tensor:
        return softmax_over_source(scores, real)


class Monotonic(nn.Module):
    r"""The positions near that of the target step: $p_t = t$, both from 1."""

    def __init__(self, half_width: int) -> None:
        super().__init__()
        self.half_width = half_width

    def forward(
        self, scores: Tensor, query: Tensor, real: Tensor, steps: Tensor | None
    ) -> Tensor:
        offset = _offsets(steps + 1, real)  # pyright: ignore[reportOptionalOperand]
        return _weights_near(scores, real, offset, self.half_width)


class Predictive(nn.Module):
    r"""The positions near a predicted one, weighted by a normal curve around it."""

    def __init__(self, query_size: int, half_width: int, empty: Tensor) -> None:
        super().__init__()
        self.half_width = half_width
        self.weight_hidden = nn.Parameter(empty.new_empty(query_size, query_size))
        self.weight_center = nn.Parameter(empty.new_empty(query_size))

    def forward(
        self, scores: Tensor, query: Tensor, real: Tensor, steps: Tensor | None
    ) -> Tensor:
        offset = _offsets(self.center(query, real), real)
        weights = _weights_near(scores, real, offset, self.half_width)
        # eq. 10, where sigma is half of the half width.
        return weights * torch.exp(-2 * (offset / self.half_width).square())

    def center(self, query: Tensor, real: Tensor) -> Tensor:
        r"""$p_t = S \, \sigma(v_p^\top \tanh(W_p q_t))$, S the length of the row."""
        # A half precision has no room for positions and what lies between them.
        inside = torch.tanh(linear(query, self.weight_hidden)) @ self.weight_center
        return real.sum(dim=1, keepdim=True) * wide(inside).sigmoid()


def make_window(
    where: str,
    window: str | None,
    half_width: int | None,
    query_size: int,
    empty: Tensor,
) -> Global | Monotonic | Predictive:
    r"""The window of that name.

    Raises:
        ValueError: an unknown name; `half_width` without a window, a window without it.
        TypeError: `half_width` is no int.
    """
    if window is not None:
        check_choice(where, "window", window, WINDOWS)
    check_option(where, "half_width", half_width, window is not None, "a window")
    if half_width is None:
        return Global()
    if window == "monotonic":
        return Monotonic(half_width)
    return Predictive(query_size, half_width, empty)


def _offsets(center: Tensor, real: Tensor) -> Tensor:
    # (batch, time, source); positions are counted from 1.
    steps = torch.arange(1, real.shape[1] + 1, device=center.device)
    return steps - center[..., None]


def _weights_near(
    scores: Tensor, real: Tensor, offset: Tensor, half_width: int
) -> Tensor:
    # The softmax runs over the window alone.
    return softmax_over_allowed(scores, real[:, None] & (offset.abs() <= half_width))
