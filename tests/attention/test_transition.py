"""Counts: against torch's counter, its modules, its graphs, and graphs made by hand."""

import itertools
from collections import deque

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import seqref
from seqref.attention.transition import (
    attention_cost,
    convolution_cost,
    dilated_layers,
    hierarchical_path,
    quadratic_share,
    recurrent_cost,
    transformer_cost,
)

SIZES = [(1, 8), (5, 8), (40, 16), (16, 32)]
sizes = pytest.mark.parametrize(("steps", "width"), SIZES)
CELLS = {1: nn.RNNCell, 3: nn.GRUCell, 4: nn.LSTMCell}
LAYERS = {1: nn.RNN, 3: nn.GRU, 4: nn.LSTM}


def counted(call):
    """Multiply-adds by torch's counter, which sees no fused kernel of attention."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def transformer(width, feed_forward=4):
    return nn.TransformerEncoderLayer(
        width, 2, feed_forward * width, dropout=0.0, batch_first=True
    )


def run_cell(cell, x):
    state, outputs = None, []
    for x_t in x.unbind(1) if isinstance(x, torch.Tensor) else x:
        state = cell(x_t, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return outputs


# Operations and parameters.


@sizes
@pytest.mark.parametrize("gates", CELLS)
def test_recurrent_products(steps, width, gates):
    cost = recurrent_cost(steps, width, gates)
    cell, x = CELLS[gates](width, width), torch.randn(1, steps, width)
    assert cost.multiply_adds == counted(lambda: run_cell(cell, x))
    assert cost.step_multiply_adds == counted(lambda: cell(x[:, 0]))
    assert cost.parameters == parameters(LAYERS[gates](width, width))
    kinds = {1: seqref.RNN, 3: seqref.GRU, 4: seqref.LSTM}
    state = kinds[gates](width, width).initial_state(1)
    assert cost.state == sum(part.numel() for part in state)


@sizes
def test_attention_products(steps, width):
    cost = attention_cost(steps, width)
    layer = nn.MultiheadAttention(width, 2, batch_first=True)
    x = torch.randn(1, steps, width)

    def call():
        layer(x, x, x, need_weights=False)

    assert cost.multiply_adds == counted(call)
    assert cost.parameters == parameters(layer)


@sizes
@pytest.mark.parametrize("feed_forward", [1, 4])
def test_transformer_products(steps, width, feed_forward):
    cost = transformer_cost(steps, width, feed_forward=feed_forward)
    layer, x = transformer(width, feed_forward), torch.randn(1, steps, width)
    assert cost.multiply_adds == counted(lambda: layer(x))
    assert cost.parameters == parameters(layer)


@sizes
@pytest.mark.parametrize("kernel", [2, 3])
def test_convolution_products(steps, width, kernel):
    cost = convolution_cost(steps, width, kernel)
    layer = nn.Conv1d(width, width, kernel)
    x = torch.zeros(1, width, steps + kernel - 1)
    assert cost.multiply_adds == counted(lambda: layer(x))
    assert cost.parameters == parameters(layer)
    assert cost.state == (kernel - 1) * width


def test_the_counter_sees_no_fused_attention_on_a_cpu():
    """The trap of the page, and why `counted` asks for the mathematical backend."""
    q = torch.randn(1, 2, 16, 8)

    def call():
        nn.functional.scaled_dot_product_attention(q, q, q)

    assert counted(call) == 2 * 16 * 16 * 16
    with FlopCounterMode(display=False) as counter:
        call()
        # Nor a product of a matrix and a vector.
        torch.randn(8, 8) @ torch.randn(8)
    assert counter.get_total_flops() == 0


@sizes
def test_steps_of_a_cache_do_what_a_causal_pass_does(steps, width):
    """The sum over steps is the causal count, and the cache is the state."""
    for cost in (attention_cost, transformer_cost):
        total = sum(cost(t, width).step_multiply_adds for t in range(1, steps + 1))
        assert total == cost(steps, width, causal=True).multiply_adds
    weights = torch.randn(3, width, width)
    x, keys, values = torch.randn(steps, 1, width), [], []

    # Rows, since the counter does not see products of a matrix and a vector.
    def step(x_t):
        q, k, v = (x_t @ weight for weight in weights)
        keys.append(k)
        values.append(v)
        scores = q @ torch.cat(keys).T
        return scores.softmax(-1) @ torch.cat(values) @ weights[0]

    for t in range(1, steps + 1):
        cost = attention_cost(t, width)
        assert counted(lambda t=t: step(x[t - 1])) == cost.step_multiply_adds
        assert sum(row.numel() for row in keys + values) == cost.state


# Where the quadratic part overtakes.


def test_the_quadratic_share_is_a_half_at_six_widths():
    assert quadratic_share(6 * 32, 32) == 0.5
    assert quadratic_share(2 * 32, 32, feed_forward=0) == 0.5
    assert quadratic_share(32, 32) == pytest.approx(1 / 7)
    assert quadratic_share(12 * 32 - 1, 32, causal=True) == 0.5


@pytest.mark.parametrize("multiple", [1, 4, 6])
@pytest.mark.parametrize("causal", [False, True])
def test_the_quadratic_share_of_what_is_counted(multiple, causal):
    width = 16
    steps = multiple * width
    whole = transformer_cost(steps, width, causal=causal).multiply_adds
    rest = steps * transformer_cost(1, width).multiply_adds - 2 * steps * width
    expected = (whole - rest) / whole
    assert quadratic_share(steps, width, causal=causal) == pytest.approx(expected)
    if not causal:
        layer, x = transformer(width), torch.randn(1, steps, width)
        assert counted(lambda: layer(x)) == whole


# Paths, on graphs.


def hops(edges, start, end):
    """Breadth first; None where no way leads there."""
    reached, queue = {start: 0}, deque([start])
    while queue:
        node = queue.popleft()
        for other in edges.get(node, ()):
            if other not in reached:
                reached[other] = reached[node] + 1
                queue.append(other)
    return reached.get(end)


def graph_path(output, leaf):
    """Fewest edges of torch's graph between an output and a leaf, and the most."""
    node, most, fewest, order = output.grad_fn, {}, {}, []

    def visit(start):
        stack, seen = [(start, False)], set()
        while stack:
            current, done = stack.pop()
            if done:
                order.append(current)
            elif current not in seen:
                seen.add(current)
                stack.append((current, True))
                stack += [(n, False) for n, _ in current.next_functions if n]

    visit(node)
    for current in order:
        if getattr(current, "variable", None) is leaf:
            most[current] = fewest[current] = 0
            continue
        below = [n for n, _ in current.next_functions if n in most]
        if below:
            most[current] = 1 + max(most[n] for n in below)
            fewest[current] = 1 + min(fewest[n] for n in below)
    return fewest[node], most[node]


def recurrent_graph(steps, gates):
    cell = CELLS[gates](4, 4)
    leaves = [torch.randn(1, 4, requires_grad=True) for _ in range(steps)]
    return graph_path(run_cell(cell, leaves)[-1], leaves[0])


def attention_graph(steps):
    """Every position has nodes of its own up to its score, so no way is a short cut."""
    leaves = [torch.randn(4, requires_grad=True) for _ in range(steps)]
    W_q, W_k, W_v = torch.randn(3, 4, 4)
    q = W_q @ leaves[-1]
    scores = torch.stack([q @ (W_k @ x_j) for x_j in leaves])
    y = torch.stack([W_v @ x_j for x_j in leaves]).T @ scores.softmax(0)
    return graph_path(y, leaves[0])


@pytest.mark.parametrize("gates", CELLS)
def test_paths_of_recurrence_grow_with_every_step(gates):
    lengths = [recurrent_graph(steps, gates) for steps in (4, 8, 12, 16)]
    for each in zip(*lengths, strict=True):
        first, *others = (b - a for a, b in itertools.pairwise(each))
        # As many edges for each step, at least one.
        assert first >= 4
        assert all(other == first for other in others)
    for steps in (4, 16):
        cost = recurrent_cost(steps, 4, gates)
        assert cost.path == cost.sequential == steps


def test_paths_of_attention_do_not():
    assert len({attention_graph(steps) for steps in (2, 8, 32)}) == 1
    for steps in (2, 32):
        assert attention_cost(steps, 4).path == attention_cost(steps, 4).sequential == 1
        assert transformer_cost(steps, 4).path == 1


def convolution_edges(steps, kernel, dilations):
    """From (layer, position) to what reads it in the next layer."""
    edges = {}
    for layer, dilation in enumerate(dilations):
        for t in range(steps):
            for back in range(0, kernel * dilation, dilation):
                if t - back >= 0:
                    edges.setdefault((layer, t - back), []).append((layer + 1, t))
    return edges


@pytest.mark.parametrize("steps", [1, 2, 7, 9, 10, 27])
@pytest.mark.parametrize("kernel", [2, 3])
def test_convolutions_reach_as_far_as_said(steps, kernel):
    for layers, dilations in (
        (convolution_cost(steps, 4, kernel).path, lambda layer: 1),
        (dilated_layers(steps, kernel), lambda layer: kernel**layer),
    ):
        for depth in (layers - 1, layers):
            made = [dilations(layer) for layer in range(depth)]
            edges = convolution_edges(steps, kernel, made)
            found = hops(edges, (0, 0), (depth, steps - 1))
            # One step is reached by no layer at all.
            assert (found == depth) == (depth == layers or steps == 1)


@pytest.mark.parametrize(
    ("steps", "segment"), [(12, 3), (12, 12), (12, 1), (400, 20), (40, 20)]
)
def test_a_hierarchy_shortens_paths(steps, segment):
    edges = {("low", t): [("low", t + 1)] for t in range(steps) if (t + 1) % segment}
    for t in range(segment - 1, steps, segment):
        edges[("low", t)] = [("up", t)]
        edges[("up", t)] = [("up", t + segment), ("low", t + 1)]
    edges["input"] = [("low", 0)]
    found = hops(edges, "input", ("low", steps - 1))
    assert hierarchical_path(steps, segment) == found


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_one_segment_is_a_recurrence_on_one_level(steps):
    """Both count from the first input to the last output."""
    assert hierarchical_path(steps, steps) == recurrent_cost(steps, 4).path


def test_a_hierarchy_is_a_root_where_segments_are():
    paths = [hierarchical_path(n, 100) for n in (10**4, 10**5, 10**6)]
    assert paths == [299, 1199, 10199]
    roots = [hierarchical_path(n * n, n) for n in (100, 1000)]
    assert roots == [299, 2999]


REFUSED = {
    "steps": (lambda: attention_cost(0, 4), ValueError, "`steps` must be at least 1"),
    "width": (lambda: recurrent_cost(3, 0), ValueError, "`width` must be at least 1"),
    "kind": (lambda: recurrent_cost(3.0, 4), TypeError, "`steps` must be an int"),
    "gates": (lambda: recurrent_cost(3, 4, 2), ValueError, "1, 3 or 4, got 2"),
    "float": (lambda: recurrent_cost(3, 4, 4.0), TypeError, "`gates` must be an int"),
    "bool": (lambda: recurrent_cost(3, 4, True), TypeError, "`gates` must be an int"),
    "tensor": (
        lambda: recurrent_cost(3, 4, torch.tensor(4)),
        TypeError,
        "`gates` must be an int, got Tensor",
    ),
    "kernel": (lambda: convolution_cost(3, 4, 1), ValueError, "`kernel`"),
    "dilated": (lambda: dilated_layers(3, 1), ValueError, "`kernel`"),
    "inner": (lambda: transformer_cost(3, 4, feed_forward=0), ValueError, "forward"),
    "share": (lambda: quadratic_share(3, 4, feed_forward=-1), ValueError, "forward"),
    "segment": (
        lambda: hierarchical_path(10, 3),
        ValueError,
        "a multiple of segment=3, got 10",
    ),
}


@pytest.mark.errors
@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()
