r"""Specimens from one sequence to another: attention, hand-over, training, search."""

# --8<-- [start:names]
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Inputs = Float[Tensor, "batch time input"]
Source = Float[Tensor, "batch source input"]
Tokens = Int[Tensor, "batch time"]
Lengths = Int[Tensor, " batch"]
Outputs = Float[Tensor, "batch time hidden"]
Encoded = Float[Tensor, "batch source hidden"]
States = tuple[Tensor, Tensor]
# --8<-- [end:names]


# --8<-- [start:masked_late]
class Pooled(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gru = nn.GRU(input_size, hidden_size, batch_first=True)
        self.score = nn.Linear(hidden_size, 1)

    def weights(
        self, scores: Float[Tensor, "batch time"], real: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time"]:
        return scores.softmax(dim=1) * real

    def forward(self, x: Inputs, lengths: Lengths) -> Float[Tensor, "batch hidden"]:
        y, _ = self.gru(x)
        real = torch.arange(x.shape[1]) < lengths[:, None]
        weights = self.weights(self.score(y)[..., 0], real)
        return (weights[:, None] @ y)[:, 0]


# --8<-- [end:masked_late]


# --8<-- [start:masked_first]
class PooledReal(Pooled):
    def weights(
        self, scores: Float[Tensor, "batch time"], real: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time"]:
        return scores.masked_fill(~real, -torch.inf).softmax(dim=1)


# --8<-- [end:masked_first]


# --8<-- [start:swapped]
class Translator(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.encoder = nn.GRU(input_size, hidden_size, batch_first=True)
        self.decoder = nn.GRU(input_size, hidden_size, batch_first=True)

    def scores(self, encoded: Encoded, decoded: Outputs) -> Tensor:
        queries, keys = encoded, decoded
        return queries @ keys.transpose(1, 2)

    def forward(self, source: Source, target: Inputs) -> tuple[Outputs, Tensor]:
        encoded, h = self.encoder(source)
        decoded, _ = self.decoder(target, h)
        weights = self.scores(encoded, decoded).softmax(dim=-1)
        return decoded + weights @ encoded, weights


# --8<-- [end:swapped]


# --8<-- [start:straight]
class AskingTranslator(Translator):
    def scores(self, encoded: Encoded, decoded: Outputs) -> Tensor:
        queries, keys = decoded, encoded
        return queries @ keys.transpose(1, 2)


# --8<-- [end:straight]


# --8<-- [start:cell_lost]
class HandOver(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.encoder = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.decoder = nn.LSTM(input_size, hidden_size, batch_first=True)

    def start(self, h: Tensor, c: Tensor) -> States:
        return h, torch.zeros_like(h)

    def forward(self, source: Source, target: Inputs) -> Outputs:
        _, (h, c) = self.encoder(source)
        return self.decoder(target, self.start(h, c))[0]


# --8<-- [end:cell_lost]


# --8<-- [start:both_states]
class WholeHandOver(HandOver):
    def start(self, h: Tensor, c: Tensor) -> States:
        return h, c


# --8<-- [end:both_states]


# --8<-- [start:copies]
class Speller(nn.Module):
    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.encoder = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.decoder = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, vocab_size)

    def forward(self, source: Tokens, inputs: Tokens) -> Tensor:
        _, h = self.encoder(self.embedding(source))
        return self.head(self.decoder(self.embedding(inputs), h)[0])

    def predictions_and_labels(
        self, source: Tokens, target: Tokens
    ) -> tuple[Tensor, Tokens]:
        return self(source, target), target


# --8<-- [end:copies]


# --8<-- [start:shifts]
class ShiftingSpeller(Speller):
    def predictions_and_labels(
        self, source: Tokens, target: Tokens
    ) -> tuple[Tensor, Tokens]:
        return self(source, target[:, :-1]), target[:, 1:]


# --8<-- [end:shifts]


# --8<-- [start:drops_out]
class Writer(nn.Module):
    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.dropout = nn.Dropout(0.5)
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, vocab_size)

    @torch.no_grad()
    def write(self, first: Int[Tensor, " batch"], steps: int) -> Tokens:
        token_t, h, tokens = first, None, []
        for _ in range(steps):
            x_t = self.dropout(self.embedding(token_t))[:, None]
            y_t, h = self.gru(x_t, h)
            token_t = self.head(y_t[:, 0]).argmax(dim=-1)
            tokens.append(token_t)
        return torch.stack(tokens, dim=1)


# --8<-- [end:drops_out]


# --8<-- [start:evaluates]
class CalmWriter(Writer):
    def write(self, first: Int[Tensor, " batch"], steps: int) -> Tokens:
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            return super().write(first, steps)
        finally:
            for module, mode in modes.items():
                module.training = mode


# --8<-- [end:evaluates]


# --8<-- [start:never_stops]
END = 0
Hypothesis = tuple[tuple[int, ...], float]


def grown(
    beams: list[Hypothesis], log_p: Sequence[Sequence[float]]
) -> list[Hypothesis]:
    r"""Every beam with every next token.

    `log_p[i][j]` is that of token j after token i, and in the last row that of j as
    the first token.
    """
    return [
        ((*tokens, token), total + score)
        for tokens, total in beams
        for token, score in enumerate(log_p[tokens[-1] if tokens else -1])
    ]


def best(beams: list[Hypothesis], width: int) -> list[Hypothesis]:
    return sorted(beams, key=lambda one: one[1], reverse=True)[:width]


def per_token(one: Hypothesis) -> float:
    return one[1] / len(one[0])


def endless_search(
    log_p: Sequence[Sequence[float]], width: int, max_length: int
) -> Hypothesis:
    r"""The output with the highest log-probability per token, and that number."""
    beams: list[Hypothesis] = [((), 0.0)]
    for _ in range(max_length):
        beams = best(grown(beams, log_p), width)
    tokens, total = beams[0]
    if END in tokens:
        tokens = tokens[: tokens.index(END) + 1]
    return tokens, per_token((tokens, total))


# --8<-- [end:never_stops]


# --8<-- [start:drops_finished]
def dropping_search(
    log_p: Sequence[Sequence[float]], width: int, max_length: int
) -> Hypothesis:
    r"""The output with the highest log-probability per token, and that number."""
    live: list[Hypothesis] = [((), 0.0)]
    done: list[Hypothesis] = []
    for _ in range(max_length):
        beams = best(grown(live, log_p), width)
        done = [one for one in beams if one[0][-1] == END]
        live = [one for one in beams if one[0][-1] != END]
        if not live:
            break
    tokens, _ = chosen = max(done + live, key=per_token)
    return tokens, per_token(chosen)


# --8<-- [end:drops_finished]


# --8<-- [start:compares_sums]
def summing_search(
    log_p: Sequence[Sequence[float]], width: int, max_length: int
) -> Hypothesis:
    r"""The output with the highest log-probability per token, and that number."""
    live: list[Hypothesis] = [((), 0.0)]
    done: list[Hypothesis] = []
    for _ in range(max_length):
        beams = best(grown(live, log_p), width)
        done += [one for one in beams if one[0][-1] == END]
        live = [one for one in beams if one[0][-1] != END]
        if not live:
            break
    tokens, _ = chosen = best(done + live, 1)[0]
    return tokens, per_token(chosen)


# --8<-- [end:compares_sums]


# --8<-- [start:searches]
def sound_search(
    log_p: Sequence[Sequence[float]], width: int, max_length: int
) -> Hypothesis:
    r"""The output with the highest log-probability per token, and that number."""
    live: list[Hypothesis] = [((), 0.0)]
    done: list[Hypothesis] = []
    for _ in range(max_length):
        beams = best(grown(live, log_p), width)
        done += [one for one in beams if one[0][-1] == END]
        live = [one for one in beams if one[0][-1] != END]
        if not live:
            break
        # No further token adds more than 0: no live beam gets more per token.
        bound = live[0][1] / max_length
        if done and max(map(per_token, done)) >= bound:
            break
    tokens, _ = chosen = max(done + live, key=per_token)
    return tokens, per_token(chosen)


# --8<-- [end:searches]
