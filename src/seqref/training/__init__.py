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
from seqref.training.truncated import Documents, chunk_loss, evaluate, train

__all__ = [
    "Checkpoints",
    "Documents",
    "NonFiniteLossError",
    "Pronounced",
    "Pronouncer",
    "Step",
    "build_pronouncer",
    "chunk_loss",
    "evaluate",
    "fit",
    "load_checkpoint",
    "load_language_model",
    "load_pronouncer",
    "pronunciation_loss",
    "save_checkpoint",
    "save_language_model",
    "save_pronouncer",
    "seed_all",
    "train",
]
