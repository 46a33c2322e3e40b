r"""The layers of a language model in a file: made of sizes, and read back as them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import nn

from seqref import recurrent, ssm
from seqref.attention import MultiHeadAttention, Rotary
from seqref.models import FeedForward, PreNormBlock, Transformer

# No part of what a layer computes.
PLACE = ("device", "dtype")
N_BLOCKS = 2
# As narrow as a head gets before there are fewer of them.
D_HEAD = 32


@dataclass(frozen=True)
class Kind:
    r"""A kind of layer by its sizes.

    `make` builds one from keyword arguments, `read` gives those of one that was built,
    and `choose` those of a run, from the width of its input, of the layer, and the
    steps that it learns from at once.
    """

    make: Callable[..., nn.Module]
    read: Callable[[Any], dict[str, Any]]
    choose: Callable[[int, int, int], dict[str, Any]]


@dataclass(frozen=True)
class OfSizes:
    r"""A layer whose sizes are the arguments of its constructor.

    `more` has those besides the widths, from the width of the layer.
    """

    layer: Callable[..., nn.Module]
    more: Mapping[str, Callable[[int], Any]] = field(default_factory=dict)

    def kind(self) -> Kind:
        return Kind(self.layer, self.read, self.choose)

    def read(self, layer: Any) -> dict[str, Any]:
        names = [n for n in inspect.signature(self.layer).parameters if n not in PLACE]
        return {
            name: getattr(layer, name, None)
            if hasattr(layer, name)
            else getattr(layer.cell, name)
            for name in names
        }

    def choose(self, width: int, hidden: int, horizon: int) -> dict[str, Any]:
        more = {name: value(hidden) for name, value in self.more.items()}
        if "d_model" in inspect.signature(self.layer).parameters:
            return {"d_model": hidden, **more}
        return {"input_size": width, "hidden_size": hidden, **more}


def make_transformer(
    d_model: int, n_heads: int, n_layers: int, window: int, device: Any = None
) -> Transformer:
    r"""Pre-norm blocks, rotary positions, and a window as long as what is learned.

    Without the window a sample would go beyond all distances that were seen.
    """

    def block() -> nn.Module:
        rotary = Rotary(d_model // n_heads)
        options: Any = {"window": window, "positions": rotary, "device": device}
        attention = MultiHeadAttention(d_model, n_heads, **options)
        network = FeedForward(d_model, 4 * d_model, F.gelu, device=device)
        return PreNormBlock(attention, network)

    blocks = [block() for _ in range(n_layers)]
    return Transformer(blocks, last_norm=nn.LayerNorm(d_model, device=device))


def read_transformer(layer: Any) -> dict[str, Any]:
    r"""The sizes of such a stack; of another some that do not give it again."""
    attention = getattr(layer.layers[0], "attention", None)
    return {
        "d_model": layer.input_size,
        "n_heads": getattr(attention, "n_heads", 1),
        "n_layers": len(layer.layers),
        "window": getattr(attention, "window", None) or 1,
    }


def choose_transformer(width: int, hidden: int, horizon: int) -> dict[str, Any]:
    r"""As many heads as are wide enough.

    Raises:
        ValueError: the width is odd, and a rotation needs pairs.
    """
    if hidden % 2:
        raise ValueError(
            "train-lm: `--hidden-size` must be even with --layer Transformer, got "
            f"{hidden}"
        )
    fitting = [n for n in (8, 4, 2) if hidden % (2 * n) == 0 and hidden >= n * D_HEAD]
    return {
        "d_model": hidden,
        "n_heads": max(fitting, default=1),
        "n_layers": N_BLOCKS,
        "window": horizon,
    }


def _found(name: str) -> Any:
    return getattr(recurrent if hasattr(recurrent, name) else ssm, name)


def _plain(name: str, **more: Callable[[int], Any]) -> tuple[str, Kind]:
    return name, OfSizes(_found(name), more).kind()


KINDS = dict(
    [
        _plain("LSTM"),
        _plain("GRU"),
        _plain("ChoGRU"),
        _plain("RNN"),
        _plain("IndRNN"),
        _plain("MinGRU"),
        _plain("MinLSTM"),
        _plain("LSTM1997"),
        _plain("PeepholeLSTM"),
        _plain("CoupledGateLSTM"),
        _plain("LayerNormLSTM"),
        _plain("ProjectedLSTM", proj_size=lambda hidden: max(1, hidden // 2)),
        _plain("ZoneoutLSTM", zoneout_c=lambda _: 0.1, zoneout_h=lambda _: 0.05),
        _plain("VariationalLSTM", dropout_x=lambda _: 0.1, dropout_h=lambda _: 0.1),
        _plain("LRU", d_state=lambda hidden: hidden),
        _plain("Mamba"),
        ("Transformer", Kind(make_transformer, read_transformer, choose_transformer)),
    ]
)


def layer_for(name: str, width: int, hidden: int, horizon: int) -> nn.Module:
    r"""The layer of a run."""
    kind = KINDS[name]
    return kind.make(**kind.choose(width, hidden, horizon))


def name_of(layer: nn.Module) -> str | None:
    r"""The name of a layer's kind; None where it is none of these."""
    name = type(layer).__name__
    if name not in KINDS:
        return None
    known = Transformer if name == "Transformer" else _found(name)
    return name if type(layer) is known else None


def made_again(name: str, sizes: Mapping[str, Any]) -> nn.Module:
    r"""The layer of these sizes, without numbers.

    Raises:
        KeyError: there is no such kind.
    """
    return KINDS[name].make(**sizes, device="meta")
