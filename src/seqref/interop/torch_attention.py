r"""Attention of several heads: from torch.nn's module, and back."""

from typing import Any

from torch import Tensor, nn

from seqref.attention import CrossAttention, MultiHeadAttention
from seqref.interop._copies import check_copyable
from seqref.interop._grid import qualified_name

_PACKED = "in_proj_weight"
_APART = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


def attention_from_torch(module: nn.MultiheadAttention) -> MultiHeadAttention:
    r"""Make the causal layer with the weights of torch's attention over itself.

    It computes what the module does with a causal mask and its input as query, key and
    value. Parameters are copied with their dtype, device and `requires_grad`; training
    mode is kept. It takes (batch, time, input), whatever `batch_first` is.

    Args:
        module: A `torch.nn.MultiheadAttention`, and no subclass.

    Raises:
        TypeError: `module` is of another kind.
        ValueError: what it computes has no equal here: dropout, `add_bias_kv`,
            `add_zero_attn`, keys or values of another width; or a copy would lose
            something: hooks, a parametrization, pruning.

    Source:
        The documentation of `torch.nn.MultiheadAttention` (2.13).
    """
    where = "attention_from_torch"
    source = _checked(where, module)
    if source.in_proj_weight is None:
        raise ValueError(
            f"{where}: `module` must have keys and values of the width of its queries, "
            f"embed_dim={source.embed_dim}, got kdim={source.kdim} and "
            f"vdim={source.vdim} (cross_attention_from_torch takes such a module)"
        )
    bias = source.in_proj_bias is not None
    result = MultiHeadAttention(
        source.embed_dim, source.num_heads, bias=bias, device="meta"
    )
    _put(result, _PACKED, source.in_proj_weight)
    return _with_rest(source, result)


def cross_attention_from_torch(module: nn.MultiheadAttention) -> CrossAttention:
    r"""Make the attention over a source that torch's module is with such a source.

    It computes what the module does with the source as key and value. What is copied
    and refused is as in `attention_from_torch`, but that keys and values may both be of
    another width.

    Args:
        module: A `torch.nn.MultiheadAttention`, and no subclass.

    Raises:
        TypeError: `module` is of another kind.
        ValueError: what it computes has no equal here: dropout, `add_bias_kv`,
            `add_zero_attn`, keys of another width than values; or a copy would lose
            something: hooks, a parametrization, pruning.

    Source:
        The documentation of `torch.nn.MultiheadAttention` (2.13).
    """
    where = "cross_attention_from_torch"
    source = _checked(where, module)
    if source.kdim != source.vdim:
        raise ValueError(
            f"{where}: `module` must have keys and values of one width, got "
            f"kdim={source.kdim} and vdim={source.vdim}"
        )
    result = CrossAttention(
        source.embed_dim,
        source.num_heads,
        memory_size=source.kdim,
        bias=source.in_proj_bias is not None,
        device="meta",
    )
    packed = source.in_proj_weight
    weights = [getattr(source, name) for name in _APART]
    if packed is not None:
        weights = packed.chunk(3)
    for name, weight in zip(_APART, weights, strict=True):
        like = weight if packed is None else packed
        _put(result, name, weight, like.requires_grad)
    return _with_rest(source, result)


def attention_to_torch(
    layer: MultiHeadAttention | CrossAttention, *, batch_first: bool = True
) -> nn.MultiheadAttention:
    r"""Make torch's module with the weights of an attention of the package.

    A module from a `MultiHeadAttention` knows of no order: pass it a causal mask. One
    from a `CrossAttention` gets the source as key and value.

    Args:
        layer: A `MultiHeadAttention` or `CrossAttention`, and no subclass.
        batch_first: Handed to the module.

    Raises:
        TypeError: `layer` is of another kind.
        ValueError: torch.nn has no equal: heads that share keys, a width of heads of
            their own, a window, positions; or a copy would lose something.

    Source:
        The documentation of `torch.nn.MultiheadAttention` (2.13).
    """
    where = "attention_to_torch"
    if type(layer) not in (MultiHeadAttention, CrossAttention):
        raise TypeError(
            f"{where}: `layer` must be a MultiHeadAttention or CrossAttention, got "
            f"{qualified_name(layer)}"
        )
    _check_has_equal(where, layer)
    apart = isinstance(layer, CrossAttention)
    names = _APART if apart else (_PACKED,)
    _check_copies(where, "layer", layer, names)
    size = layer.memory_size if apart else None
    same = size in (None, layer.d_model)
    result = nn.MultiheadAttention(
        layer.d_model,
        layer.n_heads,
        bias=layer.bias,
        batch_first=batch_first,
        kdim=None if same else size,
        vdim=None if same else size,
        device="meta",
    )
    weights = [getattr(layer, name) for name in names]
    if apart and same:
        rows = weights[0].new_empty(3 * layer.d_model, layer.d_model)
        for part, weight in zip(rows.chunk(3), weights, strict=True):
            part.copy_(weight.detach())
        needs = all(weight.requires_grad for weight in weights)
        _put(result, _PACKED, rows, needs)
    else:
        for name, weight in zip(names, weights, strict=True):
            _put(result, name, weight)
    return _with_rest(layer, result)


def _checked(where: str, module: object) -> Any:
    if type(module) is not nn.MultiheadAttention:
        raise TypeError(
            f"{where}: `module` must be a torch.nn.MultiheadAttention, got "
            f"{qualified_name(module)}"
        )
    if module.dropout:
        raise ValueError(
            f"{where}: `module.dropout` must be 0, since no attention here drops "
            f"weights, got {module.dropout}"
        )
    if module.bias_k is not None or module.add_zero_attn:
        raise ValueError(
            f"{where}: `module` must have neither add_bias_kv nor add_zero_attn, which "
            "add keys that no input has"
        )
    packed = module.in_proj_weight is not None
    _check_copies(where, "module", module, (_PACKED,) if packed else _APART)
    return module


def _check_copies(
    where: str, label: str, module: nn.Module, names: tuple[str, ...]
) -> None:
    attention: Any = module
    owned = {f"{label}.{name}": (module, name) for name in names}
    owned[f"{label}.out_proj.weight"] = (attention.out_proj, "weight")
    if attention.in_proj_bias is not None:
        owned[f"{label}.in_proj_bias"] = (module, "in_proj_bias")
        owned[f"{label}.out_proj.bias"] = (attention.out_proj, "bias")
    check_copyable(where, module.modules(), owned)


def _check_has_equal(where: str, layer: MultiHeadAttention | CrossAttention) -> None:
    for name, expected in (
        ("n_kv_heads", layer.n_heads),
        ("d_head", layer.d_model / layer.n_heads),
        ("window", None),
        ("rotary", None),
        ("slopes", None),
    ):
        value = getattr(layer, name, None)
        if value is not None and value != expected:
            raise ValueError(
                f"{where}: `layer.{name}` has no equal in torch.nn, where it would be "
                f"{expected if expected is None else f'{expected:g}'}"
            )


def _put(
    module: nn.Module, name: str, value: Tensor, needs_grad: bool | None = None
) -> None:
    needs = value.requires_grad if needs_grad is None else needs_grad
    setattr(module, name, nn.Parameter(value.detach().clone(), needs))


def _with_rest(source: Any, result: Any) -> Any:
    r"""`result` with the biases and the output projection of `source`, in its mode."""
    _put(result.out_proj, "weight", source.out_proj.weight)
    if source.in_proj_bias is not None:
        _put(result, "in_proj_bias", source.in_proj_bias)
        _put(result.out_proj, "bias", source.out_proj.bias)
    return result.train(source.training)
