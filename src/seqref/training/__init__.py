r"""Training: loops, checkpoints and the command that runs them."""

from seqref.training.checkpoint import (
    Checkpoints,
    load_checkpoint,
    load_language_model,
    save_checkpoint,
    save_language_model,
)
from seqref.training.loop import NonFiniteLossError, Step, fit, seed_all
from seqref.training.teacher_forcing import (
    ScheduledRun,
    ShiftedTarget,
    exponential_schedule,
    inverse_sigmoid_schedule,
    linear_schedule,
    scheduled_sampling,
    shift_target,
    target_loss,
)
from seqref.training.truncated import Documents, chunk_loss, evaluate, train

__all__ = [
    "Checkpoints",
    "Documents",
    "NonFiniteLossError",
    "ScheduledRun",
    "ShiftedTarget",
    "Step",
    "chunk_loss",
    "evaluate",
    "exponential_schedule",
    "fit",
    "inverse_sigmoid_schedule",
    "linear_schedule",
    "load_checkpoint",
    "load_language_model",
    "save_checkpoint",
    "save_language_model",
    "scheduled_sampling",
    "seed_all",
    "shift_target",
    "target_loss",
    "train",
]
