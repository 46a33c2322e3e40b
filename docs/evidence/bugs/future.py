r"""Specimens that read what they are to predict."""

# --8<-- [start:names]
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

Tokens = Int[Tensor, "batch time"]
Logits = Float[Tensor, "batch time vocab"]
Pair = tuple[Float[Tensor, "batch steps vocab"], Int[Tensor, "batch steps"]]
# --8<-- [end:names]


# --8<-- [start:unshifted]
class LanguageModel(nn.Module):
    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, vocab_size)

    def forward(self, tokens: Tokens) -> Logits:
        return self.head(self.gru(self.embedding(tokens))[0])

    def predictions_and_labels(self, tokens: Tokens) -> Pair:
        return self(tokens), tokens


# --8<-- [end:unshifted]


# --8<-- [start:shifted]
class Shifted(LanguageModel):
    def predictions_and_labels(self, tokens: Tokens) -> Pair:
        return self(tokens[:, :-1]), tokens[:, 1:]


# --8<-- [end:shifted]


# --8<-- [start:two_ways]
class TwoWays(Shifted):
    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__(vocab_size, hidden_size)
        self.gru = nn.GRU(
            hidden_size, hidden_size // 2, batch_first=True, bidirectional=True
        )


# --8<-- [end:two_ways]


# --8<-- [start:same_padding]
class Convolution(Shifted):
    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__(vocab_size, hidden_size)
        self.convolution = nn.Conv1d(hidden_size, hidden_size, 3, padding=1)

    def forward(self, tokens: Tokens) -> Logits:
        x = self.embedding(tokens).transpose(1, 2)
        return self.head(self.convolution(x).relu().transpose(1, 2))


# --8<-- [end:same_padding]


# --8<-- [start:left_padding]
class CausalConvolution(Convolution):
    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__(vocab_size, hidden_size)
        self.convolution = nn.Conv1d(hidden_size, hidden_size, 3)

    def forward(self, tokens: Tokens) -> Logits:
        x = pad(self.embedding(tokens).transpose(1, 2), (2, 0))
        return self.head(self.convolution(x).relu().transpose(1, 2))


# --8<-- [end:left_padding]
