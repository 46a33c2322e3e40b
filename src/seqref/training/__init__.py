r"""Training: loops, checkpoints and the command that runs them."""

from seqref.training.checkpoint import (
    load_checkpoint,
    load_language_model,
    save_checkpoint,
    save_language_model,
)
from seqref.training.truncated import (
    NonFiniteLossError,
    Step,
    chunk_loss,
    evaluate,
    train,
)

__all__ = [
    "NonFiniteLossError",
    "Step",
    "chunk_loss",
    "evaluate",
    "load_checkpoint",
    "load_language_model",
    "save_checkpoint",
    "save_language_model",
    "train",
]
