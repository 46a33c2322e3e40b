#!/usr/bin/env bash
# transformers 5.24.0 on torch 2.13.0 (CPU): RecurrentGemma's recurrent states and its cache.
#
# A RecurrentGemma that has decoded one sequence is given another with a new cache. The
# logits are not those of the sequence read as a whole, and nothing is said: the states of
# the RG-LRU and of the convolution lie on the modules, not in the cache, and a call that
# brings a cache leaves them as they are. They are made new only where
# `use_cache` is set and no cache is given. Two sequences decoded in turns, each over a cache
# of its own, disturb each other for the same reason. Read in two calls over a fresh
# cache and fresh states, the prompt gives other logits too: a call of several tokens
# takes the RG-LRU's state on, but starts its convolution from zeros.
#
# Output seen:
#   first sequence over a new cache differs from the whole: False
#   second sequence over a new cache differs from the whole: True
#   two sequences in turns, a cache for each, differ from the whole: True
#   one sequence in two calls differs from the whole: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q transformers==5.24.0
export HF_HUB_OFFLINE=1 HF_HOME="$work/hf"
"$work/venv/bin/python" -W ignore - <<'EOF'
import torch
from transformers import DynamicCache, RecurrentGemmaConfig, RecurrentGemmaForCausalLM

CONFIG = RecurrentGemmaConfig(
    vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, lru_width=32, attention_window_size=64,
    bos_token_id=None, eos_token_id=None, pad_token_id=0,
)
first, second = torch.arange(1, 11)[None], torch.arange(20, 30)[None]


def made():
    torch.manual_seed(0)
    model = RecurrentGemmaForCausalLM(CONFIG).eval()
    for parameter in model.parameters():
        # Far from zero, so that a difference shows.
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def read(model, tokens, cache, parts):
    return torch.cat(
        [model(t, cache=cache, use_cache=True).logits for t in tokens.split(parts, 1)], 1
    )


def differs(logits, tokens):
    return (logits - made()(tokens, use_cache=False).logits).abs().max().item() > 0.01


with torch.no_grad():
    model = made()
    once = differs(read(model, first, DynamicCache(config=CONFIG), 1), first)
    print(f"first sequence over a new cache differs from the whole: {once}")
    again = differs(read(model, second, DynamicCache(config=CONFIG), 1), second)
    print(f"second sequence over a new cache differs from the whole: {again}")

    model, outputs = made(), ([], [])
    caches = [DynamicCache(config=CONFIG) for _ in outputs]
    for pair in zip(first.split(1, 1), second.split(1, 1), strict=True):
        for logits, token, cache in zip(outputs, pair, caches, strict=True):
            logits.append(model(token, cache=cache, use_cache=True).logits)
    turns = differs(torch.cat(outputs[0], 1), first)
    print(f"two sequences in turns, a cache for each, differ from the whole: {turns}")

    parts = differs(read(made(), first, DynamicCache(config=CONFIG), 5), first)
    print(f"one sequence in two calls differs from the whole: {parts}")
assert not once and again and turns and parts
EOF
