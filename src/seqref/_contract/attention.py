r"""The definition of attention, as a judge of a function that computes it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqref._contract.compare import differ
from seqref._contract.places import Call, at
from seqref._contract.probe import Probe
from seqref.errors import check_number, check_tensor

CAUSES = (
    "a scale that is missing or of another width, a softmax over another axis, a mask "
    "of the other meaning, a large number in the place of minus infinity"
)
BACKWARD = (
    "a detach, a backward pass by hand, a large number in the place of minus infinity "
    "in a row that sees no key"
)
WHEN = "between the formula and the function"
IN_TURN = "with heads of keys in turn, as `repeat` and not `repeat_interleave` has them"
TURNED = (
    "over the axis before the queries: transpose in `call` where that is the axis of "
    "steps"
)


class Inputs(NamedTuple):
    r"""Queries, keys and values, and which keys each query sees."""

    q: Tensor
    k: Tensor
    v: Tensor
    seen: Tensor | None


def check_attention(
    attend: Call,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor | None = None,
    *,
    scale: float | None = None,
    call: Call | None = None,
    dtype: torch.dtype | None = None,
    atol: float | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> None:
    r"""Hold a function to the formula of scaled dot-product attention.

    $$ e_{ij} = \text{scale} \; q_i^\top k_j \qquad
       \alpha_{ij} = \frac{\exp e_{ij}}{\sum_{l \in \Omega_i} \exp e_{il}} \qquad
       o_i = \sum_{j \in \Omega_i} \alpha_{ij} v_j $$

    with $\Omega_i$ the keys that query $i$ sees; one that sees none has the output 0,
    and no gradient passes through it. Compared are the first tensor that the function
    returns with $o$, a second one beside it of the shape of the weights with $\alpha$,
    and the gradients of a random linear loss with respect to `q`, `k` and `v`, where
    the output has a graph. Where they differ and another formula that is known as a
    mistake fits, the message names it.

    This is a comparison with a definition, not a property that any model has: a bias on
    the scores or another kernel fails it, as it should.

    Args:
        attend: A function of `q`, `k`, `v` and `seen`, or a module that is one.
        q: Queries.
        k: Keys.
        v: Values.
        seen: True where a query may see a key; None for everywhere. Give it a query
            that sees none if the function is to be right there as well.
        scale: What the products are multiplied with; None for
            $1 / \sqrt{\text{head}}$.
        call: ``call(attend, q, k, v, seen)``. None is ``attend(q, k, v, seen)``, and
            without `seen` where that is None.
        dtype: torch.float64 or torch.float32. None is float64, and for a callable that
            is no module's the dtype of `q`.
        atol: The largest difference that does not count. None is what rounding may
            leave, by the dtype of the result: see *Test your own model*.
        expected_failures: Why the formula must not fit, by the property's name: a
            mapping from ``"attention"`` to the reason. Then it is an error that it
            does.

    Shapes:
        - `q`: (..., queries, head); `k`: (..., keys, head); `v`: (..., keys, value),
          with the same axes in front, such as (batch, heads). Heads of keys, the last
          of these axes, may be fewer: with `heads = n kv_heads`, each serves n heads of
          queries that stand next to each other
        - `seen`: broadcastable to (..., queries, keys)
        - output: (..., queries, value); weights: (..., queries, keys)

    Raises:
        AssertionError: output, weights or gradients are not those of the formula, or
            the same call gives two results; or they are and were expected not to be.
        TypeError: an argument has the wrong kind, or the function returns no tensor.
        ValueError: an argument or the output has the wrong shape or values.
    """
    probe = Probe("attention", attend, call or _plain, dtype, atol, expected_failures)
    _check_arguments(probe.where, q, k, v, seen)
    if scale is not None:
        check_number(probe.where, "scale", scale, finite_in=torch.float64)
    factor = q.shape[-1] ** -0.5 if scale is None else float(scale)
    with probe.expecting(), probe.quiet(q, k, v):
        given = Inputs(probe.cast(q), probe.cast(k), probe.cast(v), seen)
        _compare_values(probe, given, factor)
        _compare_gradients(probe, given, factor)


def _plain(attend: Call, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Any:
    return attend(q, k, v) if seen is None else attend(q, k, v, seen)


def _check_arguments(
    where: str, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None
) -> None:
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        check_tensor(where, name, tensor)
        if not tensor.is_floating_point():
            raise TypeError(f"{where}: `{name}` must be floating, got {tensor.dtype}")
        if tensor.dim() < 2 or not tensor.numel() or not tensor.isfinite().all():
            raise ValueError(
                f"{where}: `{name}` must be finite and of shape (..., steps, width) "
                f"without an axis of 0, got {tuple(tensor.shape)}"
            )
    lead, queries, head = q.shape[:-2], q.shape[-2], q.shape[-1]
    keys = k.shape[-2]
    fits = k.shape[-1] == head and v.shape[:-1] == k.shape[:-1]
    fits &= k.dim() == q.dim() and k.shape[:-3] == q.shape[:-3]
    fits &= all(heads % fewer == 0 for heads, fewer in zip(lead, k.shape, strict=False))
    if not fits:
        shared = " (or of heads, the last axis in front of these, a divisor)"
        raise ValueError(
            f"{where}: `k` must have shape {(*lead, 'keys', head)} and `v` "
            f"{(*lead, 'keys', 'value')} beside `q` {tuple(q.shape)}"
            f"{shared if lead else ''}, got {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if seen is None:
        return
    check_tensor(where, "seen", seen)
    if seen.dtype != torch.bool:
        raise TypeError(f"{where}: `seen` must be boolean, got {seen.dtype}")
    whole = (*lead, queries, keys)
    ends = zip(seen.shape[::-1], whole[::-1], strict=False)
    if seen.dim() > len(whole) or any(s not in (1, size) for s, size in ends):
        raise ValueError(
            f"{where}: `seen` must be broadcastable to {whole}, got {tuple(seen.shape)}"
        )


def _compare_values(probe: Probe, given: Inputs, factor: float) -> None:
    fresh = Inputs(given.q.flip(-1), given.k.flip(-2), 1 - given.v, given.seen)
    first, second = probe.run_twice(given, fresh)
    probe.must_react(first, second)
    (key, y), *others = first.items()
    want, weights = attention(given, factor)
    if y.shape != want.shape:
        raise ValueError(
            f"{probe.where}: {key} must have shape {tuple(want.shape)}, got "
            f"{tuple(y.shape)}; return (..., queries, value) from `call`"
        )
    causes = CAUSES + _likely(probe, y, given, factor)
    probe.same(at(key), WHEN, want.to(y.dtype), y, causes)
    for name, value in others[:1]:
        # What stands deeper, such as a pair of keys and values, is no weights.
        beside = name.count(".") + name.count("[") <= 1
        if beside and value.shape == weights.shape and value.is_floating_point():
            probe.same(at(name), WHEN, weights.to(value.dtype), value, CAUSES)


def attention(
    given: Inputs, factor: float, axis: int = -1, hidden: float = -torch.inf
) -> tuple[Tensor, Tensor]:
    r"""Outputs and weights by the formula, in float64."""
    q, k, v = (tensor.double() for tensor in _apart(given)[:3])
    scores = factor * q @ k.mT
    if given.seen is None:
        weights = scores.softmax(axis)
    else:
        seen = given.seen.expand_as(scores)
        # Of nothing but minus infinity a softmax is NaN, and so are its gradients.
        some = seen.any(axis, keepdim=True) | (hidden > -torch.inf)
        weights = scores.masked_fill(~seen & some, hidden).softmax(axis)
        weights = weights.masked_fill(~some, 0)
    return weights @ v, weights


def _apart(given: Inputs) -> Inputs:
    r"""With keys and values for each head; those that share them are neighbours."""
    q, k, v, seen = given
    if k.shape[:-2] != q.shape[:-2]:
        k, v = (t.repeat_interleave(q.shape[-3] // t.shape[-3], -3) for t in (k, v))
    return Inputs(q, k, v, seen)


def _likely(probe: Probe, y: Tensor, given: Inputs, factor: float) -> str:
    r"""Words for a formula that is known as a mistake and that fits, or none."""

    def fits(formula: tuple[Tensor, ...], y: Tensor) -> bool:
        return not differ(formula[0].to(y.dtype), y, probe.atol).any()

    right = attention(given, factor)
    if fits(right, y):
        return ""
    # Where no key is left, a softmax by hand is NaN; the formulas have zeros.
    finite = y.masked_fill(y.isnan(), 0)
    if fits(right, finite):
        return ".\nHere it is the formula with NaN where a query sees no key"
    for words, formula in _mistakes(given, factor).items():
        if fits(formula(), finite):
            return f".\nHere it is the formula {words}"
    return ""


def _mistakes(
    given: Inputs, factor: float
) -> dict[str, Callable[[], tuple[Tensor, ...]]]:
    q, k, v, seen = given
    mistakes: dict[str, Callable[[], tuple[Tensor, ...]]] = {
        "without the scale": lambda: attention(given, 1.0),
        "with the scale squared": lambda: attention(given, factor**2),
        "with a softmax over the queries": lambda: attention(given, factor, axis=-2),
    }
    if q.dim() > 2:
        mistakes["with a softmax over the axis before the queries"] = lambda: attention(
            given, factor, axis=-3
        )
        mistakes[TURNED] = lambda: _turned(given, factor)
    if k.shape[:-2] != q.shape[:-2]:
        mistakes[IN_TURN] = lambda: attention(_in_turn(given), factor)
    if seen is None:
        return mistakes
    corner = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device)
    corner = corner.tril()
    masks = {
        "without the mask": None,
        "with a mask of the other meaning": ~seen,
        "with a causal mask from the upper left corner": corner,
    }
    for words, mask in masks.items():
        mistakes[words] = lambda mask=mask: attention(Inputs(q, k, v, mask), factor)
    mistakes["with a large number in the place of minus infinity"] = lambda: attention(
        given, factor, hidden=-1e9
    )

    def late() -> tuple[Tensor, ...]:
        _, weights = attention(Inputs(q, k, v, None), factor)
        return ((weights * seen) @ _apart(given).v.double(),)

    mistakes["with a mask behind the softmax"] = late
    return mistakes


def _in_turn(given: Inputs) -> Inputs:
    r"""With a head of keys for each of the queries', the first again after the last."""
    q, k, v, seen = given
    group = q.shape[-3] // k.shape[-3]
    k, v = (torch.cat([t] * group, dim=-3) for t in (k, v))
    return Inputs(q, k, v, seen)


def _turned(given: Inputs, factor: float) -> tuple[Tensor, ...]:
    r"""Over the axis before the queries, where it can be; else the formula itself."""
    q, k, v = (tensor.transpose(-3, -2) for tensor in given[:3])
    if given.seen is not None or q.shape[:-2] != k.shape[:-2]:
        return attention(given, factor)
    return (attention(Inputs(q, k, v, None), factor)[0].transpose(-3, -2),)


def _compare_gradients(probe: Probe, given: Inputs, factor: float) -> None:
    leaves = [tensor.requires_grad_() for tensor in given[:3]]
    y = _first(probe.where, probe.call(*given))
    if not y.requires_grad:
        return
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(y.shape, generator=random, dtype=torch.float64, device="cpu")
    weights = weights.to(y.device)
    sums = [(weights * out.double()).sum() for out in (attention(given, factor)[0], y)]
    expected, got = (
        torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        for loss in sums
    )
    for name, one, two in zip("qkv", expected, got, strict=True):
        probe.same(at(f"the gradient of `{name}`"), WHEN, one, two, BACKWARD)


def _first(where: str, result: Any) -> Tensor:
    r"""The output as it came, with its graph."""
    while not isinstance(result, Tensor):
        if not isinstance(result, Mapping | tuple | list):
            raise TypeError(
                f"{where}: the output must be a tensor, alone or first in a tuple, "
                f"list or dict, got {type(result).__name__}; return it from `call`"
            )
        result = next(iter(result.values() if isinstance(result, Mapping) else result))
    return result
