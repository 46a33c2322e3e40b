r"""Tests of their own, for bugs that break no property which a check knows."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from experiments import lab
from experiments.museum._checks import HIDDEN, INPUT, TARGET, VECTORS, VOCAB
from experiments.museum._files import decoding, numbers

# Outputs of a beam search that stop at different lengths: log-probability and length.
CANDIDATES = ((-2.0, 3), (-2.8, 5), (-3.6, 8))
DECAY, LONG = 0.5, 200
# Chains for searches: so many, of so many tokens, and the longest output.
CHAINS, TOKENS, LONGEST = 20, 3, 4


def judge(layer: type[Any]) -> Any:
    """A layer of torch.nn whose weights the rewritten, the imported one takes."""
    with lab.seeded(7):
        return layer(INPUT, HIDDEN, batch_first=True)


@torch.no_grad()
def like(layer: type[Any], model: Any) -> None:
    """Raise unless the outputs are those of the judge."""
    assert_close(model(VECTORS)[0], judge(layer)(VECTORS)[0], atol=1e-5, rtol=1e-5)


def turning_weights() -> tuple[Tensor, Tensor]:
    """Of queries and keys, from a model that turns neighbouring components."""
    W_q, W_k = torch.randn(2, HIDDEN, INPUT, generator=lab.generator(7))
    return W_q, W_k


@torch.no_grad()
def turns_neighbours(model: Any) -> None:
    """Raise unless the scores are those of the model that the weights are from."""
    omega = 10000.0 ** (-torch.arange(0, HIDDEN, 2) / HIDDEN)
    angles = torch.arange(VECTORS.shape[1])[:, None] * omega
    turn = torch.polar(torch.ones_like(angles), angles)
    q, k = (
        torch.view_as_complex((VECTORS @ W.T).unflatten(-1, (-1, 2))) * turn
        for W in turning_weights()
    )
    assert_close(model(VECTORS), (q @ k.mH).real, atol=1e-5, rtol=1e-5)


def imported(take: Callable[[nn.LSTM, dict[str, Tensor]], nn.LSTM]) -> nn.LSTM:
    """A new layer with the judge's weights, blocks in the order of ONNX: i, o, f, g."""
    blocks = {
        name: weight.chunk(4) for name, weight in judge(nn.LSTM).state_dict().items()
    }
    exported = {name: torch.cat([i, o, f, g]) for name, (i, f, g, o) in blocks.items()}
    return take(nn.LSTM(INPUT, HIDDEN, batch_first=True), exported)


@torch.no_grad()
def keeps_its_cell_state(layer: nn.LSTM) -> None:
    """Raise unless at least nine tenths of a cell state are left after a step."""
    zeros = torch.zeros(1, 1, layer.hidden_size)
    x = torch.zeros(1, 1, layer.input_size)
    _, (_, with_ones) = layer(x, (zeros, zeros + 1))
    _, (_, with_zeros) = layer(x, (zeros, zeros))
    left = (with_ones - with_zeros).min().item()
    if left < 0.9:
        raise AssertionError(f"{left:.2f} of the cell state is left after a step")


def never_longer(score: Callable[[float, int, float], float]) -> None:
    """Raise if a larger `alpha` chooses a longer output."""
    chosen = [numbers.chosen_length(score, CANDIDATES, k / 4) for k in range(9)]
    if chosen != sorted(chosen, reverse=True):
        raise AssertionError(f"lengths chosen as alpha grows: {chosen}")


def equals_the_loop(scan: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Raise unless a scan equals the loop over many steps, in float32."""
    b = torch.randn(2, LONG, generator=lab.generator(0))
    a = torch.full_like(b, DECAY)
    assert_close(scan(a, b), numbers.loop(a, b), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def hands_over_all(model: Any) -> None:
    """Raise unless a decoder with the encoder's weights reads on where that stopped."""
    model.decoder.load_state_dict(model.encoder.state_dict())
    whole, _ = model.encoder(torch.cat([VECTORS, TARGET], dim=1))
    read_on = whole[:, VECTORS.shape[1] :]
    assert_close(model(VECTORS, TARGET), read_on, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def normed_before_the_head(model: Any) -> None:
    """Raise unless what goes into the head has mean 0 and deviation 1 at each step."""
    x = model.eval().into_head(torch.arange(VOCAB)[None])
    low, high = x.std(dim=-1, correction=0).aminmax()
    mean = x.mean(dim=-1).abs().max()
    if max(mean, 1 - low, high - 1) > 0.01:
        raise AssertionError(
            f"deviations before the head: {low:.2f} to {high:.2f}, means up to "
            f"{mean:.2f}"
        )


@torch.no_grad()
def returns_distributions(model: Any) -> None:
    """Raise unless weights that are returned in training add up to 1."""
    _, weights = model.train()(VECTORS, TARGET)
    low, high = weights.sum(dim=-1).aminmax()
    if max(1 - low, high - 1) > 1e-5:
        raise AssertionError(f"sums of the weights: {low:.2f} to {high:.2f}")


def writes_the_same_twice(model: Any) -> None:
    """Raise unless greedy decoding in the midst of training gives one result."""
    model.train()
    first = torch.arange(VOCAB)
    once, again = model.write(first, LONGEST), model.write(first, LONGEST)
    if not torch.equal(once, again):
        changed = (once != again).any(dim=1).sum().item()
        raise AssertionError(f"{changed} of {VOCAB} rows are written otherwise")
    # A part that was frozen, which stays so.
    model.gru.eval()
    before = modes(model)
    model.write(first, LONGEST)
    after = modes(model)
    if after != before:
        raise AssertionError(f"modes of the parts: before {before}, after {after}")


def modes(model: nn.Module) -> dict[str, bool]:
    """Whether each part is in training mode; the whole has no name."""
    return {name: module.training for name, module in model.named_modules()}


def chains() -> list[list[list[float]]]:
    """Log-probabilities after each token, and of the first, of several chains."""
    size = (CHAINS, TOKENS + 1, TOKENS)
    logits = torch.randn(size, generator=lab.generator(0), dtype=torch.float64)
    return torch.log_softmax(2 * logits, dim=-1).tolist()


def best_by_mean(log_p: list[list[float]]) -> tuple[tuple[int, ...], float]:
    """The output with the highest log-probability per token, of all that there are."""
    end = decoding.END
    outputs = [
        tokens
        for length in range(1, LONGEST + 1)
        for tokens in product(range(TOKENS), repeat=length)
        if end not in tokens[:-1] and (tokens[-1] == end or length == LONGEST)
    ]

    def per_token(tokens: tuple[int, ...]) -> float:
        steps = zip((-1, *tokens), tokens, strict=False)
        return sum(log_p[i][j] for i, j in steps) / len(tokens)

    chosen = max(outputs, key=per_token)
    return chosen, per_token(chosen)


def searches_all(search: Callable[..., tuple[tuple[int, ...], float]]) -> None:
    """Raise unless a beam as wide as the tree gives what exhaustive search gives."""
    outputs = scores = 0
    for log_p in chains():
        tokens, score = search(log_p, TOKENS**LONGEST, LONGEST)
        expected, best = best_by_mean(log_p)
        outputs += tokens != expected
        scores += not math.isclose(score, best, rel_tol=1e-9)
    if outputs or scores:
        raise AssertionError(
            f"of {CHAINS}: {outputs} outputs are not the best by the mean, {scores} "
            "scores are not the best mean"
        )
