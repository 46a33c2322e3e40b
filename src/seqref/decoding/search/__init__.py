r"""Greedy decoding, sampling and beam search over any model with a `step`."""

from seqref.decoding.search.beam import Hypotheses, beam_search
from seqref.decoding.search.filters import filter_logits
from seqref.decoding.search.penalties import (
    gnmt_coverage_penalty,
    gnmt_length_penalty,
    gnmt_score,
)
from seqref.decoding.search.single import Decoded, greedy, sample
from seqref.decoding.search.stepwise import Stepwise

__all__ = [
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
