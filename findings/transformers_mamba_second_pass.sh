#!/usr/bin/env bash
# transformers 5.24.0 on torch 2.13.0 (CPU): a second pass of several tokens over the cache of
# Mamba, Falcon-Mamba and Jamba.
#
# A cache that has read the first nine tokens is given the next seven in one call, as for a
# prompt in parts or the next turn of a talk. The logits are not those of the whole
# sequence, and nothing is said; the docstring of Mamba's `cache` promises them. One token
# at a time they are right. The mixer has two branches: a single token goes through the
# step, which starts from the cached state; more than one go through the scan,
# `mamba_selective_scan`, which has no argument for an initial state and starts at zero. The
# cached inputs of the convolution are used by both. So the logits of the second call are
# bit for bit those of a cache whose state was set to zero in between. Mamba-2 hands
# its state to the scan.
#
# Output seen:
#   mamba: differs from the whole token by token: False, in two calls: True; as if the state were zero: True
#   falcon_mamba: differs from the whole token by token: False, in two calls: True; as if the state were zero: True
#   jamba: differs from the whole token by token: False, in two calls: True; as if the state were zero: True
#   mamba2: differs from the whole token by token: False, in two calls: False; as if the state were zero: False
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
    vocab_size=40, hidden_size=32, num_hidden_layers=2, bos_token_id=None, eos_token_id=None,
    pad_token_id=0, initializer_range=0.3,
)
MODELS = {
    "mamba": dict(state_size=8, time_step_rank=4),
    "falcon_mamba": dict(state_size=8, time_step_rank=4),
    "jamba": dict(
        intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, attn_layer_offset=1,
        attn_layer_period=2, num_experts=2, num_experts_per_tok=1, mamba_d_state=8,
        mamba_dt_rank=4,
    ),
    "mamba2": dict(num_heads=8, head_dim=8, state_size=8, n_groups=2, chunk_size=8),
}
tokens = torch.arange(1, 17)[None]


def read(model, parts, forget=False):
    """Logits of all parts, over one cache; `forget` sets the states to zero before the last."""
    cache, logits = DynamicCache(config=model.config), []
    for index, part in enumerate(parts):
        if forget and index == len(parts) - 1:
            for layer in cache.layers:
                if hasattr(layer, "recurrent_states"):
                    layer.recurrent_states[0].zero_()
        logits.append(model(part, cache=cache, use_cache=True).logits)
    return torch.cat(logits, 1)


for name, sizes in MODELS.items():
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **COMMON, **sizes)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        whole = model(tokens, use_cache=False).logits
        steps = read(model, tokens.split(1, 1))
        calls = read(model, tokens.split([9, 7], 1))
        forgot = read(model, tokens.split([9, 7], 1), forget=True)
    by_step = (steps - whole).abs().max().item() > 0.1
    by_call = (calls - whole).abs().max().item() > 0.1
    zero = torch.equal(calls, forgot)
    print(
        f"{name}: differs from the whole token by token: {by_step}, in two calls: {by_call}; "
        f"as if the state were zero: {zero}"
    )
    assert not by_step and by_call == zero == (name != "mamba2")
EOF
