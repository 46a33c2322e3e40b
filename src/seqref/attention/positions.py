r"""Positions for attention: sinusoidal, learned, rotary, and a bias by distance."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from seqref.errors import (
    check_choice,
    check_like_parameters,
    check_number,
    check_shape,
    check_size,
    check_tensor,
    read_bounds,
)

__all__ = [
    "LearnedPositions",
    "Rotary",
    "alibi_bias",
    "alibi_slopes",
    "half_from_interleaved",
    "interleaved_from_half",
    "sinusoidal",
]

LAYOUTS = ("half", "interleaved")

# An offset and any number of steps after it together fit into int64.
_FAR = 2**62


def sinusoidal(
    positions: Integer[Tensor, "*rows"],
    d_model: int,
    *,
    layout: str = "interleaved",
    base: float = 10000.0,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*rows model"]:
    r"""Sine and cosine of each position at $D / 2$ frequencies.

    $$ \omega_i = \mathrm{base}^{-2 i / D} \qquad
       p_{t, 2 i} = \sin(t \omega_i) \qquad p_{t, 2 i + 1} = \cos(t \omega_i) $$

    Args:
        positions: Whole numbers of any shape.
        d_model: $D$, the width of each vector; even.
        layout: `"interleaved"` as in the formula, or `"half"`: all sines, then all
            cosines.
        base: The wavelengths run from $2 \pi$ to $2 \pi \, \mathrm{base}^{1 - 2 / D}$.
        dtype: Of the result, floating; by default torch's default. Angles are made in
            `float64` where it is `float64`, and in `float32` otherwise, which has not
            every whole number beyond $2^{24}$.

    Shapes:
        - `positions`: any; returns: the same with an axis of width `d_model` behind it

    Raises:
        ValueError: `d_model` is odd or below 2; an unknown layout; `base` is not above
            1 and finite; positions that are negative.
        TypeError: `positions` is not of an integer dtype, `dtype` is not floating, or a
            size is no int.

    Source:
        Vaswani et al. (2017), sec. 3.5, which calls the longest wavelength
        $10000 \cdot 2 \pi$: with $D$ channels it is a factor of
        $\mathrm{base}^{2 / D}$ shorter. The authors' tensor2tensor has the layout
        `"half"` and divides exponents by $D / 2 - 1$, so that it is reached: with $n =
        D / 2$, `base=10000 ** (n / (n - 1))` here.
    """
    where = "sinusoidal"
    _check_width(where, "d_model", d_model)
    check_choice(where, "layout", layout, LAYOUTS)
    check_number(where, "base", base, above=1, finite_in=torch.float64)
    _check_whole(where, "positions", positions, minimum=0)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    _check_floating(where, "dtype", dtype)
    frequencies = _frequencies(d_model, base)
    angles = _angles(positions, frequencies, _wide(dtype))
    return _joined((angles.sin(), angles.cos()), layout).to(dtype)


class LearnedPositions(nn.Module):
    r"""A learned vector for each position, added to what stands there.

    $$ y_t = x_t + p_{n + t} $$

    for step $t$ of the call, from 0, after $n$ steps in earlier calls.

    Args:
        max_positions: How many positions there are; a later one is an error.
        d_model: Width of each vector.
        device: Where the parameter is made.
        dtype: Its dtype.

    Shapes:
        - `x`: (batch, time, model); `offset`: a number, or (batch,): how many steps
          came before the first of `x`
        - returns: as `x`

    Cost:
        O(T D) time for T steps; `max_positions` times D parameters.

    Initialisation:
        Normal with standard deviation 0.02, as GPT-2's in `transformers`.

    Raises:
        ValueError: a wrong shape, dtype or device; `offset` is negative, or alone on
            the device "meta", or a position is `max_positions` or later; a size below
            1.
        TypeError: `offset` is no whole number or tensor of such.

    Source:
        Vaswani et al. (2017), sec. 3.5 and table 3, row E. The parameter is called
        `weight`, as that of `torch.nn.Embedding`.
    """

    def __init__(
        self,
        max_positions: int,
        d_model: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_size("LearnedPositions", "max_positions", max_positions)
        check_size("LearnedPositions", "d_model", d_model)
        self.max_positions = max_positions
        self.d_model = d_model
        size = max_positions, d_model
        self.weight = nn.Parameter(torch.empty(size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draw every vector anew."""
        nn.init.normal_(self.weight, std=0.02)

    def forward(
        self,
        x: Float[Tensor, "batch time {self.d_model}"],
        offset: int | Integer[Tensor, " batch"] = 0,
    ) -> Float[Tensor, "batch time {self.d_model}"]:
        where = "LearnedPositions.forward"
        axes = ("batch", None), ("time", None), ("d_model", self.d_model)
        check_shape(where, "x", x, axes)
        check_like_parameters(where, "x", x, self.weight)
        last = _last_offset(where, offset, x)
        # Where offsets cannot be read they are at least 0.
        if x.shape[1] and (last or 0) + x.shape[1] > self.max_positions:
            after = "" if last is None else f" after an `offset` of {last}"
            raise ValueError(
                f"{where}: there are max_positions={self.max_positions} positions, got "
                f"{x.shape[1]} steps{after}"
            )
        y = x + self.weight[_steps(x.shape[1], offset, x.device)]
        # Under autocast the parameter may be of a wider dtype.
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.max_positions}, {self.d_model}"


class Rotary(nn.Module):
    r"""Queries or keys turned by angles that grow with their position.

    $$ \begin{pmatrix} y_{t,a} \\ y_{t,b} \end{pmatrix} =
       \begin{pmatrix} \cos t \omega_i & -\sin t \omega_i \\
                       \sin t \omega_i & \cos t \omega_i \end{pmatrix}
       \begin{pmatrix} x_{t,a} \\ x_{t,b} \end{pmatrix} \qquad
       \omega_i = \mathrm{base}^{-2 i / D} $$

    for each pair $i = 0, \dots, D / 2 - 1$ of components: $(a, b) = (2i, 2i + 1)$ in
    the layout `"interleaved"`, $(i, i + D / 2)$ in `"half"`. It has neither parameters
    nor buffers, so `.to(torch.bfloat16)` does not round its frequencies.

    Args:
        d_head: $D$, the width of one head; even.
        base: $\mathrm{base}^{1 - 2 / D}$ times $2 \pi$ is the longest wavelength.
        layout: Which components are a pair.

    Shapes:
        - `x`: (batch, heads, time, head); `offset`: a number, or (batch,): the position
          of the first step of `x`
        - returns: as `x`

    Units:
        Positions in steps, angles in radians. They are made and applied in `float64`
        where `x` is, in `float32` otherwise, and the result is rounded to the dtype of
        `x` once. `float32` has not every whole number beyond $2^{24}$: there, odd
        positions are turned as even ones.

    Cost:
        O(T D) time for each head, and T D / 2 angles in each call.

    Initialisation:
        Nothing is drawn.

    Raises:
        ValueError: `d_head` is odd or below 2; an unknown layout; `base` is not above
            1 and finite; a wrong shape; `offset` is negative or above $2^{62}$; offsets
            or positions alone on the device "meta".
        TypeError: `x` is not of a floating dtype; `offset` or `positions` is not made
            of whole numbers.

    Source:
        Su et al. (2021), eq. 16, where pairs are interleaved and the base is 10000.
        `transformers` has `"half"` in Llama and GPT-NeoX, `"interleaved"` in GPT-J.
    """

    def __init__(
        self, d_head: int, *, base: float = 10000.0, layout: str = "half"
    ) -> None:
        super().__init__()
        _check_width("Rotary", "d_head", d_head)
        check_number("Rotary", "base", base, above=1, finite_in=torch.float64)
        check_choice("Rotary", "layout", layout, LAYOUTS)
        self.d_head = d_head
        self.base = base
        self.layout = layout
        # No buffer: it would follow the parameters into half precision.
        self._frequencies = _frequencies(d_head, base)

    def forward(
        self,
        x: Float[Tensor, "batch heads time {self.d_head}"],
        offset: int | Integer[Tensor, " batch"] = 0,
    ) -> Float[Tensor, "batch heads time {self.d_head}"]:
        where = "Rotary.forward"
        self._check(where, x)
        _last_offset(where, offset, x)
        return self._turned(x, _steps(x.shape[2], offset, x.device))

    def rotate(
        self,
        x: Float[Tensor, "batch heads time {self.d_head}"],
        positions: Integer[Tensor, " time"] | Integer[Tensor, "batch time"],
    ) -> Float[Tensor, "batch heads time {self.d_head}"]:
        r"""The same at any positions, such as those of a row with padding on its left.

        Shapes:
            - `x`: (batch, heads, time, head); `positions`: (time,) or (batch, time)
            - returns: as `x`
        """
        where = "Rotary.rotate"
        self._check(where, x)
        _check_whole(where, "positions", positions)
        axes = ("batch", x.shape[0]), ("time", x.shape[2])
        check_shape(where, "positions", positions, axes[positions.dim() < 2 :])
        _check_place(where, "positions", positions, x.device)
        return self._turned(x, positions.to(x.device))

    def _check(self, where: str, x: Tensor) -> None:
        axes = ("batch", None), ("heads", None), ("time", None), ("d_head", self.d_head)
        check_shape(where, "x", x, axes)
        _check_floating(where, "x", x.dtype)

    def _turned(self, x: Tensor, positions: Tensor) -> Tensor:
        # (time, pairs), or (batch, 1, time, pairs) where rows stand at different places
        angles = _angles(positions, self._frequencies, _wide(x.dtype))
        if positions.dim() == 2:
            angles = angles[:, None]
        cos, sin = angles.cos(), angles.sin()
        a, b = _split(x.to(angles.dtype), self.layout)
        turned = a * cos - b * sin, a * sin + b * cos
        return _joined(turned, self.layout).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.d_head}, base={self.base:g}, layout={self.layout!r}"


def half_from_interleaved(
    weight: Float[Tensor, "rows *rest"], n_heads: int
) -> Float[Tensor, "rows *rest"]:
    r"""Rows of a projection for interleaved pairs, in the order that `"half"` reads.

    For the weights and biases of queries and keys; values are not rotated. Scores are
    then those of the other layout.

    Shapes:
        - `weight`: (heads times head, ...), as in `torch.nn.Linear`, or a bias
        - returns: as `weight`

    Raises:
        ValueError: the rows are no multiple of twice `n_heads`; `n_heads` below 1.
    """
    pairs = _check_rows("half_from_interleaved", weight, n_heads)
    return weight.unflatten(0, (n_heads, pairs, 2)).transpose(1, 2).flatten(0, 2)


def interleaved_from_half(
    weight: Float[Tensor, "rows *rest"], n_heads: int
) -> Float[Tensor, "rows *rest"]:
    r"""The way back of `half_from_interleaved`.

    Shapes:
        - `weight`: (heads times head, ...), as in `torch.nn.Linear`, or a bias
        - returns: as `weight`

    Raises:
        ValueError: the rows are no multiple of twice `n_heads`; `n_heads` below 1.
    """
    pairs = _check_rows("interleaved_from_half", weight, n_heads)
    return weight.unflatten(0, (n_heads, 2, pairs)).transpose(1, 2).flatten(0, 2)


def alibi_slopes(
    n_heads: int, *, device: torch.device | str | None = None
) -> Float[Tensor, " heads"]:
    r"""How much a score of each head falls with each step of distance (ALiBi).

    For $H$ heads, $H$ a power of two, $m_h = 2^{-8 h / H}$ with $h = 1, \dots, H$.
    Otherwise those of the largest power of two below $H$, then every second one of
    the power of two above it, from its first on.

    Shapes:
        - returns: (heads,), positive, `float32`

    Raises:
        ValueError: `n_heads` is below 1.

    Source:
        Press et al. (2022), sec. 3, and for other numbers of heads their code.
    """
    check_size("alibi_slopes", "n_heads", n_heads)
    power = 1 << n_heads.bit_length() - 1
    exponents = [8 * head / power for head in range(1, power + 1)]
    exponents += [4 * head / power for head in range(1, 2 * (n_heads - power), 2)]
    return torch.tensor([2**-e for e in exponents], device=device, dtype=torch.float32)


def alibi_bias(
    slopes: Float[Tensor, " heads"],
    queries: int,
    keys: int,
    offset: int | Integer[Tensor, " batch"] = 0,
) -> Float[Tensor, "*batch heads queries keys"]:
    r"""What ALiBi adds to scores: $-m_h |i - j|$ for a query at $i$ and a key at $j$.

    It masks nothing: a causal mask is a matter of its own. Products are made in
    `float64` where `slopes` are, in `float32` otherwise, and rounded to the dtype of
    `slopes` once.

    Shapes:
        - `slopes`: (heads,); `queries`, `keys`: how many; `offset`: the position of the
          first query, where that of the first key is 0: a number, or (batch,)
        - returns: (heads, queries, keys), with (batch,) before it where `offset` has it

    Raises:
        ValueError: a wrong shape; a negative number; an `offset` above $2^{62}$, or
            alone on the device "meta".
        TypeError: `slopes` are not of a floating dtype; `offset` is not made of whole
            numbers.
    """
    where = "alibi_bias"
    check_shape(where, "slopes", slopes, (("heads", None),))
    _check_floating(where, "slopes", slopes.dtype)
    check_size(where, "queries", queries, minimum=0)
    check_size(where, "keys", keys, minimum=0)
    _last_offset(where, offset, slopes, batch=False)
    places = _steps(queries, offset, slopes.device)
    distance = places[..., None] - torch.arange(keys, device=slopes.device)
    # A distance in half precision would be rounded, and infinite beyond 65,504.
    wide = slopes.to(_wide(slopes.dtype))
    # (..., heads, queries, keys)
    bias = -wide[:, None, None] * distance.abs()[..., None, :, :]
    return bias.to(slopes.dtype)


def _frequencies(width: int, base: float) -> Tensor:
    exponents = torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width
    return base**-exponents


def _wide(dtype: torch.dtype) -> torch.dtype:
    # bfloat16 has no odd numbers beyond 256, float16 none beyond 2048.
    return torch.float64 if dtype == torch.float64 else torch.float32


def _angles(positions: Tensor, frequencies: Tensor, dtype: torch.dtype) -> Tensor:
    by_step = frequencies.to(dtype).to(positions.device)
    return positions[..., None].to(dtype) * by_step


def _split(x: Tensor, layout: str) -> tuple[Tensor, Tensor]:
    if layout == "half":
        first, second = x.chunk(2, dim=-1)
        return first, second
    return x[..., ::2], x[..., 1::2]


def _joined(parts: tuple[Tensor, Tensor], layout: str) -> Tensor:
    if layout == "half":
        return torch.cat(parts, dim=-1)
    return torch.stack(parts, dim=-1).flatten(-2)


def _steps(time: int, offset: int | Tensor, device: torch.device) -> Tensor:
    # (time,), or (batch, time) where each row has its own offset
    steps = torch.arange(time, device=device)
    if isinstance(offset, Tensor):
        return offset.to(device, torch.int64)[:, None] + steps
    return offset + steps


def _last_offset(
    where: str, offset: object, x: Tensor, *, batch: bool = True
) -> int | None:
    r"""The largest offset, after a check of all; None where it cannot be read."""
    if not isinstance(offset, Tensor):
        check_size(where, "offset", offset, minimum=0)  # pyright: ignore[reportArgumentType]
        check_number(where, "offset", offset, maximum=_FAR)
        return offset  # pyright: ignore[reportReturnType]
    bounds = _check_whole(where, "offset", offset, minimum=0)
    check_shape(where, "offset", offset, (("batch", x.shape[0] if batch else None),))
    _check_place(where, "offset", offset, x.device)
    if bounds is None:
        return None
    check_number(where, "offset", bounds[1], maximum=_FAR)
    return bounds[1]


def _check_place(where: str, name: str, values: Tensor, device: torch.device) -> None:
    if values.is_meta and device.type != "meta":
        raise ValueError(
            f'{where}: `{name}` must have values on {device}, got a tensor on "meta"'
        )


def _check_floating(where: str, name: str, dtype: torch.dtype) -> None:
    if not dtype.is_floating_point:
        kind = "be" if name == "dtype" else "have"
        raise TypeError(f"{where}: `{name}` must {kind} a floating dtype, got {dtype}")


def _check_whole(
    where: str, name: str, values: Tensor, minimum: int | None = None
) -> tuple[int, int] | None:
    check_tensor(where, name, values)
    kind = values.dtype
    if kind == torch.bool or kind.is_floating_point or kind.is_complex:
        raise TypeError(f"{where}: `{name}` must have an integer dtype, got {kind}")
    # To read values is to wait for a GPU: not where any number will do.
    if minimum is None:
        return None
    bounds = read_bounds(where, name, values, minimum, _FAR)
    if bounds is not None and bounds[0] < minimum:
        raise ValueError(
            f"{where}: `{name}` must be at least {minimum}, got {bounds[0]}"
        )
    return bounds


def _check_width(where: str, name: str, width: int) -> None:
    check_size(where, name, width, minimum=2)
    if width % 2:
        raise ValueError(f"{where}: `{name}` must be even, got {width}")


def _check_rows(where: str, weight: Tensor, n_heads: int) -> int:
    check_tensor(where, "weight", weight)
    check_size(where, "n_heads", n_heads)
    rows = weight.shape[0] if weight.dim() else 0
    if rows == 0 or rows % (2 * n_heads):
        raise ValueError(
            f"{where}: `weight` must have a multiple of 2 * n_heads={2 * n_heads} "
            f"rows, got shape {tuple(weight.shape)}"
        )
    return rows // (2 * n_heads)
