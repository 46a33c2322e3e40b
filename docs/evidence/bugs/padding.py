r"""Specimens that let padding count."""

# --8<-- [start:names]
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Tokens = Int[Tensor, "batch time"]
Lengths = Int[Tensor, " batch"]
# --8<-- [end:names]


# --8<-- [start:encoder]
class Encoder(nn.Module):
    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True)

    def forward(
        self, tokens: Tokens, lengths: Lengths
    ) -> Float[Tensor, "batch hidden"]:
        _, h = self.gru(self.embedding(tokens))
        return h[-1]


# --8<-- [end:encoder]


# --8<-- [start:packed_encoder]
class PackedEncoder(Encoder):
    def forward(
        self, tokens: Tokens, lengths: Lengths
    ) -> Float[Tensor, "batch hidden"]:
        packed = pack_padded_sequence(
            self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        _, h = self.gru(packed)
        return h[-1]


# --8<-- [end:packed_encoder]


# --8<-- [start:last_column]
class LastColumn(Encoder):
    def forward(
        self, tokens: Tokens, lengths: Lengths
    ) -> Float[Tensor, "batch hidden"]:
        packed = pack_padded_sequence(
            self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        y, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        return y[:, -1]


# --8<-- [end:last_column]


# --8<-- [start:last_step]
class LastStep(Encoder):
    def forward(
        self, tokens: Tokens, lengths: Lengths
    ) -> Float[Tensor, "batch hidden"]:
        packed = pack_padded_sequence(
            self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        y, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        return y[torch.arange(len(y)), lengths - 1]


# --8<-- [end:last_step]


# --8<-- [start:loss]
class LossModel(nn.Module):
    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, vocab_size)

    def forward(self, tokens: Tokens, lengths: Lengths) -> Float[Tensor, ""]:
        y, _ = self.gru(self.embedding(tokens[:, :-1]))
        return cross_entropy(self.head(y).transpose(1, 2), tokens[:, 1:])


# --8<-- [end:loss]


# --8<-- [start:masked_loss]
class LossOfReal(LossModel):
    def forward(self, tokens: Tokens, lengths: Lengths) -> Float[Tensor, ""]:
        y, _ = self.gru(self.embedding(tokens[:, :-1]))
        beyond = torch.arange(1, tokens.shape[1]) >= lengths[:, None]
        labels = tokens[:, 1:].masked_fill(beyond, -100)
        return cross_entropy(self.head(y).transpose(1, 2), labels, ignore_index=-100)


# --8<-- [end:masked_loss]
