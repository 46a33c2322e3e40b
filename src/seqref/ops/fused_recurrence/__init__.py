r"""A plain or gated recurrence over a whole sequence, in one call."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from seqref.errors import (
    check_choice,
    check_lengths,
    check_like_parameters,
    check_shape,
    is_exporting,
)
from seqref.ops.fused_recurrence import parallel, torch_kernels
from seqref.ops.fused_recurrence.reference import States, Weights, loop

__all__ = ["BACKENDS", "fused_cho_gru", "fused_gru", "fused_lstm", "fused_rnn"]

BACKENDS = ("reference", "parallel", "torch")
_DEVICES = ("cpu", "cuda")
_KERNELS: dict[str, torch_kernels.Kernel] = {
    "rnn_tanh": torch.rnn_tanh,
    "rnn_relu": torch.rnn_relu,
    "lstm": torch.lstm,
    "gru": torch.gru,
}


def fused_rnn(
    x: Float[Tensor, "batch time input"],
    h_0: Float[Tensor, "batch hidden"],
    weight_ih: Float[Tensor, "hidden input"],
    weight_hh: Float[Tensor, "hidden hidden"],
    bias_ih: Float[Tensor, " hidden"] | None = None,
    bias_hh: Float[Tensor, " hidden"] | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: Integer[Tensor, " batch"] | None = None,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch time hidden"], Float[Tensor, "batch hidden"]]:
    r"""The Elman recurrence over a sequence.

    $$ h_t = \phi(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}) \qquad t = 1 \dots T $$

    Args:
        x: The inputs.
        h_0: The state before the first step.
        weight_ih: $W_{ih}$.
        weight_hh: $W_{hh}$.
        bias_ih: $b_{ih}$; both biases or none.
        bias_hh: $b_{hh}$.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        lengths: Number of real steps of each row; the rest is padding on the right.
        backend: None for the default, or a name from the table below.

    Shapes:
        - `x`: (batch, time, input); `h_0`: (batch, hidden); `lengths`: (batch,)
        - returns: `y` (batch, time, hidden), zero in the padding, and `h_n`
          (batch, hidden), the state after each row's last real step

    Cost:
        O(T D^2) time, T steps one after the other.

    Backends:
        | backend | is | default |
        | --- | --- | --- |
        | `"reference"` | a Python loop over `rnn_step` | other devices, empty input, `torch.func`, forward-mode differentiation, `torch.export` with lengths |
        | `"parallel"` | `rnn_forward` and `rnn_backward`, written by hand in plain PyTorch | CPU |
        | `"torch"` | `torch.rnn_tanh`, `torch.rnn_relu`: ATen on CPU, cuDNN on CUDA | CUDA; CPU under autocast, `torch.export`, `torch.jit.trace` |

        Every floating dtype that torch has a kernel for. Complex numbers: not in
        `"parallel"`, and with lengths in `"reference"` alone; the default is what is
        left. Measured against float64, no
        backend is more than about twice as far off as the loop in the same dtype, relative
        to small values too. All tensors but `lengths` get
        gradients; cuDNN refuses double backward. torch.compile leaves its graph for
        `"torch"` and unrolls the loop of `"reference"`.

    Raises:
        ValueError: a wrong shape, dtype, device, length, nonlinearity or backend name.
        TypeError: `lengths` is not of an integer dtype, or `weight_ih` is of one.
        RuntimeError: a backend was asked for that cannot run here.

    Source:
        Elman (1990); two bias vectors as in `torch.nn.RNN`.
    """  # noqa: E501
    where = "fused_rnn"
    check_choice(where, "nonlinearity", nonlinearity, ("tanh", "relu"))
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    _check(where, x, {"h_0": h_0}, weights, 1, lengths)
    kind = f"rnn_{nonlinearity}"
    y, (h_n,) = _dispatch(where, backend, kind, x, (h_0,), weights, lengths)
    return y, h_n


def fused_lstm(
    x: Float[Tensor, "batch time input"],
    h_0: Float[Tensor, "batch hidden"],
    c_0: Float[Tensor, "batch hidden"],
    weight_ih: Float[Tensor, "four_hidden input"],
    weight_hh: Float[Tensor, "four_hidden hidden"],
    bias_ih: Float[Tensor, " four_hidden"] | None = None,
    bias_hh: Float[Tensor, " four_hidden"] | None = None,
    *,
    lengths: Integer[Tensor, " batch"] | None = None,
    backend: str | None = None,
) -> tuple[
    Float[Tensor, "batch time hidden"],
    Float[Tensor, "batch hidden"],
    Float[Tensor, "batch hidden"],
]:
    r"""The LSTM recurrence over a sequence: `lstm_step` at each of T steps.

    $$ c_t = f_t \odot c_{t-1} + i_t \odot g_t \qquad h_t = o_t \odot \tanh c_t $$

    with the gates $i_t, f_t, g_t, o_t$ as in `lstm_step`.

    Args:
        x: The inputs.
        h_0: The hidden state before the first step.
        c_0: The cell state before the first step.
        weight_ih: Input weights, blocks in the order i, f, g, o.
        weight_hh: Recurrent weights, same order.
        bias_ih: Input bias; both biases or none.
        bias_hh: Recurrent bias.
        lengths: Number of real steps of each row; the rest is padding on the right.
        backend: None for the default, or a name from the table below.

    Shapes:
        - `x`: (batch, time, input); `h_0`, `c_0`: (batch, hidden); `lengths`: (batch,)
        - returns: `y` (batch, time, hidden), zero in the padding, and `h_n`, `c_n`
          (batch, hidden), the states after each row's last real step

    Cost:
        O(T D^2) time, T steps one after the other.

    Backends:
        | backend | is | default |
        | --- | --- | --- |
        | `"reference"` | a Python loop over `lstm_step` | other devices, empty input, `torch.func`, forward-mode differentiation, `torch.export` with lengths; `torch.export` and `torch.jit.trace` under autocast; CPU under autocast to a dtype in which oneDNN has no LSTM on this processor |
        | `"parallel"` | `lstm_forward` and `lstm_backward`, written by hand in plain PyTorch | nowhere |
        | `"torch"` | `torch.lstm`: oneDNN or ATen on CPU, cuDNN on CUDA | CPU, CUDA |

        Every floating dtype that torch has a kernel for. Complex numbers: not in
        `"parallel"`, and with lengths in `"reference"` alone; the default is what is
        left. Measured against float64, no
        backend is more than about twice as far off as the loop in the same dtype, relative
        to small values too. All tensors but `lengths` get
        gradients; cuDNN refuses double backward. torch.compile leaves its graph for
        `"torch"` and unrolls the loop of `"reference"`.

    Raises:
        ValueError: a wrong shape, dtype, device, length or backend name.
        TypeError: `lengths` is not of an integer dtype, or `weight_ih` is of one.
        RuntimeError: a backend was asked for that cannot run here.

    Source:
        Gers, Schmidhuber & Cummins (2000); gate order and two bias vectors as in
        `torch.nn.LSTM`.
    """  # noqa: E501
    where = "fused_lstm"
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    _check(where, x, {"h_0": h_0, "c_0": c_0}, weights, 4, lengths)
    states = (h_0, c_0)
    y, (h_n, c_n) = _dispatch(where, backend, "lstm", x, states, weights, lengths)
    return y, h_n, c_n


def fused_gru(
    x: Float[Tensor, "batch time input"],
    h_0: Float[Tensor, "batch hidden"],
    weight_ih: Float[Tensor, "three_hidden input"],
    weight_hh: Float[Tensor, "three_hidden hidden"],
    bias_ih: Float[Tensor, " three_hidden"] | None = None,
    bias_hh: Float[Tensor, " three_hidden"] | None = None,
    *,
    lengths: Integer[Tensor, " batch"] | None = None,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch time hidden"], Float[Tensor, "batch hidden"]]:
    r"""The GRU recurrence over a sequence, reset after the product.

    $$ n_t = \tanh(W_{in} x_t + b_{in} + r_t \odot (W_{hn} h_{t-1} + b_{hn})) \qquad
    h_t = (1 - z_t) \odot n_t + z_t \odot h_{t-1} $$

    with the gates $r_t, z_t$ as in `gru_step`.

    Args:
        x: The inputs.
        h_0: The state before the first step.
        weight_ih: Input weights, blocks in the order r, z, n.
        weight_hh: Recurrent weights, same order.
        bias_ih: Input bias; both biases or none.
        bias_hh: Recurrent bias.
        lengths: Number of real steps of each row; the rest is padding on the right.
        backend: None for the default, or a name from the table below.

    Shapes:
        - `x`: (batch, time, input); `h_0`: (batch, hidden); `lengths`: (batch,)
        - returns: `y` (batch, time, hidden), zero in the padding, and `h_n`
          (batch, hidden), the state after each row's last real step

    Cost:
        O(T D^2) time, T steps one after the other.

    Backends:
        | backend | is | default |
        | --- | --- | --- |
        | `"reference"` | a Python loop over `gru_step` | other devices, empty input, `torch.func`, forward-mode differentiation, `torch.export` with lengths |
        | `"parallel"` | `gru_forward` and `gru_backward`, written by hand in plain PyTorch | CPU |
        | `"torch"` | `torch.gru`: ATen on CPU, cuDNN on CUDA | CUDA; CPU under autocast, `torch.export`, `torch.jit.trace` |

        Every floating dtype that torch has a kernel for. Complex numbers: not in
        `"parallel"`, and with lengths in `"reference"` alone; the default is what is
        left. Measured against float64, no
        backend is more than about twice as far off as the loop in the same dtype, relative
        to small values too. All tensors but `lengths` get
        gradients.

    Raises:
        ValueError: a wrong shape, dtype, device, length or backend name.
        TypeError: `lengths` is not of an integer dtype, or `weight_ih` is of one.
        RuntimeError: a backend was asked for that cannot run here.

    Source:
        The equations of `torch.nn.GRU`.
    """  # noqa: E501
    where = "fused_gru"
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    _check(where, x, {"h_0": h_0}, weights, 3, lengths)
    y, (h_n,) = _dispatch(where, backend, "gru", x, (h_0,), weights, lengths)
    return y, h_n


def fused_cho_gru(
    x: Float[Tensor, "batch time input"],
    h_0: Float[Tensor, "batch hidden"],
    weight_ih: Float[Tensor, "three_hidden input"],
    weight_hh: Float[Tensor, "three_hidden hidden"],
    bias_ih: Float[Tensor, " three_hidden"] | None = None,
    bias_hh: Float[Tensor, " three_hidden"] | None = None,
    *,
    lengths: Integer[Tensor, " batch"] | None = None,
    backend: str | None = None,
) -> tuple[Float[Tensor, "batch time hidden"], Float[Tensor, "batch hidden"]]:
    r"""The GRU recurrence over a sequence, reset before the product.

    $$ n_t = \tanh(W_{in} x_t + b_{in} + W_{hn} (r_t \odot h_{t-1}) + b_{hn}) \qquad
    h_t = (1 - z_t) \odot n_t + z_t \odot h_{t-1} $$

    with the gates $r_t, z_t$ as in `cho_gru_step`.

    Args:
        x: The inputs.
        h_0: The state before the first step.
        weight_ih: Input weights, blocks in the order r, z, n.
        weight_hh: Recurrent weights, same order.
        bias_ih: Input bias; both biases or none.
        bias_hh: Recurrent bias.
        lengths: Number of real steps of each row; the rest is padding on the right.
        backend: None for the default, or a name from the table below.

    Shapes:
        - `x`: (batch, time, input); `h_0`: (batch, hidden); `lengths`: (batch,)
        - returns: `y` (batch, time, hidden), zero in the padding, and `h_n`
          (batch, hidden), the state after each row's last real step

    Cost:
        O(T D^2) time, T steps one after the other.

    Backends:
        | backend | is | default |
        | --- | --- | --- |
        | `"reference"` | a Python loop over `cho_gru_step` | other devices, empty input, autocast, `torch.func`, forward-mode differentiation, `torch.export`, `torch.jit.trace` |
        | `"parallel"` | `cho_gru_forward` and `cho_gru_backward`, written by hand in plain PyTorch | CPU, CUDA |
        | `"torch"` | refused: torch has no such recurrence | nowhere |

        Every floating dtype that torch has a kernel for. Complex numbers: not in
        `"parallel"`, and with lengths in `"reference"` alone; the default is what is
        left. Measured against float64, no
        backend is more than about twice as far off as the loop in the same dtype, relative
        to small values too. All tensors but `lengths` get
        gradients.

    Raises:
        ValueError: a wrong shape, dtype, device, length or backend name.
        TypeError: `lengths` is not of an integer dtype, or `weight_ih` is of one.
        RuntimeError: a backend was asked for that cannot run here.

    Source:
        Cho et al. (2014), eqs. 5 to 8 of the third arXiv version, without biases.
    """  # noqa: E501
    where = "fused_cho_gru"
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    _check(where, x, {"h_0": h_0}, weights, 3, lengths)
    y, (h_n,) = _dispatch(where, backend, "cho_gru", x, (h_0,), weights, lengths)
    return y, h_n


def _check(
    where: str,
    x: Tensor,
    states: dict[str, Tensor],
    weights: Weights,
    n_blocks: int,
    lengths: Tensor | None,
) -> None:
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    check_shape(where, "weight_ih", weight_ih, (("rows", None), ("input", None)))
    if not (weight_ih.is_floating_point() or weight_ih.is_complex()):
        raise TypeError(
            f"{where}: `weight_ih` must have a floating or complex dtype, got "
            f"{weight_ih.dtype}"
        )
    check_shape(where, "weight_hh", weight_hh, (("rows", None), ("hidden", None)))
    rows, hidden = n_blocks * weight_hh.shape[1], weight_hh.shape[1]
    check_shape(where, "weight_hh", weight_hh, (("rows", rows), ("hidden", hidden)))
    check_shape(where, "weight_ih", weight_ih, (("rows", rows), ("input", None)))
    if (bias_ih is None) != (bias_hh is None):
        raise ValueError(
            f"{where}: `bias_ih` and `bias_hh` must both be given or both be None"
        )
    for name, bias in (("bias_ih", bias_ih), ("bias_hh", bias_hh)):
        if bias is not None:
            check_shape(where, name, bias, (("rows", rows),))
    width = weight_ih.shape[1]
    check_shape(where, "x", x, (("batch", None), ("time", None), ("input", width)))
    for name, state in states.items():
        check_shape(where, name, state, (("batch", x.shape[0]), ("hidden", hidden)))
    named = {"x": x, **states, "weight_hh": weight_hh}
    for name, value in (*named.items(), ("bias_ih", bias_ih), ("bias_hh", bias_hh)):
        if value is not None:
            check_like_parameters(where, name, value, weight_ih)
    if lengths is not None:
        check_lengths(where, lengths, x.shape[0], x.shape[1])


def _dispatch(
    where: str,
    backend: str | None,
    kind: str,
    x: Tensor,
    states: States,
    weights: Weights,
    lengths: Tensor | None,
) -> tuple[Tensor, States]:
    if backend is not None:
        check_choice(where, "backend", backend, BACKENDS)
    tensors = (x, *states, *(weight for weight in weights if weight is not None))
    both = _why_the_loop(x, tensors)
    reasons = {
        "torch": _why_not_torch(kind, x, lengths) or both,
        "parallel": both or _why_not_parallel(x),
        "reference": "",
    }
    if backend is None:
        backend = next(name for name in _order(kind, x) if not reasons[name])
    elif reasons[backend]:
        raise RuntimeError(
            f"{where}: backend {backend!r} cannot run here: {reasons[backend]}"
        )
    if backend == "torch":
        return torch_kernels.run(_KERNELS[kind], x, states, weights, lengths)
    form = parallel.FORMS[kind]
    if backend == "parallel":
        return parallel.run(form, x, states, weights, lengths)

    def step(x_t: Tensor, states: States) -> States:
        return form.step(x_t, states, weights)

    moved = None if lengths is None else lengths.to(x.device)
    return loop(step, x, states, moved)


def _order(kind: str, x: Tensor) -> tuple[str, ...]:
    """The backends from the one that is taken first: what was measured to be faster."""
    if kind == "lstm":
        return ("torch", "reference")
    if x.is_cuda:
        return ("torch", "parallel", "reference")
    return ("parallel", "torch", "reference")


def _why_the_loop(x: Tensor, tensors: tuple[Tensor, ...]) -> str:
    if x.numel() == 0:
        return "the input is empty"
    # torch has no public question for "am I inside vmap, grad or jvp?"; torch.compile
    # can follow this one.
    if torch._C._are_functorch_transforms_active():
        return "torch.func cannot transform it in every way"
    if any(unpack_dual(tensor).tangent is not None for tensor in tensors):
        return "it has no rule for forward-mode differentiation"
    return ""


def _why_not_torch(kind: str, x: Tensor, lengths: Tensor | None) -> str:
    if kind not in _KERNELS:
        return "torch has no such recurrence"
    if x.device.type not in _DEVICES:
        return f"torch has no fused recurrence on {x.device.type}"
    if lengths is not None and is_exporting():
        return "torch.export cannot pack rows by lengths that it does not know"
    if lengths is not None and x.is_complex():
        return "torch has no gradients for packed rows of complex numbers"
    if kind == "lstm" and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return torch_kernels.why_not_lstm_under_autocast(x)
    return ""


def _why_not_parallel(x: Tensor) -> str:
    if x.device.type not in _DEVICES:
        return f"it is not tested on {x.device.type}"
    if x.is_complex():
        return "its backward pass is one for real numbers"
    if is_exporting():
        return "torch.export takes the steps one by one"
    # A trace keeps the number of steps that it saw; torch's kernel is one operation.
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return "torch.jit.trace cannot record a backward pass by hand"
    if torch.is_autocast_enabled(x.device.type):
        return "autocast would change the dtype inside the steps"
    return ""
