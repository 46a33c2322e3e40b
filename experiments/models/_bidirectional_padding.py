r"""What a bidirectional layer of torch.nn returns for a padded batch, and should."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import median
from seqref import GRU, LSTM, RNN, Bidirectional

KINDS = {"rnn": (nn.RNN, RNN), "gru": (nn.GRU, GRU), "lstm": (nn.LSTM, LSTM)}
# What is compared with the packed run's final state, the direction first.
WAYS = (
    "forward_final",
    "forward_gathered",
    "backward_final",
    "backward_gathered",
    "backward_lengths",
)


def build(kind: str, width: int, forget_bias: float, seed: int) -> nn.RNNBase:
    """A bidirectional layer of torch.nn as it comes, `forget_bias` added (LSTM)."""
    with seeded(seed):
        layer = KINDS[kind][0](
            width, width, batch_first=True, bidirectional=True, dtype=torch.float64
        )
    if kind == "lstm":
        parameters = dict(layer.named_parameters())
        with torch.no_grad():
            for end in ("l0", "l0_reverse"):
                parameters[f"bias_ih_{end}"][width : 2 * width].add_(forget_bias)
    return layer


def ours(kind: str, layer: nn.RNNBase) -> Bidirectional:
    """The same weights in `Bidirectional`."""
    make = KINDS[kind][1]
    sizes = (layer.input_size, layer.hidden_size)
    twin = Bidirectional(*(make(*sizes, dtype=torch.float64) for _ in range(2)))
    weights = layer.state_dict()
    sides = {"_l0": twin.forward_layer, "_l0_reverse": twin.backward_layer}
    for end, side in sides.items():
        own = {
            name.removesuffix(end): value
            for name, value in weights.items()
            if name.endswith(end)
        }
        side.cell.load_state_dict(own)
    return twin


@torch.no_grad()
def final_states(
    kind: str, layer: nn.RNNBase, x: Float[Tensor, "batch time input"], lengths: Tensor
) -> dict[str, Float[Tensor, "batch hidden"]]:
    """The final states of the packed run, and what stands for them elsewhere."""
    width, rows = layer.hidden_size, torch.arange(len(x))
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y_packed, right = layer(packed)
    y_packed, _ = pad_packed_sequence(y_packed, batch_first=True)
    y, wrong = layer(x)
    if kind == "lstm":
        right, wrong = right[0], wrong[0]
    _, state = ours(kind, layer)(x, lengths=lengths)
    last = lengths - 1
    return {
        "forward": right[0],
        "backward": right[1],
        "forward_final": wrong[0],
        "forward_gathered": y[rows, last, :width],
        "backward_final": wrong[1],
        # Not the fault of the padding: the packed outputs are right.
        "backward_gathered": y_packed[rows, last, width:],
        "backward_lengths": state.backward.h,
    }


def errors(
    kind: str, forget_bias: float, config: Any, seed: int
) -> dict[str, list[float]]:
    r"""By way and length: the norm of the error over the norm of the right state."""
    width, lengths = config.padding_width, config.lengths
    layer = build(kind, width, forget_bias, seed)
    given = torch.tensor(lengths).repeat_interleave(config.padding_rows)
    size = (len(given), config.padded_to, width)
    x = torch.randn(size, generator=generator(seed + 1000), dtype=torch.float64)
    real = torch.arange(config.padded_to) < given[:, None]
    x = x.masked_fill(~real[..., None], 0.0)
    found = final_states(kind, layer, x, given)
    result = {}
    for way in WAYS:
        right = found[way.partition("_")[0]]
        relative = (found[way] - right).norm(dim=1) / right.norm(dim=1)
        result[way] = relative.view(len(lengths), -1).median(dim=1).values.tolist()
    return result


def over_seeds(kind: str, forget_bias: float, config: Any) -> dict[str, list[float]]:
    """Medians over seeds, by way and length."""
    found = [errors(kind, forget_bias, config, seed) for seed in config.seeds]
    return {way: _medians([each[way] for each in found]) for way in WAYS}


def _medians(rows: Sequence[Sequence[float]]) -> list[float]:
    return [median(values) for values in zip(*rows, strict=True)]


def case_of(found: Mapping[str, Sequence[float]], way: str) -> dict[str, float]:
    """The largest error over all lengths."""
    return {"error": max(found[way])}
