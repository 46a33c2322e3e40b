r"""What a config of `transformers` asks for, and the head that all its models have."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from seqref.interop._taking import Taking
from seqref.models import gelu_tanh

_ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
}


def require(where: str, config: Any, **wanted: Any) -> None:
    for name, value in wanted.items():
        got = getattr(config, name, value)
        if got != value:
            raise ValueError(
                f"{where}: `config.{name}` must be {value!r}, got {got!r}, which the "
                "model here has no part for"
            )


def activation_of(where: str, name: object) -> Callable[[Tensor], Tensor]:
    if name not in _ACTIVATIONS:
        raise ValueError(
            f"{where}: the activation must be one of {', '.join(_ACTIVATIONS)}, got "
            f"{name!r}"
        )
    return _ACTIVATIONS[name]  # pyright: ignore[reportArgumentType]


def head_of(config: Any, width: int) -> nn.Module | None:
    if config.tie_word_embeddings:
        return None
    return nn.Linear(width, config.vocab_size, bias=False)


def take_head(taking: Taking, config: Any) -> None:
    if not config.tie_word_embeddings:
        taking.ours["head.weight"] = taking.take("lm_head.weight")
    else:
        # A state dict shows one matrix by two names, a list of parameters by one.
        taking.tied("lm_head.weight", taking.ours["embedding.weight"])
