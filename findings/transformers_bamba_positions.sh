#!/usr/bin/env bash
# transformers 5.24.0 on torch 2.13.0 (CPU): Bamba's positions over a cache.
#
# A Bamba decodes token by token over its cache to other logits than it gives to the whole
# sequence, and nothing is said. Where `position_ids` are not given, its model counts the
# tokens of the call from 0, and not from the length of the cache, so that every decoded
# token has rotary position 0. With `position_ids` the logits are those of the whole.
# `generate` passes them. Models with the same layers, such as GraniteMoeHybrid, count on from the cache.
#
# Output seen:
#   Bamba token by token differs from the whole: True; with position_ids: False
#   GraniteMoeHybrid token by token differs from the whole: False; with position_ids: False
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q transformers==5.24.0
export HF_HUB_OFFLINE=1 HF_HOME="$work/hf"
"$work/venv/bin/python" -W ignore - <<'EOF'
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

COMMON = dict(
    vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, bos_token_id=None, eos_token_id=None,
    pad_token_id=0, initializer_range=0.3, mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8,
    mamba_n_groups=1, mamba_chunk_size=8,
)
MODELS = {
    "Bamba": ("bamba", dict(attn_layer_indices=[1])),
    "GraniteMoeHybrid": (
        "granitemoehybrid",
        dict(
            layer_types=["mamba", "attention"], num_local_experts=2, num_experts_per_tok=1,
            shared_intermediate_size=48, position_embedding_type="rope",
        ),
    ),
}
tokens = torch.arange(1, 11)[None]


def differs(model, given):
    cache, steps = DynamicCache(config=model.config), []
    with torch.no_grad():
        for t, token in enumerate(tokens.split(1, 1)):
            where = {"position_ids": torch.tensor([[t]])} if given else {}
            steps.append(model(token, cache=cache, use_cache=True, **where).logits)
        whole = model(tokens, use_cache=False).logits
    return (torch.cat(steps, 1) - whole).abs().max().item() > 0.1


for name, (kind, sizes) in MODELS.items():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **COMMON, **sizes)).eval()
    alone, given = differs(model, False), differs(model, True)
    print(f"{name} token by token differs from the whole: {alone}; with position_ids: {given}")
    assert alone == (name == "Bamba") and not given
EOF
