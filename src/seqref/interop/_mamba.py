r"""Mamba of `transformers`: its parts here, and where its weights go."""

from typing import Any

from torch import nn

from seqref.interop._configs import head_of, require, take_head
from seqref.interop._taking import Taking, Weights
from seqref.models import ResidualBlock, Transformer, TransformerLM
from seqref.ssm import Mamba


def mamba(where: str, config: Any) -> TransformerLM:
    # Its convolution and its gate have one activation.
    require(where, config, hidden_act="silu")
    width, eps = config.hidden_size, config.layer_norm_epsilon

    def norm(width: int) -> nn.Module:
        return nn.RMSNorm(width, eps=eps)

    blocks = [
        ResidualBlock(
            Mamba(
                width,
                config.state_size,
                config.conv_kernel,
                config.expand,
                config.time_step_rank,
                bias=config.use_bias,
                conv_bias=config.use_conv_bias,
            ),
            norm=norm,
        )
        for _ in range(config.num_hidden_layers)
    ]
    layer = Transformer(blocks, last_norm=norm(width))
    return TransformerLM(config.vocab_size, layer, head=head_of(config, width))


def from_mamba(config: Any, tensors: Weights) -> Weights:
    taking = Taking(tensors)
    taking.ours["embedding.weight"] = taking.take("backbone.embeddings.weight")
    for i in range(config.num_hidden_layers):
        theirs, ours = f"backbone.layers.{i}", f"layer.layers.{i}"
        taking.both(f"{theirs}.norm", f"{ours}.norm", bias=False)
        # The names within a layer are those of the authors' code, there and here.
        for name in ("A_log", "D"):
            taking.ours[f"{ours}.layer.{name}"] = taking.take(f"{theirs}.mixer.{name}")
        biases = {
            "in_proj": config.use_bias,
            "conv1d": config.use_conv_bias,
            "x_proj": False,
            "dt_proj": True,
            "out_proj": config.use_bias,
        }
        for name, bias in biases.items():
            taking.both(f"{theirs}.mixer.{name}", f"{ours}.layer.{name}", bias=bias)
    taking.both("backbone.norm_f", "layer.last_norm", bias=False)
    take_head(taking, config)
    return taking.done()
