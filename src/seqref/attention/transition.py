r"""From recurrence to attention: what a layer costs, by its steps and its width."""

from typing import NamedTuple

from seqref.errors import check_number, check_size

__all__ = [
    "LayerCost",
    "attention_cost",
    "convolution_cost",
    "dilated_layers",
    "hierarchical_path",
    "quadratic_share",
    "recurrent_cost",
    "transformer_cost",
]


class LayerCost(NamedTuple):
    r"""What one layer costs for one row of $T$ steps, in numbers and not in bytes.

    `parameters` are those of the layer in `torch.nn`, biases and norms included.
    `multiply_adds` are those of the matrix products of a forward pass: no biases,
    nonlinearities, norms or softmax. `sequential` is how many steps wait for each
    other, where a sum over all keys counts as one. `path` is how many hops lie between
    the first input and the last output, where a layer is too narrow in as many layers
    as it takes. `state` is how many numbers are carried on after $T$ steps, and
    `step_multiply_adds` what the step $T$ takes where they are carried.
    """

    parameters: int
    multiply_adds: int
    sequential: int
    path: int
    state: int
    step_multiply_adds: int


def recurrent_cost(steps: int, width: int, gates: int = 4) -> LayerCost:
    r"""A recurrent layer, as wide as its input, with this many blocks of weights.

    Args:
        steps: $T$.
        width: $D$, of input and state.
        gates: Blocks of $D$ rows: 1 for an RNN, 3 for a GRU, 4 for an LSTM, which
            carries two vectors.

    Raises:
        ValueError: a size below 1; `gates` is neither 1, 3 nor 4.
        TypeError: a size is no int.
    """
    where = "recurrent_cost"
    _check(where, steps, width)
    check_size(where, "gates", gates)
    if gates not in (1, 3, 4):
        raise ValueError(f"{where}: `gates` must be 1, 3 or 4, got {gates!r}")
    products = 2 * gates * width**2
    return LayerCost(
        parameters=products + 2 * gates * width,
        multiply_adds=steps * products,
        sequential=steps,
        path=steps,
        state=2 * width if gates == 4 else width,
        step_multiply_adds=products,
    )


def attention_cost(steps: int, width: int, *, causal: bool = False) -> LayerCost:
    r"""Attention alone: four projections, scores and weighted sums.

    $$ 4 T D^2 + 2 T^2 D $$

    multiply-adds, whatever the number of heads: each has a share of the width. Where
    `causal`, only pairs that the mask leaves are counted, $T (T + 1) / 2$ of $T^2$:
    what a kernel does that skips the others, and the steps of a cache together.

    Args:
        steps: $T$.
        width: $D$.
        causal: Whether masked pairs are left out.

    Raises:
        ValueError: a size below 1.
        TypeError: a size is no int.
    """
    _check("attention_cost", steps, width)
    projections = 4 * width**2
    pairs = steps * (steps + 1) // 2 if causal else steps**2
    return LayerCost(
        parameters=projections + 4 * width,
        multiply_adds=steps * projections + 2 * pairs * width,
        sequential=1,
        path=1,
        state=2 * steps * width,
        step_multiply_adds=projections + 2 * steps * width,
    )


def transformer_cost(
    steps: int, width: int, *, feed_forward: int = 4, causal: bool = False
) -> LayerCost:
    r"""A transformer layer: attention, then two products at each position.

    $$ (4 + 2 f) \, T D^2 + 2 T^2 D $$

    multiply-adds, with an inner layer of width $f D$.

    Args:
        steps: $T$.
        width: $D$.
        feed_forward: $f$.
        causal: As in `attention_cost`.

    Raises:
        ValueError: a size below 1.
        TypeError: a size is no int.
    """
    where = "transformer_cost"
    _check(where, steps, width)
    check_size(where, "feed_forward", feed_forward)
    attention = attention_cost(steps, width, causal=causal)
    inner = feed_forward * width
    products = 2 * width * inner
    # The norms before or behind both parts have two vectors each.
    vectors = inner + width + 4 * width
    return attention._replace(
        parameters=attention.parameters + products + vectors,
        multiply_adds=attention.multiply_adds + steps * products,
        step_multiply_adds=attention.step_multiply_adds + products,
    )


def convolution_cost(steps: int, width: int, kernel: int) -> LayerCost:
    r"""A causal convolution that mixes all channels.

    Products with the zeros before the first step are counted, as they are computed.

    Args:
        steps: $T$.
        width: $D$, of input and output channels.
        kernel: $k$, the steps that an output sees.

    Raises:
        ValueError: a size below 1, a kernel below 2.
        TypeError: a size is no int.
    """
    where = "convolution_cost"
    _check(where, steps, width)
    check_size(where, "kernel", kernel, minimum=2)
    products = kernel * width**2
    return LayerCost(
        parameters=products + width,
        multiply_adds=steps * products,
        sequential=1,
        path=max(1, -(-(steps - 1) // (kernel - 1))),
        state=(kernel - 1) * width,
        step_multiply_adds=products,
    )


def dilated_layers(steps: int, kernel: int) -> int:
    r"""How many convolutions with dilations $1, k, k^2, \dots$ span so many steps.

    $L$ of them see $k^L$ steps, so it is $\lceil \log_k T \rceil$, and at least 1.

    Raises:
        ValueError: a size below 1, a kernel below 2.
        TypeError: a size is no int.
    """
    check_size("dilated_layers", "steps", steps)
    check_size("dilated_layers", "kernel", kernel, minimum=2)
    layers, seen = 1, kernel
    while seen < steps:
        layers, seen = layers + 1, seen * kernel
    return layers


def hierarchical_path(steps: int, segment: int) -> int:
    r"""Hops from the first input to the last output of recurrence on two levels.

    A lower network runs over each of $T / s$ segments. An upper one reads the lower
    one's last state of each segment, and its state begins the next segment. So the way
    is one hop from the input to the first state, $s - 1$ to the end of the first
    segment, one up, $T / s - 2$ on the upper level, one down and $s - 1$ to the end:
    $2 s + T / s - 1$, and $T$ in a single segment, as the `path` of `recurrent_cost`.

    Args:
        steps: $T$, a multiple of `segment`.
        segment: $s$.

    Raises:
        ValueError: a size below 1; `steps` is no multiple of `segment`.
        TypeError: a size is no int.
    """
    where = "hierarchical_path"
    check_size(where, "steps", steps)
    check_size(where, "segment", segment)
    if steps % segment:
        raise ValueError(
            f"{where}: `steps` must be a multiple of segment={segment}, got {steps}"
        )
    if steps == segment:
        return steps
    return 2 * segment + steps // segment - 1


def quadratic_share(
    steps: int, width: int, *, feed_forward: int = 4, causal: bool = False
) -> float:
    r"""The part of a transformer layer's multiply-adds that is scores and sums.

    $$ \frac{2 T^2 D}{(4 + 2 f) T D^2 + 2 T^2 D} = \frac{T}{(2 + f) D + T} $$

    One half at $T = (2 + f) D$; with `causal` at nearly twice as many steps.

    Args:
        steps: $T$.
        width: $D$.
        feed_forward: $f$; 0 for attention alone.
        causal: As in `attention_cost`.

    Raises:
        ValueError: a size below 1, or `feed_forward` below 0.
        TypeError: a size is no int.
    """
    where = "quadratic_share"
    _check(where, steps, width)
    check_number(where, "feed_forward", feed_forward, minimum=0)
    pairs = steps * (steps + 1) // 2 if causal else steps**2
    quadratic = 2 * pairs * width
    return quadratic / ((4 + 2 * feed_forward) * steps * width**2 + quadratic)


def _check(where: str, steps: int, width: int) -> None:
    check_size(where, "steps", steps)
    check_size(where, "width", width)
