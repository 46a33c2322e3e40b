"""Each check, each branch, each message."""

import math
from fractions import Fraction

import numpy
import pytest
import torch

from seqref import errors

F64 = torch.float64
AXES = (("batch", None), ("time", None), ("input_size", 3))


def test_shape_that_fits_passes():
    assert errors.check_shape("f", "x", torch.zeros(2, 7, 3), AXES) is None
    assert errors.check_shape("f", "x", torch.zeros(()), ()) is None


@pytest.mark.errors
@pytest.mark.parametrize(
    ("shape", "got"),
    [
        ((2, 7, 4), r"\(2, 7, 4\)"),
        ((2, 3), r"\(2, 3\)"),
        ((1, 2, 7, 3), r"\(1, 2, 7, 3\)"),
        ((), r"\(\)"),
    ],
)
def test_wrong_shape_names_expected_and_got(shape, got):
    message = (
        rf"^F\.g: `x` must have shape \(batch, time, input_size=3\), got {got}"
        r" \(a hint\?\)$"
    )
    with pytest.raises(ValueError, match=message):
        errors.check_shape("F.g", "x", torch.zeros(shape), AXES, "a hint?")


@pytest.mark.errors
def test_shape_of_one_axis_is_written_as_a_tuple_and_no_hint_leaves_no_bracket():
    message = r"^f: `b` must have shape \(hidden=4,\), got \(5,\)$"
    with pytest.raises(ValueError, match=message):
        errors.check_shape("f", "b", torch.zeros(5), (("hidden", 4),))


@pytest.mark.errors
def test_shape_of_no_tensor():
    message = r"^f: `x` must be a torch\.Tensor, got list$"
    with pytest.raises(TypeError, match=message):
        errors.check_shape("f", "x", [1.0], AXES)
    with pytest.raises(TypeError, match=message):
        errors.check_tensor("f", "x", [1.0])


def test_like_parameters_passes():
    weight = torch.zeros(2)
    assert errors.check_like_parameters("f", "x", torch.ones(3), weight) is None
    with torch.autocast("cpu", torch.bfloat16):
        low = torch.ones(3, dtype=torch.bfloat16)
        assert errors.check_like_parameters("f", "x", low, weight) is None


@pytest.mark.errors
def test_like_parameters_refuses_another_device():
    message = r"^f: `x` must be on the parameters' device cpu, got meta$"
    with pytest.raises(ValueError, match=message):
        errors.check_like_parameters(
            "f", "x", torch.ones(3, device="meta"), torch.zeros(2)
        )


@pytest.mark.errors
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_like_parameters_refuses_another_dtype(device, dtype):
    weight = torch.zeros(2, device=device)
    x = torch.ones(3, dtype=dtype, device=device)
    message = rf"^f: `x` must have the parameters' dtype torch\.float32, got {dtype}$"
    with pytest.raises(ValueError, match=message):
        errors.check_like_parameters("f", "x", x, weight)


@pytest.mark.errors
def test_like_parameters_refuses_integers_also_under_autocast():
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ValueError, match=r"`x` must have .* got torch\.int64"),
    ):
        errors.check_like_parameters("f", "x", torch.ones(3).long(), torch.zeros(2))


def test_size_passes():
    assert errors.check_size("f", "n", 1) is None
    assert errors.check_size("f", "n", 0, minimum=0) is None


@pytest.mark.errors
@pytest.mark.parametrize(
    ("value", "kind"),
    [(2.0, "float"), (True, "bool"), ("2", "str"), (None, "NoneType")],
)
def test_size_of_another_kind(value, kind):
    with pytest.raises(TypeError, match=rf"^f: `n` must be an int, got {kind}$"):
        errors.check_size("f", "n", value)


@pytest.mark.errors
def test_size_too_small():
    with pytest.raises(ValueError, match=r"^f: `n` must be at least 1, got 0$"):
        errors.check_size("f", "n", 0)
    with pytest.raises(ValueError, match=r"^f: `n` must be at least 0, got -1$"):
        errors.check_size("f", "n", -1, minimum=0)


@pytest.mark.parametrize("value", [1, 0.5, numpy.float32(0.5), Fraction(1, 2)])
def test_number_of_any_real_kind_passes(value):
    assert errors.check_number("f", "x", value, minimum=0.5, finite_in=F64) is None


def test_number_at_its_bounds():
    assert errors.check_number("f", "x", math.inf) is None
    assert errors.check_number("f", "x", math.inf, minimum=0) is None
    assert errors.check_number("f", "x", 0, minimum=0, maximum=0) is None
    assert errors.check_number("f", "x", 0.1, above=0, below=0.2) is None
    assert errors.check_probability("f", "p", 0) is None
    assert errors.check_probability("f", "p", 1 - 1e-12) is None


@pytest.mark.errors
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, "bool"),
        ("2", "str"),
        (None, "NoneType"),
        (1j, "complex"),
        (torch.tensor(0.5), "Tensor"),
    ],
)
def test_number_of_another_kind(value, kind):
    message = rf"^f: `x` must be a number, got {kind}$"
    with pytest.raises(TypeError, match=message):
        errors.check_number("f", "x", value)
    with pytest.raises(TypeError, match=message):
        errors.check_probability("f", "x", value)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (math.nan, {}, "a number, got nan"),
        (-1, {"minimum": 0}, "at least 0, got -1"),
        (0.0, {"above": 0}, "above 0, got 0.0"),
        (2, {"below": 2}, "below 2, got 2"),
        (2, {"above": 0, "maximum": 1}, "above 0 and at most 1, got 2"),
        (math.inf, {"above": 0, "finite_in": F64}, "above 0 and finite, got inf"),
        (1e39, {"finite_in": torch.float32}, r"finite in float32, got 1e\+39"),
        (0, {"above": 0, "hint": "None?"}, r"above 0, got 0 \(None\?\)"),
    ],
)
def test_number_out_of_bounds(value, bounds, message):
    with pytest.raises(ValueError, match=rf"^f: `x` must be {message}$"):
        errors.check_number("f", "x", value, **bounds)


@pytest.mark.errors
@pytest.mark.parametrize(
    "bounds",
    [{"minimum": 0}, {"above": 0}, {"below": 1}, {"maximum": 1}, {"finite_in": F64}],
)
def test_nan_lies_within_no_bound(bounds):
    with pytest.raises(ValueError, match=r"got nan$"):
        errors.check_number("f", "x", math.nan, **bounds)


@pytest.mark.errors
@pytest.mark.parametrize("value", [-1e-12, 1, 1.5, math.nan, math.inf])
def test_no_probability(value):
    message = rf"^f: `p` must be at least 0 and below 1, got {value}$"
    with pytest.raises(ValueError, match=message):
        errors.check_probability("f", "p", value)


def test_generator():
    errors.check_generator("tasks.draw", None)
    errors.check_generator("tasks.draw", torch.Generator())
    with pytest.raises(TypeError) as error:
        errors.check_generator("tasks.draw", 0)
    assert str(error.value) == (
        "tasks.draw: `generator` must be a torch.Generator or None, got int "
        "(torch.Generator().manual_seed(0))"
    )


def test_choice():
    assert errors.check_choice("f", "how", "a", ("a", "b")) is None
    with pytest.raises(ValueError, match=r"^f: `how` must be one of 'a', 'b', got 3$"):
        errors.check_choice("f", "how", 3, ("a", "b"))
    with pytest.raises(ValueError, match=r"must be one of 'a', 'b', got 'c'$"):
        errors.check_choice("f", "how", "c", ("a", "b"))


INTEGERS = ["uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_lengths_of_every_integer_dtype(dtype):
    lengths = torch.tensor([0, 5, 3]).to(getattr(torch, dtype))
    assert errors.check_lengths("f", lengths, 3, 5) is None
    with pytest.raises(ValueError, match="at most time=4, got 5"):
        errors.check_lengths("f", lengths, 3, 4)


def test_lengths_of_an_empty_batch():
    assert errors.check_lengths("f", torch.zeros(0, dtype=torch.int64), 0, 5) is None


@pytest.mark.errors
@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        (
            [1, 2],
            TypeError,
            r"^f: `lengths` must be a tensor of integers .* got list \(",
        ),
        (torch.ones(2), TypeError, r"must have an integer dtype, got torch\.float32$"),
        (torch.ones(2) > 0, TypeError, r"an integer dtype, got torch\.bool$"),
        (torch.ones(2) * 1j, TypeError, r"an integer dtype, got torch\.complex64$"),
        (torch.ones(3).long(), ValueError, r"have shape \(batch=2,\), got \(3,\)$"),
        (torch.ones(2, 1).long(), ValueError, r"shape \(batch=2,\), got \(2, 1\)$"),
        (
            torch.tensor([1, -2]),
            ValueError,
            r"^f: `lengths` must be at least 0, got -2$",
        ),
        (torch.tensor([1, 6]), ValueError, r"^f: .* be at most time=5, got 6$"),
    ],
)
def test_lengths_refused(lengths, error, message):
    with pytest.raises(error, match=message):
        errors.check_lengths("f", lengths, 2, 5)


def test_an_extra_is_imported_or_named():
    assert errors.import_extra("math", "a sum", "none").fsum([1.0, 2.0]) == 3.0
    message = (
        r"^a sum needs nowhere, which is not installed: "
        r"in your clone of seqref, pip install .\.\[x\].$"
    )
    with pytest.raises(RuntimeError, match=message) as caught:
        errors.import_extra("nowhere.at_all", "a sum", "x")
    assert isinstance(caught.value.__cause__, ImportError)


def test_the_file_of_an_extra_is_there_or_named():
    path = errors.extra_file("pytest", "pytest/__init__.py", "a test", "none")
    assert path.is_file()
    assert path.name == "__init__.py"
    message = (
        r"^a word needs no-such-thing, which is not installed: "
        r"in your clone of seqref, pip install .\.\[x\].$"
    )
    with pytest.raises(RuntimeError, match=message) as caught:
        errors.extra_file("no-such-thing", "data.txt", "a word", "x")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    message = (
        r"^a word needs the file pytest/none\.txt of pytest, and the version that is "
        r"installed has none: pip install --force-reinstall pytest$"
    )
    with pytest.raises(RuntimeError, match=message):
        errors.extra_file("pytest", "pytest/none.txt", "a word", "x")
