"""Attention of several heads: weights from torch.nn's module and back."""

import pytest
import torch
from torch import nn

from seqref import CrossAttention, MultiHeadAttention, Rotary
from seqref.attention import alibi_slopes
from seqref.interop import (
    attention_from_torch,
    attention_to_torch,
    cross_attention_from_torch,
    from_torch,
)

F64 = torch.float64


def theirs(**options):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, **{"dtype": F64, **options})
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=F64)


def over_itself(module, x):
    later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    if not module.batch_first:
        x = x.transpose(0, 1)
    y, _ = module(x, x, x, attn_mask=later)
    return y if module.batch_first else y.transpose(0, 1)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_there_and_back(bias, batch_first):
    module, x = theirs(bias=bias, batch_first=batch_first).eval(), draw(3, 5, 8)
    layer = attention_from_torch(module)
    assert type(layer) is MultiHeadAttention
    assert not layer.training
    torch.testing.assert_close(layer(x)[0], over_itself(module, x))
    back = attention_to_torch(layer, batch_first=batch_first)
    torch.testing.assert_close(over_itself(back, x), over_itself(module, x))
    assert back.state_dict().keys() == module.state_dict().keys()


@pytest.mark.parametrize("size", [None, 6])
@pytest.mark.parametrize("bias", [True, False])
def test_over_a_source_there_and_back(bias, size):
    module = theirs(bias=bias, kdim=size, vdim=size, batch_first=True)
    layer = cross_attention_from_torch(module)
    assert type(layer) is CrossAttention
    query, memory = draw(3, 2, 8), draw(3, 5, size or 8)
    expected, _ = module(query, memory, memory)
    torch.testing.assert_close(layer(query, memory), expected)
    back = attention_to_torch(layer)
    torch.testing.assert_close(back(query, memory, memory)[0], expected)
    assert back.state_dict().keys() == module.state_dict().keys()


def test_copies_are_copies_with_their_kind_and_draw_nothing():
    module = theirs(dtype=torch.float32)
    module.in_proj_weight.requires_grad_(False)
    before = torch.random.get_rng_state()
    for make in (attention_from_torch, cross_attention_from_torch):
        layer = make(module)
        weight = next(layer.parameters())
        assert not weight.requires_grad
        assert layer.out_proj.weight.requires_grad
        assert weight.dtype == torch.float32
        with torch.no_grad():
            weight.zero_()
        assert module.in_proj_weight.count_nonzero()
        back = attention_to_torch(layer)
        assert not back.in_proj_weight.requires_grad
    assert torch.equal(torch.random.get_rng_state(), before)


class Subclass(nn.MultiheadAttention):
    """It may compute something else."""


@pytest.mark.errors
@pytest.mark.parametrize(
    ("module", "kind", "message"),
    [
        (lambda: nn.Linear(2, 2), TypeError, "must be a torch.nn.MultiheadAttention"),
        (lambda: Subclass(8, 2), TypeError, "Subclass"),
        (lambda: theirs(dropout=0.1), ValueError, r"`module.dropout` must be 0"),
        (lambda: theirs(add_bias_kv=True), ValueError, "add_bias_kv"),
        (lambda: theirs(add_zero_attn=True), ValueError, "add_zero_attn"),
        (lambda: theirs(kdim=5, vdim=6), ValueError, r"kdim=5 and vdim=6"),
    ],
)
def test_what_has_no_equal_here(module, kind, message):
    for make in (attention_from_torch, cross_attention_from_torch):
        with pytest.raises(kind, match=f"^{make.__name__}: .*{message}"):
            make(module())


@pytest.mark.errors
def test_a_width_of_keys_is_for_a_source():
    with pytest.raises(ValueError, match=r"cross_attention_from_torch takes such"):
        attention_from_torch(theirs(kdim=5, vdim=5))


@pytest.mark.errors
@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"n_kv_heads": 1}, "n_kv_heads"),
        ({"d_head": 3}, "d_head"),
        ({"window": 2}, "window"),
        ({"positions": Rotary(4)}, "rotary"),
        ({"positions": alibi_slopes(2)}, "slopes"),
    ],
)
def test_what_has_no_equal_there(options, name):
    layer = MultiHeadAttention(8, 2, **options)
    with pytest.raises(ValueError, match=rf"^attention_to_torch: `layer.{name}` has"):
        attention_to_torch(layer)


@pytest.mark.errors
def test_the_function_for_recurrent_modules_names_these():
    message = r"attention_from_torch for its own past, cross_attention_from_torch"
    with pytest.raises(TypeError, match=message):
        from_torch(theirs())


@pytest.mark.errors
def test_kinds_and_hooks():
    with pytest.raises(TypeError, match=r"`layer` must be a MultiHeadAttention or"):
        attention_to_torch(nn.Linear(2, 2))
    layer = MultiHeadAttention(8, 2)
    layer.out_proj.register_forward_hook(print)
    with pytest.raises(ValueError, match="no hooks"):
        attention_to_torch(layer)
    module = theirs()
    nn.utils.parametrizations.weight_norm(module, "in_proj_weight")
    with pytest.raises((TypeError, ValueError), match="attention_from_torch"):
        attention_from_torch(module)
