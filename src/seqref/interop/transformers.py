r"""Models of the library `transformers` as those of `seqref.models`, and its padding.

GPT-2, Llama and BERT are read from a model that is in memory, so that nothing is
downloaded here and the library itself is not imported: what is needed is the model's
`config` and its `state_dict`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Integer, Shaped
from torch import Tensor, nn

from seqref.attention import (
    CrossAttention,
    LearnedPositions,
    MultiHeadAttention,
    Rotary,
)
from seqref.errors import check_lengths, check_shape, check_tensor
from seqref.interop._grid import qualified_name
from seqref.models.transformer import (
    AddPositions,
    FeedForward,
    GatedFeedForward,
    MaskedLM,
    PostNormBlock,
    PreNormBlock,
    Transformer,
    TransformerLM,
    TwoWayAttention,
    gelu_tanh,
)

Weights = dict[str, Tensor]
# A weight (out, in) and its bias, where there is one.
_Part = tuple[Tensor, Any]

_ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
}


def from_transformers(model: nn.Module) -> TransformerLM | MaskedLM:
    r"""Make the model of seqref that computes what one of `transformers` computes.

    | `transformers` | here |
    | --- | --- |
    | `GPT2LMHeadModel` | `TransformerLM`: learned positions, pre-norm, tanh GELU |
    | `LlamaForCausalLM` | `TransformerLM`: rotary, RMSNorm, SwiGLU, grouped heads |
    | `BertForMaskedLM` | `MaskedLM`: learned positions, segments, post-norm |

    Parameters are copied with their dtype and device; each tensor of the model must
    have its place. Training mode is kept, dropout is not: the result has none.

    Args:
        model: An instance of one of the classes above.

    Raises:
        TypeError: `model` is of another class.
        ValueError: its config asks for what the model here cannot do, or its tensors do
            not fit; the message names them.

    Source:
        transformers 5.24: `modeling_gpt2`, `modeling_llama`, `modeling_bert`.
    """
    where = "from_transformers"
    kind = type(model).__name__
    if kind not in _READERS or not type(model).__module__.startswith("transformers."):
        known = ", ".join(_READERS)
        raise TypeError(
            f"{where}: `model` must be one of transformers' {known}, got "
            f"{qualified_name(model)}"
        )
    theirs: Any = model
    build, translate = _READERS[kind]
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
    if kind not in _READERS:
        raise TypeError(
            f"{where}: `model` must be one of transformers' {', '.join(_READERS)}, got "
            f"{qualified_name(model)}"
        )
    theirs: Any = model
    return _READERS[kind][1](theirs.config, dict(tensors))


def _check_fit(where: str, model: nn.Module, ours: Weights) -> None:
    wanted = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    if wanted == got:
        return
    names = [n for n in wanted | got if wanted.get(n) != got.get(n)]
    told = "; ".join(f"{n}: {wanted.get(n)} here, {got.get(n)} there" for n in names)
    raise ValueError(f"{where}: tensors that do not fit: {told}")


def _require(where: str, config: Any, **wanted: Any) -> None:
    for name, value in wanted.items():
        got = getattr(config, name, value)
        if got != value:
            raise ValueError(
                f"{where}: `config.{name}` must be {value!r}, got {got!r}, which the "
                "model here has no part for"
            )


def _activation(where: str, name: object) -> Callable[[Tensor], Tensor]:
    if name not in _ACTIVATIONS:
        raise ValueError(
            f"{where}: the activation must be one of {', '.join(_ACTIVATIONS)}, got "
            f"{name!r}"
        )
    return _ACTIVATIONS[name]  # pyright: ignore[reportArgumentType]


class _Taking:
    r"""Tensors by name, each to be taken once; what is left has no place."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.left = dict(tensors)
        self.ours: Weights = {}

    def take(self, name: str) -> Tensor:
        if name not in self.left:
            raise ValueError(
                f"from_transformers: the model has no tensor {name!r}, which its "
                "config asks for"
            )
        return self.left.pop(name)

    def both(self, theirs: str, ours: str, *, bias: bool = True) -> None:
        r"""A weight, and its bias where there is one."""
        for part in ("weight", "bias") if bias else ("weight",):
            self.ours[f"{ours}.{part}"] = self.take(f"{theirs}.{part}")

    def attention(self, ours: str, parts: Sequence[_Part], *, packed: bool) -> None:
        r"""Query, key, value and output, each a weight (out, in) and a bias."""
        *inner, (weight, bias) = parts
        weights = [weight for weight, _ in inner]
        if packed:
            self.ours[f"{ours}.in_proj_weight"] = torch.cat(weights)
        else:
            for letter, one in zip("qkv", weights, strict=True):
                self.ours[f"{ours}.{letter}_proj_weight"] = one
        self.ours[f"{ours}.out_proj.weight"] = weight
        if bias is not None:
            self.ours[f"{ours}.in_proj_bias"] = torch.cat([b for _, b in inner])
            self.ours[f"{ours}.out_proj.bias"] = bias

    def linear(self, name: str, bias: bool = True) -> _Part:
        weight = self.take(f"{name}.weight")
        return weight, self.take(f"{name}.bias") if bias else None

    def done(self) -> Weights:
        if self.left:
            raise ValueError(
                "from_transformers: the model has tensors without a place here: "
                f"{', '.join(self.left)}"
            )
        return self.ours


def _gpt2(where: str, config: Any) -> TransformerLM:
    _require(
        where,
        config,
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
        reorder_and_upcast_attn=False,
    )
    width, eps = config.n_embd, config.layer_norm_epsilon
    activation = _activation(where, config.activation_function)

    def norm(width: int) -> nn.Module:
        return nn.LayerNorm(width, eps=eps)

    blocks = [
        PreNormBlock(
            MultiHeadAttention(width, config.n_head),
            FeedForward(width, config.n_inner or 4 * width, activation),
            norm=norm,
        )
        for _ in range(config.n_layer)
    ]
    positions = AddPositions(LearnedPositions(config.n_positions, width))
    layer = Transformer([positions, *blocks], last_norm=norm(width))
    return TransformerLM(config.vocab_size, layer, head=_head(config, width))


def _head(config: Any, width: int) -> nn.Module | None:
    if config.tie_word_embeddings:
        return None
    return nn.Linear(width, config.vocab_size, bias=False)


def _take_head(taking: _Taking, config: Any) -> None:
    if not config.tie_word_embeddings:
        taking.ours["head.weight"] = taking.take("lm_head.weight")
    else:
        # A state dict shows one matrix by two names, a list of parameters by one.
        taking.left.pop("lm_head.weight", None)


def _from_gpt2(config: Any, tensors: Weights) -> Weights:
    taking = _Taking(tensors)
    taking.ours["embedding.weight"] = taking.take("transformer.wte.weight")
    taking.ours["layer.layers.0.positions.weight"] = taking.take(
        "transformer.wpe.weight"
    )
    for i in range(config.n_layer):
        theirs, ours = f"transformer.h.{i}", f"layer.layers.{i + 1}"
        # Conv1D keeps its weight as (in, out), and the three projections in one.
        fused = taking.take(f"{theirs}.attn.c_attn.weight").T.chunk(3)
        biases = taking.take(f"{theirs}.attn.c_attn.bias").chunk(3)
        weight, bias = taking.linear(f"{theirs}.attn.c_proj")
        parts = [*zip(fused, biases, strict=True), (weight.T, bias)]
        taking.attention(f"{ours}.attention", parts, packed=True)
        taking.both(f"{theirs}.ln_1", f"{ours}.norm_attention")
        taking.both(f"{theirs}.ln_2", f"{ours}.norm_feed_forward")
        for name, part in (("c_fc", "inward"), ("c_proj", "outward")):
            weight, bias = taking.linear(f"{theirs}.mlp.{name}")
            taking.ours[f"{ours}.feed_forward.{part}.weight"] = weight.T
            taking.ours[f"{ours}.feed_forward.{part}.bias"] = bias
    taking.both("transformer.ln_f", "layer.last_norm")
    _take_head(taking, config)
    return taking.done()


def _llama(where: str, config: Any) -> TransformerLM:
    _require(where, config, pretraining_tp=1)
    rope = dict(config.rope_parameters)
    if rope.get("rope_type", "default") != "default":
        raise ValueError(
            f"{where}: `config.rope_parameters` must be of rope_type 'default', got "
            f"{rope['rope_type']!r}, which the model here has no part for"
        )
    width, eps = config.hidden_size, config.rms_norm_eps
    head = config.head_dim or width // config.num_attention_heads
    activation = _activation(where, config.hidden_act)

    def norm(width: int) -> nn.Module:
        return nn.RMSNorm(width, eps=eps)

    blocks = [
        PreNormBlock(
            MultiHeadAttention(
                width,
                config.num_attention_heads,
                n_kv_heads=config.num_key_value_heads,
                d_head=head,
                bias=config.attention_bias,
                positions=Rotary(head, base=rope["rope_theta"], layout="half"),
            ),
            GatedFeedForward(
                width, config.intermediate_size, activation, bias=config.mlp_bias
            ),
            norm=norm,
        )
        for _ in range(config.num_hidden_layers)
    ]
    layer = Transformer(blocks, last_norm=norm(width))
    return TransformerLM(config.vocab_size, layer, head=_head(config, width))


def _from_llama(config: Any, tensors: Weights) -> Weights:
    taking = _Taking(tensors)
    taking.ours["embedding.weight"] = taking.take("model.embed_tokens.weight")
    for i in range(config.num_hidden_layers):
        theirs, ours = f"model.layers.{i}", f"layer.layers.{i}"
        parts = [
            taking.linear(f"{theirs}.self_attn.{name}_proj", config.attention_bias)
            for name in "qkvo"
        ]
        taking.attention(f"{ours}.attention", parts, packed=True)
        norms = (
            ("input_layernorm", "attention"),
            (
                "post_attention_layernorm",
                "feed_forward",
            ),
        )
        for name, part in norms:
            taking.both(f"{theirs}.{name}", f"{ours}.norm_{part}", bias=False)
        for name, part in (("gate", "gate"), ("up", "inward"), ("down", "outward")):
            taking.both(
                f"{theirs}.mlp.{name}_proj",
                f"{ours}.feed_forward.{part}",
                bias=config.mlp_bias,
            )
    taking.both("model.norm", "layer.last_norm", bias=False)
    _take_head(taking, config)
    return taking.done()


def _bert(where: str, config: Any) -> MaskedLM:
    _require(
        where,
        config,
        is_decoder=False,
        add_cross_attention=False,
        tie_word_embeddings=True,
    )
    width, eps = config.hidden_size, config.layer_norm_eps
    activation = _activation(where, config.hidden_act)

    def norm(width: int) -> nn.Module:
        return nn.LayerNorm(width, eps=eps)

    blocks = [
        PostNormBlock(
            TwoWayAttention(CrossAttention(width, config.num_attention_heads)),
            FeedForward(width, config.intermediate_size, activation),
            norm=norm,
        )
        for _ in range(config.num_hidden_layers)
    ]
    positions = LearnedPositions(config.max_position_embeddings, width)
    encoder = Transformer([AddPositions(positions, norm=norm(width)), *blocks])
    return MaskedLM(
        config.vocab_size,
        encoder,
        n_segments=config.type_vocab_size,
        activation=activation,
        norm=norm,
    )


def _from_bert(config: Any, tensors: Weights) -> Weights:
    taking = _Taking(tensors)
    embeddings, head = "bert.embeddings", "cls.predictions"
    taking.ours["embedding.weight"] = taking.take(
        f"{embeddings}.word_embeddings.weight"
    )
    taking.ours["segments.weight"] = taking.take(
        f"{embeddings}.token_type_embeddings.weight"
    )
    first = "encoder.layers.0"
    taking.ours[f"{first}.positions.weight"] = taking.take(
        f"{embeddings}.position_embeddings.weight"
    )
    taking.both(f"{embeddings}.LayerNorm", f"{first}.norm")
    for i in range(config.num_hidden_layers):
        theirs, ours = f"bert.encoder.layer.{i}", f"encoder.layers.{i + 1}"
        names = ("self.query", "self.key", "self.value", "output.dense")
        parts = [taking.linear(f"{theirs}.attention.{name}") for name in names]
        taking.attention(f"{ours}.attention.attention", parts, packed=False)
        taking.both(f"{theirs}.attention.output.LayerNorm", f"{ours}.norm_attention")
        taking.both(f"{theirs}.intermediate.dense", f"{ours}.feed_forward.inward")
        taking.both(f"{theirs}.output.dense", f"{ours}.feed_forward.outward")
        taking.both(f"{theirs}.output.LayerNorm", f"{ours}.norm_feed_forward")
    taking.both(f"{head}.transform.dense", "transform")
    taking.both(f"{head}.transform.LayerNorm", "norm")
    taking.ours["bias"] = taking.take(f"{head}.bias")
    for tied in ("weight", "bias"):
        taking.left.pop(f"{head}.decoder.{tied}", None)
    return taking.done()


_READERS: dict[str, tuple[Any, Any]] = {
    "GPT2LMHeadModel": (_gpt2, _from_gpt2),
    "LlamaForCausalLM": (_llama, _from_llama),
    "BertForMaskedLM": (_bert, _from_bert),
}


def from_left_padding(
    x: Shaped[Tensor, "batch time ..."], attention_mask: Shaped[Tensor, "batch time"]
) -> tuple[Shaped[Tensor, "batch time ..."], Integer[Tensor, " batch"]]:
    r"""Rows that are padded on the left, shifted so that the padding is on the right.

    What stood in the padding stands behind the row, unchanged.

    Args:
        x: Tokens, or anything with a step for each.
        attention_mask: 0 for padding, then 1 for what is real, in each row.

    Shapes:
        - `x`: (batch, time, ...); `attention_mask`: (batch, time), integers or bool
        - returns: as `x`, and lengths (batch,)

    Raises:
        TypeError: an argument is no tensor.
        ValueError: a wrong shape; a row of the mask is not zeros followed by ones.
    """
    where = "from_left_padding"
    check_tensor(where, "x", x)
    check_tensor(where, "attention_mask", attention_mask)
    axes = tuple(zip(("batch", "time"), x.shape[:2], strict=False))
    check_shape(where, "attention_mask", attention_mask, axes)
    lengths = attention_mask.long().sum(dim=1)
    wanted = _left_mask(lengths, x.shape[1])
    if not torch.equal(attention_mask.long(), wanted):
        row = int((attention_mask.long() != wanted).any(dim=1).nonzero()[0, 0])
        raise ValueError(
            f"{where}: each row of `attention_mask` must be zeros and then ones, got "
            f"{attention_mask[row].tolist()} in row {row}"
        )
    return _rolled(x, x.shape[1] - lengths), lengths


def to_left_padding(
    x: Shaped[Tensor, "batch time ..."], lengths: Integer[Tensor, " batch"]
) -> tuple[Shaped[Tensor, "batch time ..."], Integer[Tensor, "batch time"]]:
    r"""The way back of `from_left_padding`: padding on the left, and its mask.

    Shapes:
        - `x`: (batch, time, ...); `lengths`: (batch,)
        - returns: as `x`, and the mask (batch, time), 0 for padding and 1 for real

    Raises:
        TypeError: `x` is no tensor, `lengths` not of an integer dtype.
        ValueError: a wrong shape, or a length below 0 or above time.
    """
    where = "to_left_padding"
    check_tensor(where, "x", x)
    if x.dim() < 2:
        raise ValueError(
            f"{where}: `x` must have shape (batch, time, ...), got {tuple(x.shape)}"
        )
    check_lengths(where, lengths, *x.shape[:2])
    lengths = lengths.to(x.device, torch.int64)
    return _rolled(x, lengths), _left_mask(lengths, x.shape[1])


def _left_mask(lengths: Tensor, time: int) -> Tensor:
    steps = torch.arange(time, device=lengths.device)
    return (steps >= time - lengths[:, None]).long()


def _rolled(x: Tensor, first: Tensor) -> Tensor:
    r"""Each row begun at its own step, and what stood before it put behind."""
    batch, time = x.shape[:2]
    steps = torch.arange(time, device=x.device)
    source = (steps + first.to(x.device)[:, None]) % max(time, 1)
    return x.gather(1, source.view(batch, time, *[1] * (x.dim() - 2)).expand_as(x))
