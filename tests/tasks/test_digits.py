import sys

import pytest
import torch

from seqref.tasks import inked_digits
from seqref.tasks.digits import CLASSES, LONGEST, N_DIGITS

datasets = pytest.importorskip("sklearn.datasets")


@pytest.fixture(scope="module")
def parts():
    return inked_digits(test_rows=500, seed=3)


def images_of(part):
    """The 8 by 8 images that the steps were made of."""
    images = torch.zeros(len(part.labels), 8, 8)
    for image, x, length in zip(images, part.x, part.lengths.tolist(), strict=True):
        for row, column, ink in x[:length].tolist():
            image[round(row * 7), round(column * 7)] = ink * 16
    return images


def test_every_image_can_be_drawn_again_and_comes_once(parts):
    source = datasets.load_digits()
    expected = [
        (*image.flatten().tolist(), label)
        for image, label in zip(source.images, source.target.tolist(), strict=True)
    ]
    got = []
    for part in parts:
        for image, label in zip(images_of(part), part.labels.tolist(), strict=True):
            got.append((*image.flatten().tolist(), label))
    assert sorted(got) == sorted(expected)


def test_shapes_dtypes_and_lengths(parts):
    train, test = parts
    assert train.x.shape == (N_DIGITS - 500, LONGEST, 3)
    assert test.x.shape == (500, LONGEST, 3)
    lengths = torch.cat([train.lengths, test.lengths])
    assert (int(lengths.min()), int(lengths.max())) == (16, LONGEST)
    assert train.x.dtype == torch.float32
    assert train.lengths.dtype == train.labels.dtype == torch.int64
    assert set(test.labels.tolist()) == set(range(CLASSES))


def test_the_defaults_are_500_test_rows_and_seed_0():
    for one, other in zip(inked_digits(), inked_digits(500, seed=0), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_steps_follow_the_reading_order_and_all_have_ink(parts):
    train, _ = parts
    for x, length in zip(train.x[:50], train.lengths[:50].tolist(), strict=True):
        places = (x[:length, 0] * 7 * 8 + x[:length, 1] * 7).round()
        assert (places.diff() > 0).all()
        assert (x[:length, 2] > 0).all()
        assert (x[:length] <= 1).all()
        assert not x[length:].any()


def test_the_split_is_a_function_of_the_seed(parts):
    again, other = inked_digits(500, seed=3), inked_digits(500, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(parts[1], again[1], strict=True))
    assert not torch.equal(parts[1].labels, other[1].labels)


def test_defaults_of_torch_change_nothing(parts):
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            again = inked_digits(500, seed=3)
    finally:
        torch.set_default_dtype(torch.float32)
    for part, other in zip(again, parts, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(part, other, strict=True))
        assert part.x.dtype == torch.float32


@pytest.mark.errors
@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"test_rows": 0}, ValueError, "`test_rows` must be at least 1, got 0"),
        ({"test_rows": 1797}, ValueError, "must be below 1797, .* got 1797"),
        ({"test_rows": 0.2}, TypeError, "`test_rows` must be an int, got float"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0, got -1"),
    ],
)
def test_refuses(arguments, kind, message):
    with pytest.raises(kind, match=f"inked_digits: .*{message}"):
        inked_digits(**arguments)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(RuntimeError, match=r"inked_digits needs sklearn.*\[data\]"):
        inked_digits()
