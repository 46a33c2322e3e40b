r"""What `fit` asks of its arguments, and of what its functions return."""

import inspect
import math
from numbers import Real
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from seqref.errors import check_number, check_size
from seqref.recurrence import detach_state


def check_arguments(
    model: nn.Module,
    optimizer: Optimizer,
    steps: int,
    max_norm: float | None,
    scheduler: Any,
) -> None:
    r"""Raise unless `fit` can begin with these.

    Raises:
        TypeError, ValueError: as `fit` says.
    """
    check_size("fit", "steps", steps, minimum=0)
    if max_norm is not None:
        hint = "None clips nothing"
        check_number("fit", "max_norm", max_norm, above=0, hint=hint)
    if isinstance(scheduler, ReduceLROnPlateau):
        raise TypeError(
            "fit: `scheduler` must be one that steps by itself, got ReduceLROnPlateau: "
            "step it in `on_step` with what you measured, and keep its state with "
            "Checkpoints(stateful={'plateau': scheduler})"
        )
    known = scheduler is None or isinstance(scheduler, LRScheduler)
    if not (known or callable(scheduler)):
        raise TypeError(
            "fit: `scheduler` must be a scheduler of torch or a function from the "
            f"number of updates to a rate, got {type(scheduler).__name__}"
        )
    _check_together(model, optimizer, scheduler)


def _check_together(model: nn.Module, optimizer: Optimizer, scheduler: Any) -> None:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise TypeError(
            "fit: `optimizer` must be one whose step needs no closure, got "
            f"{type(optimizer).__name__}"
        )
    if isinstance(scheduler, LRScheduler) and scheduler.optimizer is not optimizer:
        raise ValueError(
            "fit: `scheduler` must be one of `optimizer`, got a "
            f"{type(scheduler).__name__} of another (make it anew after the optimizer)"
        )
    own = {id(parameter) for parameter in model.parameters()}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    if not any(id(parameter) in own for parameter in held):
        raise ValueError(
            "fit: `optimizer` must hold parameters of `model`, got "
            f"{len(held)} of another (make it anew after the model)"
        )


def check_batches(batches: Any) -> None:
    r"""Raise where batches depend on what no file of a run can hold.

    Raises:
        ValueError: workers outlive a pass, and their random states with them.
    """
    if getattr(batches, "persistent_workers", False) is True:
        raise ValueError(
            "fit: with `checkpoints`, `batches` must be a DataLoader with "
            "persistent_workers=False, got True: such workers keep their random states "
            "from pass to pass, and a run that is resumed would draw other numbers"
        )


def check_result(result: Any) -> tuple[Tensor, Any]:
    r"""The loss, and the state without its graph.

    Raises:
        TypeError: it is no pair of a scalar and a state.
    """
    pair = isinstance(result, tuple) and len(result) == 2
    if not (pair and isinstance(result[0], Tensor) and result[0].dim() == 0):
        raise TypeError(
            "fit: `loss` must return a scalar tensor and a state "
            "(`return value, None` where nothing is carried), got "
            f"{type(result).__name__}"
        )
    value, state = result
    try:
        return value, None if state is None else detach_state(state)
    except TypeError as error:
        raise TypeError(
            "fit: the state that `loss` returns must be a tensor, a NamedTuple of "
            "tensors or a tuple of states, got "
            f"{type(state).__name__}; {error}"
        ) from error


def set_rate(optimizer: Optimizer, rate: Any, made: int) -> None:
    r"""Give every group the rate that a function returned after so many updates.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative or not finite.
    """
    scalar = isinstance(rate, Tensor) and rate.dim() == 0
    if isinstance(rate, bool) or not (scalar or isinstance(rate, Real)):
        raise TypeError(
            "fit: `scheduler` must return a learning rate, a number, got "
            f"{type(rate).__name__} after {made} updates"
        )
    rate = float(rate)
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(
            "fit: `scheduler` must return a learning rate of at least 0, got "
            f"{rate} after {made} updates"
        )
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
