r"""Tensors of a checkpoint, each taken once and put in its place."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]
# A weight (out, in) and its bias, where there is one.
Part = tuple[Tensor, Any]


class Taking:
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

    def attention(self, ours: str, parts: Sequence[Part], *, packed: bool) -> None:
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

    def linear(self, name: str, bias: bool = True) -> Part:
        weight = self.take(f"{name}.weight")
        return weight, self.take(f"{name}.bias") if bias else None

    def tied(self, name: str, other: Tensor) -> None:
        r"""A second name of a tensor that was taken; an error if it is another one."""
        given = self.left.pop(name, None)
        if given is not None and not torch.equal(given, other):
            raise ValueError(
                f"from_transformers: `{name}` must be the tensor that it is tied to by "
                "the config, got other numbers"
            )

    def done(self) -> Weights:
        if self.left:
            raise ValueError(
                "from_transformers: the model has tensors without a place here: "
                f"{', '.join(self.left)}"
            )
        return self.ours
