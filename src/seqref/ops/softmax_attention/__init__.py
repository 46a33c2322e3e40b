r"""Softmax attention: inner products, a softmax over the keys, a mean of the values."""

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from seqref.errors import (
    check_choice,
    check_lengths,
    check_like_parameters,
    check_number,
    check_shape,
    check_size,
    read_bounds,
)
from seqref.ops.additive_attention import why_not_by_hand
from seqref.ops.softmax_attention import parallel, reference, torch_kernels
from seqref.ops.softmax_attention.reference import Sight

__all__ = ["BACKENDS", "softmax_attention"]

BACKENDS = ("reference", "parallel", "torch")
# Queries and keys from which on blocks by hand take less memory than a mask on a CPU.
BY_HAND = 1024
# Largest window and offset: sums with numbers of positions stay within int64.
FURTHEST = 2**62
FORMS: dict[str, Any] = {
    "reference": reference,
    "parallel": parallel,
    "torch": torch_kernels,
}


def softmax_attention(
    q: Float[Tensor, "batch heads queries head"],
    k: Float[Tensor, "batch kv_heads keys head"],
    v: Float[Tensor, "batch kv_heads keys value"],
    *,
    causal: bool = False,
    lengths: Integer[Tensor, " batch"] | None = None,
    window: int | None = None,
    offset: int | Integer[Tensor, " batch"] | None = None,
    slopes: Float[Tensor, " heads"] | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Float[Tensor, "batch heads queries value"]:
    r"""Attention of queries over keys, by a softmax of scaled inner products.

    $$ e_{ij} = \text{scale} \; q_i^\top k_j - \text{slope} \; |p + i - j| \qquad
       \alpha_{ij} = \frac{\exp e_{ij}}{\sum_{l \in \Omega_i} \exp e_{il}} \qquad
       o_i = \sum_{j \in \Omega_i} \alpha_{ij} v_j $$

    with $p$ the offset, counted like $i$ and $j$ from 0, and $\Omega_i$ the keys that
    query $i$ sees: those with $j < S$, the row's length; where causal, with
    $j \le p + i$; with a window $w$, with $|p + i - j| < w$. A query that sees no key
    has the output 0, and no gradient passes through it. One that sees keys, and whose
    scores overflow, all to minus infinity or one to plus infinity, has the output NaN.

    Args:
        q: The queries.
        k: The keys. Their heads may be fewer: with `heads = n kv_heads`, each serves n
            heads of queries that stand next to each other.
        v: The values, with the heads of the keys.
        causal: Whether a query sees no key behind its own position.
        lengths: Number of real keys of each row, $S$; the rest is padding on the right.
        window: How many positions a query sees, its own and those before it; if not
            causal, as many after it. At most 2^62.
        offset: Position of the first query among the keys, $p$: one for all rows or one
            for each, from 0 to 2^62. None is 0, and is refused where the position matters
            and there are not as many queries as keys.
        slopes: Slope of a bias that falls with the distance, for each head (ALiBi).
        scale: None for $1 / \sqrt{\text{head}}$.
        backend: None for the default, or a name from the table below.

    Shapes:
        - `q`: (batch, heads, queries, head); `k`: (batch, kv_heads, keys, head); `v`:
          (batch, kv_heads, keys, value); `lengths`, `offset`: (batch,); `slopes`:
          (heads,)
        - returns: (batch, heads, queries, value)

    Cost:
        O(T S D) time for T queries and S keys, O(T w D) with a window w by
        `"parallel"`. Autograd through the definition keeps O(T S) numbers a head,
        `"parallel"` O((T + S) D). On a CPU so does `"torch"` where values are as wide
        as keys and slopes need no gradient; elsewhere there it makes the matrix of
        weights, O(T S) a head. It also makes a mask of T S numbers, one for each head
        with slopes and for each row with lengths or offsets by row, unless nothing
        limits what is seen or only causality does, in a square from offset 0.

    Backends:
        | backend | is | default |
        | --- | --- | --- |
        | `"reference"` | one query after the other, differentiated by autograd | `torch.func`, forward-mode differentiation |
        | `"parallel"` | blocks of queries and keys in plain PyTorch, by hand in both directions; blocks in which nothing is seen are left out | CPU, from 1,024 queries and as many keys on, where `"torch"` would need a mask or values are not as wide as keys; not under autocast, torch.compile, `torch.export`, `torch.jit.trace` |
        | `"torch"` | `torch.nn.functional.scaled_dot_product_attention` | elsewhere |

        Where all scores of a query overflow torch's kernels give 0. On a CPU `"torch"`
        notices, except under autocast, torch.compile, `torch.export`,
        `torch.jit.trace`, and computes that call by the definition.

        `q`, `k`, `v` and `slopes` get gradients; those of `"reference"` and
        `"parallel"` have gradients too, where torch's kernels refuse. Padding gets
        none, whatever it holds. Half precision accumulates in float32.

    Raises:
        ValueError: a wrong shape, dtype, device, length, offset or backend name; a
            number of heads that the keys' does not divide; `offset` is missing.
        TypeError: `lengths` or `offset` is not of an integer dtype, `q` not of a
            floating one; `window` is no int, `scale` no number.
        RuntimeError: a backend was asked for that cannot run here.

    Source:
        Vaswani et al. (2017), eq. 1; one head of keys for all: Shazeer (2019), for
        groups: Ainslie et al. (2023); the bias: Press, Smith & Lewis (2022). The sum
        that is rescaled: Milakov & Gimelshein (2018); attention by it, in memory below
        T S: Rabe & Staats (2021); with a backward pass that recomputes: Dao et al.
        (2022).
    """  # noqa: E501
    where = "softmax_attention"
    if backend is not None:
        check_choice(where, "backend", backend, BACKENDS)
    _check(where, q, k, v, slopes)
    if window is not None:
        check_size(where, "window", window)
        _check_furthest(where, "window", window)
    if scale is not None:
        check_number(where, "scale", scale, finite_in=torch.float64)
    positions = causal or window is not None or slopes is not None
    first = _offset(where, offset, q, k, positions)
    if lengths is not None:
        check_lengths(where, lengths, len(k), k.shape[2], axis="keys")
        # A copy: the backward pass reads them, and the caller may write to them.
        lengths = lengths.to(q.device, torch.int64, copy=True)
    sight = Sight(causal, window, first, lengths)
    factor = max(1, q.shape[3]) ** -0.5 if scale is None else float(scale)
    return attend(where, backend, q, k, v, slopes, sight, factor)


def attend(
    where: str,
    backend: str | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor | None,
    sight: Sight,
    scale: float,
) -> Tensor:
    r"""`softmax_attention` on what is checked.

    Shapes:
        - as there

    Raises:
        RuntimeError: a backend was asked for that cannot run here.
    """
    sight = _without_idle_window(sight, q.shape[2])
    given = tuple(t for t in (q, k, v, slopes) if t is not None)
    by_hand, kernels = why_not_by_hand(q, given), why_no_kernel(given)
    if backend is None:
        backend = _default(q, k, v, slopes, sight, by_hand, kernels)
    reason = {"parallel": by_hand, "torch": kernels}.get(backend, "")
    if reason:
        raise RuntimeError(f"{where}: backend {backend!r} cannot run here: {reason}")
    out = FORMS[backend].attend(q, k, v, slopes, sight, scale)
    # To read values is to wait for a GPU, and nothing that traces can.
    can_look = not by_hand and out.device.type == "cpu" and type(out) is Tensor
    if (
        backend == "torch"
        and can_look
        and torch_kernels.overflows(out, q, k, slopes, sight, scale)
    ):
        return reference.attend(q, k, v, slopes, sight, scale)
    return out


def _default(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    slopes: Tensor | None,
    sight: Sight,
    by_hand: str,
    kernels: str,
) -> str:
    if kernels:
        return "reference"
    if by_hand or q.device.type != "cpu" or min(q.shape[2], k.shape[2]) < BY_HAND:
        return "torch"
    fused = torch_kernels.is_fused(q, k, v, slopes, sight)
    return "torch" if fused else "parallel"


def _without_idle_window(sight: Sight, queries: int) -> Sight:
    r"""The same without a window that no query's past is longer than."""
    # A trace is run on more queries than it was made with.
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    if tracing or not (sight.causal and sight.window and isinstance(sight.offset, int)):
        return sight
    idle = sight.offset + queries <= sight.window
    return sight._replace(window=None) if idle else sight


def why_no_kernel(tensors: tuple[Tensor, ...]) -> str:
    r"""The reason why torch's kernels cannot run on these; empty if they can.

    Shapes:
        - any
    """
    # torch has no public question for "am I inside vmap, grad or jvp?".
    if torch._C._are_functorch_transforms_active():
        return "torch.func cannot transform it in every way"
    if any(unpack_dual(tensor).tangent is not None for tensor in tensors):
        return "it has no rule for forward-mode differentiation"
    return ""


def _check(where: str, q: Tensor, k: Tensor, v: Tensor, slopes: Tensor | None) -> None:
    batch, head = ("batch", None), ("head", None)
    check_shape(where, "q", q, (batch, ("heads", None), ("queries", None), head))
    if not q.is_floating_point():
        raise TypeError(f"{where}: `q` must have a floating dtype, got {q.dtype}")
    batch, head = ("batch", q.shape[0]), ("head", q.shape[3])
    check_shape(where, "k", k, (batch, ("kv_heads", None), ("keys", None), head))
    kv_heads, keys = ("kv_heads", k.shape[1]), ("keys", k.shape[2])
    check_shape(where, "v", v, (batch, kv_heads, keys, ("value", None)))
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(
            f"{where}: the heads of `q` must be a multiple of the kv_heads="
            f"{k.shape[1]} of `k`, got {q.shape[1]}"
        )
    if slopes is not None:
        check_shape(where, "slopes", slopes, (("heads", q.shape[1]),))
    for name, value in (("k", k), ("v", v), ("slopes", slopes)):
        if value is not None:
            check_like_parameters(where, name, value, q, "the queries'")


def _offset(
    where: str, offset: int | Tensor | None, q: Tensor, k: Tensor, positions: bool
) -> int | Tensor:
    r"""The offset, checked; a tensor of its own where there is one for each row."""
    if offset is None:
        if positions and q.shape[2] != k.shape[2]:
            raise ValueError(
                f"{where}: `offset` must be given where there are not as many queries "
                f"as keys, got {q.shape[2]} and {k.shape[2]} (the last queries of all: "
                f"offset={k.shape[2] - q.shape[2]})"
            )
        return 0
    if not isinstance(offset, Tensor):
        check_size(where, "offset", offset, minimum=0)
        _check_furthest(where, "offset", offset)
        return offset
    if offset.dtype == torch.bool or offset.is_floating_point() or offset.is_complex():
        raise TypeError(
            f"{where}: `offset` must have an integer dtype, got {offset.dtype}"
        )
    check_shape(where, "offset", offset, (("batch", len(q)),))
    bounds = read_bounds(where, "offset", offset, 0, FURTHEST)
    if bounds is not None:
        check_size(where, "offset", bounds[0], minimum=0)
        _check_furthest(where, "offset", bounds[1])
    return offset.to(q.device, torch.int64, copy=True)


def _check_furthest(where: str, name: str, value: int) -> None:
    if value > FURTHEST:
        raise ValueError(f"{where}: `{name}` must be at most 2**62, got {value}")
