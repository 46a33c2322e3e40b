r"""The modules of torch whose training steps are timed, at one size."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.lab.seeding import generator, seeded
from experiments.speed._padding_packing import lengths_of, packed_output
from experiments.speed._timing import Run, Size, training

# Width of one attention head, where the layer is at least as wide.
HEAD = 64


class CausalLayer(nn.Module):
    r"""`torch.nn.TransformerEncoderLayer` that looks back only, without dropout."""

    def __init__(self, width: int, feed_forward: int) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            width,
            max(1, width // HEAD),
            feed_forward,
            dropout=0.0,
            batch_first=True,
            norm_first=True,
        )

    def forward(
        self, x: Float[Tensor, "batch time width"], mask: Float[Tensor, "time time"]
    ) -> Float[Tensor, "batch time width"]:
        return self.layer(x, src_mask=mask, is_causal=True)


def modules(width: int, seed: int) -> dict[str, nn.Module]:
    r"""All of one width: input, state or model width, and output.

    The feed-forward part of a Transformer layer is usually four times as wide; with
    twice it has as many parameters as the LSTM, but for the smallest terms.
    """
    with seeded(seed):
        return {
            "lstm": nn.LSTM(width, width, batch_first=True),
            "gru": nn.GRU(width, width, batch_first=True),
            "transformer": CausalLayer(width, 4 * width),
            "transformer_equal": CausalLayer(width, 2 * width),
        }


def parameters(width: int) -> dict[str, int]:
    """Number of parameters of each."""
    with torch.device("meta"):
        made = modules(width, 0)
    return {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in made.items()
    }


def multiply_adds(steps: int, width: int) -> dict[str, int]:
    r"""Multiply-adds of the matrix products for one row, forward, without a mask."""
    weights = steps * width * width
    return {"lstm": 8 * weights, "transformer": 12 * weights + 2 * steps**2 * width}


def contestants(
    size: Size, share: float, seed: int, device: str, names: tuple[str, ...]
) -> dict[str, Run]:
    r"""A training step of the padded LSTM, of it again, and of each of `names`.

    A batch of one row has no padding, and there is nothing to pack.
    """
    batch, steps, width = size
    made: Mapping[str, nn.Module] = modules(width, seed)
    x = torch.randn(batch, steps, width, generator=generator(seed))
    x = x.to(device).requires_grad_()
    mask = nn.Transformer.generate_square_subsequent_mask(
        steps, device=torch.device(device)
    )
    lengths = lengths_of(share, batch, steps)
    lstm = made["lstm"].to(device)
    padded = training(lambda: lstm(x)[0], [x, *lstm.parameters()])
    found: dict[str, Run] = {"padded": padded, "again": padded}
    for name in names:
        if name == "packed":
            if batch > 1:
                forward = lambda: packed_output(lstm, x, lengths)  # noqa: E731
                found[name] = training(forward, [x, *lstm.parameters()])
            continue
        module = made[name].to(device)
        if name == "gru":
            forward = lambda module=module: module(x)[0]  # noqa: E731
        else:
            forward = lambda module=module: module(x, mask)  # noqa: E731
        found[name] = training(forward, [x, *module.parameters()])
    return found
