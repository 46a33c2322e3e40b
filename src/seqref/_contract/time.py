r"""Properties along time: call and loop, gradients, chunks, causality."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from seqref._contract.subject import (
    Subject,
    Values,
    flatten,
    is_smooth,
    named,
)

# Of a central difference in float64: step, and what truncation and rounding may leave.
EPSILON = 1e-5
SLACK = 1e-6


def forward(subject: Subject) -> None:
    name = "forward"
    times = [subject.time] if subject.chunk_invariant else []
    # A call over one step is a step, also where results depend on the cuts.
    for time in {1, *times}:
        x = subject.x[:, :time]
        loop = subject.values(subject.by_step, x, subject.state)
        call = subject.values(subject.call, x, subject.state)
        what = f"the call over {time} step{'s' if time > 1 else ''}, beside the loop,"
        subject.same(name, what, loop, call)


def gradients(subject: Subject) -> None:
    name = "gradients"
    loop_values, loop = subject.gradients(subject.by_step, subject.x, subject.state)
    call_values, call = subject.gradients(subject.call, subject.x, subject.state)
    subject.same(name, "the call, beside the loop,", loop, call)
    # *forward* looked without a graph; the call may take another way with one.
    what = "the call that builds a graph, beside the loop,"
    subject.same(name, what, loop_values, call_values)


def slopes(subject: Subject) -> None:
    r"""Autograd beside central differences, one random direction for each leaf."""
    name = "gradients"
    x, state = subject.x, subject.state
    _, gradients_by_leaf = subject.gradients(subject.call, x, state)
    leaves: Values = {"x": x}
    if subject.differentiable_state:
        leaves |= {n: t for n, t in flatten(state).items() if is_smooth(t)}
    parameters = dict(subject.layer.named_parameters())
    leaves |= {n: p.detach() for n, p in parameters.items() if p.requires_grad}
    for seed, (leaf, value) in enumerate(leaves.items()):
        direction = subject.noise(value.shape, 200 + seed, value.dtype)
        gradient = gradients_by_leaf[f"gradient of `{leaf}`"]
        by_autograd = (gradient.conj() * direction).real.sum().item()
        up = _loss_with(subject, leaf, value + EPSILON * direction)
        down = _loss_with(subject, leaf, value - EPSILON * direction)
        measured = (up - down) / (2 * EPSILON)
        allowed = SLACK * max(1.0, abs(up), abs(measured))
        if not abs(by_autograd - measured) <= allowed:
            raise AssertionError(
                f"{name}: the slope along `{leaf}` is {by_autograd:.9g} by the "
                f"backward pass and {measured:.9g} by central differences"
            )


def _loss_with(subject: Subject, leaf: str, value: Tensor) -> float:
    x, state = subject.x, subject.state
    with torch.no_grad():
        if leaf == "x":
            y, final = subject.layer(value, state)
        elif leaf in flatten(state):
            y, final = subject.layer(x, _replaced(state, "state", leaf, value))
        else:
            # In place and back, not torch.func.functional_call: that one leaves other
            # weights behind in a module that stands in two places (pytorch #164759).
            parameter = dict(subject.layer.named_parameters())[leaf]
            kept = parameter.clone()
            parameter.copy_(value)
            try:
                y, final = subject.layer(x, state)
            finally:
                parameter.copy_(kept)
    return subject.loss(named(y, final)).item()


def _replaced(state: Any, prefix: str, leaf: str, value: Tensor) -> Any:
    if isinstance(state, Tensor):
        return value if prefix == leaf else state
    fields = getattr(state, "_fields", None)
    parts = [
        _replaced(
            part, f"{prefix}.{fields[i]}" if fields else f"{prefix}[{i}]", leaf, value
        )
        for i, part in enumerate(state)
    ]
    return type(state)._make(parts) if fields else tuple(parts)


def chunks(subject: Subject) -> None:
    name, layer, time = "chunks", subject.layer, subject.time
    cuts = {(1,), (time // 2,), (time - 1,), (time // 3, time - time // 3)}
    for cut in sorted(cuts):
        pieces = _pieces(cut, time)

        def in_parts(
            x: Tensor, state: Any, lengths: Tensor | None, pieces: list[int] = pieces
        ) -> tuple[Tensor, Any]:
            outputs = []
            for part in x.split(pieces, dim=1):
                y, state = layer(part, state)
                outputs.append(y)
            return torch.cat(outputs, dim=1), state

        what = f"parts of {', '.join(map(str, pieces))} steps, beside the whole,"
        if subject.differentiable_state:
            whole = subject.gradients(subject.call, subject.x, subject.state)
            parts = subject.gradients(in_parts, subject.x, subject.state)
            subject.same(name, what, whole[0] | whole[1], parts[0] | parts[1])
        else:
            expected = subject.values(subject.call, subject.x, subject.state)
            got = subject.values(in_parts, subject.x, subject.state)
            subject.same(name, what, expected, got)


def _pieces(cut: tuple[int, ...], time: int) -> list[int]:
    edges = [0, *cut, time]
    return [stop - start for start, stop in pairwise(edges)]


def causality(subject: Subject) -> None:
    name, layer = "causality", subject.layer
    whole = subject.values(subject.call, subject.x, subject.state)["y"]
    for t in range(1, subject.time):
        changed = subject.x
        changed[:, t:] = 3 * subject.noise(changed[:, t:].shape, seed=40)
        y = subject.values(subject.call, changed, subject.state)["y"]
        subject.same(
            name,
            f"the outputs before step {t}, when the input changes from there on,",
            {"y": whole[:, :t]},
            {"y": y[:, :t]},
        )
        x = subject.x.requires_grad_()
        y, _ = layer(x, subject.state)
        loss = subject.loss({"y": y[:, :t]}) + 0 * x.sum()
        (gradient,) = torch.autograd.grad(loss, x)
        later = {"gradient of `x`": gradient[:, t:]}
        zero = {"gradient of `x`": torch.zeros_like(gradient[:, t:])}
        subject.same(name, f"the steps from {t} on, from earlier outputs,", zero, later)
