r"""The beams of all rows, the pool of what has ended, and the way back to tokens."""

from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from seqref.decoding.search._checks import check_scores
from seqref.decoding.search._cover import Cover
from seqref.decoding.search._top import extensions, longer, top


class Pool(NamedTuple):
    r"""The best hypotheses so far of each row, best first; a score of -inf is none.

    Shapes:
        - each: (batch, n). `beams` is the beam that a hypothesis came from; that of one
          that ended holds all but the end.
    """

    scores: Tensor
    log_p: Tensor
    lengths: Tensor
    finished: Tensor
    beams: Tensor

    def best_of(self, others: "Pool", key: Tensor) -> "Pool":
        """The first n of these and the others by falling `key`, older ones first."""
        order = key.argsort(dim=1, descending=True, stable=True)
        order = order[:, : self.scores.shape[1]]
        pairs = zip(self, others, strict=True)
        return Pool(*(torch.cat(pair, dim=1).gather(1, order) for pair in pairs))


def empty_pool(log_p: Tensor, n: int) -> Pool:
    """A pool without hypotheses, in the dtype of `log_p`."""
    nothing = log_p.new_full((len(log_p), n), -torch.inf)
    zero = torch.zeros_like(nothing, dtype=torch.int64)
    return Pool(nothing, nothing, zero, zero.bool(), zero)


class Search:
    r"""A beam search in progress: what it keeps, and one step of it."""

    def __init__(
        self,
        where: str,
        start: Tensor,
        width: int,
        n_best: int,
        end: int | None,
        divisors: list[float],
        cover: Cover,
    ):
        self.where, self.end, self.cover = where, end, cover
        self.batch, self.width, self.n_best = len(start), width, n_best
        self.divisors = divisors
        # The largest divisor of each length and of all after it.
        self.reach = [*accumulate(reversed(divisors), max)][::-1]
        first = torch.arange(self.batch, device=start.device)[:, None] * width
        self.first_beam = first
        self.done = torch.zeros_like(start, dtype=torch.bool)
        self.any_ended = False
        self.history: list[tuple[Tensor, Tensor]] = []

    def advance(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        r"""Extend all beams by a token; the rows to select, and the tokens to feed."""
        if not self.history:
            # Beams that are equal would fill the width with copies: one begins.
            self.log_p = logits.new_full((self.batch, self.width), -torch.inf)
            self.log_p[:, :1] = 0.0
            self.pool = empty_pool(self.log_p, self.n_best)
        log_p, parents, tokens = self._extended(logits)
        if self.end is not None:
            ends = tokens == self.end
            if ends.any():
                self._collect(ends, log_p, parents)
                # Those that ended move behind all others.
                log_p = log_p.masked_fill(ends, -torch.inf)
                log_p, order = log_p.sort(dim=1, descending=True, stable=True)
                parents, tokens = parents.gather(1, order), tokens.gather(1, order)
        self.log_p = log_p[:, : self.width]
        parents, tokens = parents[:, : self.width], tokens[:, : self.width]
        self.history.append((parents, tokens))
        self.cover.select(parents)
        return (self.first_beam + parents).flatten(), tokens.flatten()

    def _extended(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""The best 2 W extensions of each row: log P, beam and token, best first.

        At most W of them end, one for each beam, so W others are among them.
        """
        vocab = logits.shape[1]
        k = min(2 * self.width, self.width * vocab)
        log_p, places, certain = extensions(logits, self.log_p, k)
        if not certain:
            total = logits.logsumexp(dim=1)
            wanted = ((self.log_p > -torch.inf) & ~self.done[:, None]).flatten()
            check_scores(self.where, total, wanted)
            # What a model says of a beam that is dead may be anything.
            logits = logits.masked_fill(~wanted[:, None], 0.0)
            log_p, places = top(longer(logits, self.log_p), k)
        return log_p, places // vocab, places % vocab

    def _collect(self, ends: Tensor, log_p: Tensor, parents: Tensor) -> None:
        """Put those of the best W that end into the pool."""
        log_p, parents = log_p[:, : self.width], parents[:, : self.width]
        ends = ends[:, : self.width] & (log_p > -torch.inf) & ~self.done[:, None]
        if not ends.any():
            return
        log_p = log_p.masked_fill(~ends, -torch.inf)
        length = len(self.history) + 1
        scores = self._scores(log_p, parents, length)
        lengths = torch.full_like(parents, length)
        ended = Pool(scores, log_p, lengths, ends, parents)
        key = torch.cat((self.pool.scores, scores), dim=1)
        self.pool = self.pool.best_of(ended, key)
        self.any_ended = True

    def _scores(self, log_p: Tensor, beams: Tensor, length: int) -> Tensor:
        return log_p / self.divisors[length - 1] + self.cover.penalty(beams)

    def is_over(self) -> bool:
        r"""Whether no row can still change, or the largest length is reached."""
        length = len(self.history)
        if not self.any_ended or length == len(self.divisors):
            return length == len(self.divisors)
        # log P can only fall, and the coverage penalty is at most 0.
        attainable = self.log_p[:, 0] / self.reach[length]
        self.done = self.done | (self.pool.scores[:, -1] >= attainable)
        return bool(self.done.all())

    def best(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        r"""Tokens, lengths, ends, scores and log-probabilities of the n best."""
        pool, length = self.pool, len(self.history)
        if length == len(self.divisors):
            pool = self._with_cut(pool, length)
        lengths = pool.lengths.masked_fill(pool.scores == -torch.inf, 0)
        pad = 0 if self.end is None else self.end
        longest = int(lengths.max()) if lengths.numel() else 0
        shape = (self.batch, self.n_best, longest)
        tokens = torch.full(shape, pad, dtype=dtype, device=lengths.device)
        if longest:
            # From the last token back: the beam that each hypothesis was in.
            steps = torch.arange(longest, device=lengths.device)[:, None, None]
            # The beam of one that ended lacks the end, which stands there anyhow.
            passed = steps < lengths - pool.finished.long()
            beams, trail = pool.beams, []
            for t in reversed(range(longest)):
                trail.append(beams)
                before = self.history[t][0].gather(1, beams)
                beams = torch.where(passed[t], before, beams)
            written = torch.stack([tokens for _, tokens in self.history[:longest]])
            written = written.gather(2, torch.stack(trail[::-1]))
            tokens = torch.where(passed, written.to(dtype), pad).permute(1, 2, 0)
        return tokens, lengths, pool.finished, pool.scores, pool.log_p

    def _with_cut(self, pool: Pool, length: int) -> Pool:
        """Fill empty places of the pool with beams that the largest length cut."""
        beams = torch.arange(self.width, device=self.log_p.device)
        beams = beams.expand(self.batch, -1)
        scores = self._scores(self.log_p, beams, length)
        lengths = torch.full_like(beams, length)
        live = Pool(scores, self.log_p, lengths, lengths < 0, beams)
        # Sorted: a coverage penalty may order them otherwise than log P does.
        live = live.best_of(empty_pool(self.log_p, 0), scores)
        # Ranks, not scores: what ended stands before what was cut.
        key = torch.cat((pool.scores, live.scores), dim=1) > -torch.inf
        return pool.best_of(live, key.int())
