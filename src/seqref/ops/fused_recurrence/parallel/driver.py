r"""One recurrence as an operation of autograd: layouts, lengths, both derivatives."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from seqref.ops._padding import blank_padding, real_steps
from seqref.ops.fused_recurrence.reference import States, Weights, loop


class Form(NamedTuple):
    r"""The pieces of one recurrence.

    `forward(x, states, weights, ended)` returns what is saved: `x` first, then all `h`,
    then, for an LSTM, all `c`. `backward(saved, weights, grad_y, grad_states, skip)`
    returns the gradients by name. `step` is the reference's.
    """

    step: Callable[[Tensor, States, Weights], States]
    forward: Callable[[Tensor, States, Weights, Tensor | None], tuple[Tensor, ...]]
    backward: Callable[..., Any]
    states: tuple[str, ...] = ("h_0",)


# Numbers in the largest tensor of a part, about 16 MiB in float32: a larger one costs
# more in faults of pages than in arithmetic.
_PART = 2**22
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

_hidden_from_compiler: Any = None


def run(
    form: Form,
    x: Float[Tensor, "batch time input"],
    states: States,
    weights: Weights,
    lengths: Integer[Tensor, " batch"] | None,
) -> tuple[Tensor, States]:
    r"""Run a form over a batch of sequences.

    Shapes:
        - `x`: (batch, time, input), time at least 1; each of `states`: (batch, hidden)
        - returns: outputs (batch, time, hidden), zero in the padding, and the states
          after each row's last real step
    """
    # The compiler would unroll the steps, or fail on what is written in place. It takes
    # seconds to import: not before somebody uses it.
    if "torch._dynamo" not in sys.modules:
        return _run(form, x, states, weights, lengths)
    global _hidden_from_compiler  # noqa: PLW0603
    if _hidden_from_compiler is None:
        _hidden_from_compiler = torch.compiler.disable(_run)
    return _hidden_from_compiler(form, x, states, weights, lengths)


def _run(
    form: Form,
    x: Tensor,
    states: States,
    weights: Weights,
    lengths: Tensor | None,
) -> tuple[Tensor, States]:
    if lengths is not None:
        # A copy: the caller may count down before the backward pass.
        lengths = lengths.detach().to(x.device, torch.int64, copy=True)
    tensors = (x, *states, *(weight for weight in weights if weight is not None))
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        y, *ends = _Recurrence.apply(form, lengths, x, *states, *weights)
        return y, tuple(ends)
    return _in_parts(form, x, states, weights, lengths)


def _in_parts(
    form: Form,
    x: Tensor,
    states: States,
    weights: Weights,
    lengths: Tensor | None,
) -> tuple[Tensor, States]:
    r"""Without gradients nothing is kept, so that a few steps at a time are enough."""
    n_steps = max(1, _PART // (x.shape[0] * weights[0].shape[0]))
    y = x.new_empty(*x.shape[:2], states[0].shape[1])
    for start in range(0, x.shape[1], n_steps):
        part = x[:, start : start + n_steps]
        left = None
        if lengths is not None:
            left = (lengths - start).clamp(0, part.shape[1])
        x_first, ended = _time_first(part, left)
        saved = form.forward(x_first, states, weights, ended)
        states = _ends(form, saved, left, ended)
        y[:, start : start + n_steps] = saved[1][1:].transpose(0, 1)
    return y, states


def _ends(
    form: Form, saved: tuple[Tensor, ...], lengths: Tensor | None, ended: Tensor | None
) -> States:
    r"""The states after each row's last real step; blanks what comes after it."""
    h = saved[1]
    if lengths is None or ended is None:
        h_n = h[-1].clone()
    else:
        h_n = h[lengths, torch.arange(h.shape[1], device=h.device)]
        # What a rectified state grew to there must not meet a gradient of zero.
        h[1:].masked_fill_(ended, 0.0)
    return h_n, *(c[-1].clone() for c in saved[2 : 1 + len(form.states)])


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, form: Form, lengths: Tensor | None, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        x, states, weights = _apart(form, tensors)
        x_first, ended = _time_first(x, lengths)
        saved = form.forward(x_first, states, weights, ended)
        ends = _ends(form, saved, lengths, ended)
        ctx.form = form
        # The copy of `x` with time first is not kept; the backward pass makes it again.
        ctx.save_for_backward(lengths, *tensors, *saved[1:])
        # A copy: what the caller writes into the outputs must not reach what is kept.
        y = saved[1][1:].transpose(0, 1).clone(memory_format=torch.contiguous_format)
        return y, *ends

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        form: Form = ctx.form
        end = 1 + len(("x", *form.states, *WEIGHTS))
        # Asked for once: each access unpacks what hooks have packed.
        saved = ctx.saved_tensors
        lengths, tensors, kept = saved[0], saved[1:end], saved[end:]
        needed = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            grads = _by_autograd(form, lengths, tensors, upstream, needed)
        else:
            grads = _by_hand(form, lengths, tensors, kept, upstream, needed)
        return None, None, *grads


def _apart(
    form: Form, tensors: tuple[Tensor | None, ...]
) -> tuple[Tensor, States, Weights]:
    x, *others = tensors
    n_states = len(form.states)
    return x, tuple(others[:n_states]), tuple(others[n_states:])  # pyright: ignore


def _time_first(
    x: Float[Tensor, "batch time input"], lengths: Integer[Tensor, " batch"] | None
) -> tuple[Tensor, Tensor | None]:
    r"""`x` with time first and blank padding, and where rows have ended."""
    if lengths is None:
        return x.transpose(0, 1), None
    real = real_steps(lengths, x.shape[1])
    return blank_padding(x, real).transpose(0, 1), ~real.T[..., None]


def _by_hand(
    form: Form,
    lengths: Tensor | None,
    tensors: tuple[Tensor | None, ...],
    kept: tuple[Tensor, ...],
    upstream: tuple[Tensor, ...],
    needed: tuple[bool, ...],
) -> list[Tensor | None]:
    x, _, weights = _apart(form, tensors)
    names = ("x", *form.states, *WEIGHTS)
    skip = {name for name, need in zip(names, needed, strict=True) if not need}
    x_first, ended = _time_first(x, lengths)
    grad_y, grad_h_n, *grad_others = upstream
    grad_y = grad_y.transpose(0, 1)
    grad_h_0 = torch.zeros_like(grad_h_n)
    if ended is not None and lengths is not None:
        # A final state is the state after the row's last real step: its gradient
        # enters there, or goes to the initial state where there is no step.
        grad_y = grad_y.masked_fill(ended, 0.0)
        rows = torch.arange(len(x), device=x.device)
        none = lengths[:, None] == 0
        grad_y[(lengths - 1).clamp(min=0), rows] += grad_h_n.masked_fill(none, 0.0)
        grad_h_0 = grad_h_n.where(none, 0.0)
        grad_h_n = torch.zeros_like(grad_h_n)
    grads_in = (grad_y, grad_h_n, *grad_others)
    adjoint = form.backward((x_first, *kept), weights, *grads_in, skip=skip)
    grads = adjoint._asdict() | {"h_0": adjoint.h_0 + grad_h_0}
    if adjoint.x is not None:
        grads["x"] = adjoint.x.transpose(0, 1)
    return [None if name in skip else grads[name] for name in names]


def _by_autograd(
    form: Form,
    lengths: Tensor | None,
    tensors: tuple[Tensor | None, ...],
    upstream: tuple[Tensor, ...],
    needed: tuple[bool, ...],
) -> list[Tensor | None]:
    r"""The gradients by autograd through the loop, so that they have gradients too."""
    # Aliases: an input that was computed from another one must not pass its gradient on
    # to that one in here.
    aliases = [None if tensor is None else tensor.view_as(tensor) for tensor in tensors]
    x, states, weights = _apart(form, tuple(aliases))

    def step(x_t: Tensor, states: States) -> States:
        return form.step(x_t, states, weights)

    y, ends = loop(step, x, states, lengths)
    wanted = [
        tensor
        for tensor, need in zip(aliases, needed, strict=True)
        if need and tensor is not None
    ]
    gradients = torch.autograd.grad(
        (y, *ends), wanted, upstream, create_graph=True, materialize_grads=True
    )
    following = iter(gradients)
    return [next(following) if need else None for need in needed]
