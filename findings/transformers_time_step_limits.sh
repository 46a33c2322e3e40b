#!/usr/bin/env bash
# transformers 5.24.0 on torch 2.13.0 (CPU): the least time step of Zamba2 and Nemotron-H, and
# Mamba-2's limits of it, in decoding.
#
# The chunked form of the scan clamps each time step dt, after softplus, to
# [`time_step_min`, inf) in Zamba2 and Nemotron-H, and to `time_step_limit` in Mamba-2. The form
# for a single token is not handed the limits and clamps nothing. Where a dt
# lies outside them, decoding token by token gives other logits than the whole, and
# nothing is said. In Zamba2 and Nemotron-H this holds at their defaults (0.001).
# Without limits the two agree.
#
# Output seen:
#   zamba2 with its defaults: decoding differs by up to 5e-02
#   zamba2 with {'time_step_min': 0.1}: decoding differs by up to 4e+00
#   zamba2 with {'time_step_min': 1e-12}: decoding differs by up to 2e-06
#   nemotron_h with its defaults: decoding differs by up to 2e-03
#   nemotron_h with {'time_step_min': 1e-12}: decoding differs by up to 8e-07
#   mamba2 with {'time_step_limit': (0.05, 0.1)}: decoding differs by up to 2e+00
#   mamba2 with its defaults: decoding differs by up to 1e-06
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
    pad_token_id=0, initializer_range=0.3, chunk_size=8,
)
ZAMBA = dict(
    mamba_d_state=8, mamba_headdim=8, n_mamba_heads=8, num_mem_blocks=1,
    layers_block_type=["mamba", "hybrid"], hybrid_layer_ids=[1],
)
NEMOTRON = dict(
    mamba_num_heads=8, mamba_head_dim=8, ssm_state_size=8, n_groups=1,
    layers_block_type=["mamba", "attention"],
)
MAMBA = dict(num_heads=8, head_dim=8, state_size=8, n_groups=2)
CASES = (
    ("zamba2", ZAMBA, {}, 1e-4),
    ("zamba2", ZAMBA, {"time_step_min": 0.1}, 1e-2),
    ("zamba2", ZAMBA, {"time_step_min": 1e-12}, None),
    ("nemotron_h", NEMOTRON, {}, 1e-4),
    ("nemotron_h", NEMOTRON, {"time_step_min": 1e-12}, None),
    ("mamba2", MAMBA, {"time_step_limit": (0.05, 0.1)}, 1e-2),
    ("mamba2", MAMBA, {}, None),
)
tokens = torch.arange(1, 17)[None]
for name, sizes, limits, least in CASES:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **COMMON, **sizes)
    model = AutoModelForCausalLM.from_config(config)
    # The limits are set on a second model with the weights of the first.
    config = AutoConfig.for_model(name, **COMMON, **sizes, **limits)
    weights, model = model.state_dict(), AutoModelForCausalLM.from_config(config).double().eval()
    model.load_state_dict(weights)
    cache = DynamicCache(config=config)
    with torch.no_grad():
        whole = model(tokens, use_cache=False).logits
        steps = [model(token, cache=cache, use_cache=True).logits for token in tokens.split(1, 1)]
    apart = (torch.cat(steps, 1) - whole).abs().max().item()
    print(f"{name} with {limits or 'its defaults'}: decoding differs by up to {apart:.0e}")
    assert apart < 1e-4 if least is None else apart > least
EOF
