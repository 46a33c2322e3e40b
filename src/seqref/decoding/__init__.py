r"""Decoding: sequences from a model that gives the scores of the next token."""

from seqref.decoding.kv_cache import CachedDecoder, CacheTicket
from seqref.decoding.search import (
    Decoded,
    Hypotheses,
    Stepwise,
    beam_search,
    filter_logits,
    gnmt_coverage_penalty,
    gnmt_length_penalty,
    gnmt_score,
    greedy,
    sample,
)

__all__ = [
    "CacheTicket",
    "CachedDecoder",
    "Decoded",
    "Hypotheses",
    "Stepwise",
    "beam_search",
    "filter_logits",
    "gnmt_coverage_penalty",
    "gnmt_length_penalty",
    "gnmt_score",
    "greedy",
    "sample",
]
