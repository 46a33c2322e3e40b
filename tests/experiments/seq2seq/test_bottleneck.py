"""Sources that are read from their end, and shares by length."""

import torch
from torch import nn

from experiments.seq2seq import _reversal as shared
from seqref.tasks.reversal import Reversal


def test_a_flipped_source_is_what_is_to_be_written():
    pairs = Reversal(6, 2, 5).draw(20, torch.Generator().manual_seed(0))
    flipped = shared.flipped(pairs.source, pairs.source_lengths)
    for b, length in enumerate(pairs.source_lengths.tolist()):
        assert torch.equal(flipped[b, :length], pairs.target_out[b, :length])
        assert (flipped[b, length:] == 0).all()
    assert torch.equal(
        shared.as_it_is(pairs.source, pairs.source_lengths), pairs.source
    )


class Knows(nn.Module):
    """Writes the source from its end, all but the third symbol."""

    def forward(self, source, inputs):
        ends = torch.ones(len(source), 1, dtype=torch.int64)
        logits = nn.functional.one_hot(torch.cat([source.flip(1), ends], dim=1), 9)
        logits[:, 2] = 0
        return logits.double()


def test_right_is_counted_by_place():
    config = shared.Training(symbols=7, tests=50)
    right = shared.right(Knows(), shared.as_it_is, 5, config)
    assert right.shape == (50, 5)
    assert right.double().mean(dim=0).tolist() == [1.0, 1.0, 0.0, 1.0, 1.0]
