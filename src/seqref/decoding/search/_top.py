r"""The best extensions of the beams of a row, equal ones by beam and then by token."""

import torch
from torch import Tensor

# On a CPU: how many neighbours are first judged by their largest, from how many values
# on that pays, and how many are worked on at a time, so that what is made of them stays
# in the cache.
GROUP = 64
MANY = 2**17
BLOCK = 2**17


def extensions(logits: Tensor, sums: Tensor, k: int) -> tuple[Tensor, Tensor, bool]:
    r"""The k largest of each row's sums, each plus the log-probability of a token.

    Shapes:
        - `logits`: (batch * beams, vocab); `sums`: (batch, beams)
        - returns: values and places (batch, k), best first, where token v of beam w has
          the place w V + v; and whether that is certain. It is not where values equal
          one another or are NaN: then `top` of `longer` tells.
    """
    vocab, many = logits.shape[1], logits.numel() >= MANY
    if many and vocab >= (k + 1) * GROUP and logits.device.type == "cpu":
        values, places = _by_groups(logits, sums, k + 1)
    else:
        n = sums.shape[1] * vocab
        values, places = longer(logits, sums).topk(min(k + 1, n), dim=1)
    # NaN is below nothing, and a value alone has no neighbour to tell.
    below = values[:, 1:] < values[:, :-1]
    certain = below.shape[1] > 0 and bool(below.all())
    return values[:, :k], places[:, :k], certain


def longer(logits: Tensor, sums: Tensor) -> Tensor:
    """The log-probabilities of all extensions of each row, (batch, beams * vocab)."""
    log_p = torch.log_softmax(logits, dim=1).view(*sums.shape, logits.shape[1])
    return (log_p + sums[:, :, None]).flatten(1)


def top(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    r"""The k largest of each row with their indices; of equal ones the lower index.

    `torch.topk` leaves open which of equal values it takes, and in which order.

    Shapes:
        - `values`: (rows, n), no NaN; k at most n
        - returns: both (rows, k)
    """
    n = values.shape[1]
    largest, indices = values.topk(k, dim=1)
    # Of those equal to the k-th largest, the first: what stands before is larger.
    last = largest[:, k - 1 :]
    position = torch.arange(n, 0, -1, device=values.device)
    equal = torch.where(values == last, position, 0).topk(k, dim=1).values
    n_larger = (largest > last).sum(dim=1, keepdim=True)
    place = torch.arange(k, device=values.device)
    first_equal = n - equal.gather(1, (place - n_larger).clamp_min(0))
    indices = torch.where(place < n_larger, indices, first_equal)
    indices = indices.sort(dim=1).values
    largest, order = values.gather(1, indices).sort(dim=1, descending=True, stable=True)
    return largest, indices.gather(1, order)


def _by_groups(logits: Tensor, sums: Tensor, k: int) -> tuple[Tensor, Tensor]:
    r"""As `topk` of `longer`, which is not made.

    `topk` reads a long row slowly, and largest values are quickly had. The k best lie
    in the k groups whose largest are best, or equal ones do.
    """
    vocab, beams = logits.shape[1], sums.shape[1]
    total = _log_sum(logits).view(sums.shape)
    whole = vocab - vocab % GROUP
    heads = logits[:, :whole].unflatten(1, (-1, GROUP)).amax(dim=2)
    heads = heads.view(*sums.shape, -1) - total[:, :, None] + sums[:, :, None]
    groups = heads.flatten(1).topk(k, dim=1, sorted=False).indices
    per_beam = whole // GROUP
    first = groups // per_beam * vocab + groups % per_beam * GROUP
    within = (first[:, :, None] + torch.arange(GROUP)).flatten(1)
    rest = torch.arange(whole, vocab) + torch.arange(beams)[:, None] * vocab
    places = torch.cat((within, rest.flatten().expand(len(sums), -1)), dim=1)
    beam = places // vocab
    values = logits.reshape(len(sums), -1).gather(1, places)
    values = values - total.gather(1, beam) + sums.gather(1, beam)
    values, order = values.topk(k, dim=1)
    return values, places.gather(1, order)


def _log_sum(logits: Tensor) -> Tensor:
    r"""The log of the sum of each row's exponentials.

    `logsumexp` first takes the largest off each row, so that no exponential overflows
    and not all vanish. Here that is done where it is needed alone: the sums tell.
    """
    made = torch.empty_like(logits[: max(BLOCK // logits.shape[1], 1)])
    blocks = logits.split(len(made))
    total = [torch.exp(row, out=made[: len(row)]).sum(dim=1) for row in blocks]
    sums = torch.cat(total)
    # NaN is not in between. What vanishes beside such a sum is nothing.
    if ((sums > 1e-20) & (sums < 1e30)).all():
        return sums.log()
    return logits.logsumexp(dim=1)
