r"""Bahdanau's decoder over a whole target: attention inside a recurrence."""

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from seqref.errors import (
    check_choice,
    check_lengths,
    check_like_parameters,
    check_shape,
)
from seqref.ops._padding import blank_padding, real_steps
from seqref.ops.additive_attention import why_not_by_hand
from seqref.ops.bahdanau_recurrence import parallel, reference
from seqref.ops.bahdanau_recurrence.reference import Parameters

__all__ = ["BACKENDS", "bahdanau_recurrence"]

BACKENDS = ("reference", "parallel")


def bahdanau_recurrence(
    x: Float[Tensor, "batch time input"],
    h_0: Float[Tensor, "batch hidden"],
    keys: Float[Tensor, "batch source score"],
    values: Float[Tensor, "batch source value"],
    weight_query: Float[Tensor, "score hidden"],
    weight_score: Float[Tensor, " score"],
    weight_ih: Float[Tensor, "three_hidden input_and_value"],
    weight_hh: Float[Tensor, "three_hidden hidden"],
    bias_ih: Float[Tensor, " three_hidden"] | None = None,
    bias_hh: Float[Tensor, " three_hidden"] | None = None,
    *,
    lengths: Integer[Tensor, " batch"] | None = None,
    source_lengths: Integer[Tensor, " batch"] | None = None,
    backend: str | None = None,
) -> tuple[
    Float[Tensor, "batch time hidden"],
    Float[Tensor, "batch hidden"],
    Float[Tensor, "batch time value"],
    Float[Tensor, "batch time source"],
]:
    r"""The recurrence of Bahdanau's decoder: additive attention, then a GRU.

    $$ \alpha_t, c_t = \mathrm{attention}(h_{t-1}) \qquad
       h_t = \mathrm{ChoGRU}([x_t; c_t], h_{t-1}) \qquad t = 1 \dots T $$

    with weights and context as in `bahdanau_step`. The state *before* the step asks; the
    context goes into both gates and the candidate.

    Args:
        x: The inputs, such as embeddings of the tokens before.
        h_0: The state before the first step.
        keys: $k_j$, projected already.
        values: $m_j$, what the contexts are made of.
        weight_query: $W_q$.
        weight_score: $v$.
        weight_ih: Weights of input and context, blocks in the order r, z, n.
        weight_hh: Recurrent weights, same order.
        bias_ih: Input bias; both biases or none.
        bias_hh: Recurrent bias.
        lengths: Number of real steps of each row; the rest is padding on the right.
        source_lengths: Number of real source positions of each row.
        backend: None for the default, or a name from the table below.

    Shapes:
        - `x`: (batch, time, input); `h_0`: (batch, hidden); `keys`: (batch, source,
          score); `values`: (batch, source, value); `lengths`, `source_lengths`: (batch,)
        - returns: `y` (batch, time, hidden), `h_n` (batch, hidden), the state after each
          row's last real step, `contexts` (batch, time, value) and `weights` (batch,
          time, source); all but `h_n` are zero in the padding of the target

    Cost:
        O(T (S D + D^2)) time for S source positions, T steps one after the other.
        `"parallel"` keeps O(T (D + S)) numbers a row, autograd through the definition
        O(T S D).

    Backends:
        | backend | is | default |
        | --- | --- | --- |
        | `"reference"` | a Python loop over `bahdanau_step` | empty input, other devices than CPU, `torch.func`, forward-mode differentiation, torch.compile, `torch.export`, `torch.jit.trace`, autocast |
        | `"parallel"` | `bahdanau_forward` and `bahdanau_backward`, written by hand in plain PyTorch | CPU |

        All tensors but the lengths get gradients, and those have gradients; padding of
        the source or of the target gets none, whatever it holds.

    Raises:
        ValueError: a wrong shape, dtype, device, length or backend name.
        TypeError: a tensor of lengths is not of an integer dtype, or `weight_ih` not of a
            floating one.
        RuntimeError: a backend was asked for that cannot run here.

    Source:
        Bahdanau, Cho & Bengio (2015), appendix A.
        Differs: two bias vectors; keys come projected; $z_t$ keeps the old state, as in
        `cho_gru_step`.
    """  # noqa: E501
    where = "bahdanau_recurrence"
    if backend is not None:
        check_choice(where, "backend", backend, BACKENDS)
    six = (weight_query, weight_score, weight_ih, weight_hh, bias_ih, bias_hh)
    weights = Parameters(*six)
    _check(where, x, h_0, keys, values, weights)
    steps, real = None, keys.new_ones(keys.shape[:2], dtype=torch.bool)
    if lengths is not None:
        check_lengths(where, lengths, x.shape[0], x.shape[1])
        steps = real_steps(lengths.to(x.device), x.shape[1])
    if source_lengths is not None:
        named: Any = {"axis": "source", "name": "source_lengths"}
        check_lengths(where, source_lengths, *keys.shape[:2], **named)
        real = real_steps(source_lengths.to(keys.device), keys.shape[1])
        keys, values = blank_padding(keys, real), blank_padding(values, real)
    tensors = (x, h_0, keys, values, *(w for w in weights if w is not None))
    reason = why_not_by_hand(x, tensors) or ("the input is empty" if _empty(x) else "")
    form = _form(where, backend, reason, x)
    return form.run(x, h_0, keys, values, real, weights, steps)


def _form(where: str, backend: str | None, reason: str, x: Tensor) -> Any:
    if backend == "parallel" and reason:
        raise RuntimeError(f"{where}: backend 'parallel' cannot run here: {reason}")
    if backend is None:
        backend = "reference" if reason or x.device.type != "cpu" else "parallel"
    return parallel if backend == "parallel" else reference


def _empty(x: Tensor) -> bool:
    return x.shape[0] == 0 or x.shape[1] == 0


def _check(
    where: str,
    x: Tensor,
    h_0: Tensor,
    keys: Tensor,
    values: Tensor,
    weights: Parameters,
) -> None:
    weight_hh, weight_query = weights.weight_hh, weights.weight_query
    check_shape(where, "weight_hh", weight_hh, (("rows", None), ("hidden", None)))
    hidden = ("hidden", weight_hh.shape[1])
    rows = ("rows", 3 * weight_hh.shape[1])
    check_shape(where, "weight_hh", weight_hh, (rows, hidden))
    check_shape(where, "weight_query", weight_query, (("score", None), hidden))
    score = ("score", weight_query.shape[0])
    check_shape(where, "weight_score", weights.weight_score, (score,))
    check_shape(where, "x", x, (("batch", None), ("time", None), ("input", None)))
    batch = ("batch", x.shape[0])
    check_shape(where, "h_0", h_0, (batch, hidden))
    check_shape(where, "keys", keys, (batch, ("source", None), score))
    source = ("source", keys.shape[1])
    check_shape(where, "values", values, (batch, source, ("value", None)))
    width = ("input_and_value", x.shape[2] + values.shape[2])
    check_shape(where, "weight_ih", weights.weight_ih, (rows, width))
    if not weights.weight_ih.is_floating_point():
        raise TypeError(
            f"{where}: `weight_ih` must have a floating dtype, got "
            f"{weights.weight_ih.dtype}"
        )
    if (weights.bias_ih is None) != (weights.bias_hh is None):
        raise ValueError(
            f"{where}: `bias_ih` and `bias_hh` must both be given or both be None"
        )
    named = {"x": x, "h_0": h_0, "keys": keys, "values": values}
    for name, value in (named | weights._asdict()).items():
        if value is None:
            continue
        if name.startswith("bias"):
            check_shape(where, name, value, (rows,))
        check_like_parameters(where, name, value, weights.weight_ih)
