r"""Where to look when a loss or a gradient is not finite."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer


def why_loss(model: nn.Module, batch: Any) -> str:
    r"""The first thing that is already not finite: parameters, batch, or neither."""
    named = list(model.named_parameters())
    bad = [name for name, p in named if not p.isfinite().all()]
    if bad:
        return (
            f"{_names('parameter', bad, len(named))} not finite: an update before this "
            "step, or code outside the loop, made it so"
        )
    for path, tensor in tensors_of(batch, "batch"):
        wrong = int((~tensor.isfinite()).sum())
        if wrong:
            return (
                f"{wrong} of {tensor.numel()} values of {path} are not finite: look at "
                "the data"
            )
    name, largest = max(
        ((name, float(p.detach().abs().max())) for name, p in named if p.numel()),
        key=lambda pair: pair[1],
        default=("none", 0.0),
    )
    return (
        "parameters and batch are finite, so it arose in the forward pass or the loss "
        f"(log or division by 0, an overflow; the largest parameter is {largest:.3g}, "
        f"in {name})"
    )


def why_gradient(model: nn.Module) -> str:
    r"""Which gradients are not finite."""
    named = [(n, p.grad) for n, p in model.named_parameters() if p.grad is not None]
    bad = [name for name, grad in named if not _values(grad).isfinite().all()]
    if bad:
        return (
            f"{_names('gradient', bad, len(named))} not finite, from a finite loss; "
            "torch.autograd.set_detect_anomaly(True) names an operation that makes NaN"
        )
    return "each gradient is finite, and the sum of their squares overflows"


def rates(optimizer: Optimizer) -> str:
    r"""The learning rate of each group."""
    return ", ".join(f"{float(group['lr']):g}" for group in optimizer.param_groups)


def tensors_of(tree: Any, path: str) -> Iterable[tuple[str, Tensor]]:
    r"""Floating tensors of tuples, lists and dicts, with where they are."""
    if isinstance(tree, Tensor):
        if tree.is_floating_point():
            yield path, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from tensors_of(value, f"{path}[{key!r}]")
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from tensors_of(value, f"{path}[{index}]")


def _values(tensor: Tensor) -> Tensor:
    return tensor.coalesce().values() if tensor.is_sparse else tensor


def _names(kind: str, bad: list[str], total: int) -> str:
    shown = ", ".join(f"`{name}`" for name in bad[:3])
    if len(bad) == 1:
        return f"the {kind} {shown} is"
    more = "" if len(bad) <= 3 else ", ..."
    of = f"{len(bad)} of {total} {kind}s"
    return f"{of} ({shown}{more}) are"
