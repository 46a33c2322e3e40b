r"""Teacher forcing: the shifted target, its loss, and a model fed its own tokens."""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor
from torch.nn.functional import cross_entropy

from seqref.decoding.search import Stepwise, filter_logits
from seqref.decoding.search._checks import check_scores, next_logits
from seqref.errors import (
    check_generator,
    check_lengths,
    check_number,
    check_shape,
    check_size,
    check_tensor,
    read_bounds,
)
from seqref.ops._padding import real_steps
from seqref.recurrence import map_state
from seqref.training.truncated import PADDING

__all__ = [
    "PADDING",
    "ScheduledRun",
    "ShiftedTarget",
    "exponential_schedule",
    "inverse_sigmoid_schedule",
    "linear_schedule",
    "scheduled_sampling",
    "shift_target",
    "target_loss",
]


class ShiftedTarget(NamedTuple):
    r"""What goes into a decoder, what it must predict, and how much of both is real.

    `inputs` (batch, time + 1), the end token in the padding; `targets` (batch,
    time + 1), -100 in the padding; `lengths` (batch,), one more than before.
    """

    inputs: Int[Tensor, "batch steps"]
    targets: Int[Tensor, "batch steps"]
    lengths: Integer[Tensor, " batch"]


class ScheduledRun(NamedTuple):
    r"""What a model predicted, what it was fed, and its state after that.

    Shapes:
        - `logits`: (batch, time, vocab), zero in the padding, in float32 or wider
        - `inputs`: (batch, time), the true tokens or the model's own
        - `state`: that of the model after each row's last real step
    """

    logits: Tensor
    inputs: Tensor
    state: Any


def shift_target(
    target: Int[Tensor, "batch time"],
    lengths: Integer[Tensor, " batch"] | None = None,
    *,
    begin: int,
    end: int,
) -> ShiftedTarget:
    r"""The begin token in front, the end token after each row's last real token.

    $$ \text{inputs} = (\text{BOS}, y_1, \dots, y_n) \qquad
       \text{targets} = (y_1, \dots, y_n, \text{EOS}) $$

    Step t of the inputs is followed by step t of the targets. A row of length 0 learns
    to end at once. What the padding of `target` holds has no part in the result.

    Args:
        target: The sequences, without begin and end tokens, padded on the right.
        lengths: Number of real tokens of each row; None for all.
        begin: The token that a decoder is started with, BOS.
        end: The token that ends a sequence, EOS; the same one may do for both.

    Shapes:
        - `target`: (batch, time); `lengths`: (batch,)
        - returns: `ShiftedTarget(inputs, targets, lengths)`, the first two (batch,
          time + 1) in the dtype of `target`

    Raises:
        TypeError: `target` is not of dtype int64 or int32, `lengths` not of an integer
            dtype, or a token no int.
        ValueError: a wrong shape or length; a negative token. On a CPU also a real
            place of `target` that is negative, or holds `begin` or `end` already (other
            devices are not asked: they would wait).

    Source:
        Sutskever et al. (2014), sec. 2, for the end token; one row of any length in a
        batch is this package's.
    """
    where = "shift_target"
    _check_tokens(where, "target", target)
    for name, token in (("begin", begin), ("end", end)):
        check_size(where, name, token, minimum=0)
    batch, time = target.shape
    if lengths is None:
        lengths = torch.full((batch,), time, device=target.device)
    check_lengths(where, lengths, batch, time)
    # A narrow dtype may have no room for one more, nor for the number of steps.
    longer = lengths.to(target.device, torch.int64) + 1
    real = real_steps(longer, time + 1)
    body = target.masked_fill(~real[:, 1:], end)
    _check_real(where, target, real[:, 1:], {"begin": begin, "end": end})
    column = target.new_ones(batch, 1)
    targets = torch.cat([body, column * end], dim=1)
    return ShiftedTarget(
        torch.cat([column * begin, body], dim=1),
        targets.masked_fill(~real, PADDING),
        longer,
    )


def target_loss(
    logits: Float[Tensor, "batch steps vocab"], targets: Int[Tensor, "batch steps"]
) -> Float[Tensor, ""]:
    r"""Mean cross-entropy over the real targets; those of -100 are padding.

    $$ L = -\frac{1}{N} \sum_{b, t:\; y_{b,t} \ne -100} \log p(y_{b,t}) $$

    What `logits` hold in the padding, NaN included, changes neither loss nor gradients.
    Summed in float32 or wider. Of no real target at all the mean is NaN.

    Shapes:
        - `logits`: (batch, steps, vocab); `targets`: (batch, steps)
        - returns: a scalar

    Units:
        Nats per token.

    Raises:
        TypeError: `logits` are no floating-point numbers, or `targets` not of dtype
            int64 or int32.
        ValueError: shapes that do not fit; on a CPU, a target outside the vocabulary.

    Source:
        None: the definition of cross-entropy.
    """
    where = "target_loss"
    check_shape(where, "logits", logits, _named("batch", "steps", "vocab"))
    if not logits.is_floating_point():
        raise TypeError(
            f"{where}: `logits` must be floating-point numbers, got {logits.dtype}"
        )
    _check_tokens(where, "targets", targets)
    batch, steps, vocab = logits.shape
    check_shape(where, "targets", targets, (("batch", batch), ("steps", steps)))
    padding = targets == PADDING
    if targets.device.type == "cpu":
        inside = targets.masked_fill(padding, 0)
        bounds = read_bounds(where, "targets", inside, 0, vocab - 1)
        if bounds is not None and not 0 <= bounds[0] <= bounds[1] < vocab:
            raise ValueError(
                f"{where}: `targets` must lie in 0 to {vocab - 1}, or be {PADDING} in "
                f"the padding, got {bounds[0]} to {bounds[1]}"
            )
    # Of a row that it passes over, cross_entropy makes the gradient zero times its
    # probabilities, and zero times NaN is NaN.
    blank = logits.masked_fill(padding[..., None], 0.0)
    wide = blank.to(torch.promote_types(logits.dtype, torch.float32))
    total = cross_entropy(
        wide.flatten(0, 1), targets.flatten().to(torch.int64), reduction="sum"
    )
    return total / (~padding).sum()


def scheduled_sampling(
    model: Stepwise,
    inputs: Int[Tensor, "batch time"],
    lengths: Integer[Tensor, " batch"] | None = None,
    *,
    probability: float | int,
    temperature: float | int = 1.0,
    generator: torch.Generator | None = None,
    state: Any = None,
) -> ScheduledRun:
    r"""Feed the true token with some probability, and else the model's own.

    $$ \tilde x_1 = x_1 \qquad \tilde x_{t+1} = \begin{cases} x_{t+1} & \text{with
       probability } \epsilon \\ \hat x_{t+1} \sim p(\cdot \mid \tilde x_{1:t}) &
       \text{else} \end{cases} $$

    One draw for each token but the first. No gradient passes through the choice of
    $\hat x$: with the tokens that were fed, the result is teacher forcing. At
    probability 1 it *is* teacher forcing, at 0 the model runs free from its first
    token.

    Args:
        model: Anything with `initial_state` and `step`, such as a language model.
        inputs: The true inputs, from the begin token on.
        lengths: Number of real inputs of each row; None for all.
        probability: $\epsilon$, that of the true token.
        temperature: Of the draws of $\hat x$: 1 is the model's distribution, 0 takes
            the likeliest token.
        generator: Where the random numbers come from; None is torch's own.
        state: The state before the first input; None for `model.initial_state`.

    Shapes:
        - `inputs`: (batch, time), time at least 1; `lengths`: (batch,)
        - returns: `ScheduledRun(logits, inputs, state)`

    Cost:
        T calls of `step`, one after the other, whatever the probability.

    Raises:
        TypeError: `model` has no `step` or `initial_state`, or an argument is of the
            wrong kind.
        ValueError: an argument is out of range or of the wrong shape, or a token is to
            be drawn from scores that hold NaN or infinity.

    Source:
        Bengio et al. (2015), sec. 2.4: a draw for each token, and a token sampled from
        the model or its likeliest one.
    """
    where = "scheduled_sampling"
    real = _real_inputs(where, model, inputs, lengths)
    check_number(where, "probability", probability, minimum=0, maximum=1)
    check_number(where, "temperature", temperature, minimum=0)
    check_generator(where, generator)
    own = _own_places(real, probability, generator)
    # Asked once: on a GPU each question waits.
    drawn, padded = own.any(dim=0).tolist(), (~real).any(dim=0).tolist()
    if state is None:
        state = model.initial_state(len(inputs))
    given = inputs.masked_fill(~real, 0)
    token, time, fed, scores = given[:, 0], given.shape[1], [], []
    for t in range(time):
        logits, following = next_logits(where, model, token, state, None)
        fed.append(token)
        if padded[t]:
            logits = logits.masked_fill(~real[:, t, None], 0.0)
            following = _kept_where_padded(real[:, t], following, state)
        state = following
        scores.append(logits)
        if t + 1 == time:
            break
        token = given[:, t + 1]
        if drawn[t + 1]:
            chosen = _draw(where, logits, own[:, t + 1], temperature, generator)
            token = torch.where(own[:, t + 1], chosen.to(token.dtype), token)
    return ScheduledRun(torch.stack(scores, dim=1), torch.stack(fed, dim=1), state)


def linear_schedule(
    update: int, *, k: float | int, c: float | int, floor: float | int = 0.0
) -> float:
    r"""The probability of the true token at an update, falling in a line.

    $$ \epsilon_i = \max(\epsilon, k - c\, i) $$

    Args:
        update: $i$, from 0 on.
        k: That of update 0; at most 1.
        c: How much it falls at each update.
        floor: $\epsilon$, where it stops; at most `k`.

    Raises:
        TypeError: `update` is no int, or another argument no number.
        ValueError: an argument is out of its range.

    Source:
        Bengio et al. (2015), sec. 2.4.
    """
    where = "linear_schedule"
    i = _index(where, update)
    check_number(where, "k", k, minimum=0, maximum=1)
    check_number(where, "c", c, minimum=0, finite_in=torch.float64)
    check_number(where, "floor", floor, minimum=0, maximum=k)
    return float(max(floor, k - c * i))


def exponential_schedule(update: int, *, k: float | int) -> float:
    r"""The probability of the true token at an update, falling by a factor each time.

    $$ \epsilon_i = k^i $$

    Args:
        update: $i$, from 0 on.
        k: The factor, above 0 and below 1.

    Raises:
        TypeError: `update` is no int, or `k` no number.
        ValueError: an argument is out of its range.

    Source:
        Bengio et al. (2015), sec. 2.4.
    """
    where = "exponential_schedule"
    i = _index(where, update)
    check_number(where, "k", k, above=0, below=1)
    return float(k) ** i


def inverse_sigmoid_schedule(update: int, *, k: float | int) -> float:
    r"""The probability of the true token at an update: slow, then fast, then slow.

    $$ \epsilon_i = \frac{k}{k + \exp(i / k)} $$

    It begins at $k / (k + 1)$ and is a half at $i = k \ln k$.

    Args:
        update: $i$, from 0 on.
        k: At least 1; the larger, the later and the slower it falls.

    Raises:
        TypeError: `update` is no int, or `k` no number.
        ValueError: an argument is out of its range.

    Source:
        Bengio et al. (2015), sec. 2.4.
    """
    where = "inverse_sigmoid_schedule"
    i = _index(where, update)
    check_number(where, "k", k, minimum=1, finite_in=torch.float64)
    # 1 / (1 + exp(z)) by the exponential that cannot overflow.
    z = i / k - math.log(k)
    small = math.exp(-abs(z))
    return small / (1 + small) if z > 0 else 1 / (1 + small)


def _index(where: str, update: int) -> float:
    check_size(where, "update", update, minimum=0)
    check_number(where, "update", update, finite_in=torch.float64)
    return float(update)


def _real_inputs(
    where: str, model: object, inputs: Tensor, lengths: Tensor | None
) -> Tensor:
    """True at the real inputs; raises unless model, inputs and lengths are right."""
    if not isinstance(model, Stepwise):
        raise TypeError(
            f"{where}: `model` must have `initial_state` and `step`, as "
            f"seqref.models.LanguageModel does, got {type(model).__name__}"
        )
    _check_tokens(where, "inputs", inputs)
    batch, time = inputs.shape
    if time == 0:
        raise ValueError(f"{where}: `inputs` must hold at least 1 token a row, got 0")
    if lengths is None:
        lengths = torch.full((batch,), time)
    check_lengths(where, lengths, batch, time)
    return real_steps(lengths.to(inputs.device), time)


def _own_places(
    real: Tensor, probability: float | int, generator: torch.Generator | None
) -> Tensor:
    # The device of the generator: that of the model may be another.
    device = real.device if generator is None else generator.device
    draws = torch.rand(real.shape, generator=generator, device=device)
    # Below 1 always: at probability 1 no token is the model's own.
    own = (draws >= probability).to(real.device) & real
    own[:, 0] = False
    return own


def _draw(
    where: str,
    logits: Tensor,
    wanted: Tensor,
    temperature: float | int,
    generator: torch.Generator | None,
) -> Tensor:
    logits = logits.detach()
    check_scores(where, logits.logsumexp(dim=-1), wanted)
    # Those of rows that take the true token may be anything.
    logits = logits.masked_fill(~wanted[:, None], 0.0)
    if temperature == 0:
        return logits.argmax(dim=-1)
    weights = torch.softmax(filter_logits(logits, temperature=temperature), dim=-1)
    device = weights.device if generator is None else generator.device
    chosen = torch.multinomial(weights.to(device), 1, generator=generator)
    return chosen.squeeze(-1).to(weights.device)


def _kept_where_padded(real_t: Tensor, new: Any, old: Any) -> Any:
    def keep(new: Tensor, old: Tensor) -> Tensor:
        rows = real_t.to(new.device).view(-1, *[1] * (new.dim() - 1))
        return torch.where(rows, new, old)

    return map_state(keep, new, old)


def _named(*names: str) -> tuple[tuple[str, None], ...]:
    return tuple((name, None) for name in names)


def _check_tokens(where: str, name: str, tokens: Tensor) -> None:
    check_tensor(where, name, tokens)
    if tokens.dtype not in (torch.int64, torch.int32):
        raise TypeError(
            f"{where}: `{name}` must have dtype int64 or int32, got {tokens.dtype}"
        )
    check_shape(where, name, tokens, _named("batch", "time"))


def _check_real(
    where: str, target: Tensor, real: Tensor, special: dict[str, int]
) -> None:
    # On a GPU these questions would wait for the device at every call.
    if target.device.type != "cpu":
        return
    bounds = read_bounds(where, "target", target.masked_fill(~real, 0), 0, 2**63 - 1)
    if bounds is None:
        return
    if bounds[0] < 0:
        raise ValueError(
            f"{where}: `target` must hold tokens of at least 0 within the lengths, got "
            f"{bounds[0]}"
        )
    for name, token in special.items():
        if ((target == token) & real).any():
            raise ValueError(
                f"{where}: `target` must not hold the {name} token {token} within the "
                "lengths (shifted twice, or `lengths` that count it?)"
            )
