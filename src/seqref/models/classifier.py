r"""A classifier of sequences over any recurrent layer: a summary and a linear head."""

from typing import Any

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor, nn

from seqref.errors import check_lengths, check_size, check_tensor
from seqref.models._like import made_like
from seqref.recurrence import Recurrent, output_width
from seqref.recurrent import Bidirectional, Stacked
from seqref.recurrent.variable_length import last_state


class SequenceClassifier(nn.Module):
    r"""Scores of classes from what a layer knows at the end of each row.

    $$ y_{1:n} = \text{layer}(e(x)_{1:n}) \qquad \ell = W s + b \qquad
       p(\text{class} = k \mid x) = \frac{\exp \ell_k}{\sum_j \exp \ell_j} $$

    The summary $s$ is the output at the last real step, $y_n$. Where the last layer is
    `Bidirectional`, $s = [\overrightarrow{y}_n; \overleftarrow{y}_1]$: each direction's
    output at the step it reads last.

    Args:
        layer: `seqref.LSTM`, `GRU`, `Stacked`, `Bidirectional` or any layer that takes
            `lengths` and tells its `output_size` or `hidden_size`.
        n_classes: Number of classes.
        embedding: $e$, applied to the input before the layer, such as
            `torch.nn.Embedding` for tokens; None passes the input on.

    Shapes:
        - `x`: (batch, time, input), or what `embedding` turns into that; `lengths`:
          (batch,) integers from 1 to time, the rest of each row is padding; None: every
          row has all steps
        - returns: logits (batch, classes)

    Cost:
        The layer's, plus O(D) for each class.

    Initialisation:
        Head uniform in $(-1/\sqrt{D}, 1/\sqrt{D})$, the default of `torch.nn.Linear`
        for a summary of width D, in the dtype and on the device of the layer. Layer
        and embedding keep their own.

    Raises:
        TypeError: `layer` is no layer with `initial_state` and a known width, or a
            direction of it is itself no causal layer; `embedding` is no module,
            `n_classes` no int; `lengths` is not of an integer dtype.
        ValueError: `n_classes` below 1; `x` has no time axis or no step; `embedding`
            changes the number of steps; a length is below 1 or above time.

    Source:
        The usual recipe; no paper is followed.
    """

    def __init__(
        self, layer: nn.Module, n_classes: int, embedding: nn.Module | None = None
    ) -> None:
        super().__init__()
        where = "SequenceClassifier"
        check_size(where, "n_classes", n_classes)
        if embedding is not None and not isinstance(embedding, nn.Module):
            raise TypeError(
                f"{where}: `embedding` must be a module or None, "
                f"got {type(embedding).__name__}"
            )
        width = _width(layer)
        _check_directions(layer)
        self.n_classes = n_classes
        self.embedding = embedding
        self.layer: Any = layer
        self.head = nn.Linear(width, n_classes, **made_like(layer))

    def forward(
        self,
        x: Shaped[Tensor, "batch time ..."],
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch {self.n_classes}"]:
        where = "SequenceClassifier.forward"
        check_tensor(where, "x", x)
        if x.dim() < 2 or x.shape[1] == 0:
            raise ValueError(
                f"{where}: `x` must have shape (batch, time, ...) with at least one "
                f"step, got {tuple(x.shape)}"
            )
        if lengths is not None:
            # A row without a step has nothing that it could be classified by.
            check_lengths(where, lengths, *x.shape[:2], minimum=1)
        h = x if self.embedding is None else self.embedding(x)
        if h.shape[:2] != x.shape[:2]:
            raise ValueError(
                f"{where}: `embedding` must keep batch and time, "
                f"{tuple(x.shape[:2])}, got {tuple(h.shape)}"
            )
        y, _ = self.layer(h) if lengths is None else self.layer(h, None, lengths)
        if lengths is None:
            lengths = torch.full((x.shape[0],), x.shape[1], device=x.device)
        backward_width = self.head.in_features - _width_ahead(self.layer)
        return self.head(last_state(y, lengths, backward_width))


def _width(layer: Any) -> int:
    size = output_width(layer)
    if isinstance(layer, nn.Module) and isinstance(layer, Recurrent) and size:
        return size
    raise TypeError(
        "SequenceClassifier: `layer` must be a layer with `initial_state`, `step` and "
        "`output_size` or `hidden_size`, such as seqref.LSTM, got "
        f"{type(layer).__module__}.{type(layer).__qualname__}"
    )


def _width_ahead(layer: Any) -> int:
    r"""How many output features come from a layer that reads from left to right."""
    while isinstance(layer, Stacked):
        layer = layer.layers[-1]
    if isinstance(layer, Bidirectional):
        layer = layer.forward_layer
    return _width(layer)


def _check_directions(layer: Any) -> None:
    r"""Refuse a direction that reads in both: its summary would be in between."""
    while isinstance(layer, Stacked):
        layer = layer.layers[-1]
    if not isinstance(layer, Bidirectional):
        return
    for each in (layer.forward_layer, layer.backward_layer):
        if not getattr(each, "causal", True):
            raise TypeError(
                "SequenceClassifier: `layer` must be causal in each direction, and "
                f"{type(each).__name__} within {type(layer).__name__} declares "
                "causal = False"
            )
