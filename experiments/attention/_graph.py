r"""Paths through torch's own graph, from an output to a leaf."""

from typing import Any

from torch import Tensor


def edges_between(output: Tensor, leaf: Tensor) -> tuple[int, int]:
    r"""The fewest and the most edges of the graph between an output and a leaf.

    Raises:
        ValueError: no way leads from the output to the leaf.
    """
    fewest: dict[Any, int] = {}
    most: dict[Any, int] = {}
    for node in children_first(output.grad_fn):
        if getattr(node, "variable", None) is leaf:
            fewest[node] = most[node] = 0
            continue
        below = [other for other, _ in node.next_functions if other in most]
        if below:
            fewest[node] = 1 + min(fewest[other] for other in below)
            most[node] = 1 + max(most[other] for other in below)
    if output.grad_fn not in most:
        raise ValueError("edges_between: no way leads from the output to the leaf")
    return fewest[output.grad_fn], most[output.grad_fn]


def children_first(root: Any) -> list[Any]:
    """Every node below a root, each behind all that it reads."""
    order: list[Any] = []
    seen: set[Any] = set()
    stack = [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(other, False) for other, _ in node.next_functions if other]
    return order
