r"""A transformer that decodes with caches of one size, written in place."""

from typing import Any

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

from seqref.attention import KVState, LearnedPositions, MultiHeadAttention
from seqref.decoding.kv_cache._parts import (
    Affine,
    BlockStep,
    Place,
    PositionStep,
    evaluating,
)
from seqref.decoding.kv_cache._tickets import CacheTicket, Tickets
from seqref.errors import check_lengths, check_shape, check_size
from seqref.models import (
    AddPositions,
    LanguageModel,
    PostNormBlock,
    PreNormBlock,
    Transformer,
    TransformerLM,
)
from seqref.models._tokens import check_tokens
from seqref.ops._padding import real_steps


class CachedDecoder:
    r"""A transformer language model for decoding: its caches grow in place.

    It gives the scores that the model's own `step` gives, and speaks the protocol of
    the searches: `greedy`, `sample` and `beam_search` take it as they take the model.
    A model's state is a value, and each step copies it with one position more; here
    memory for `capacity` positions is allocated once, each step writes one, and the
    state is a ticket for the newest step alone.

    Args:
        model: A `TransformerLM`, or a `LanguageModel` over a `Transformer`, of
            `PreNormBlock` or `PostNormBlock` with `MultiHeadAttention`, and
            `AddPositions`.
        rows: How many sequences at most; for beam search the batch times the width.
        capacity: How many steps a row may have, the prompt's included. Layers with a
            window keep that many positions at most; where all have one, rows may go
            on for ever.

    Shapes:
        - `token_t`: (batch,), batch at most `rows`; `state`: `CacheTicket(row, turn)`
        - `step` returns `logits` (batch, vocab), and the new ticket

    Units:
        Positions in steps.

    Cost:
        A step reads the weights once, and the keys and values so far. Memory: `rows`
        times `capacity` times $2 H_{kv} d$ numbers for each layer, and a second copy
        of each matrix with more outputs than inputs (of the embedding too where it
        is the head).

    Raises:
        TypeError: `model` is built of something else; a size is no int; `state` is no
            `CacheTicket`.
        ValueError: a size below 1; `capacity` above the positions that the model has;
            more rows than there are, or more steps than `capacity`; tokens of a wrong
            shape, or on a CPU outside the vocabulary.
        RuntimeError: a ticket that was used already, or is another decoder's; at the
            beginning of a sequence, a parameter that was written to since the decoder
            was made. Changes by `.data` or in inference mode leave no trace.

    Source:
        Shazeer (2019): incremental attention over the keys and values of earlier steps.
        Differs: dropout is off, whatever the model's mode is; no gradients.
    """

    def __init__(
        self, model: TransformerLM | LanguageModel, *, rows: int, capacity: int
    ) -> None:
        check_size("CachedDecoder", "rows", rows)
        check_size("CachedDecoder", "capacity", capacity)
        layers, last_norm = _layers_of(model)
        self.model, self.rows, self.capacity = model, rows, capacity
        self.vocab_size = model.vocab_size
        self._versions = _versions(model)
        self._embedding = model.embedding.weight.detach()
        self._parts = [_part(layer, rows, capacity) for layer in layers]
        self._blocks = [part for part in self._parts if isinstance(part, BlockStep)]
        self._last_norm = last_norm
        head: Any = model.head
        self._head = (
            Affine(self._embedding, None)
            if head is None
            else Affine(head.weight, head.bias)
        )
        caches = [block.attend.cache for block in self._blocks]
        endless = all(cache.ring for cache in caches)
        endless = not _learned(layers, capacity) and endless
        order = torch.arange(rows, device=self._embedding.device)
        self._tickets = Tickets(caches, order, None if endless else capacity)

    @torch.no_grad()
    def initial_state(self, batch_size: int) -> CacheTicket:
        r"""Begin anew, with empty caches: tickets of before are void."""
        where = "CachedDecoder.initial_state"
        check_size(where, "batch_size", batch_size, minimum=0)
        return self._begun(where, batch_size, Place(0, 0))

    @torch.no_grad()
    def read(
        self,
        tokens: Int[Tensor, "batch time"],
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch {self.vocab_size}"], CacheTicket]:
        r"""Begin anew with prompts, in the model's form over whole sequences.

        A search wants the state before its start token: give `read` the prompts without
        their last tokens, and those to the search.

        Args:
            tokens: A prompt for each row.
            lengths: How many tokens of each row are real, at least 1; None for all.

        Shapes:
            - `tokens`: (batch, time), time at least 1; `lengths`: (batch,)
            - returns: scores of the token after each prompt (batch, vocab), and the
              ticket

        Raises:
            ValueError: a row without a token, or more tokens than `capacity`.
        """
        where, weight = "CachedDecoder.read", self._embedding
        axes = (("batch", None), ("time", None))
        check_shape(where, "tokens", tokens, axes)
        batch, time = tokens.shape
        if lengths is not None:
            check_lengths(where, lengths, batch, time)
            # What the padding holds is not read.
            real = real_steps(lengths.to(tokens.device), time)
            tokens = tokens.masked_fill(~real, 0)
        check_tokens(where, "tokens", tokens, axes, self.vocab_size, weight.device)
        shortest = time if lengths is None else min(lengths.tolist(), default=1)
        if shortest < 1:
            raise ValueError(
                f"{where}: each row must have at least 1 token, got {shortest} "
                "(begin with initial_state where there is no prompt)"
            )
        longest = time if lengths is None else max(lengths.tolist(), default=0)
        self._tickets.check_room(where, longest)
        place = Place(longest, longest)
        if lengths is not None and shortest < longest:
            place = Place(lengths.to(weight.device, torch.int64, copy=True), longest)
        ticket = self._begun(where, batch, place)
        h = self._prompted(tokens, lengths)
        last = time - 1 if lengths is None else lengths.to(weight.device) - 1
        return self._head(h[torch.arange(batch, device=h.device), last]), ticket

    @torch.no_grad()
    def step(
        self, token_t: Int[Tensor, " batch"], state: CacheTicket
    ) -> tuple[Float[Tensor, "batch {self.vocab_size}"], CacheTicket]:
        r"""Scores of the next token after one more token, which is put in the caches.

        Raises:
            RuntimeError: `state` was used already.
        """
        where, weight = "CachedDecoder.step", self._embedding
        axes = (("batch", None),)
        check_tokens(where, "token_t", token_t, axes, self.vocab_size, weight.device)
        place = self._tickets.claim(where, state, len(token_t))
        x = weight.index_select(0, token_t)
        for part in self._parts:
            x = part(x, place)
        x = x if self._last_norm is None else self._last_norm(x)
        return self._head(x), self._tickets.advance()

    def __reduce__(self) -> tuple[Any, ...]:
        r"""For `copy` and `pickle`: a decoder of the model's copy, with these caches.

        The newest ticket is good once for each of them.

        Raises:
            RuntimeError: the model's parameters have changed since this was made.
        """
        self._check_unchanged("CachedDecoder.__reduce__")
        sizes = self.rows, self.capacity
        return _made_again, (type(self), self.model, *sizes), self._tickets.kept()

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self._tickets.restore(kept)

    def rewind(self, length: int) -> CacheTicket:
        r"""Go back: every row of the newest step keeps its first `length` steps.

        For several answers to one prompt, which is then read once. Rows stay in the
        order of the newest step.

        Raises:
            ValueError: a row has fewer steps, or a window's cache has written over
                some that would be seen again.
        """
        return self._tickets.rewind("CachedDecoder.rewind", length)

    def _prompted(self, tokens: Tensor, lengths: Tensor | None) -> Tensor:
        r"""The last outputs over prompts, whose keys and values go into the caches."""
        model: Any = self.model
        with evaluating(model):
            h, states = model.layer(model.embedding(tokens), None, lengths)
        kept = [state for state in states if isinstance(state, KVState)]
        for block, state in zip(self._blocks, kept, strict=True):
            block.attend.cache.fill(state)
        return h

    def _begun(self, where: str, batch: int, place: Place) -> CacheTicket:
        self._check_unchanged(where)
        return self._tickets.begin(where, batch, place)

    def _check_unchanged(self, where: str) -> None:
        if _versions(self.model) != self._versions:
            raise RuntimeError(
                f"{where}: the model's parameters have changed since this decoder was "
                "made, and it holds copies: make a new one"
            )


def _made_again(kind: Any, model: Any, rows: int, capacity: int) -> Any:
    return kind(model, rows=rows, capacity=capacity)


def _layers_of(model: Any) -> tuple[list[nn.Module], nn.Module | None]:
    r"""The layers of a model that can be cached, and the norm of its outputs."""
    # Of a subclass the methods may compute something else.
    known = type(model) in (TransformerLM, LanguageModel)
    if not known or type(model.layer) is not Transformer:
        got = type(model.layer if known else model).__name__
        raise TypeError(
            "CachedDecoder: `model` must be a TransformerLM or a LanguageModel over a "
            f"Transformer, got {'one over ' * known}{got}"
        )
    if type(model.head) not in (nn.Linear, type(None)):
        raise TypeError(
            "CachedDecoder: the head of `model` must be a torch.nn.Linear or None, got "
            f"{type(model.head).__name__}"
        )
    return list(model.layer.layers), model.layer.last_norm


def _part(layer: nn.Module, rows: int, capacity: int) -> Any:
    if type(layer) is AddPositions:
        return PositionStep(layer)
    if type(layer) in (PreNormBlock, PostNormBlock):
        block: Any = layer
        if type(block.attention) is not MultiHeadAttention:
            layer = block.attention
        elif type(block.attention.out_proj) is not nn.Linear:
            layer = block.attention.out_proj
        else:
            return BlockStep(block, rows, capacity)
    raise TypeError(
        "CachedDecoder: layers must be AddPositions, or blocks with "
        f"MultiHeadAttention, got {type(layer).__name__} (the model's own `step` takes "
        "any layer)"
    )


def _learned(layers: list[nn.Module], capacity: int) -> bool:
    r"""Whether positions are learned; an error where they are too few."""
    learned = [
        layer.positions.max_positions
        for layer in layers
        if isinstance(layer, AddPositions)
        and isinstance(layer.positions, LearnedPositions)
    ]
    if learned and min(learned) < capacity:
        raise ValueError(
            f"CachedDecoder: `capacity` must be at most {min(learned)}, the "
            f"positions that the model has learned, got {capacity}"
        )
    return bool(learned)


def _versions(model: nn.Module) -> list[tuple[int, int]]:
    # Tensors made in inference mode count no versions.
    return [
        (p.data_ptr(), 0 if p.is_inference() else p._version)
        for p in model.parameters()
    ]
