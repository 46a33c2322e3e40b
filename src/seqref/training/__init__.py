r"""Training: loops, checkpoints and the command that runs them."""

from seqref.training._pronouncer import (
    Pronounced,
    Pronouncer,
    build_pronouncer,
    load_pronouncer,
    pronunciation_loss,
    save_pronouncer,
)
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
    "Pronounced",
    "Pronouncer",
    "ScheduledRun",
    "ShiftedTarget",
    "Step",
    "build_pronouncer",
    "chunk_loss",
    "evaluate",
    "exponential_schedule",
    "fit",
    "inverse_sigmoid_schedule",
    "linear_schedule",
    "load_checkpoint",
    "load_language_model",
    "load_pronouncer",
    "pronunciation_loss",
    "save_checkpoint",
    "save_language_model",
    "save_pronouncer",
    "scheduled_sampling",
    "seed_all",
    "shift_target",
    "target_loss",
    "train",
]
