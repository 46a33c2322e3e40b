r"""Training: loops, checkpoints and the command that runs them."""

from seqref.training.checkpoint import (
    Checkpoints,
    load_checkpoint,
    load_language_model,
    save_checkpoint,
    save_language_model,
)
from seqref.training.loop import NonFiniteLossError, Step, fit, seed_all
from seqref.training.truncated import Documents, chunk_loss, evaluate, train

__all__ = [
    "Checkpoints",
    "Documents",
    "NonFiniteLossError",
    "Step",
    "chunk_loss",
    "evaluate",
    "fit",
    "load_checkpoint",
    "load_language_model",
    "save_checkpoint",
    "save_language_model",
    "seed_all",
    "train",
]
