r"""Specimens that exchange or mix the rows of a batch."""

# --8<-- [start:names]
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

Inputs = Float[Tensor, "batch time input"]
Outputs = Float[Tensor, "batch time hidden"]
Pooled = Float[Tensor, "batch hidden"]
# --8<-- [end:names]


# --8<-- [start:sorted]
class PackingReader(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gru = nn.GRU(input_size, hidden_size, batch_first=True)

    def forward(self, x: Inputs, lengths: Int[Tensor, " batch"]) -> Pooled:
        lengths, order = lengths.sort(descending=True)
        packed = pack_padded_sequence(x[order], lengths, batch_first=True)
        _, h = self.gru(packed)
        return h[-1]


# --8<-- [end:sorted]


# --8<-- [start:put_back]
class PutBackReader(PackingReader):
    def forward(self, x: Inputs, lengths: Int[Tensor, " batch"]) -> Pooled:
        lengths, order = lengths.sort(descending=True)
        packed = pack_padded_sequence(x[order], lengths, batch_first=True)
        _, h = self.gru(packed)
        return h[-1][order.argsort()]


# --8<-- [end:put_back]


# --8<-- [start:viewed]
class Viewed(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gru = nn.GRU(input_size, hidden_size)

    def forward(self, x: Inputs) -> Outputs:
        batch, time, _ = x.shape
        y, _ = self.gru(x.view(time, batch, -1))
        return y.view(batch, time, -1)


# --8<-- [end:viewed]


# --8<-- [start:transposed]
class Transposed(Viewed):
    def forward(self, x: Inputs) -> Outputs:
        y, _ = self.gru(x.transpose(0, 1))
        return y.transpose(0, 1)


# --8<-- [end:transposed]


# --8<-- [start:pooled]
class AttentionPool(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gru = nn.GRU(input_size, hidden_size, batch_first=True)
        self.score = nn.Linear(hidden_size, 1)

    def weights(self, y: Outputs) -> Float[Tensor, "batch time 1"]:
        return self.score(y).softmax(dim=0)

    def forward(self, x: Inputs) -> Pooled:
        y, _ = self.gru(x)
        return (self.weights(y) * y).sum(dim=1)


# --8<-- [end:pooled]


# --8<-- [start:pooled_over_time]
class TimePool(AttentionPool):
    def weights(self, y: Outputs) -> Float[Tensor, "batch time 1"]:
        return torch.softmax(self.score(y), dim=1)


# --8<-- [end:pooled_over_time]
