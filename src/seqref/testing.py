r"""Checks for layers and models: the contract of a layer, and one property each."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seqref._contract import padding, time, values
from seqref._contract.carry import check_state_carry
from seqref._contract.causal import check_causality
from seqref._contract.invariance import check_padding_invariance
from seqref._contract.live import LiveBytes
from seqref._contract.nonlinear import check_nonlinearity
from seqref._contract.order import check_row_order
from seqref._contract.shift import check_target_shift
from seqref._contract.source import check_source_dependence
from seqref._contract.subject import (
    COMPLEX,
    Subject,
    flatten,
    is_smooth,
    property_named,
)
from seqref.errors import check_number, check_tensor

__all__ = [
    "LiveBytes",
    "Report",
    "check_causality",
    "check_nonlinearity",
    "check_padding_invariance",
    "check_row_order",
    "check_sequence_layer",
    "check_source_dependence",
    "check_state_carry",
    "check_target_shift",
]


class Report(NamedTuple):
    r"""What a check looked at: names of properties, and reasons of those skipped."""

    checked: tuple[str, ...]
    skipped: dict[str, str]


def check_sequence_layer(
    layer: nn.Module,
    x: Tensor,
    *,
    atol: float = 1e-10,
    rtol: float = 1e-10,
    dtype: torch.dtype = torch.float64,
) -> Report:
    r"""Hold a causal layer to its contract; raise at the first property that fails.

    The properties, in the order in which they are checked:

    | property | what holds |
    | --- | --- |
    | protocol | `initial_state`, `step` and the call fit in shapes, kinds and dtypes |
    | arguments | no call changes its input, state, lengths or a parameter in place |
    | determinism | the same call twice gives the same result |
    | steps | two steps from one state give two independent results |
    | module state | nothing is remembered on the module between calls |
    | initial state | the state that is passed in matters; none means `initial_state` |
    | forward | the call equals the loop over `step`: outputs and final state |
    | gradients | so do the gradients; autograd agrees with central differences |
    | chunks | parts with carried state equal the whole, gradients included |
    | causality | no output depends on a later input, by value and by gradient |
    | rows | each row of the batch is as if it were alone |
    | padding | with `lengths`, each row is as if it ended there, NaN as padding too |
    | empty | with time 0 the state passes through |

    The layer is copied, and the copy converted to `dtype`; the layer itself, `x` and
    torch's random generators stay as they are. Gradients are those of a random linear
    loss over outputs and final state. The initial state is one that the layer reaches
    from `layer.initial_state` in three steps over random inputs.

    The properties hold for the sizes of `x`. A form that works in chunks is tried with
    a time beyond its chunk, and dropout or batch norm in the mode that the layer is in.

    A layer declares what it cannot promise by attributes, each True when absent:
    `chunk_invariant = False` (results depend on where a sequence is cut: no *chunks*,
    *forward* over a single step, no comparison of *gradients* with the loop),
    `differentiable_state = False` (gradients stop at the state: no gradient through
    carried state), `supports_lengths = False` (then *padding* checks that the layer
    refuses lengths). What is skipped is printed with its reason.

    Args:
        layer: A module with `initial_state(batch_size)`, `step(x_t, state)` and
            `layer(x, state=None, lengths=None)`.
        x: Inputs to try it on; random values are best. Three steps more than its time
            must be within the layer's reach.
        atol: Absolute tolerance of every comparison but the central differences.
        rtol: Relative tolerance of the same.
        dtype: torch.float64, or torch.float32 for kernels that float64 never reaches:
            pass tolerances that fit, and the central differences are skipped.

    Shapes:
        - `x`: (batch, time, ...), batch at least 2, time at least 1

    Raises:
        AssertionError: a property fails; the message begins with its name and says
            what differs and by how much.
        TypeError: `layer` is no module, lacks a member or declares `causal = False`;
            `x` is no tensor or not floating; a tolerance is no number.
        ValueError: `x` has too few axes, rows or steps, or is not finite; a tolerance
            is negative or not finite; `dtype` is neither torch.float64 nor
            torch.float32.
    """
    _check_arguments(layer, x, atol, rtol, dtype)
    devices = [x.device] if x.is_cuda else []
    with torch.enable_grad(), torch.random.fork_rng(devices):
        with property_named("protocol"):
            subject = Subject(layer, x, atol, rtol, dtype)
            values.protocol(subject)
            skipped = _skipped(subject)
        checked: dict[str, None] = {"protocol": None}
        for name, check in _properties(subject):
            with property_named(name):
                check(subject)
            checked[name] = None
    for name, reason in skipped.items():
        print(f"check_sequence_layer({type(layer).__name__}): skipped {name}: {reason}")
    return Report(tuple(checked), skipped)


def _check_arguments(
    layer: nn.Module, x: Tensor, atol: float, rtol: float, dtype: torch.dtype
) -> None:
    where = "check_sequence_layer"
    if not isinstance(layer, nn.Module):
        raise TypeError(
            f"{where}: `layer` must be a torch.nn.Module, got {type(layer).__name__}"
        )
    if not getattr(layer, "causal", True):
        raise TypeError(
            f"{where}: `layer` must be causal, and {type(layer).__name__} declares "
            "causal = False: its outputs depend on later inputs"
        )
    for member in ("initial_state", "step"):
        if not callable(getattr(layer, member, None)):
            raise TypeError(
                f"{where}: `layer` must have a method {member}, and "
                f"{type(layer).__name__} has none"
            )
    for name, tolerance in (("atol", atol), ("rtol", rtol)):
        check_number(where, name, tolerance, minimum=0, finite_in=torch.float64)
    if dtype not in COMPLEX:
        raise ValueError(
            f"{where}: `dtype` must be torch.float64 or torch.float32, got {dtype}"
        )
    check_tensor(where, "x", x)
    if not x.is_floating_point():
        raise TypeError(f"{where}: `x` must have a floating dtype, got {x.dtype}")
    if x.dim() < 2 or x.shape[0] < 2 or x.shape[1] < 1:
        raise ValueError(
            f"{where}: `x` must have shape (batch, time, ...) with batch at least 2 "
            f"and time at least 1, got {tuple(x.shape)}"
        )
    if not x.isfinite().all():
        raise ValueError(f"{where}: `x` must be finite, got NaN or infinity in it")


def _properties(subject: Subject) -> list[tuple[str, Callable[[Subject], None]]]:
    chosen: list[tuple[str, Callable[[Subject], None]]] = [
        ("arguments", values.arguments),
        ("determinism", values.determinism),
        ("steps", values.steps),
        ("module state", values.module_state),
        ("initial state", values.initial_state),
        ("initial state", values.no_state),
        ("forward", time.forward),
    ]
    if subject.chunk_invariant and subject.differentiable_state:
        chosen.append(("gradients", time.gradients))
    if subject.dtype == torch.float64:
        chosen.append(("gradients", time.slopes))
    if subject.chunk_invariant and subject.time > 1:
        chosen.append(("chunks", time.chunks))
    if subject.time > 1:
        chosen.append(("causality", time.causality))
    chosen += [("rows", values.rows), ("rows", values.row_gradients)]
    check = padding.padding if subject.supports_lengths else padding.refusal
    return [*chosen, ("padding", check), ("empty", values.empty)]


def _skipped(subject: Subject) -> dict[str, str]:
    skipped = {}
    if not subject.chunk_invariant:
        reason = "the layer declares chunk_invariant = False"
        skipped["chunks"] = skipped["forward over more than one step"] = reason
    if not (subject.chunk_invariant and subject.differentiable_state):
        reason = "the layer declares differentiable_state = False"
        if not subject.chunk_invariant:
            reason = "the layer declares chunk_invariant = False"
        skipped["gradients beside the loop"] = reason
    if not subject.differentiable_state:
        reason = "the layer declares differentiable_state = False"
        skipped["gradients of the state"] = reason
    if not subject.supports_lengths:
        skipped["padding"] = "the layer declares supports_lengths = False"
    if subject.time == 1:
        skipped["causality"] = "`x` has one step"
        skipped.setdefault("chunks", "`x` has one step")
    if subject.dtype != torch.float64:
        skipped["central differences"] = f"`dtype` is {subject.dtype}"
    if not any(is_smooth(t) for t in flatten(subject.state).values()):
        skipped["initial state"] = "the state holds no real or complex tensor"
    return skipped
