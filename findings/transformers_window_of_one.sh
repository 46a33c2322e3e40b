#!/usr/bin/env bash
# transformers 5.24.0 on torch 2.13.0 (CPU): decoding with a sliding window of one position.
#
# A Mistral whose `sliding_window` is 1 sees its own position alone, and read as a whole it
# does so. Decoded token by token over the cache that its configuration asks for, it gives
# other logits, and nothing is said. A layer of that cache keeps the last window - 1 keys by
# the slice that begins at -window + 1; at a window of 1 this is 0, so that every key is
# kept. The query of a step meets them all, with no mask, since one query at the end of
# its keys needs none. Windows of 2 and 3 keep 1 and 2 keys, and decode to the logits of
# the whole.
#
# Output seen:
#   window 1: 10 keys are kept after 10 steps, decoding differs from the whole: True
#   window 2: 1 keys are kept after 10 steps, decoding differs from the whole: False
#   window 3: 2 keys are kept after 10 steps, decoding differs from the whole: False
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q transformers==5.24.0
export HF_HUB_OFFLINE=1 HF_HOME="$work/hf"
"$work/venv/bin/python" -W ignore - <<'EOF'
import torch
from transformers import DynamicCache, MistralConfig, MistralForCausalLM


def made(window):
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, sliding_window=window,
        bos_token_id=None, eos_token_id=None, pad_token_id=0,
        # Far from a uniform softmax, so that a difference shows.
        initializer_range=0.3,
    )
    return MistralForCausalLM(config).eval()


tokens = torch.arange(1, 11)[None]
for window in (1, 2, 3):
    model = made(window)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        whole = model(tokens).logits
        steps = [model(token[:, None], cache=cache).logits for token in tokens.unbind(1)]
    kept = cache.layers[0].keys.shape[2]
    differs = (torch.cat(steps, 1) - whole).abs().max().item() > 0.1
    print(
        f"window {window}: {kept} keys are kept after 10 steps, "
        f"decoding differs from the whole: {differs}"
    )
    assert kept == (10 if window == 1 else window - 1)
    assert differs == (window == 1)
EOF
