r"""How a gradient shrinks or grows on its way back through the states of a layer."""

from typing import TypeVar

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from seqref.errors import check_lengths, check_shape, check_tensor
from seqref.recurrence import Recurrent, detach_state, map_state

__all__ = [
    "gradient_norm_by_lag",
    "jacobian_log_norm",
    "jacobian_product",
    "state_jacobian",
]

State = TypeVar("State")


def state_jacobian(
    layer: Recurrent[State],
    x_t: Float[Tensor, "batch ..."],
    state: State | None = None,
) -> Float[Tensor, "batch state state"]:
    r"""The Jacobian of one step: of the new state by the old one, in each row.

    $$ (J_t)_{ij} = \partial (h_t)_i / \partial (h_{t-1})_j $$

    The state is one vector here: its tensors flattened in the order of the fields, so
    that of an `LSTMState` is $h$ followed by $c$.

    Args:
        layer: A causal layer, see `seqref.recurrence.Recurrent`. Its rows must not act
            on one another.
        x_t: The input of the step.
        state: The state before the step; None means `initial_state`.

    Shapes:
        - `x_t`: (batch, input); each tensor of `state`: (batch, ...)
        - returns: (batch, state, state), cut off from the graph; `state` is the number
          of entries of one row's state.

    Cost:
        One forward step, and one backward step over a batch of as many gradients as
        the state has entries.

    Raises:
        TypeError: `layer` is no causal layer, or `x_t` is no tensor.
        ValueError: `x_t` has no axis, or the layer's `step` finds a wrong shape.

    Source:
        The definition.
    """
    _check_layer("state_jacobian", layer)
    check_tensor("state_jacobian", "x_t", x_t)
    if x_t.dim() == 0:
        raise ValueError("state_jacobian: `x_t` must have shape (batch, ...), got ()")
    state = layer.initial_state(len(x_t)) if state is None else state
    return _step_jacobian(layer, x_t, state)[0]


def jacobian_product(
    layer: Recurrent[State],
    x: Float[Tensor, "batch time ..."],
    state: State | None = None,
    lengths: Integer[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch state state"]:
    r"""The Jacobian of the final state by the first: $J_T J_{T-1} \cdots J_1$.

    Computed in the dtype of the state. In float32 a product that shrinks or grows by a
    factor of 2 a step is 0 or not finite after some 150 steps: for its size over many
    steps take `jacobian_log_norm`.

    What a step leaves unchanged, such as the masks of a `VariationalLSTM`, is part of
    the state too, and has the identity on the diagonal: the norm is then never below 1.
    The block of $h$ and $c$, at fixed masks, is `product[:, :2 * hidden, :2 * hidden]`.

    Args:
        layer: A causal layer, see `seqref.recurrence.Recurrent`. Its rows must not act
            on one another.
        x: The input sequence.
        state: The state before the first step; None means `initial_state`.
        lengths: Number of real steps of each row; the rest is padding on the right.

    Shapes:
        - `x`: (batch, time, input); `lengths`: (batch,)
        - returns: (batch, state, state), cut off from the graph, laid out as in
          `state_jacobian`; the identity in a row without a real step.

    Cost:
        O(T N) steps and O(T N^3) for the products, N being the entries of a state.

    Raises:
        TypeError: `layer` is no causal layer, `x` is no tensor, or `lengths` is not of
            an integer dtype.
        ValueError: `x` has fewer than two axes, `lengths` is wrong, or the layer's
            `step` finds a wrong shape.

    Source:
        The chain rule.
    """
    x, state, real = _prepare("jacobian_product", layer, x, state, lengths)
    product = _identity(state)
    for t in range(x.shape[1]):
        jacobian, state = _step_jacobian(layer, x[:, t], state)
        keep = real[:, t, None, None]
        product = torch.where(keep, jacobian @ product, product)
    return product


def jacobian_log_norm(
    layer: Recurrent[State],
    x: Float[Tensor, "batch time ..."],
    state: State | None = None,
    lengths: Integer[Tensor, " batch"] | None = None,
) -> Float[Tensor, " batch"]:
    r"""The logarithm of the largest singular value of $J_T J_{T-1} \cdots J_1$.

    $$ \ln \sigma(J_T J_{T-1} \cdots J_1) $$

    The product is scaled at each step and its size kept as a logarithm, so that it
    neither under- nor overflows, however many steps there are. Divided by $T$ it is the
    largest Lyapunov exponent over these steps: above 0 the product grows.

    Args:
        layer: A causal layer, see `seqref.recurrence.Recurrent`. Its rows must not act
            on one another.
        x: The input sequence.
        state: The state before the first step; None means `initial_state`.
        lengths: Number of real steps of each row; the rest is padding on the right.

    Shapes:
        - `x`: (batch, time, input); `lengths`: (batch,)
        - returns: (batch,), in float64; the natural logarithm, 0 in a row without a
          real step, minus infinity where the product is zero, NaN where a Jacobian was
          not finite.

    Cost:
        That of `jacobian_product`: one backward step for each entry of the state at
        each of T steps, and O(T N^3) for the products, N being the entries of a state.

    Raises:
        TypeError: `layer` is no causal layer, `x` is no tensor, or `lengths` is not of
            an integer dtype.
        ValueError: `x` has fewer than two axes, `lengths` is wrong, or the layer's
            `step` finds a wrong shape.

    Source:
        The chain rule.
    """
    x, state, real = _prepare("jacobian_log_norm", layer, x, state, lengths)
    product = _identity(state).double()
    logarithm = torch.zeros(len(product), dtype=product.dtype, device=x.device)
    for t in range(x.shape[1]):
        jacobian, state = _step_jacobian(layer, x[:, t], state)
        keep = real[:, t, None, None]
        product = torch.where(keep, jacobian.double() @ product, product)
        largest = product.abs().amax((1, 2))
        scale = torch.where(largest.isfinite() & (largest > 0), largest, 1)
        product = product / scale[:, None, None]
        logarithm = logarithm + scale.log()
    finite = product.isfinite().flatten(1).all(1)
    norm = torch.linalg.matrix_norm(product.masked_fill(~finite[:, None, None], 0), 2)
    return (logarithm + norm.log()).masked_fill(~finite, torch.nan)


def gradient_norm_by_lag(
    layer: Recurrent[State],
    x: Float[Tensor, "batch time ..."],
    state_bar: State,
    state: State | None = None,
    lengths: Integer[Tensor, " batch"] | None = None,
) -> Float[Tensor, "batch lags"]:
    r"""The norm of a final state's gradient, after each number of steps back.

    $$ \lVert (J_T J_{T-1} \cdots J_{T-k+1})^\top \bar h_T \rVert_2
    \quad \text{for } k = 0, \dots, T $$

    Computed in the dtype of the state: entries below its smallest number become 0.

    Every tensor of the state counts. Masks of a `VariationalLSTM` in training get a
    gradient at each step, and it adds up; in evaluation no step reads them.

    Args:
        layer: A causal layer, see `seqref.recurrence.Recurrent`.
        x: The input sequence.
        state_bar: The gradient by the final state, in the structure of the state.
        state: The state before the first step; None means `initial_state`.
        lengths: Number of real steps of each row; the rest is padding on the right.
            Lags are counted from each row's last real step.

    Shapes:
        - `x`: (batch, time, input); `lengths`: (batch,)
        - each tensor of `state_bar`: that of the state
        - returns: (batch, time + 1), cut off from the graph; zero at lags that are
          longer than the row.

    Cost:
        One forward and one backward pass over the steps; no Jacobian is formed.

    Raises:
        TypeError: `layer` is no causal layer, `x` is no tensor, `state_bar` has not the
            structure of the state, or `lengths` is not of an integer dtype.
        ValueError: `x` has fewer than two axes, `lengths` is wrong, `state_bar` has
            not the shapes, dtypes and device of the state, or the layer's `step` finds
            a wrong shape.

    Source:
        The chain rule.
    """
    where = "gradient_norm_by_lag"
    x, state, real = _prepare(where, layer, x, state, lengths)
    _check_bar(where, state, state_bar)
    with torch.inference_mode(False), torch.enable_grad():
        states = [map_state(lambda s: s.detach().requires_grad_(), state)]
        for t in range(x.shape[1]):
            _, following = layer.step(x[:, t], states[-1])
            # A copy, lest an unchanged state count as the one before it.
            kept = map_state(_where(real[:, t]), following, states[-1])
            states.append(map_state(torch.clone, kept))
        bars = torch.autograd.grad(
            _tensors(states[-1]),
            [s for each in states for s in _tensors(each)],
            [bar.detach() for bar in _tensors(state_bar)],
        )
    n = len(_tensors(state))
    parts = [bars[i : i + n] for i in range(0, len(bars), n)]
    flat = [torch.cat([b.flatten(1) for b in part], dim=1) for part in parts]
    norms = _norm(torch.stack(flat, dim=1))
    # Column k of the result is state number length - k.
    index = real.sum(1, keepdim=True) - torch.arange(norms.shape[1], device=x.device)
    return norms.gather(1, index.clamp(min=0)).masked_fill(index < 0, 0)


def _step_jacobian(
    layer: Recurrent[State], x_t: Tensor, state: State
) -> tuple[Tensor, State]:
    # What inference mode made cannot be recorded, and a copy can.
    with torch.inference_mode(False), torch.enable_grad():
        leaf = map_state(lambda s: s.detach().clone().requires_grad_(), state)
        inputs = _tensors(leaf)
        following = layer.step(x_t.detach().clone(), leaf)[1]
        flat = _flatten(following)
        # With the old state beside it, a new one that ignores it has slope zero too.
        both = torch.cat([flat, _flatten(leaf)], dim=1)
    try:
        rows = _all_rows(both, inputs, flat.shape[1])
    except RuntimeError:
        # A function of the layer's own may have no rule for batches of gradients.
        rows = _row_by_row(both, inputs, flat.shape[1])
    return rows, detach_state(following)


def _all_rows(both: Tensor, inputs: list[Tensor], n_rows: int) -> Tensor:
    # One backward pass for all entries at once. Rows of the batch are independent, so
    # one gradient serves them all.
    unit = torch.eye(n_rows, both.shape[1], dtype=both.dtype, device=both.device)
    parts = torch.autograd.grad(
        both,
        inputs,
        unit[:, None].expand(-1, *both.shape),
        retain_graph=True,
        is_grads_batched=True,
    )
    return torch.cat([part.flatten(2) for part in parts], dim=2).transpose(0, 1)


def _row_by_row(both: Tensor, inputs: list[Tensor], n_rows: int) -> Tensor:
    rows = []
    for i in range(n_rows):
        unit = torch.zeros_like(both)
        unit[:, i] = 1
        parts = torch.autograd.grad(both, inputs, unit, retain_graph=True)
        rows.append(torch.cat([part.flatten(1) for part in parts], dim=1))
    return torch.stack(rows, dim=1)


def _prepare(
    where: str,
    layer: Recurrent[State],
    x: Tensor,
    state: State | None,
    lengths: Tensor | None,
) -> tuple[Tensor, State, Tensor]:
    _check_layer(where, layer)
    check_tensor(where, "x", x)
    if x.dim() < 2:
        raise ValueError(
            f"{where}: `x` must have shape (batch, time, ...), got {tuple(x.shape)}"
        )
    batch, time = x.shape[:2]
    if lengths is not None:
        check_lengths(where, lengths, batch, time)
    # What inference mode made cannot be recorded, and a copy made outside can.
    with torch.inference_mode(False):
        x = x.detach().clone()
        real = torch.ones(batch, time, dtype=torch.bool, device=x.device)
        if lengths is not None:
            steps = torch.arange(time, device=x.device)
            real = steps < lengths.to(x.device, copy=True).long()[:, None]
            # The slope of a step that is thrown away must be finite all the same.
            mask = real.reshape(batch, time, *[1] * (x.dim() - 2))
            x = torch.where(mask, x, torch.zeros_like(x))
        state = layer.initial_state(batch) if state is None else state
        return x, map_state(lambda s: s.detach().clone(), state), real


def _identity(state: object) -> Tensor:
    flat = _flatten(state)
    eye = torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)
    return eye.repeat(len(flat), 1, 1)


def _norm(flat: Tensor) -> Tensor:
    # The squares of entries over- and underflow long before the entries do.
    largest = flat.abs().amax(2)
    scale = torch.where(largest.isfinite() & (largest > 0), largest, 1)
    return (flat / scale[:, :, None]).norm(dim=2) * scale


def _check_layer(where: str, layer: object) -> None:
    if not isinstance(layer, Recurrent):
        raise TypeError(
            f"{where}: `layer` must have `initial_state`, `step` and a call, "
            f"got {type(layer).__name__}"
        )


def _where(keep: Tensor):
    def choose(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(keep.reshape(-1, *[1] * (new.dim() - 1)), new, old)

    return choose


def _check_bar(where: str, state: State, state_bar: State) -> None:
    def check(old: Tensor, bar: Tensor) -> Tensor:
        axes = [(f"axis {axis}", size) for axis, size in enumerate(old.shape)]
        check_shape(where, "state_bar", bar, axes)
        if (bar.dtype, bar.device) != (old.dtype, old.device):
            raise ValueError(
                f"{where}: `state_bar` must have the state's dtype and device, "
                f"{old.dtype} on {old.device}, got {bar.dtype} on {bar.device}"
            )
        return old

    try:
        map_state(check, state, state_bar)
    except TypeError as error:
        raise TypeError(
            f"{where}: `state_bar` must have the structure of the state, "
            f"{type(state).__name__}, got {type(state_bar).__name__} ({error})"
        ) from error


def _tensors(state: object) -> list[Tensor]:
    tensors: list[Tensor] = []
    map_state(lambda s: tensors.append(s) or s, state)
    return tensors


def _flatten(state: object) -> Tensor:
    return torch.cat([part.flatten(1) for part in _tensors(state)], dim=1)
