r"""From one sequence to another with attention: data, model, training, decoding.

A complete file: torch and nothing else. `python attention_seq2seq.py` trains it to
reverse letters. To use it on pairs of your own, replace `letters_backwards`, which is
called for every batch and returns lists of whole numbers from 3 on, and the two numbers
above it.
"""

import argparse
import random

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

PAD, BOS, EOS = 0, 1, 2  # tokens of the data begin at 3
Pair = tuple[list[int], list[int]]


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Rows as one tensor, padded on the right, and their lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    if lengths.min() == 0:
        raise ValueError(f"row {int(lengths.argmin())} is empty")
    tokens = torch.full((len(rows), int(lengths.max())), PAD)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    return tokens, lengths


def collated(pairs: list[Pair]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sources, their lengths, what the decoder reads, and what it should write."""
    source, lengths = padded([source for source, _ in pairs])
    # Made row by row, before the padding: EOS stands after each row's own last token.
    inputs, _ = padded([[BOS, *target] for _, target in pairs])
    labels, _ = padded([[*target, EOS] for _, target in pairs])
    return source, lengths, inputs, labels


class Encoder(nn.Module):
    """A GRU in both directions that stops at each row's end."""

    def __init__(self, vocab_size: int, size: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, size)
        self.gru = nn.GRU(size, size, bidirectional=True, batch_first=True)

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs at all positions, and the backward state, which has read all."""
        packed = pack_padded_sequence(
            self.embedding(source),
            lengths.cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        outputs, last = self.gru(packed)
        time = source.shape[1]
        memory, _ = pad_packed_sequence(outputs, batch_first=True, total_length=time)
        return memory, last[1]


class Decoder(nn.Module):
    """One step: ask the source, read a token, score the next one."""

    def __init__(self, vocab_size: int, size: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, size)
        self.start = nn.Linear(size, size)
        self.query = nn.Linear(size, size, bias=False)
        self.key = nn.Linear(2 * size, size, bias=False)
        self.score = nn.Parameter(torch.empty(size).uniform_(-(size**-0.5), size**-0.5))
        self.gru = nn.GRUCell(3 * size, size)
        self.readout = nn.Linear(4 * size, 2 * size)
        self.head = nn.Linear(size, vocab_size)

    def forward(
        self, token: Tensor, state: Tensor, memory: Tensor, keys: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of the next token, the new state, and the weights over the source."""
        # The state before the step asks: the context goes into the step.
        scores = torch.tanh(self.query(state)[:, None] + keys) @ self.score
        weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=1)
        context = (weights[:, None] @ memory)[:, 0]
        x = torch.cat([self.embedding(token), context], dim=1)
        pairs = self.readout(torch.cat([state, x], dim=1))
        logits = self.head(torch.maximum(pairs[:, 0::2], pairs[:, 1::2]))
        return logits, self.gru(x, state), weights


class Seq2Seq(nn.Module):
    """Encoder and decoder with attention."""

    def __init__(self, source_size: int, target_size: int, size: int = 64):
        super().__init__()
        self.encoder = Encoder(source_size, size)
        self.decoder = Decoder(target_size, size)

    def read(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        """The first state, and what every step asks: memory, keys, mask."""
        memory, last = self.encoder(source, lengths)
        positions = torch.arange(source.shape[1], device=source.device)
        mask = positions < lengths.to(source.device)[:, None]
        state = torch.tanh(self.decoder.start(last))
        # The keys do not depend on the step: they are made once.
        return state, memory, self.decoder.key(memory), mask

    def forward(self, source: Tensor, lengths: Tensor, inputs: Tensor) -> Tensor:
        """Scores after each token of `inputs`, which begins with BOS."""
        state, *asked = self.read(source, lengths)
        logits = []
        for token in inputs.unbind(1):
            scores, state, _ = self.decoder(token, state, *asked)
            logits.append(scores)
        return torch.stack(logits, dim=1)


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Nats per real token; the padding does not count."""
    return nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=PAD
    )


@torch.no_grad()
def greedy(
    model: Seq2Seq, source: Tensor, lengths: Tensor, max_length: int
) -> tuple[list[list[int]], Tensor]:
    """The likeliest token at each step, up to EOS, and the weights of all steps."""
    state, *asked = model.read(source, lengths)
    token = torch.full((len(source),), BOS, device=source.device)
    written, all_weights = [], []
    for _ in range(max_length):
        logits, state, weights = model.decoder(token, state, *asked)
        token = logits.argmax(dim=1)
        written.append(token)
        all_weights.append(weights)
    rows = torch.stack(written, dim=1).tolist()
    ended = [row[: row.index(EOS)] if EOS in row else row for row in rows]
    return ended, torch.stack(all_weights, dim=1)


@torch.no_grad()
def beam_search(
    model: Seq2Seq, source: Tensor, width: int, max_length: int
) -> list[tuple[float, list[int]]]:
    """The best hypotheses of one source (length,); cut ones only if none has ended."""
    lengths = torch.tensor([len(source)])
    state, *asked = model.read(source[None], lengths)
    # All beams look at one source: `expand` copies nothing.
    live = [(0.0, [BOS])]
    ended: list[tuple[float, list[int]]] = []
    for _ in range(max_length):
        token = torch.tensor([tokens[-1] for _, tokens in live], device=source.device)
        rows = [each.expand(len(live), *each.shape[1:]) for each in asked]
        logits, state, _ = model.decoder(token, state, *rows)
        so_far = torch.tensor([[score] for score, _ in live], device=source.device)
        total = logits.log_softmax(dim=1) + so_far
        best = total.flatten().topk(min(2 * width, total.numel()))
        following, parents = [], []
        ranked = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        for rank, (score, index) in enumerate(ranked):
            parent, token_id = divmod(index, total.shape[1])
            if token_id == EOS:
                # Of the others an end would be the answer of a wider beam.
                if rank < width:
                    ended.append((score, live[parent][1][1:]))
            elif len(following) < width:
                following.append((score, [*live[parent][1], token_id]))
                parents.append(parent)
        live, state = following, state[parents]
        ended = sorted(ended, reverse=True)[:width]
        # A log-probability can only fall: nothing live can overtake any more.
        if len(ended) == width and ended[-1][0] >= live[0][0]:
            break
    return ended or [(score, tokens[1:]) for score, tokens in live]


VOCAB_SIZE = 9  # tokens 0 to 8, of source and target
LONGEST = 9  # of what is written, EOS included


def letters_backwards(count: int, random_: random.Random) -> list[Pair]:
    """Rows of 3 to 8 letters of six kinds, and the same rows backwards."""
    rows = [
        [random_.randrange(3, 9) for _ in range(random_.randint(3, 8))]
        for _ in range(count)
    ]
    return [(row, row[::-1]) for row in rows]


def train(model: Seq2Seq, updates: int, random_: random.Random) -> set[tuple[int, ...]]:
    """Teacher forcing: the true token goes in, the next true one is the label.

    Returns the sources that were trained on.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    seen = set()
    for update in range(1, updates + 1):
        pairs = letters_backwards(64, random_)
        seen.update(tuple(source) for source, _ in pairs)
        source, lengths, inputs, labels = collated(pairs)
        loss = loss_of(model(source, lengths, inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if update % 100 == 0:
            print(f"update {update}: {loss.item():.3f} nats per token")
    return seen


def main() -> None:
    """Train, score on rows that were not trained on, and show where it looked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--updates", type=int, default=300)
    torch.manual_seed(0)
    model = Seq2Seq(VOCAB_SIZE, VOCAB_SIZE)
    seen = train(model, parser.parse_args().updates, random.Random(0))
    model.eval()
    drawn = letters_backwards(2000, random.Random(1))
    tests = [pair for pair in drawn if tuple(pair[0]) not in seen][:500]
    source, lengths, _, _ = collated(tests)
    written, weights = greedy(model, source, lengths, LONGEST)
    right = sum(row == target for row, (_, target) in zip(written, tests, strict=True))
    print(f"rows right: {right} of {len(tests)}")
    row, n = tests[0][0], len(tests[0][0])
    print(
        "looked at:", weights[0, :n, :n].argmax(dim=1).tolist(), "writing", written[0]
    )
    score, tokens = beam_search(model, torch.tensor(row), width=4, max_length=LONGEST)[
        0
    ]
    print("beam of 4:", tokens, f"log-probability {score:.3f}")


if __name__ == "__main__":
    main()
