r"""Queries of one step, of a whole sequence, and of the beams of a search."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from seqref.errors import check_shape, check_tensor

Attend = Callable[[Tensor], tuple[Tensor, Tensor]]


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
