#!/usr/bin/env bash
# transformers 5.24.0 on torch 2.13.0 (CPU): float64, eager attention, a left-padded batch.
#
# Five of the six families below then give NaN at every position of a padded row, real ones
# included. Their eager attention takes the softmax in float32, whatever the model's
# dtype is, while the mask holds the most negative float64, which is minus infinity in
# float32. A query that stands in the padding sees no key, its row of the softmax is
# 0 / 0, and in the next layer zero weights meet its NaN. With `sdpa`, and in float32,
# the same batch gives the logits of the rows without padding; GPT-2 keeps the dtype and
# is right throughout. So a float64 model, which one takes to be sure, is the one that
# fails; and what eager attention computes in float64 has the precision of float32.
#
# Output seen:
#   llama: eager float64 NaN, eager float32 equal, sdpa float64 equal
#   mistral: eager float64 NaN, eager float32 equal, sdpa float64 equal
#   qwen3: eager float64 NaN, eager float32 equal, sdpa float64 equal
#   gpt_neox: eager float64 NaN, eager float32 equal, sdpa float64 equal
#   opt: eager float64 NaN, eager float32 equal, sdpa float64 equal
#   gpt2: eager float64 equal, eager float32 equal, sdpa float64 equal
#   llama without padding: eager and sdpa in float64 differ by more than 1e-12: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q transformers==5.24.0
export HF_HUB_OFFLINE=1 HF_HOME="$work/hf"
"$work/venv/bin/python" -W ignore - <<'EOF'
import torch
from transformers import AutoModelForCausalLM, CONFIG_MAPPING

SIZES = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "ffn_dim": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "word_embed_proj_dim": 32, "n_embd": 32, "n_layer": 2, "n_head": 4,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
    # Far from a uniform softmax, so that rounding shows.
    "initializer_range": 0.5, "init_std": 0.5,
}


def made(name, attention, dtype):
    config = CONFIG_MAPPING[name]()
    for key, value in SIZES.items():
        if hasattr(config, key):
            setattr(config, key, value)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:2]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return model.eval().to(dtype)


@torch.no_grad()
def verdict(name, attention, dtype):
    model = made(name, attention, dtype)
    real = torch.arange(1, 13).reshape(2, 6)
    tokens = torch.cat([torch.zeros(2, 4, dtype=torch.long), real], 1)
    mask = (torch.arange(10) >= 4).long().expand(2, -1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    padded = model(tokens, attention_mask=mask, position_ids=positions).logits[:, 4:]
    if padded.isnan().all():
        return "NaN"
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    assert (padded - model(real).logits).abs().max() < tolerance
    return "equal"


for name in ("llama", "mistral", "qwen3", "gpt_neox", "opt", "gpt2"):
    eager = verdict(name, "eager", torch.float64)
    single = verdict(name, "eager", torch.float32)
    fused = verdict(name, "sdpa", torch.float64)
    print(f"{name}: eager float64 {eager}, eager float32 {single}, sdpa float64 {fused}")
    assert eager == ("equal" if name == "gpt2" else "NaN"), name
    assert single == fused == "equal", name
with torch.no_grad():
    tokens = torch.arange(1, 13).reshape(2, 6)
    eager, fused = (
        made("llama", attention, torch.float64)(tokens).logits
        for attention in ("eager", "sdpa")
    )
apart = (eager - fused).abs().max().item() > 1e-12
print(
    "llama without padding: eager and sdpa in float64 differ by more than 1e-12:", apart
)
assert apart
EOF
