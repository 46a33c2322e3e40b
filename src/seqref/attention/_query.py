r"""What attentions share: the padding of a source, and the forms of queries."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from seqref.errors import check_lengths, check_shape, check_tensor
from seqref.ops._padding import blank_padding, real_steps

Attend = Callable[[Tensor], tuple[Tensor, Tensor]]


def real_positions(
    where: str,
    memory: Float[Tensor, "batch source memory"],
    lengths: Integer[Tensor, " batch"] | None,
) -> tuple[Float[Tensor, "batch source memory"], Bool[Tensor, "batch source"]]:
    r"""The memory with zeros in its padding, and where it is real.

    Raises:
        ValueError: wrong shape, or a length below 0 or above the size of the source.
        TypeError: `lengths` is not of an integer dtype, `memory` not of a floating one.
    """
    if not memory.is_floating_point():
        raise TypeError(
            f"{where}: `memory` must have a floating dtype, got {memory.dtype}"
        )
    if lengths is None:
        return memory, memory.new_ones(memory.shape[:2], dtype=torch.bool)
    check_lengths(where, lengths, *memory.shape[:2], axis="source")
    real = real_steps(lengths.to(memory.device), memory.shape[1])
    return blank_padding(memory, real), real


def over_queries(
    where: str,
    query: Float[Tensor, "rows query"] | Float[Tensor, "batch time query"],
    batch: int,
    query_size: int,
    attend: Attend,
) -> tuple[Tensor, Tensor]:
    r"""Call `attend` on queries (batch, time, query), and undo what that changed.

    Rows of a single step may be a multiple of the batch: then the first of them belong
    to the first row of the source, as the beams of a search do. The source is not
    repeated for them.

    Raises:
        ValueError: `query` has another shape, or its rows are no multiple of the batch.
    """
    check_tensor(where, "query", query)
    width = ("query_size", query_size)
    if query.dim() == 3:
        check_shape(where, "query", query, (("batch", batch), ("time", None), width))
        return attend(query)
    check_shape(where, "query", query, (("rows", None), width))
    rows = query.shape[0]
    if rows == batch:
        context, weights = attend(query[:, None])
        return context[:, 0], weights[:, 0]
    if batch == 0 or rows % batch:
        raise ValueError(
            f"{where}: the rows of `query` must be a multiple of the source's batch="
            f"{batch}, got {rows}"
        )
    context, weights = attend(query.view(batch, rows // batch, query_size))
    return context.flatten(0, 1), weights.flatten(0, 1)
