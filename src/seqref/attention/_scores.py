r"""Luong's scores: each makes keys of a source once, and scores queries with them."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from seqref.errors import check_choice, check_size
from seqref.ops.additive_attention.reference import additive_scores

SCORES = ("dot", "general", "concat", "location")


class DotScore(nn.Module):
    r"""$e_{tj} = q_t^\top m_j$; keys are the source vectors."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.key_size = size

    def keys(self, memory: Tensor) -> Tensor:
        return wide(memory)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return _products(query, keys)


class GeneralScore(nn.Module):
    r"""$e_{tj} = q_t^\top W_k m_j$."""

    def __init__(self, query_size: int, memory_size: int, empty: Tensor) -> None:
        super().__init__()
        self.key_size = query_size
        self.weight_key = nn.Parameter(empty.new_empty(query_size, memory_size))

    def keys(self, memory: Tensor) -> Tensor:
        # No bias: a key of zero stays one, so that the padding stays blank.
        return wide(linear(memory, self.weight_key))

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return _products(query, keys)


class ConcatScore(nn.Module):
    r"""$e_{tj} = v^\top \tanh(W_q q_t + W_k m_j)$: one matrix for both, cut in two."""

    def __init__(
        self, query_size: int, memory_size: int, hidden_size: int, empty: Tensor
    ) -> None:
        super().__init__()
        self.key_size = hidden_size
        self.weight_query = nn.Parameter(empty.new_empty(hidden_size, query_size))
        self.weight_key = nn.Parameter(empty.new_empty(hidden_size, memory_size))
        self.weight_score = nn.Parameter(empty.new_empty(hidden_size))

    def keys(self, memory: Tensor) -> Tensor:
        return linear(memory, self.weight_key)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        query, weight = linear(query, self.weight_query), self.weight_score
        each = [additive_scores(query_t, keys, weight) for query_t in query.unbind(1)]
        # Without a query a product has the shape of the scores, and nothing in it.
        return wide(torch.stack(each, dim=1) if each else query @ keys.mT)


class LocationScore(nn.Module):
    r"""$e_{tj} = (W_l q_t)_j$; the source is not read, its keys have no width."""

    def __init__(self, query_size: int, max_source: int, empty: Tensor) -> None:
        super().__init__()
        self.key_size = 0
        self.weight_location = nn.Parameter(empty.new_empty(max_source, query_size))

    def keys(self, memory: Tensor) -> Tensor:
        return memory[..., :0]

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        return wide(linear(query, self.weight_location[: keys.shape[1]]))


def make_score(
    where: str,
    score: str,
    sizes: tuple[int, int],
    hidden_size: int | None,
    max_source: int | None,
    empty: Tensor,
) -> DotScore | GeneralScore | ConcatScore | LocationScore:
    r"""The score of that name; `sizes` are those of query and memory.

    Raises:
        ValueError: an unknown name, widths that the score cannot join, or an argument
            that it lacks or has no use for.
        TypeError: a size is no int.
    """
    check_choice(where, "score", score, SCORES)
    concat, location = score == "concat", score == "location"
    check_option(where, "hidden_size", hidden_size, concat, "score='concat'")
    check_option(where, "max_source", max_source, location, "score='location'")
    query_size, memory_size = sizes
    if hidden_size is not None:
        return ConcatScore(query_size, memory_size, hidden_size, empty)
    if max_source is not None:
        return LocationScore(query_size, max_source, empty)
    if score == "general":
        return GeneralScore(query_size, memory_size, empty)
    if query_size != memory_size:
        raise ValueError(
            f"{where}: `query_size` must be memory_size={memory_size} where "
            f"score='dot', got {query_size} (score='general' has a matrix between)"
        )
    return DotScore(memory_size)


def check_option(
    where: str, name: str, value: int | None, needed: bool, by: str
) -> None:
    r"""Raise unless a size was given where `by` needs it, and only there.

    Raises:
        ValueError: it is missing, has no use, or is below 1.
        TypeError: it is no int.
    """
    if needed and value is None:
        raise ValueError(f"{where}: `{name}` must be given with {by}")
    if not needed and value is not None:
        raise ValueError(f"{where}: `{name}` has no use without {by}, got {value}")
    if value is not None:
        check_size(where, name, value)


def wide(x: Tensor) -> Tensor:
    r"""`x`, in float32 where it is of a half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _products(query: Tensor, keys: Tensor) -> Tensor:
    # float16 ends at 65504, which a product of wide vectors passes. Autocast would go
    # back to it; on a device without autocast, such as "meta", it cannot be turned off.
    kind = query.device.type
    if torch.amp.is_autocast_available(kind):
        as_it_is = torch.autocast(kind, enabled=False)
    else:
        as_it_is = nullcontext()
    with as_it_is:
        # Moved to half precision, a source made before has lost its width.
        return wide(query) @ wide(keys).mT
