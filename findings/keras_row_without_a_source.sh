#!/usr/bin/env bash
# Keras 3.15.1 on torch 2.13.0 (CPU): attention over a row whose mask is False everywhere.
#
# Attention and AdditiveAttention take a large number from the masked scores. Where all are
# masked, the softmax cancels it, and what is left depends on how many digits of the scores
# outlive the subtraction: equal weights over all positions in float32 and bfloat16, NaN in
# float16, and in float64 the weights of AdditiveAttention without any mask. (Attention in
# a float64 layer makes its scores in float32.) MultiHeadAttention gives weights of zero.
# A row with one real position is masked right in each.
#
# Output seen:
#   Attention: float64 equal, float32 equal, bfloat16 equal, float16 NaN
#   AdditiveAttention: float64 as if unmasked, float32 equal, bfloat16 equal, float16 NaN
#   MultiHeadAttention: float32 zero
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q keras==3.15.1
export KERAS_BACKEND=torch KERAS_HOME="$work/keras"
"$work/venv/bin/python" -W ignore - <<'EOF'
import keras
import torch

torch.manual_seed(0)
QUERY, MEMORY = torch.randn(2, 1, 4), torch.randn(2, 5, 4)
MASK = torch.tensor([[True] + [False] * 4, [False] * 5])


def weights_of(layer, dtype, mask):
    query, memory = QUERY.to(dtype), MEMORY.to(dtype)
    _, weights = layer(
        [query, memory], mask=[None, mask], return_attention_scores=True
    )
    return weights[:, 0].detach().double()


def word(masked, unmasked):
    if masked.isnan().all():
        return "NaN"
    if torch.allclose(masked, torch.full_like(masked, 1 / 5), atol=1e-3):
        return "equal"
    if torch.allclose(masked, unmasked, atol=1e-3):
        return "as if unmasked"
    return f"other: {masked.tolist()}"


with keras.device("cpu"):
    for kind in ("Attention", "AdditiveAttention"):
        seen = []
        for name in ("float64", "float32", "bfloat16", "float16"):
            layer, dtype = getattr(keras.layers, kind)(dtype=name), getattr(torch, name)
            one, none = weights_of(layer, dtype, MASK)
            _, unmasked = weights_of(layer, dtype, torch.ones_like(MASK))
            assert torch.equal(one, torch.tensor([1.0, 0, 0, 0, 0]).double()), one
            seen.append(f"{name} {word(none, unmasked)}")
        line = ", ".join(seen)
        print(f"{kind}: {line}")
        first = "equal" if kind == "Attention" else "as if unmasked"
        assert line == (
            f"float64 {first}, float32 equal, bfloat16 equal, float16 NaN"
        )
    layer = keras.layers.MultiHeadAttention(1, 4)
    _, weights = layer(
        QUERY, MEMORY, value_mask=MASK, return_attention_scores=True
    )
    one, none = weights[:, 0, 0].detach()
    assert torch.equal(one, torch.tensor([1.0, 0, 0, 0, 0])), one
    assert not none.count_nonzero(), none
    print("MultiHeadAttention: float32 zero")
EOF
