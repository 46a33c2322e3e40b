r"""What decoding with a cache is timed against, on equal weights of GPT-2.

`generate` of transformers; the model's own `step`, whose cache is a value; and a plain
loop over the tensors as transformers stores them, with caches that are there before.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from experiments import lab
from seqref.decoding import beam_search, greedy
from seqref.decoding.kv_cache import CachedDecoder
from seqref.interop import from_transformers

# Called with how many tokens to write; returns them, (batch, time).
Writer = Callable[[int], Tensor]
# Width, layers, heads, and tokens of the prompt.
Size = tuple[int, int, int, int]


def gpt2(size: Size, positions: int, vocab: int, seed: int) -> Any:
    """A GPT-2 of transformers with random weights, in evaluation mode."""
    from transformers import GPT2Config, GPT2LMHeadModel

    width, layers, heads, _ = size
    config = GPT2Config(
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        n_positions=positions,
        vocab_size=vocab,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        # At the usual 0.02 a tied head says each token again.
        initializer_range=0.1,
    )
    with lab.seeded(seed):
        return GPT2LMHeadModel(config).eval()


@contextmanager
def quiet() -> Iterator[None]:
    """transformers warns of its own argument's old name."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)


def of_transformers(model: Any, prompts: Tensor) -> Writer:
    """`generate`, over a cache that holds all of the prompts but their last tokens."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    with torch.no_grad(), quiet():
        model(prompts[:, :-1], cache=cache)

    def write(count: int) -> Tensor:
        written = generated(model, prompts, count, cache=cache)
        # What was read in this call: the last token of the prompt, and all that was
        # written but the last.
        cache.crop(-count)
        return written

    return write


def beams_of_transformers(model: Any, prompts: Tensor, width: int) -> Writer:
    """`generate` with beams, which reads the prompts in each call."""
    options = {"num_beams": width, "early_stopping": "never"}
    return partial(generated, model, prompts, **options)


def generated(model: Any, prompts: Tensor, count: int, **options: Any) -> Tensor:
    """What `generate` writes behind the prompts."""
    with torch.no_grad(), quiet():
        written = model.generate(
            prompts,
            # Without it tokens that are the padding's are hidden in a prompt.
            attention_mask=torch.ones_like(prompts),
            do_sample=False,
            max_new_tokens=count,
            min_new_tokens=count,
            **options,
        )
    return written[:, prompts.shape[1] :]


def of_package(model: Any, prompts: Tensor, most: int) -> Writer:
    """`greedy` over caches in place."""
    decoder = CachedDecoder(model, rows=len(prompts), capacity=prompts.shape[1] + most)
    decoder.read(prompts[:, :-1])

    def write(count: int) -> Tensor:
        state = decoder.rewind(prompts.shape[1] - 1)
        return greedy(decoder, prompts[:, -1], max_length=count, state=state).tokens

    return write


def without_prompt(model: Any, prompts: Tensor, most: int) -> Writer:
    """As `of_package`, and of the prompts the last tokens alone are read."""
    decoder = CachedDecoder(model, rows=len(prompts), capacity=most)

    def write(count: int) -> Tensor:
        return greedy(decoder, prompts[:, -1], max_length=count).tokens

    return write


def of_step(model: Any, prompts: Tensor) -> Writer:
    """`greedy` over the model itself: each step copies its cache."""
    with torch.no_grad():
        _, state = model(prompts[:, :-1])

    def write(count: int) -> Tensor:
        return greedy(model, prompts[:, -1], max_length=count, state=state).tokens

    return write


def beams_of_package(model: Any, prompts: Tensor, width: int, most: int) -> Writer:
    """`beam_search` over caches in place."""
    decoder = CachedDecoder(
        model, rows=len(prompts) * width, capacity=prompts.shape[1] + most
    )

    def write(count: int) -> Tensor:
        _, state = decoder.read(prompts[:, :-1])
        best = beam_search(
            decoder, prompts[:, -1], width=width, max_length=count, state=state
        )
        return best.tokens[:, 0]

    return write


class PlainLoop:
    r"""GPT-2 written out for one row, its weights as they are stored.

    Args:
        model: That of transformers.
        capacity: Positions that the caches have room for.
    """

    def __init__(self, model: Any, capacity: int) -> None:
        body, config = model.transformer, model.config
        self.width, self.heads = config.n_embd, config.n_head
        self.embedding = body.wte.weight.detach()
        self.positions = body.wpe.weight.detach()
        self.blocks = list(body.h)
        self.last = body.ln_f
        shape = (2, self.heads, capacity, self.width // self.heads)
        self.caches = [torch.zeros(shape) for _ in self.blocks]
        self.used = 0

    def step(self, token: Tensor) -> Tensor:
        """Scores (1, vocab) after one more token."""
        x = (self.embedding[token] + self.positions[self.used])[None]
        for block, cache in zip(self.blocks, self.caches, strict=True):
            x = self.attended(block, cache, x)
            h, mlp = block.ln_2(x), block.mlp
            h = torch.addmm(mlp.c_fc.bias, h, mlp.c_fc.weight)
            h = F.gelu(h, approximate="tanh")
            x = torch.addmm(x + mlp.c_proj.bias, h, mlp.c_proj.weight)
        self.used += 1
        return F.linear(self.last(x), self.embedding)

    def attended(self, block: Any, cache: Tensor, x: Tensor) -> Tensor:
        """The first half of a block."""
        attention, n = block.attn, self.used + 1
        projected = torch.addmm(
            attention.c_attn.bias, block.ln_1(x), attention.c_attn.weight
        )
        q, k_t, v_t = projected.view(3, self.heads, 1, -1)
        cache[0, :, self.used : n], cache[1, :, self.used : n] = k_t, v_t
        scores = torch.bmm(q / math.sqrt(q.shape[-1]), cache[0, :, :n].mT)
        out = torch.bmm(scores.softmax(dim=-1), cache[1, :, :n]).view(1, -1)
        return torch.addmm(x + attention.c_proj.bias, out, attention.c_proj.weight)


def of_plain_loop(model: Any, prompts: Tensor, most: int) -> Writer:
    """The loop that is written out, over one row."""
    from transformers import DynamicCache

    steps = prompts.shape[1]
    loop = PlainLoop(model, steps + most)
    cache = DynamicCache(config=model.config)
    with torch.no_grad(), quiet():
        model(prompts[:, :-1], cache=cache)
    filled: Any = cache.layers
    for mine, layer in zip(loop.caches, filled, strict=True):
        mine[0, :, : steps - 1], mine[1, :, : steps - 1] = (
            layer.keys[0],
            layer.values[0],
        )

    @torch.no_grad()
    def write(count: int) -> Tensor:
        loop.used, token = steps - 1, prompts[0, -1]
        written = []
        for _ in range(count):
            token = loop.step(token)[0].argmax()
            written.append(token)
        return torch.stack(written)[None]

    return write


def contestants(size: Size, vocab: int, most: int, seed: int) -> dict[str, Writer]:
    """All that write the same tokens, from one model and one prompt."""
    context = size[3]
    model = gpt2(size, context + most, vocab, seed)
    prompts = torch.randint(vocab, (1, context), generator=lab.generator(seed + 1))
    ours = from_transformers(model)
    return {
        "generate": of_transformers(model, prompts),
        "ours": of_package(ours, prompts, most),
        "loop": of_plain_loop(model, prompts, most),
        "step": of_step(ours, prompts),
        "blind": without_prompt(ours, prompts, most),
    }
