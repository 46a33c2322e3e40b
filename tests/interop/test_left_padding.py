"""Rows with their padding on the left, shifted to the right and back."""

import pytest
import torch

from seqref.interop import from_left_padding, to_left_padding

LENGTHS = torch.tensor([7, 4, 2])
MASK = (torch.arange(7) < LENGTHS[:, None]).long()


def test_rows_are_shifted_and_shifted_back():
    x = torch.arange(21).view(3, 7)
    left, mask = to_left_padding(x, torch.tensor([7, 3, 0]))
    assert left[0].tolist() == x[0].tolist()
    assert left[1].tolist() == [10, 11, 12, 13, 7, 8, 9]
    assert mask.tolist() == [[1] * 7, [0, 0, 0, 0, 1, 1, 1], [0] * 7]
    back, lengths = from_left_padding(left, mask)
    assert torch.equal(back, x)
    assert lengths.tolist() == [7, 3, 0]
    vectors = torch.randn(3, 7, 2)
    moved, _ = from_left_padding(vectors, mask.bool())
    assert torch.equal(moved[1, :3], vectors[1, 4:])
    empty, none = to_left_padding(x[:, :0], torch.tensor([0, 0, 0]))
    assert empty.shape == none.shape == (3, 0)


@pytest.mark.errors
def test_bad_arguments():
    x = torch.arange(21).view(3, 7)
    with pytest.raises(ValueError, match=r"zeros and then ones, got .* in row 1"):
        from_left_padding(x, MASK)
    with pytest.raises(ValueError, match="`attention_mask` must have shape"):
        from_left_padding(x, MASK[:, 1:])
    with pytest.raises(TypeError, match=r"`attention_mask` must be a torch\.Tensor"):
        from_left_padding(x, None)
    with pytest.raises(ValueError, match="`x` must have shape"):
        to_left_padding(x[0], LENGTHS)
    with pytest.raises(ValueError, match="at most time=7"):
        to_left_padding(x, LENGTHS + 1)
