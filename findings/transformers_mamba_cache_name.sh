#!/usr/bin/env bash
# transformers 5.24.0 on torch 2.13.0 (CPU): `past_key_values=` given to Mamba's models.
#
# The argument that carries a cache has a new name, `cache`, and the attributes of an
# output say that `past_key_values` and `cache_params` are deprecated. Mamba, Falcon-Mamba
# and Mamba-2 map `cache_params` to it alone. `past_key_values`, the name that every other
# decoder maps, falls into the `**kwargs` of their forward pass, which nobody reads. Each call
# then starts from an empty state: decoding token by token gives the logits of each token
# on its own, and nothing is said. Bamba maps the name.
#
# Output seen:
#   mamba: past_key_values= each token read on its own: True; cache_params= False; cache= False
#   falcon_mamba: past_key_values= each token read on its own: True; cache_params= False; cache= False
#   mamba2: past_key_values= each token read on its own: True; cache_params= False; cache= False
#   bamba: past_key_values= each token read on its own: False
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
from transformers.utils import logging

COMMON = dict(
    vocab_size=40, hidden_size=32, num_hidden_layers=2, bos_token_id=None, eos_token_id=None,
    pad_token_id=0, initializer_range=0.3,
)
MODELS = {
    "mamba": dict(state_size=8, time_step_rank=4),
    "falcon_mamba": dict(state_size=8, time_step_rank=4),
    "mamba2": dict(num_heads=8, head_dim=8, state_size=8, n_groups=2, chunk_size=8),
    "bamba": dict(
        intermediate_size=48, num_attention_heads=4, num_key_value_heads=2,
        attn_layer_indices=[1], mamba_n_heads=8, mamba_d_head=8, mamba_d_state=8,
        mamba_n_groups=1, mamba_chunk_size=8,
    ),
}
logging.set_verbosity_error()
tokens = torch.arange(1, 11)[None]


def alone(model, argument):
    """Whether decoding with the cache under this name reads each token on its own."""
    cache, largest = DynamicCache(config=model.config), 0.0
    with torch.no_grad():
        for token in tokens.unbind(1):
            logits = model(token[:, None], **{argument: cache}, use_cache=True).logits
            single = model(token[:, None], use_cache=False).logits
            largest = max(largest, (logits - single).abs().max().item())
    return largest < 1e-4


for name, sizes in MODELS.items():
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **COMMON, **sizes)
    model = AutoModelForCausalLM.from_config(config).eval()
    past = alone(model, "past_key_values")
    line = f"{name}: past_key_values= each token read on its own: {past}"
    if name == "bamba":
        assert not past
    else:
        old, new = alone(model, "cache_params"), alone(model, "cache")
        line += f"; cache_params= {old}; cache= {new}"
        assert past and not old and not new
    print(line)
EOF
