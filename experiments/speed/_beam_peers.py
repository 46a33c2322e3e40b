r"""What beam search is timed against: `generate` of transformers, and a plain form.

All decode one model, whose scores are rows of a table. A prefix chooses the row, so
that the scores depend on every token and on the step, and the model costs a look-up.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments import lab
from seqref.decoding import beam_search

END = 0
# A score is log P over this power of the length.
POWER = 2.0
# By row of the batch, best first: the tokens of each hypothesis, and its score.
Lists = list[list[tuple[tuple[int, ...], float]]]


class Code(NamedTuple):
    """The number of each row's prefix, and its length."""

    number: Tensor
    length: Tensor


class Table:
    r"""A model whose scores depend on the whole prefix, and cost a look-up.

    A prefix's number is the sum of its tokens, each times a factor of its place. It
    chooses one of the rows of its step. Steps share no rows: else two prefixes that
    read the same rows in another order would be equally likely, and rounding would
    decide. At the last step END is far above the rest, so that all hypotheses end.

    Args:
        vocab: Number of tokens.
        steps: The last step.
        rows: Rows of the table for each step.
        seed: Of the scores and the factors.
    """

    def __init__(self, vocab: int, steps: int, rows: int, seed: int) -> None:
        generator = lab.generator(seed)
        self.vocab, self.steps, self.rows = vocab, steps, rows
        self.logits = 2 * torch.randn(steps * rows, vocab, generator=generator)
        # Near the best few, so that now and then a hypothesis ends early.
        near = self.logits.topk(4, dim=1).values[:, -1]
        lower = torch.randn(steps * rows, generator=generator).abs()
        self.logits[:, END] = near - lower
        # So far above the rest, and not so far that the rest's share is denormal.
        self.logits[-rows:, END] = self.logits.max() + 40
        self.factors = torch.randint(1, 2**20, (steps,), generator=generator)
        # What was called, while this is a list.
        self.calls: list[Callable[[], Any]] | None = None

    def note(self, call: Callable[[], Any]) -> None:
        """Keep a call, where calls are kept."""
        if self.calls is not None:
            self.calls.append(call)

    def initial_state(self, batch_size: int) -> Code:
        """That of the empty prefix."""
        zero = torch.zeros(batch_size, dtype=torch.int64)
        return Code(zero, zero)

    def step(self, token_t: Tensor, state: Code) -> tuple[Tensor, Code]:
        """Scores after one more token."""
        self.note(partial(self.step, token_t, state))
        number = state.number + token_t * self.factors[state.length]
        row = state.length * self.rows + number % self.rows
        return self.logits[row], Code(number, state.length + 1)

    def read(self, prefixes: Tensor) -> Tensor:
        """Scores after whole prefixes, (rows, time)."""
        length = prefixes.shape[1]
        number = (prefixes * self.factors[:length]).sum(dim=1)
        return self.logits[(length - 1) * self.rows + number % self.rows]


def ours(table: Table, start: Tensor, width: int, power: float = POWER) -> Lists:
    """By the package."""
    best = beam_search(
        table,
        start,
        width=width,
        max_length=table.steps,
        end=END,
        n_best=width,
        length_penalty=lambda lengths: lengths**power,
    )
    return [
        [(tuple(y[:n]), s) for y, n, s in zip(*row, strict=True)]
        for row in zip(
            best.tokens.tolist(),
            best.lengths.tolist(),
            best.scores.tolist(),
            strict=True,
        )
    ]


def plain(table: Table, start: Tensor, width: int) -> Lists:
    """As one writes it first: all continuations in one `topk`, what ended in lists."""
    batch = len(start)
    prefixes = start.repeat_interleave(width)[:, None]
    sums = torch.full((batch, width), -torch.inf)
    sums[:, 0] = 0.0
    ended: Lists = [[] for _ in range(batch)]
    for t in range(1, table.steps + 1):
        table.note(partial(table.read, prefixes))
        log_p = torch.log_softmax(table.read(prefixes), dim=1)
        total = (log_p.view(batch, width, -1) + sums[:, :, None]).flatten(1)
        values, places = total.topk(2 * width, dim=1)
        rows, tokens, kept = [], [], []
        pairs = zip(values.tolist(), places.tolist(), strict=True)
        for b, (row_values, row_places) in enumerate(pairs):
            live = []
            for rank in range(2 * width):
                beam, token = divmod(row_places[rank], table.vocab)
                row = b * width + beam
                if token != END:
                    live.append((row_values[rank], row, token))
                elif rank < width and row_values[rank] > -torch.inf:
                    y = (*prefixes[row, 1:].tolist(), END)
                    ended[b].append((y, row_values[rank] / t**POWER))
            ended[b] = sorted(ended[b], key=lambda pair: -pair[1])[:width]
            kept.append([value for value, _, _ in live[:width]])
            rows += [row for _, row, _ in live[:width]]
            tokens += [token for _, _, token in live[:width]]
        sums = torch.tensor(kept)
        tokens_t = torch.tensor(tokens)[:, None]
        prefixes = torch.cat((prefixes[torch.tensor(rows)], tokens_t), dim=1)
    return ended


def _model_of_transformers(table: Table) -> Any:
    """The table, as a model of transformers; the import takes seconds."""
    from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutput

    class Config(PretrainedConfig):
        """That of a model without parts."""

        model_type = "table"
        vocab_size: int = 0

    class Model(PreTrainedModel, GenerationMixin):
        """The table, as a model of transformers."""

        config_class = Config

        def __init__(self) -> None:
            tokens: dict[str, Any] = {"eos_token_id": END, "pad_token_id": END}
            super().__init__(Config(vocab_size=table.vocab, **tokens))
            # It asks its parameters where it is.
            self.place = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

        def forward(self, input_ids: Tensor, **options: Any) -> CausalLMOutput:
            """Scores after the last tokens."""
            table.note(partial(self, input_ids, **options))
            return CausalLMOutput(logits=table.read(input_ids)[:, None])

    return Model().eval()


def of_transformers(table: Table) -> Callable[..., Lists]:
    r"""`generate` over the table: a function as `ours`.

    Unless it is `scored` it returns no scores, which costs it less.
    """
    model = _model_of_transformers(table)

    def run(start: Tensor, width: int, *, scored: bool = True) -> Lists:
        made = model.generate(
            start[:, None],
            attention_mask=torch.ones_like(start)[:, None],
            num_beams=width,
            num_return_sequences=width,
            max_new_tokens=table.steps,
            do_sample=False,
            use_cache=False,
            length_penalty=POWER,
            early_stopping="never",
            return_dict_in_generate=True,
            output_scores=scored,
        )
        tokens = made.sequences.view(len(start), width, -1)[:, :, 1:].tolist()
        # Only kept where they are asked for.
        scores = made.sequences_scores if scored else torch.zeros(len(start) * width)
        scores = scores.view(len(start), width).tolist()
        return [
            [(_ended(y), s) for y, s in zip(*row, strict=True)]
            for row in zip(tokens, scores, strict=True)
        ]

    return run


def _ended(tokens: list[int]) -> tuple[int, ...]:
    """Without what follows the first END."""
    return tuple(tokens[: tokens.index(END) + 1] if END in tokens else tokens)


def equal_rows(first: Lists, second: Lists, rtol: float = 1e-4) -> float:
    """Share of the rows whose hypotheses are the same, in order, with equal scores."""
    same = [
        [y for y, _ in a] == [y for y, _ in b]
        and all(
            abs(s - r) <= rtol * abs(r) for (_, s), (_, r) in zip(a, b, strict=True)
        )
        for a, b in zip(first, second, strict=True)
    ]
    return sum(same) / len(same)
