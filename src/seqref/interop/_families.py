r"""Models of `transformers`: their parts here, and where their weights go."""

from typing import Any

from torch import nn

from seqref.attention import (
    CrossAttention,
    LearnedPositions,
    MultiHeadAttention,
    Rotary,
)
from seqref.interop._configs import activation_of, head_of, require, take_head
from seqref.interop._mamba import from_mamba, mamba
from seqref.interop._taking import Taking, Weights
from seqref.models import (
    AddPositions,
    FeedForward,
    GatedFeedForward,
    MaskedLM,
    PostNormBlock,
    PreNormBlock,
    Transformer,
    TransformerLM,
    TwoWayAttention,
)


def _gpt2(where: str, config: Any) -> TransformerLM:
    require(
        where,
        config,
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
        reorder_and_upcast_attn=False,
        is_causal=True,
    )
    width, eps = config.n_embd, config.layer_norm_epsilon
    activation = activation_of(where, config.activation_function)

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
    return TransformerLM(config.vocab_size, layer, head=head_of(config, width))


def _from_gpt2(config: Any, tensors: Weights) -> Weights:
    taking = Taking(tensors)
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
    take_head(taking, config)
    return taking.done()


def _llama(where: str, config: Any) -> TransformerLM:
    require(where, config, pretraining_tp=1, is_causal=True)
    rope = dict(config.rope_parameters)
    if rope.get("rope_type", "default") != "default":
        raise ValueError(
            f"{where}: `config.rope_parameters` must be of rope_type 'default', got "
            f"{rope['rope_type']!r}, which the model here has no part for"
        )
    width, eps = config.hidden_size, config.rms_norm_eps
    head = config.head_dim or width // config.num_attention_heads
    activation = activation_of(where, config.hidden_act)

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
    return TransformerLM(config.vocab_size, layer, head=head_of(config, width))


def _from_llama(config: Any, tensors: Weights) -> Weights:
    taking = Taking(tensors)
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
    take_head(taking, config)
    return taking.done()


def _bert(where: str, config: Any) -> MaskedLM:
    require(
        where,
        config,
        is_decoder=False,
        is_causal=False,
        add_cross_attention=False,
        tie_word_embeddings=True,
    )
    width, eps = config.hidden_size, config.layer_norm_eps
    activation = activation_of(where, config.hidden_act)

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
    taking = Taking(tensors)
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
    taking.tied(f"{head}.decoder.weight", taking.ours["embedding.weight"])
    taking.tied(f"{head}.decoder.bias", taking.ours["bias"])
    return taking.done()


# By the name of their class: what builds ours from a config, and what translates names.
READERS: dict[str, tuple[Any, Any]] = {
    "GPT2LMHeadModel": (_gpt2, _from_gpt2),
    "LlamaForCausalLM": (_llama, _from_llama),
    "MambaForCausalLM": (mamba, from_mamba),
    "BertForMaskedLM": (_bert, _from_bert),
}
