#!/usr/bin/env bash
# Keras 3.15.1 on torch 2.13.0 (CPU): the concat score of its Attention layer.
#
# `Attention(score_mode="concat")` has one trainable number, whatever the width: the score
# is that number times the plain sum of tanh(query + key). With `use_scale=True` a second
# number multiplies query + key. Luong's concat has a vector in place of the first and a
# matrix inside: neither can be learned here, so training this layer alone cannot weigh
# one unit more than another.
#
# Output seen:
#   width 2: 1 parameter, scores equal number * sum(tanh(query + key)): True
#   width 64: 1 parameter, scores equal number * sum(tanh(query + key)): True
#   width 64 with use_scale: 2 parameters
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


def numbers(layer):
    return sum(weight.numpy().size for weight in layer.trainable_weights)


with keras.device("cpu"):
    for width in (2, 64):
        query, memory = torch.randn(3, 4, width), torch.randn(3, 5, width)
        layer = keras.layers.Attention(score_mode="concat")
        layer([query, memory])
        (weight,) = layer.trainable_weights
        weight.assign(0.7)
        _, got = layer([query, memory], return_attention_scores=True)
        sums = torch.tanh(query[:, :, None] + memory[:, None]).sum(-1)
        equal = torch.allclose(got.detach(), (0.7 * sums).softmax(-1), atol=1e-5)
        print(
            f"width {width}: {numbers(layer)} parameter, scores equal "
            f"number * sum(tanh(query + key)): {equal}"
        )
        assert numbers(layer) == 1
        assert equal
    scaled = keras.layers.Attention(score_mode="concat", use_scale=True)
    scaled([query, memory])
    for weight in scaled.trainable_weights:
        weight.assign(0.7)
    _, got = scaled([query, memory], return_attention_scores=True)
    sums = torch.tanh(0.7 * (query[:, :, None] + memory[:, None])).sum(-1)
    assert torch.allclose(got.detach(), (0.7 * sums).softmax(-1), atol=1e-5)
    print(f"width {width} with use_scale: {numbers(scaled)} parameters")
    assert numbers(scaled) == 2
EOF
