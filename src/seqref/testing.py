r"""Checks for layers and models: the contract of a layer, and one property each."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from seqref._contract import values
from seqref._contract.attention import check_attention
from seqref._contract.carry import check_state_carry
from seqref._contract.causal import check_causality
from seqref._contract.continuation import check_cached_continuation
from seqref._contract.copies import check_dtype
from seqref._contract.cost import check_linear_cost
from seqref._contract.expected import check_expected
from seqref._contract.fork import check_state_fork
from seqref._contract.invariance import check_padding_invariance
from seqref._contract.live import LiveBytes
from seqref._contract.nonlinear import check_nonlinearity
from seqref._contract.order import check_row_order
from seqref._contract.properties import PROPERTIES, Report, go_through
from seqref._contract.shift import check_target_shift
from seqref._contract.source import check_source_dependence
from seqref._contract.subject import Subject, property_named
from seqref.errors import check_number, check_tensor

__all__ = [
    "LiveBytes",
    "Report",
    "check_attention",
    "check_cached_continuation",
    "check_causality",
    "check_linear_cost",
    "check_nonlinearity",
    "check_padding_invariance",
    "check_row_order",
    "check_sequence_layer",
    "check_source_dependence",
    "check_state_carry",
    "check_state_fork",
    "check_target_shift",
]


def check_sequence_layer(
    layer: nn.Module,
    x: Tensor,
    *,
    atol: float = 1e-10,
    rtol: float = 1e-10,
    dtype: torch.dtype = torch.float64,
    expected_failures: Mapping[str, str] | None = None,
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

    A state whose tensors grow with the steps, such as a cache, is compared in the size
    of the larger one: its type has a static method `matched`, as
    `seqref.recurrence.match_states` says.

    The properties hold for the sizes of `x`. A form that works in chunks is tried with
    a time beyond its chunk, and dropout or batch norm in the mode that the layer is in.

    A layer declares what it cannot promise by attributes, each True when absent:
    `chunk_invariant = False` (results depend on where a sequence is cut: no *chunks*,
    *forward* over a single step, no comparison of *gradients* with the loop),
    `differentiable_state = False` (gradients stop at the state: no gradient through
    carried state), `supports_lengths = False` (then *padding* checks that the layer
    refuses lengths). What is skipped is printed with its reason.

    A property that a layer is known to break is named in `expected_failures`. It is
    checked all the same, and the others with it: the day that it holds is an error, so
    that no entry outlives its reason.

    Args:
        layer: A module with `initial_state(batch_size)`, `step(x_t, state)` and
            `layer(x, state=None, lengths=None)`.
        x: Inputs to try it on; random values are best. Three steps more than its time
            must be within the layer's reach.
        atol: Absolute tolerance of every comparison but the central differences.
        rtol: Relative tolerance of the same.
        dtype: torch.float64, or torch.float32 for kernels that float64 never reaches:
            pass tolerances that fit, and the central differences are skipped.
        expected_failures: The reason for each property that must fail, by its name;
            any but *protocol*, without which nothing can be looked at.

    Shapes:
        - `x`: (batch, time, ...), batch at least 2, time at least 1

    Raises:
        AssertionError: a property fails; the message begins with its name and says
            what differs and by how much. Or one holds that was expected to fail.
        TypeError: `layer` is no module, lacks a member or declares `causal = False`;
            `x` is no tensor or not floating; a tolerance is no number;
            `expected_failures` is no mapping to reasons.
        ValueError: `x` has too few axes, rows or steps, or is not finite; a tolerance
            is negative or not finite; `dtype` is neither torch.float64 nor
            torch.float32; an expected failure has no reason or is of no property.
    """
    _check_arguments(layer, x, atol, rtol, dtype)
    expected = {} if expected_failures is None else expected_failures
    check_expected("check_sequence_layer", expected, PROPERTIES)
    devices = [x.device] if x.is_cuda else []
    with torch.enable_grad(), torch.random.fork_rng(devices):
        with property_named("protocol"):
            subject = Subject(layer, x, atol, rtol, dtype)
            values.protocol(subject)
        report = go_through(subject, expected)
    call = f"check_sequence_layer({type(layer).__name__})"
    for name, reason in report.skipped.items():
        print(f"{call}: skipped {name}: {reason}")
    for name, reason in report.failed.items():
        print(f"{call}: {name} fails, as expected: {reason}")
    return report


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
    check_dtype(where, dtype)
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
