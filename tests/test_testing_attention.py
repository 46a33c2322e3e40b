"""A function of queries, keys and values is held to the formula of attention."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import dropout, scaled_dot_product_attention

from seqref.ops.softmax_attention import BACKENDS, softmax_attention
from seqref.testing import (
    check_attention,
    check_causality,
    check_padding_invariance,
    check_source_dependence,
)

random = torch.Generator().manual_seed(0)
Q = torch.randn(2, 3, 4, 8, generator=random)
K, V = torch.randn(2, 2, 3, 6, 8, generator=random)
V = V[..., :5]
SEEN = torch.ones(4, 6, dtype=torch.bool).tril(2)
# The second query sees nothing, and no mask is that of a corner.
SPARSE = SEEN.clone()
SPARSE[1] = False
ROOT = math.sqrt(8)
FORMULA = "attention: `output` at "


def by_hand(scale=ROOT, axis=-1, hidden=-torch.inf):
    def attend(q, k, v, seen):
        scores = (q @ k.mT / scale).masked_fill(~seen, hidden)
        return scores.softmax(dim=axis) @ v

    return attend


def fails(*args, **kwargs):
    with pytest.raises(AssertionError, match=r"^attention: ") as caught:
        check_attention(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seen", [None, SEEN, SPARSE], ids=["all", "causal", "sparse"])
def test_the_function_of_torch_passes(dtype, seen):
    q, k, v = (tensor.to(dtype) for tensor in (Q, K, V))
    assert check_attention(scaled_dot_product_attention, q, k, v, seen) is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_op_passes_with_its_own_words_for_the_mask(backend):
    def call(op, q, k, v, seen):
        return op(q, k, v, causal=True, offset=2, backend=backend)

    assert check_attention(softmax_attention, Q, K, V, SEEN, call=call) is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_op_has_zeros_where_a_source_is_missing(backend):
    lengths = torch.tensor([6, 0])
    seen = torch.arange(6) < lengths[:, None, None, None]

    def call(op, q, k, v, seen):
        return op(q, k, v, lengths=lengths, backend=backend)

    assert check_attention(softmax_attention, Q, K, V, seen, call=call) is None


def test_a_module_of_torch_passes_with_projections_that_are_none():
    layer = nn.MultiheadAttention(24, 3, bias=False, batch_first=True, dropout=0.5)
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.eye(24).repeat(3, 1))
        layer.out_proj.weight.copy_(torch.eye(24))

    def call(layer, q, k, v, seen):
        q, k, v = (t.transpose(1, 2).flatten(2) for t in (q, k, v))
        y, weights = layer(q, k, v, attn_mask=~seen, average_attn_weights=False)
        return y.unflatten(2, (3, 8)).transpose(1, 2), weights

    v = torch.randn(K.shape, generator=random)
    # In training mode, with its dropout: the copy is in evaluation mode.
    assert check_attention(layer.train(), Q, K, v, SEEN, call=call) is None
    assert layer.training
    assert "output[1]" in fails(
        layer, Q, K, v, SEEN, call=lambda *a: (call(*a)[0], call(*a)[1] / 2)
    )


FAULTS = {
    "without the scale": by_hand(scale=1),
    "with the scale squared": by_hand(scale=8),
    "with a softmax over the queries": by_hand(axis=-2),
    "without the mask": lambda q, k, v, seen: scaled_dot_product_attention(q, k, v),
    "with a mask of the other meaning": lambda q, k, v, seen: (
        scaled_dot_product_attention(q, k, v, ~seen)
    ),
    "with a causal mask from the upper left corner": lambda q, k, v, seen: (
        scaled_dot_product_attention(q, k, v, is_causal=True)
    ),
    "with a mask behind the softmax": lambda q, k, v, seen: (
        ((q @ k.mT / ROOT).softmax(-1) * seen) @ v
    ),
}


@pytest.mark.parametrize("words", FAULTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_known_mistake_is_caught_and_named(words, dtype):
    q, k, v = (tensor.to(dtype) for tensor in (Q, K, V))
    message = fails(FAULTS[words], q, k, v, SEEN)
    assert message.startswith(FORMULA)
    assert message.endswith(f"Here it is the formula {words}")


def test_a_softmax_over_the_heads_is_named():
    message = fails(lambda q, k, v: (q @ k.mT / ROOT).softmax(1) @ v, Q, K, V)
    assert message.endswith("with a softmax over the axis before the queries")


def test_another_fault_is_caught_and_not_named():
    message = fails(by_hand(scale=3), Q, K, V, SEEN)
    assert message.startswith(FORMULA)
    assert "Here it is" not in message


def test_a_bias_on_the_scores_is_another_formula():
    bias = torch.arange(6.0)
    fails(lambda q, k, v: scaled_dot_product_attention(q, k, v, bias[None]), Q, K, V)


def test_a_finite_mask_shows_where_a_query_sees_nothing_and_only_there():
    finite = by_hand(hidden=-1e9)
    assert check_attention(finite, Q, K, V, SEEN) is None
    message = fails(finite, Q, K, V, SPARSE)
    assert message.endswith("with a large number in the place of minus infinity")
    # A query without keys has NaN, which the formula has not.
    assert "(from 0 to nan; " in fails(by_hand(), Q, K, V, SPARSE)


def test_a_scale_of_another_kind_is_said():
    unscaled = by_hand(scale=1)
    assert check_attention(unscaled, Q, K, V, SEEN, scale=1.0) is None
    assert "without the scale" in fails(unscaled, Q, K, V, SEEN)
    assert check_attention(by_hand(scale=-2), Q, K, V, SEEN, scale=-0.5) is None


@pytest.mark.parametrize("name", "qkv")
def test_a_gradient_that_is_lost_or_scaled_is_caught(name):
    """A kernel whose forward pass is right."""

    def scaled(by):
        def attend(q, k, v):
            given = {"q": q, "k": k, "v": v}
            given[name] = by * given[name] + (1 - by) * given[name].detach()
            return scaled_dot_product_attention(*given.values())

        return attend

    for by in (0.0, 2.0):
        message = fails(scaled(by), Q, K, V)
        assert message.startswith(f"attention: the gradient of `{name}` at position ")
    assert check_attention(scaled(1.0), Q, K, V) is None


def test_an_output_without_a_graph_is_compared_by_its_values():
    def attend(q, k, v):
        with torch.no_grad():
            return scaled_dot_product_attention(q, k, v)

    assert check_attention(attend, Q, K, V) is None
    fails(lambda q, k, v: 2 * attend(q, k, v), Q, K, V)


def test_returned_weights_are_compared_where_they_are_weights():
    def attend(returned):
        def both(q, k, v):
            weights = (q @ k.mT / ROOT).softmax(-1)
            return {"y": weights @ v, "more": returned(weights)}

        return both

    assert check_attention(attend(lambda w: w), Q, K, V) is None
    # A sum of the weights is none.
    assert check_attention(attend(lambda w: 2 * w.sum(-1)), Q, K, V) is None
    message = fails(attend(lambda w: w.log()), Q, K, V)
    assert message.startswith("attention: `output.more` at position ")


def test_dropout_in_a_function_makes_two_results():
    message = fails(lambda q, k, v: dropout(q @ k.mT, 0.5) @ v, Q, K, V)
    assert "differs between two calls" in message


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_heads_of_queries_may_share_keys(kv_heads):
    q, k, v = torch.randn(2, 4, 6, 8), *torch.randn(2, 2, kv_heads, 6, 8)
    seen = torch.ones(6, 6, dtype=torch.bool).tril()

    def shared(q, k, v, seen):
        return scaled_dot_product_attention(q, k, v, seen, enable_gqa=True)

    assert check_attention(shared, q, k, v, seen) is None
    for op in (softmax_attention, partial(softmax_attention, backend="parallel")):
        assert (
            check_attention(
                op, q, k, v, seen, call=lambda op, q, k, v, _: op(q, k, v, causal=True)
            )
            is None
        )
    message = fails(lambda q, k, v, seen: shared(q, 2 * k, v, seen), q, k, v, seen)
    assert "Here it is" not in message


def test_shared_keys_that_are_repeated_in_the_wrong_order_are_named():
    q, k, v = torch.randn(2, 4, 6, 8), *torch.randn(2, 2, 2, 6, 8)

    def in_turn(q, k, v):
        k, v = (t.repeat(1, 2, 1, 1) for t in (k, v))
        return scaled_dot_product_attention(q, k, v)

    assert "with heads of keys in turn" in fails(in_turn, q, k, v)


def test_a_function_that_has_its_steps_before_its_heads_is_told():
    def steps_first(q, k, v):
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return scaled_dot_product_attention(q, k, v).transpose(1, 2)

    q = torch.randn(3, 2, 4, 6, 8)
    assert "over the axis before the queries: transpose" in fails(steps_first, *q)


def test_keys_and_values_that_are_returned_are_no_weights():
    """Of these sizes all have one shape."""
    q, k, v = torch.randn(3, 2, 2, 8, 8)

    def caching(q, k, v):
        return scaled_dot_product_attention(q, k, v), (k, v)

    assert check_attention(caching, q, k, v) is None
    with pytest.raises(AssertionError, match=r"`output\[1\]` at"):
        check_attention(lambda *a: (caching(*a)[0], k), q, k, v)


def test_nan_where_a_query_sees_nothing_is_named():
    message = fails(by_hand(), Q, K, V, SPARSE)
    assert message.endswith("with NaN where a query sees no key")
    # The last query sees all, so none in the other meaning.
    turned = lambda q, k, v, seen: by_hand()(q, k, v, ~seen)  # noqa: E731
    message = fails(turned, Q, K, V, SEEN)
    assert message.endswith("with a mask of the other meaning")
    assert " to nan; " in message


def test_a_caller_without_gradients_has_them_compared():
    def detached(q, k, v):
        return scaled_dot_product_attention(q.detach(), k, v)

    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            q, k, v = torch.randn(3, 2, 4, 8)
            assert check_attention(scaled_dot_product_attention, q, k, v) is None
            assert "the gradient of `q`" in fails(detached, q, k, v)


def test_axes_in_front_may_be_none_or_several():
    for shape in ((), (2,), (2, 1, 3)):
        q, k, v = torch.randn(3, *shape, 4, 8)
        assert check_attention(scaled_dot_product_attention, q, k, v) is None
        assert "without the scale" in fails(
            lambda q, k, v: (q @ k.mT).softmax(-1) @ v, q, k, v
        )


@pytest.mark.errors
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": 1}, TypeError, "`q` must be a torch.Tensor, got int"),
        ({"k": K.long()}, TypeError, "`k` must be floating, got torch.int64"),
        ({"v": V[0, 0, 0]}, ValueError, "`v` must be finite and of shape"),
        ({"v": V / 0}, ValueError, "`v` must be finite and of shape"),
        ({"k": K[:1]}, ValueError, r"`k` must have shape \(2, 3, 'keys', 8\) and `v`"),
        ({"k": K[..., :7]}, ValueError, "`k` must have shape"),
        ({"v": V[:, :, 1:]}, ValueError, r"got \(2, 3, 6, 8\) and \(2, 3, 5, 5\)"),
        ({"k": K[:, :2], "v": V[:, :2]}, ValueError, "or of heads, the last axis in"),
        ({"k": K[0], "v": V[0]}, ValueError, "`k` must have shape"),
        ({"seen": SEEN.float()}, TypeError, "`seen` must be boolean, got torch.float3"),
        ({"seen": SEEN.mT}, ValueError, r"broadcastable to \(2, 3, 4, 6\), got \(6, 4"),
        ({"seen": SEEN[None, None, None]}, ValueError, "`seen` must be broadcastable"),
        ({"scale": math.nan}, ValueError, "`scale` must be"),
        ({"attend": 3}, TypeError, "`model` must be a torch.nn.Module or another"),
        ({"attend": lambda q, k, v: q}, ValueError, r"must have shape \(2, 3, 4, 5\)"),
        ({"attend": lambda q, k, v: None}, TypeError, "the model returned no tensor"),
    ],
)
def test_bad_arguments(change, error, message):
    given = {"attend": scaled_dot_product_attention, "q": Q, "k": K, "v": V}
    with pytest.raises(error, match=rf"check_attention: .*{message}"):
        check_attention(**given | change)


def test_an_output_in_another_object_is_asked_for():
    class Result:
        def __init__(self, y):
            self.y = y

    with pytest.raises(TypeError, match="first in a tuple, list or dict, got Result"):
        check_attention(lambda *a: Result(scaled_dot_product_attention(*a)), Q, K, V)


X, LENGTHS = torch.randn(4, 6, 3, generator=random), torch.tensor([3, 6, 0, 4])


class Asking(nn.Module):
    """Cross attention over a source, of which a row may have none."""

    def __init__(self, hidden):
        super().__init__()
        self.memory, self.hidden = nn.Linear(3, 8), hidden
        self.query = nn.Parameter(torch.randn(5, 4))

    def forward(self, source, lengths):
        k, v = self.memory(source).chunk(2, dim=-1)
        beyond = torch.arange(source.shape[1]) >= lengths[:, None, None]
        mask = torch.zeros(beyond.shape).masked_fill(beyond, self.hidden)
        q = self.query.expand(len(source), -1, -1)
        return self.attend(q, k, v, mask)

    def attend(self, q, k, v, mask):
        return scaled_dot_product_attention(q, k, v, mask)


class ByHand(Asking):
    def attend(self, q, k, v, mask):
        return (q @ k.mT / 2 + mask).softmax(-1) @ v


def test_a_row_without_a_source_shows_a_mask_that_is_finite():
    finite, infinite = Asking(-1e9), Asking(-torch.inf)
    some = LENGTHS.clamp(min=1)
    assert check_padding_invariance(finite, X, some) is None
    assert check_padding_invariance(infinite, X, LENGTHS) is None
    with pytest.raises(AssertionError, match=r"^padding invariance: .* at row 2, "):
        check_padding_invariance(finite, X, LENGTHS)
    with pytest.raises(AssertionError, match="is NaN before anything is changed"):
        check_padding_invariance(ByHand(-torch.inf), X, LENGTHS)


def test_steps_of_a_row_of_length_0_do_not_count():
    """All of them are padding, whatever they hold; a sum over none is zero."""

    def running(x, lengths):
        return x.cumsum(1)

    def total(x, lengths):
        real = torch.arange(x.shape[1]) < lengths[:, None]
        return x.cumsum(1), (x * real[..., None]).sum(1)

    assert check_padding_invariance(running, X.double(), LENGTHS) is None
    assert check_padding_invariance(total, X.double(), LENGTHS) is None
    with pytest.raises(AssertionError, match=r"`output\[1\]` at row 2"):
        check_padding_invariance(
            lambda x, n: (x, x[torch.arange(4), n - 1]), X.double(), LENGTHS
        )


def test_what_else_finds_a_softmax_over_the_queries():
    """In a decoder causality does; in an encoder without padding no property breaks."""

    class Layer(nn.Module):
        def __init__(self, causal):
            super().__init__()
            self.project, self.causal = nn.Linear(3, 12), causal

        def forward(self, x):
            q, k, v = self.project(x).chunk(3, dim=-1)
            seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool)
            return by_hand(axis=-2)(q, k, v, seen.tril() if self.causal else seen)

    with pytest.raises(AssertionError, match=r"^causality: "):
        check_causality(Layer(True), X)
    assert (
        check_source_dependence(Layer(False), X, X, call=lambda m, x, _: m(x)) is None
    )
