"""The two ways to decode that are timed are one function."""

import torch

from experiments import lab
from experiments.speed.decoding_context import Block, Config


def test_a_cached_step_is_the_last_output_of_the_whole():
    config = Config(width=32, head=8)
    with lab.seeded(0):
        block = Block(config, 6)
        x = torch.randn(1, 6, 32)
    expected = block.whole(x)
    _, keys, values = block.heads_of(x)
    block.keys[:, :, :-1], block.values[:, :, :-1] = keys[:, :, :-1], values[:, :, :-1]
    torch.testing.assert_close(block.cached(x[:, -1:]), expected)
    # What the last place of the cache held before is written over.
    block.keys[:, :, -1:] = torch.nan
    torch.testing.assert_close(block.cached(x[:, -1:]), expected)
