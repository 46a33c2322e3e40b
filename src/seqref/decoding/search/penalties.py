r"""The score of GNMT: what divides a log-probability, and what is added to it."""

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from seqref.errors import check_lengths, check_number, check_tensor
from seqref.ops._padding import real_steps


def gnmt_length_penalty(
    lengths: Shaped[Tensor, "..."], alpha: float
) -> Float[Tensor, "..."]:
    r"""What GNMT divides a hypothesis's log-probability by.

    $$ \mathrm{lp}(Y) = \frac{(5 + |Y|)^{\alpha}}{(5 + 1)^{\alpha}} $$

    1 at length 1. It grows with the length where `alpha` is positive, and a larger
    divisor brings a negative number nearer to zero: long hypotheses gain.

    Args:
        lengths: $|Y|$, the number of tokens; here the end token counts.
        alpha: 0 for none; 0.2 in the paper's systems.

    Shapes:
        - `lengths`: any; returns: the same

    Raises:
        TypeError: `lengths` is no tensor, `alpha` no number.
        ValueError: `alpha` is not finite.

    Source:
        Wu et al. (2016), sec. 7.
    """
    where = "gnmt_length_penalty"
    check_tensor(where, "lengths", lengths)
    check_number(where, "alpha", alpha, finite_in=torch.float64)
    return ((5 + lengths) / 6) ** alpha


def gnmt_coverage_penalty(
    coverage: Float[Tensor, "*hypotheses source"],
    beta: float,
    source_lengths: Integer[Tensor, " *hypotheses"] | None = None,
) -> Float[Tensor, " *hypotheses"]:
    r"""What GNMT adds for source positions that got too little attention.

    $$ \mathrm{cp}(X; Y) = \beta \sum_{i=1}^{|X|}
       \log \min\Bigl(\sum_{j=1}^{|Y|} p_{ij}, 1\Bigr) $$

    Zero where every position got a total of at least 1, else negative.

    Args:
        coverage: $\sum_j p_{ij}$, the attention that each source position got so far.
        beta: At least 0; 0.2 in the paper's systems.
        source_lengths: $|X|$ of each hypothesis; None where nothing is padding.

    Shapes:
        - `coverage`: (..., source); `source_lengths`: (...)
        - returns: (...)

    Raises:
        TypeError: `coverage` is no tensor, or `beta` no number.
        ValueError: `beta` is negative or not finite, or a length is out of range.

    Source:
        Wu et al. (2016), sec. 7.
        Differs: a total of 0 is read as the dtype's smallest normal number, so that two
        hypotheses with an uncovered position can still be compared.
    """
    where = "gnmt_coverage_penalty"
    check_tensor(where, "coverage", coverage)
    check_number(where, "beta", beta, minimum=0, finite_in=torch.float64)
    covered = coverage.clamp(torch.finfo(coverage.dtype).tiny, 1.0).log()
    if source_lengths is not None:
        flat = covered.flatten(0, -2) if covered.dim() > 1 else covered[None]
        lengths = source_lengths.reshape(-1)
        check_lengths(where, lengths, *flat.shape)
        real = real_steps(lengths.to(flat.device), flat.shape[1])
        covered = flat.masked_fill(~real, 0.0).view_as(covered)
    return beta * covered.sum(-1)


def gnmt_score(
    log_probability: Float[Tensor, " *hypotheses"],
    lengths: Shaped[Tensor, " *hypotheses"],
    *,
    alpha: float,
    coverage: Float[Tensor, "*hypotheses source"] | None = None,
    beta: float = 0.0,
    source_lengths: Integer[Tensor, " *hypotheses"] | None = None,
) -> Float[Tensor, " *hypotheses"]:
    r"""The score by which GNMT ranks finished hypotheses.

    $$ s(Y, X) = \frac{\log P(Y \mid X)}{\mathrm{lp}(Y)} + \mathrm{cp}(X; Y) $$

    Args:
        log_probability: $\log P(Y \mid X)$, at most 0.
        lengths: $|Y|$.
        alpha: Of the length penalty.
        coverage: Sums of attention; None for no coverage penalty.
        beta: Of the coverage penalty.
        source_lengths: $|X|$ of each hypothesis.

    Shapes:
        - `log_probability`, `lengths`, `source_lengths`: (...); `coverage`:
          (..., source)
        - returns: (...)

    Raises:
        TypeError: something is of the wrong kind.
        ValueError: a number is out of its range.

    Source:
        Wu et al. (2016), sec. 7.
    """
    check_tensor("gnmt_score", "log_probability", log_probability)
    score = log_probability / gnmt_length_penalty(lengths, alpha)
    if coverage is None:
        return score
    return score + gnmt_coverage_penalty(coverage, beta, source_lengths)
