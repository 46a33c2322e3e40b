r"""Additive attention: scores by a layer of tanh, weights and contexts."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from seqref.errors import (
    autocast_is_on,
    check_choice,
    check_lengths,
    check_like_parameters,
    check_shape,
)
from seqref.ops._by_hand import why_not_differentiated
from seqref.ops._padding import blank_padding, real_steps
from seqref.ops.additive_attention import parallel, reference

__all__ = ["BACKENDS", "additive_attention"]

BACKENDS = ("reference", "parallel")


def additive_attention(
    query: Float[Tensor, "batch time hidden"],
    keys: Float[Tensor, "batch source hidden"],
    values: Float[Tensor, "batch source value"],
    weight: Float[Tensor, " hidden"],
    lengths: Integer[Tensor, " batch"] | None = None,
    *,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch time value"], Float[Tensor, "batch time source"]]:
    r"""Contexts and weights of queries over a source, by additive scores.

    $$ e_{tj} = v^\top \tanh(q_t + k_j) \qquad
       \alpha_{tj} = \frac{\exp e_{tj}}{\sum_{l \le S} \exp e_{tl}} \qquad
       c_t = \sum_{j \le S} \alpha_{tj} m_j $$

    with $S$ the length of the row's source.

    Args:
        query: $q_t$, projected already.
        keys: $k_j$, projected already.
        values: $m_j$, what the contexts are made of.
        weight: $v$.
        lengths: Number of real source positions of each row; the rest is padding on the
            right. A row of length 0 has weights and contexts of zero.
        backend: None for the default, or a name from the table below.

    Shapes:
        - `query`: (batch, time, hidden); `keys`: (batch, source, hidden); `values`:
          (batch, source, value); `weight`: (hidden,); `lengths`: (batch,)
        - returns: `context` (batch, time, value), `weights` (batch, time, source), which
          are 0 in the padding and sum to 1 over the rest

    Cost:
        O(T S D) time. Autograd through the definition keeps T S D numbers a row,
        `"parallel"` T S.

    Backends:
        | backend | is | default |
        | --- | --- | --- |
        | `"reference"` | one query after the other, differentiated by autograd | other devices than CPU, `torch.func`, forward-mode differentiation, torch.compile, `torch.export`, `torch.jit.trace`, autocast |
        | `"parallel"` | a backward pass by hand that makes each tanh again | CPU |

        All tensors but `lengths` get gradients, and those have gradients; padding gets
        none, whatever it holds.

    Raises:
        ValueError: a wrong shape, dtype, device, length or backend name.
        TypeError: `lengths` is not of an integer dtype, or `weight` not of a floating one.
        RuntimeError: a backend was asked for that cannot run here.

    Source:
        Bahdanau, Cho & Bengio (2015), eqs. 5 and 6, appendix A.1.2.
        Differs: queries and keys come projected, so that keys are projected once.
    """  # noqa: E501
    where = "additive_attention"
    if backend is not None:
        check_choice(where, "backend", backend, BACKENDS)
    _check(where, query, keys, values, weight, lengths)
    real = torch.ones(keys.shape[:2], dtype=torch.bool, device=keys.device)
    if lengths is not None:
        real = real_steps(lengths.to(keys.device), keys.shape[1])
        keys, values = blank_padding(keys, real), blank_padding(values, real)
    return attend(where, backend, query, keys, values, weight, real)


def attend(
    where: str,
    backend: str | None,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    weight: Tensor,
    real: Tensor,
) -> tuple[Tensor, Tensor]:
    r"""`additive_attention` on what is checked and has zeros in the padding.

    Shapes:
        - `real`: (batch, source), False in the padding; the others as there

    Raises:
        RuntimeError: a backend was asked for that cannot run here.
    """
    reason = why_not_by_hand(query, (query, keys, values, weight))
    if backend is None:
        backend = "reference" if reason or query.device.type != "cpu" else "parallel"
    if backend == "parallel" and reason:
        raise RuntimeError(f"{where}: backend 'parallel' cannot run here: {reason}")
    form = parallel if backend == "parallel" else reference
    return form.attend(query, keys, values, weight, real)


def _check(
    where: str,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    weight: Tensor,
    lengths: Tensor | None,
) -> None:
    check_shape(where, "weight", weight, (("hidden", None),))
    if not weight.is_floating_point():
        raise TypeError(
            f"{where}: `weight` must have a floating dtype, got {weight.dtype}"
        )
    hidden = ("hidden", weight.shape[0])
    check_shape(where, "query", query, (("batch", None), ("time", None), hidden))
    batch = ("batch", query.shape[0])
    check_shape(where, "keys", keys, (batch, ("source", None), hidden))
    source = ("source", keys.shape[1])
    check_shape(where, "values", values, (batch, source, ("value", None)))
    for name, value in (("query", query), ("keys", keys), ("values", values)):
        check_like_parameters(where, name, value, weight)
    if lengths is not None:
        check_lengths(where, lengths, *keys.shape[:2], axis="source")


def why_not_by_hand(query: Tensor, tensors: tuple[Tensor, ...]) -> str:
    r"""The reason why a backward pass by hand cannot run on these; empty if it can.

    Shapes:
        - any
    """
    if reason := why_not_differentiated(tensors):
        return reason
    if torch.compiler.is_compiling():
        return "torch.compile takes the operations one by one"
    if autocast_is_on(query.device):
        return "autocast would change the dtype inside the steps"
    return ""
