r"""What a model adds to a layer is made where the layer is, in its dtype."""

from typing import Any

from torch import nn


def made_like(layer: nn.Module) -> dict[str, Any]:
    r"""Device and dtype of the layer's first parameter; nothing if it has none."""
    first = next(layer.parameters(), None)
    return {} if first is None else {"device": first.device, "dtype": first.dtype}
