r"""Models of the library `transformers` as those of `seqref.models`.

GPT-2, Llama, Mamba and BERT are read from a model that is in memory, so that nothing is
downloaded here and the library itself is not imported: what is needed is the model's
`config` and its `state_dict`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from seqref.interop._families import READERS
from seqref.interop._grid import qualified_name
from seqref.interop._taking import Weights
from seqref.models import MaskedLM, TransformerLM


def from_transformers(model: nn.Module) -> TransformerLM | MaskedLM:
    r"""Make the model of seqref that computes what one of `transformers` computes.

    | `transformers` | here |
    | --- | --- |
    | `GPT2LMHeadModel` | `TransformerLM`: learned positions, pre-norm, tanh GELU |
    | `LlamaForCausalLM` | `TransformerLM`: rotary, RMSNorm, SwiGLU, grouped heads |
    | `MambaForCausalLM` | `TransformerLM` of `Mamba` in residual blocks, RMSNorm |
    | `BertForMaskedLM` | `MaskedLM`: learned positions, segments, post-norm |

    Parameters are copied with their dtype and device; each tensor of the model must
    have its place. Training mode is kept, dropout is not: the result has none. All
    parameters get gradients, frozen ones too.

    Args:
        model: An instance of one of the classes above.

    Raises:
        TypeError: `model` is of another class.
        ValueError: its config asks for what the model here cannot do, or its tensors do
            not fit; the message names them.

    Source:
        transformers 5.24: `modeling_gpt2`, `modeling_llama`, `modeling_mamba`,
        `modeling_bert`.
    """
    where = "from_transformers"
    kind = type(model).__name__
    if kind not in READERS or not type(model).__module__.startswith("transformers."):
        known = ", ".join(READERS)
        raise TypeError(
            f"{where}: `model` must be one of transformers' {known}, got "
            f"{qualified_name(model)}"
        )
    theirs: Any = model
    build, translate = READERS[kind]
    # Made without values, so that no random number is drawn.
    with torch.device("meta"):
        result = build(where, theirs.config)
    ours = translate(theirs.config, dict(model.state_dict()))
    _check_fit(where, result, ours)
    copies = {name: tensor.detach().clone() for name, tensor in ours.items()}
    result.load_state_dict(copies, strict=True, assign=True)
    return result.train(model.training)


def translated(model: nn.Module, tensors: Mapping[str, Tensor]) -> Weights:
    r"""Tensors by a model's names as those by the names of `from_transformers(model)`.

    For what has the shapes of the weights, such as their gradients: two models agree
    where the translated gradients of theirs are those of ours.

    Args:
        model: As `from_transformers` takes it.
        tensors: One for each name of `model.named_parameters()`.

    Raises:
        TypeError: `model` is of another class.
        ValueError: a name has no place, or one is missing.
    """
    where = "translated"
    kind = type(model).__name__
    if kind not in READERS:
        raise TypeError(
            f"{where}: `model` must be one of transformers' {', '.join(READERS)}, got "
            f"{qualified_name(model)}"
        )
    theirs: Any = model
    return READERS[kind][1](theirs.config, dict(tensors))


def _check_fit(where: str, model: nn.Module, ours: Weights) -> None:
    wanted = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    if wanted == got:
        return
    names = [n for n in wanted | got if wanted.get(n) != got.get(n)]
    told = "; ".join(f"{n}: {wanted.get(n)} here, {got.get(n)} there" for n in names)
    raise ValueError(f"{where}: tensors that do not fit: {told}")
