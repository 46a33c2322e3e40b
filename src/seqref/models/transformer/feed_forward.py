r"""The two position-wise networks of a block: with one matrix inward, and gated."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from seqref.errors import check_probability, check_shape, check_size

Activation = Callable[[Tensor], Tensor]


def gelu_tanh(x: Tensor) -> Tensor:
    r"""GELU by the tanh formula, as in GPT-2; `torch.nn.functional.gelu` is exact."""
    return F.gelu(x, approximate="tanh")


class FeedForward(nn.Module):
    r"""Two linear maps with an activation between, the same at every position.

    $$ \mathrm{FFN}(x) = W_2\, \phi(W_1 x + b_1) + b_2 $$

    Args:
        d_model: Width of inputs and outputs, D.
        d_hidden: Width in between; $4 D$ in Vaswani et al.
        activation: $\phi$, a function of a tensor: `torch.nn.functional.relu` as
            there, `torch.nn.functional.gelu` or `gelu_tanh`.
        bias: Whether there are $b_1$ and $b_2$.
        dropout: Probability that a value behind $\phi$ is zeroed in training.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x`: (..., model); returns: as `x`

    Cost:
        $2 D d$ multiply-adds a position for $d$ hidden values; $8 D^2$ at $d = 4 D$.

    Initialisation:
        As `torch.nn.Linear`.

    Raises:
        TypeError: `activation` is not callable; a size is no int.
        ValueError: a size below 1; `dropout` outside 0 to 1; `x` has another width.

    Source:
        Vaswani et al. (2017), eq. 2, with ReLU. GELU: Hendrycks & Gimpel (2016).
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        activation: Activation = F.relu,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _check_sizes("FeedForward", d_model, d_hidden, activation, dropout)
        self.d_model, self.d_hidden = d_model, d_hidden
        self.activation = activation
        self.inward = nn.Linear(d_model, d_hidden, bias, device, dtype)
        self.outward = nn.Linear(d_hidden, d_model, bias, device, dtype)
        self.dropout = float(dropout)

    def forward(
        self, x: Float[Tensor, "*rows {self.d_model}"]
    ) -> Float[Tensor, "*rows {self.d_model}"]:
        _check_width("FeedForward.forward", x, self.d_model)
        hidden = self.activation(self.inward(x))
        return self.outward(F.dropout(hidden, self.dropout, self.training))

    def extra_repr(self) -> str:
        return f"activation={_name_of(self.activation)}, dropout={self.dropout}"


class GatedFeedForward(nn.Module):
    r"""A position-wise network whose hidden values are multiplied by a gate.

    $$ \mathrm{FFN}(x) = W_2 \bigl(\phi(W_g x + b_g) \odot (W_1 x + b_1)\bigr) + b_2 $$

    With $\phi$ = SiLU and no biases this is SwiGLU.

    Args:
        d_model: Width of inputs and outputs, D.
        d_hidden: Width in between; $8 D / 3$ has as many weights as `FeedForward` at
            $4 D$.
        activation: $\phi$, a function of a tensor.
        bias: Whether there are biases.
        dropout: Probability that a hidden value is zeroed in training.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x`: (..., model); returns: as `x`

    Cost:
        $3 D d$ multiply-adds a position for $d$ hidden values.

    Initialisation:
        As `torch.nn.Linear`.

    Raises:
        TypeError: `activation` is not callable; a size is no int.
        ValueError: a size below 1; `dropout` outside 0 to 1; `x` has another width.

    Source:
        Shazeer (2020), eq. 6 (without biases); Touvron et al. (2023), sec. 2.2.
    """

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        activation: Activation = F.silu,
        *,
        bias: bool = False,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _check_sizes("GatedFeedForward", d_model, d_hidden, activation, dropout)
        self.d_model, self.d_hidden = d_model, d_hidden
        self.activation = activation
        self.gate = nn.Linear(d_model, d_hidden, bias, device, dtype)
        self.inward = nn.Linear(d_model, d_hidden, bias, device, dtype)
        self.outward = nn.Linear(d_hidden, d_model, bias, device, dtype)
        self.dropout = float(dropout)

    def forward(
        self, x: Float[Tensor, "*rows {self.d_model}"]
    ) -> Float[Tensor, "*rows {self.d_model}"]:
        _check_width("GatedFeedForward.forward", x, self.d_model)
        hidden = self.activation(self.gate(x)) * self.inward(x)
        return self.outward(F.dropout(hidden, self.dropout, self.training))

    def extra_repr(self) -> str:
        return f"activation={_name_of(self.activation)}, dropout={self.dropout}"


def _check_sizes(
    where: str, d_model: int, d_hidden: int, activation: object, dropout: float
) -> None:
    check_size(where, "d_model", d_model)
    check_size(where, "d_hidden", d_hidden)
    check_probability(where, "dropout", dropout)
    if not callable(activation):
        raise TypeError(
            f"{where}: `activation` must be a function of a tensor, such as "
            f"torch.nn.functional.gelu, got {type(activation).__name__}"
        )


def _check_width(where: str, x: Tensor, width: int) -> None:
    axes = [(f"axis {i}", None) for i in range(x.dim() - 1)] if x.dim() else []
    check_shape(where, "x", x, (*axes, ("d_model", width)))


def _name_of(activation: Activation) -> str:
    return getattr(activation, "__name__", type(activation).__name__)
