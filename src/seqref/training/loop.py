r"""The training loop: clipping, schedules, and runs that survive being killed."""

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from seqref.errors import check_size
from seqref.training import _generators
from seqref.training._arguments import (
    check_arguments,
    check_batches,
    check_result,
    set_rate,
)
from seqref.training._bar import Bar
from seqref.training._nonfinite import rates, why_gradient, why_loss
from seqref.training._run import Moment, Run, settings_of
from seqref.training._stream import Place, stream
from seqref.training.checkpoint import Checkpoints

Loss = Callable[[Any, Any, Any], tuple[Tensor, Any]]
Schedule = LRScheduler | Callable[[int], float]


@dataclass(frozen=True)
class Step:
    r"""What one step of training reports.

    `loss` is that before the step's update; `grad_norm` is the norm of the gradients
    of all that the optimizer updates, together, before clipping; `items` were learned
    from so far, as `count` counts them. `characters` is another name for `items`, for
    text.
    """

    number: int
    loss: float
    grad_norm: float
    items: int

    @property
    def characters(self) -> int:
        r"""`items`, where these are characters."""
        return self.items


class NonFiniteLossError(ArithmeticError):
    r"""Loss, gradient or parameters became infinite or NaN; training stopped there.

    Args:
        message: What is not finite, and where to look.
        step: Number of the step that was not finished.
        loss: The loss of that step.
        grad_norm: The gradient's norm, or None where the loss stopped it earlier.
    """

    def __init__(
        self, message: str, step: int, loss: float, grad_norm: float | None = None
    ):
        super().__init__(message)
        self.step = step
        self.loss = loss
        self.grad_norm = grad_norm


def seed_all(seed: int) -> None:
    r"""Seed the global generators of Python, NumPy and torch, on the CPU and on CUDA.

    These are `random`, `numpy.random` (its old global interface) and
    `torch.manual_seed`. Objects of `numpy.random.default_rng` and `torch.Generator`
    have seeds of their own.

    Args:
        seed: From 0 to 2^32 - 1, which is what NumPy takes.

    Raises:
        TypeError: `seed` is no int.
        ValueError: `seed` is out of range.

    Source:
        None: calls of the three libraries.
    """
    check_size("seed_all", "seed", seed, minimum=0)
    if seed >= 2**32:
        raise ValueError(f"seed_all: `seed` must be below 2^32, got {seed}")
    _generators.seed(seed)


def fit(
    model: nn.Module,
    batches: Iterable[Any],
    optimizer: Optimizer,
    steps: int,
    loss: Loss,
    *,
    max_norm: float | None = 1.0,
    scheduler: Schedule | None = None,
    seed: int | None = None,
    count: Callable[[Any], int] | None = None,
    checkpoints: Checkpoints | None = None,
    on_step: Callable[[Step], Any] | None = None,
    progress: bool | Callable[[Step], str] = False,
) -> Step | None:
    r"""Train for `steps` batches, from the first or from where a run was stopped.

    A step takes one batch: loss, `zero_grad`, `backward`, the gradient's norm,
    clipping, the optimizer's update, the scheduler, `on_step`, a checkpoint. A state
    that `loss` returns is detached and handed to the next batch of the same pass.

    With `checkpoints`, a run that is killed and resumed gives the same numbers as one
    that was not, bit for bit, on one machine with one number of threads and
    deterministic operations. A file holds parameters and persistent buffers, the
    states of optimizer and scheduler, of the generators that `seed_all` seeds (CUDA's
    where it is in use), and of `Checkpoints.stateful`, the place in `batches`, the
    carried state, and the last `Step`.

    Args:
        model: Trained in place; `model.train()` is called once.
        batches: Read again from the start in each pass. Given the same states of the
            generators (the global ones and those of `Checkpoints.stateful`), it must
            give the same batches. One that draws its order between batches needs a
            generator of its own there: from torch's global one, dropout draws too. A
            `DataLoader` with `persistent_workers` does not: with `checkpoints` it is
            refused.
        optimizer: Over the model's parameters, or some of them. With `checkpoints` over
            these alone. Its step must need no closure.
        steps: Number of updates, those before resuming included.
        loss: Called as `loss(model, batch, state)`, returns the loss, a scalar, and
            the state for the next batch, or None for none. `state` is None at the
            start of each pass.
        max_norm: Gradients are scaled down to this norm, all together; None leaves
            them.
        scheduler: A scheduler of torch over `optimizer`, stepped once after each
            update; or a function from the number of updates made to the learning rate
            of all groups.
        seed: Given to `seed_all` before the first step. The weights were drawn
            before, so seed them before you build the model.
        count: Number of items in a batch, for `Step.items`.
        checkpoints: Where to keep the run; None keeps nothing.
        on_step: Called after each update; training ends where it returns True (or
            NumPy's, or a tensor that holds one bool). Any other value, such as the
            number that a file's `write` returns, is ignored. It may be called again
            for a step that was made after the last checkpoint.
        progress: Whether to show a bar on standard error (needs tqdm); a function
            from a `Step` gives the text beside the bar. Where standard error is
            closed, full or lost, training goes on without the bar.

    Shapes:
        - returns: the last `Step`, or None where there was none

    Raises:
        NonFiniteLossError: the loss or the gradient's norm is not finite; the
            parameters are then those before that step. Or a checkpoint is due and a
            parameter is not finite: no file is written.
        TypeError: `loss` does not return a pair of a scalar and a state, `scheduler`
            no number, or the optimizer's step needs a closure.
        ValueError: an argument is out of range, `optimizer` holds no parameter of
            `model`, `scheduler` is of another optimizer, a pass has no batch, or the
            file to resume from is torn, foreign or of another run; nothing is changed
            then.
        RuntimeError: an extra is not installed.

    Source:
        None: the common loop.
    """
    check_arguments(model, optimizer, steps, max_norm, scheduler)
    if checkpoints is not None:
        check_batches(batches)
    loop = _Loop(model, optimizer, loss, max_norm, scheduler, count)
    if checkpoints is not None:
        facts = (model, batches, optimizer, scheduler, max_norm, seed, checkpoints)
        settings = settings_of(*facts)
        loop.run = Run(checkpoints, model, optimizer, scheduler, settings)
    with loop.run.lock() if loop.run else nullcontext() as lock:
        loop.begin(steps, seed, locked=lock is not None and lock.held)
        if loop.made == steps:
            return loop.last
        model.train()
        text = progress if callable(progress) else _loss_text
        with Bar(steps, loop.made, "step", shown=progress is not False) as bar:
            own = loop.run.own if loop.run else None
            for first, batch in stream(batches, loop.place, own):
                last = loop.step(first, batch)
                bar.update(1, lambda last=last: text(last))
                asked = None if on_step is None else on_step(last)
                ended = _is_true(asked) or last.number == steps
                loop.keep(ended)
                if ended:
                    break
    return loop.last


@dataclass
class _Loop:
    r"""What a step needs, and where the run stands."""

    model: nn.Module
    optimizer: Optimizer
    loss: Loss
    max_norm: float | None
    scheduler: Schedule | None
    count: Callable[[Any], int] | None
    place: Place = field(default_factory=Place)
    state: Any = None
    last: Step | None = None
    run: Run | None = None

    @property
    def made(self) -> int:
        return self.last.number if self.last else 0

    def begin(self, steps: int, seed: int | None, locked: bool) -> None:
        moment = self.run.begin(steps, locked) if self.run else None
        if moment is None:
            if seed is not None:
                seed_all(seed)
            self.keep(ended=True)
            return
        self.place, self.state = moment.place, moment.state
        self.last = Step(**moment.step) if moment.step else None

    def step(self, first: bool, batch: Any) -> Step:
        state = None if first else self.state
        # Detached: else the next backward would walk into a graph that is gone.
        value, state = check_result(self.loss(self.model, batch, state))
        number, loss = self.made + 1, value.item()
        grad_norm = self._backward(batch, value, number, loss)
        self._update(number)
        self.state = state
        items = self.last.items if self.last else 0
        items += 0 if self.count is None else self.count(batch)
        self.last = Step(number, loss, grad_norm, items)
        return self.last

    def keep(self, ended: bool) -> None:
        if self.run is None or not (
            ended or self.made % self.run.checkpoints.every == 0
        ):
            return
        named = self.model.named_parameters()
        wrong = [name for name, p in named if not p.isfinite().all()]
        if wrong:
            raise NonFiniteLossError(
                f"the parameter `{wrong[0]}` is not finite after step {self.made}; no "
                "checkpoint was written, the one before is kept",
                self.made,
                self.last.loss if self.last else math.nan,
                self.last.grad_norm if self.last else None,
            )
        step = asdict(self.last) if self.last else None
        self.run.save(Moment(step, self.place, self.state))

    def _backward(self, batch: Any, value: Tensor, number: int, loss: float) -> float:
        r"""Gradients of the loss, clipped; their norm before that."""
        clip = "off" if self.max_norm is None else f"{self.max_norm:g}"
        look = f"learning rate {rates(self.optimizer)}, `max_norm` {clip}"
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss is {loss} at step {number}, before its update: "
                f"{why_loss(self.model, batch)}; {look}",
                number,
                loss,
            )
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        # Not the model's: what the optimizer does not hold gets gradients too, which
        # nothing clears, and which have no part in the update.
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        total = _total_norm(parameters)
        grad_norm = total.item()
        if not math.isfinite(grad_norm):
            raise NonFiniteLossError(
                f"the gradient norm is {grad_norm} at step {number}, before its "
                f"update, the loss {loss:g}: {why_gradient(self.model)}; {look}",
                number,
                loss,
                grad_norm,
            )
        if self.max_norm is not None:
            clip_grads_with_norm_(parameters, self.max_norm, total)
        return grad_norm

    def _update(self, number: int) -> None:
        scheduler = self.scheduler
        if scheduler is not None and not isinstance(scheduler, LRScheduler):
            set_rate(self.optimizer, scheduler(number - 1), number - 1)
        self.optimizer.step()
        if isinstance(scheduler, LRScheduler):
            scheduler.step()


def _total_norm(parameters: list[Tensor]) -> Tensor:
    grads = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            # An index may stand there twice: only the sum of its values is a gradient.
            parameter.grad = parameter.grad.coalesce()
            grads.append(parameter.grad.values())
        elif parameter.grad is not None:
            grads.append(parameter.grad)
    return get_total_norm(grads)


def _loss_text(step: Step) -> str:
    return f"loss={step.loss:.4f}"


def _is_true(value: Any) -> bool:
    r"""Whether `on_step` asks to stop: True itself, NumPy's, or that of a tensor."""
    if isinstance(value, Tensor) and value.dtype == torch.bool and value.numel() == 1:
        return bool(value)
    return isinstance(value, bool | numpy.bool_) and bool(value)
