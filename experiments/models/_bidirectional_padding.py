r"""What a bidirectional layer of torch.nn returns for a padded batch, and should."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from experiments import lab
from seqref.interop import from_torch


def build(
    kind: Callable[..., nn.RNNBase], width: int, forget_bias: float, seed: int
) -> nn.RNNBase:
    """A bidirectional layer of torch.nn as it comes, `forget_bias` added (LSTM)."""
    options: Any = {"batch_first": True, "bidirectional": True, "dtype": torch.float64}
    with lab.seeded(seed), torch.no_grad():
        layer = kind(width, width, **options)
        if forget_bias:
            for end in ("l0", "l0_reverse"):
                layer.get_parameter(f"bias_ih_{end}").chunk(4)[1].add_(forget_bias)
    return layer


@torch.no_grad()
def final_states(
    layer: Any, x: Float[Tensor, "batch time input"], lengths: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of the packed run by direction, and what stands for them elsewhere.

    The names of these begin with the direction.
    """
    width, rows = layer.hidden_size, torch.arange(len(x))
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y_packed, right = layer(packed)
    y_packed, _ = pad_packed_sequence(y_packed, batch_first=True)
    y, wrong = layer(x)
    if isinstance(layer, nn.LSTM):
        right, wrong = right[0], wrong[0]
    _, state = from_torch(layer)(x, lengths=lengths)
    last = lengths - 1
    return {"forward": right[0], "backward": right[1]}, {
        "forward_final": wrong[0],
        "forward_gathered": y[rows, last, :width],
        "backward_final": wrong[1],
        # Not the fault of the padding: the packed outputs are right.
        "backward_gathered": y_packed[rows, last, width:],
        "backward_lengths": state.backward.h,
    }


def errors(
    kind: Callable[..., nn.RNNBase], forget_bias: float, config: Any, seed: int
) -> dict[str, list[float]]:
    r"""By way and length: the norm of the error over the norm of the right state."""
    width, lengths = config.padding_width, config.lengths
    layer = build(kind, width, forget_bias, seed)
    given = torch.tensor(lengths).repeat_interleave(config.padding_rows)
    x = lab.normal(seed + 1000, len(given), config.padded_to, width)
    real = torch.arange(config.padded_to) < given[:, None]
    packed, others = final_states(layer, x.masked_fill(~real[..., None], 0.0), given)
    by_length = {}
    for way, state in others.items():
        right = packed[way.partition("_")[0]]
        relative = (state - right).norm(dim=1) / right.norm(dim=1)
        by_length[way] = relative.view(len(lengths), -1).median(dim=1).values.tolist()
    return by_length
