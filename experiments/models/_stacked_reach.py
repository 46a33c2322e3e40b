r"""How far back a gradient by lag reaches."""

from collections.abc import Sequence


def reach(lags: Sequence[int], logs: Sequence[float]) -> dict[str, int]:
    """The first lag after the largest gradient with less than a tenth of it left.

    Args:
        lags: In rising order.
        logs: The decimal logarithm of the gradient at each of them.

    Returns:
        The lag as `tenth_from`; nothing if a tenth is left at all of them.
    """
    top = max(logs)
    start = logs.index(top)
    for lag, found in zip(lags[start:], logs[start:], strict=True):
        if found < top - 1:
            return {"tenth_from": lag}
    return {}
