import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from seqref.tasks.counting import A, B, counting_words, memoryless_loss, words_right

NAN = float("nan")


def test_words_by_hand():
    x, targets, lengths = counting_words([2, 1])
    assert x[0].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert x[1].tolist() == [[1, 0], [0, 1], [0, 0], [0, 0]]
    assert [*map(tuple, x[1, :2].tolist())] == [A, B]
    expected = torch.tensor([[NAN, NAN, 0, 1], [NAN, 1, NAN, NAN]])
    assert torch.equal(targets.isnan(), expected.isnan())
    assert targets.nan_to_num(9).tolist() == expected.nan_to_num(9).tolist()
    assert lengths.tolist() == [4, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_word_against_a_loop(dtype):
    counts = [1, 5, 3, 3, 12]
    x, targets, lengths = counting_words(counts, dtype=dtype, device="cpu")
    assert x.dtype == targets.dtype == dtype
    assert x.shape == (5, 24, 2)
    for row, n in enumerate(counts):
        word = ["." if not v.any() else "ab"[int(v[1])] for v in x[row]]
        assert "".join(word) == "a" * n + "b" * n + "." * (24 - 2 * n)
        asked = [t for t in range(24) if not math.isnan(targets[row, t])]
        assert asked == list(range(n, 2 * n))
        assert targets[row, n : 2 * n].tolist() == [0] * (n - 1) + [1]
        assert lengths[row] == 2 * n


def test_words_go_to_the_device():
    words = counting_words([2, 1], device="meta")
    assert {part.device.type for part in words} == {"meta"}
    assert [tuple(part.shape) for part in words] == [(2, 4, 2), (2, 4), (2,)]


def test_a_word_is_right_only_if_every_answer_is():
    _, targets, _ = counting_words([3, 3, 3, 3, 3])
    said = torch.full(targets.shape, -1.0)
    said[0, 5] = 1
    said[2, 5] = said[2, 4] = 1
    said[3, 3] = said[3, 5] = 1
    # What is said at an `a` does not count, whatever it is.
    said[4, 5] = 1
    said[4, :3] = torch.tensor([1.0, NAN, 7.0])
    assert words_right(said, targets).tolist() == [True, False, False, False, True]
    # A logit of exactly 0, or NaN where a yes is due, is no yes.
    said[0, 5], said[4, 5] = 0, NAN
    assert not words_right(said, targets).any()


def test_what_is_said_in_the_padding_does_not_count():
    _, targets, _ = counting_words([1, 3])
    said = torch.full(targets.shape, -1.0)
    said[0, 1:] = said[1, 5] = 1
    assert words_right(said, targets).tolist() == [True, True]


@pytest.mark.parametrize("counts", [range(1, 11), [1], [4, 4], [1, 30]])
def test_the_memoryless_loss_is_the_least_over_constant_answers(counts):
    _, targets, _ = counting_words(counts, dtype=torch.float64)
    answers = targets[~targets.isnan()]
    share = answers.mean()
    loss = binary_cross_entropy(share.expand_as(answers), answers).item()
    assert memoryless_loss(counts) == pytest.approx(loss, abs=1e-12)
    for other in (share * 0.9, share * 0.9 + 0.1):
        worse = binary_cross_entropy(other.expand_as(answers), answers).item()
        assert worse >= loss - 1e-15


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: counting_words([]), ValueError, "at least one n, got none"),
        (lambda: counting_words([2, 0]), ValueError, "`counts` must be at least 1"),
        (lambda: counting_words([1.5]), TypeError, "`counts` must be an int, got fl"),
        (lambda: counting_words([1], dtype=torch.int8), TypeError, "floating dtype"),
        (lambda: memoryless_loss([]), ValueError, "^memoryless_loss: `counts` must"),
        (lambda: memoryless_loss([-1]), ValueError, "at least 1, got -1"),
        (
            lambda: words_right(torch.zeros(1, 2), torch.zeros(1, 4)),
            ValueError,
            r"`said` must have shape \(batch=1, time=4\), got \(1, 2\)",
        ),
        (
            lambda: words_right(torch.zeros(4), torch.zeros(4)),
            ValueError,
            r"`targets` must have shape \(batch, time\), got \(4,\)",
        ),
        (
            lambda: words_right([[0.0]], torch.zeros(1, 1)),
            TypeError,
            "`said` must be a torch.Tensor, got list",
        ),
        (lambda: counting_words(3), TypeError, "`counts` must be an iterable .* int$"),
        (lambda: memoryless_loss(3), TypeError, "^memoryless_loss: `counts` must be"),
    ],
)
def test_refuses(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
