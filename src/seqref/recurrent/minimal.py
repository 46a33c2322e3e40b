r"""Gates that do not see the state, so that a whole sequence is one scan."""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import linear, logsigmoid

from seqref.errors import check_choice
from seqref.ops._padding import blank_padding, real_steps
from seqref.ops.linear_scan import linear_scan
from seqref.ops.linear_scan.reference import linear_step
from seqref.recurrent._base import InputCell, RecurrentLayer, built_from

__all__ = [
    "MinGRU",
    "MinGRUCell",
    "MinLSTM",
    "MinLSTMCell",
    "MinimalState",
    "positive",
]


class MinimalState(NamedTuple):
    r"""What a `MinGRU` or `MinLSTM` carries: `h` (batch, hidden)."""

    h: Float[Tensor, "batch hidden"]


def positive(n_pre: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    r"""The activation that keeps a state positive, for a scan in logarithms.

    $$ g(x) = x + \tfrac12 \text{ for } x \ge 0, \quad \sigma(x) \text{ below} $$

    Shapes:
        - `n_pre`: any; returns: the same

    Source:
        Feng et al. (2024), appendix B.
    """
    # Each branch has a finite gradient where the other is taken.
    return torch.where(n_pre >= 0, n_pre + 0.5, torch.sigmoid(n_pre))


CANDIDATES = {"linear": lambda n_pre: n_pre, "positive": positive}


class MinimalCell(InputCell[MinimalState]):
    r"""$h_t = a_t \odot h_{t-1} + b_t$, with both from the input alone.

    A concrete cell sets `n_blocks` and `_gate`.
    """

    state_type = MinimalState

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        candidate: str = "linear",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_choice(type(self).__name__, "candidate", candidate, tuple(CANDIDATES))
        self.candidate = candidate
        super().__init__(input_size, hidden_size, bias=bias, device=device, dtype=dtype)

    @abstractmethod
    def _gate(self, gates_pre: Tensor) -> Tensor:
        r"""How much of the candidate is taken, from all but its pre-activation."""

    def _inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Decays and inputs of the recurrence, of one step or of all at once."""
        pre = linear(x, self.weight_ih, self.bias_ih).to(self.weight_ih.dtype)
        gates_pre, n_pre = pre.tensor_split([pre.shape[-1] - self.hidden_size], dim=-1)
        z = self._gate(gates_pre)
        return 1 - z, z * CANDIDATES[self.candidate](n_pre)

    def _step(
        self, where: str, x_t: Tensor, state: MinimalState | None
    ) -> tuple[Tensor, MinimalState]:
        state = self._checked(where, x_t, state)
        a_t, b_t = self._inputs(x_t)
        h_t = linear_step(a_t, b_t, state.h)
        return h_t, MinimalState(h_t)

    def forward(
        self,
        x_t: Float[Tensor, "batch {self.input_size}"],
        state: MinimalState | None = None,
    ) -> tuple[Float[Tensor, "batch {self.hidden_size}"], MinimalState]:
        r"""One step; None starts from zeros."""
        return self._step(f"{type(self).__name__}.forward", x_t, state)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, candidate={self.candidate!r}"


class MinimalLayer(RecurrentLayer[Any, MinimalState]):
    r"""A `MinimalCell` over a sequence, by a scan."""

    def step(
        self,
        x_t: Float[Tensor, "batch {self.input_size}"],
        state: MinimalState | None = None,
    ) -> tuple[Float[Tensor, "batch {self.hidden_size}"], MinimalState]:
        r"""One step, the layer's definition; None starts from zeros."""
        return self.cell._step(f"{type(self).__name__}.step", x_t, state)

    def forward(
        self,
        x: Float[Tensor, "batch time {self.input_size}"],
        state: MinimalState | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.hidden_size}"], MinimalState]:
        first = self._checked(x, state, lengths)
        if lengths is not None:
            lengths = lengths.to(x.device)
            x = blank_padding(x, real_steps(lengths, x.shape[1]))
        a, b = self.cell._inputs(x)
        y, h_n = linear_scan(a, b, first.h, lengths=lengths)
        return y, MinimalState(h_n)


class MinGRUCell(MinimalCell):
    r"""One step of a minimal gated recurrent unit (minGRU).

    $$ z_t = \sigma(W_z x_t + b_z) \qquad
       h_t = (1 - z_t) \odot h_{t-1} + z_t \odot g(W_n x_t + b_n) $$

    `weight_ih` stacks $W_z$ and $W_n$ in this order. $z_t$ *takes*: in `GRU`, as in
    torch, it keeps.

    Args:
        input_size: Width of each input vector.
        hidden_size: Width of the hidden state.
        candidate: $g$: ``"linear"`` for none, as in the paper's text, or
            ``"positive"``, as in its appendix and code.
        bias: Whether to add the bias vectors.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x_t`: (batch, input); `state`: `MinimalState(h)`, (batch, hidden), or None
          for zeros
        - returns: `h_t` (batch, hidden), new `MinimalState`

    Cost:
        O(D I) time and O(D) state per step, I the input size.

    Initialisation:
        Uniform in $(-1/\sqrt{I}, 1/\sqrt{I})$.

    Raises:
        ValueError: `x_t` or `state` has the wrong shape, dtype or device; a size is
            below 1; `candidate` is unknown.
        TypeError: `state` is no `MinimalState`; a size is no int.

    Source:
        Feng et al. (2024), sec. 3.1 and appendix B.
        Differs: no logarithms, so that states and candidates may have any sign.
    """

    n_blocks = 2

    def _gate(self, gates_pre: Tensor) -> Tensor:
        return torch.sigmoid(gates_pre)


class MinLSTMCell(MinimalCell):
    r"""One step of a minimal long short-term memory (minLSTM).

    $$ f_t = \sigma(W_f x_t + b_f) \qquad i_t = \sigma(W_i x_t + b_i) $$

    $$ h_t = \frac{f_t}{f_t + i_t} \odot h_{t-1}
           + \frac{i_t}{f_t + i_t} \odot g(W_n x_t + b_n) $$

    `weight_ih` stacks $W_i$, $W_f$ and $W_n$ in this order, that of an LSTM. There is
    no output gate and no second state.

    Args:
        input_size: Width of each input vector.
        hidden_size: Width of the hidden state.
        candidate: $g$: ``"linear"`` for none, as in the paper's text, or
            ``"positive"``, as in its appendix and code.
        bias: Whether to add the bias vectors.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x_t`: (batch, input); `state`: `MinimalState(h)`, (batch, hidden), or None
          for zeros
        - returns: `h_t` (batch, hidden), new `MinimalState`

    Cost:
        O(D I) time and O(D) state per step, I the input size.

    Initialisation:
        Uniform in $(-1/\sqrt{I}, 1/\sqrt{I})$.

    Raises:
        ValueError: `x_t` or `state` has the wrong shape, dtype or device; a size is
            below 1; `candidate` is unknown.
        TypeError: `state` is no `MinimalState`; a size is no int.

    Source:
        Feng et al. (2024), sec. 3.2 and appendix B.
        Differs: the quotient is a sigmoid of a difference of logarithms, so that two
        closed gates are no zero over zero; no logarithms of states.
    """

    n_blocks = 3

    def _gate(self, gates_pre: Tensor) -> Tensor:
        i_pre, f_pre = gates_pre.chunk(2, dim=-1)
        return torch.sigmoid(logsigmoid(i_pre) - logsigmoid(f_pre))


class MinGRU(MinimalLayer):
    r"""A minGRU over a sequence: a GRU whose gate does not see the state.

    $$ z_t = \sigma(W_z x_t + b_z) \qquad
       y_t = h_t = (1 - z_t) \odot h_{t-1} + z_t \odot g(W_n x_t + b_n) $$

    Forms:
        `step` (one step), `scan` (a loop over it), and `forward`, one product for all
        steps and then `linear_scan`.

    Cost:
        O(T D I) time in one product, and O(T D) in the scan; O(D) state.
    """

    @built_from(MinGRUCell)
    def __init__(self) -> None: ...


class MinLSTM(MinimalLayer):
    r"""A minLSTM over a sequence: two gates that do not see the state.

    $$ h_t = \frac{f_t}{f_t + i_t} \odot h_{t-1}
           + \frac{i_t}{f_t + i_t} \odot g(W_n x_t + b_n) \qquad y_t = h_t $$

    Forms:
        `step` (one step), `scan` (a loop over it), and `forward`, one product for all
        steps and then `linear_scan`.

    Cost:
        O(T D I) time in one product, and O(T D) in the scan; O(D) state.
    """

    @built_from(MinLSTMCell)
    def __init__(self) -> None: ...
