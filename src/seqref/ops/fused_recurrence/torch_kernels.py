r"""The same recurrences by torch's kernels: oneDNN or ATen on CPU, cuDNN on GPU."""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pad_packed_sequence,
)

from seqref.errors import is_exporting
from seqref.ops._padding import blank_padding, real_steps
from seqref.ops.fused_recurrence.reference import States, Weights

Kernel = Callable[..., tuple[Tensor, ...]]


@contextmanager
def _weights_may_be_scattered(on_gpu: bool) -> Iterator[None]:
    # cuDNN wants all weights in one block of memory and warns on each call when they
    # are not; it then copies them, which is what a function of separate tensors asks.
    if not on_gpu:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "RNN module weights are not part of single")
        yield


_hidden_from_compiler: Any = None

_QUESTIONS = {
    torch.bfloat16: "_is_mkldnn_bf16_supported",
    torch.float16: "_is_mkldnn_fp16_supported",
}
_answers: dict[torch.dtype, bool] = {}


def onednn_supports(dtype: torch.dtype) -> bool:
    r"""Whether oneDNN computes in a low precision on this processor; asked once.

    It is torch's own question before it gives oneDNN a tensor of that dtype.
    """
    if dtype not in _answers:
        question = getattr(torch.ops.mkldnn, _QUESTIONS.get(dtype, ""), None)
        _answers[dtype] = question is not None and question()
    return _answers[dtype]


def why_not_lstm_under_autocast(x: Tensor) -> str:
    r"""The reason why `torch.lstm` fails under autocast on a CPU; empty if it does not.

    torch asks for the dtype of `x` whether oneDNN has an LSTM, and autocast converts
    `x` after that. In float32 the answer is yes on every processor; in the dtype of
    autocast it may be no, and then oneDNN raises.
    """
    dtype = torch.get_autocast_dtype("cpu")
    if x.dtype in (dtype, torch.float64):
        return ""
    if is_exporting() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return f"the program may run where oneDNN has no LSTM in {dtype}"
    if not torch.backends.mkldnn.is_available():
        return ""
    if not onednn_supports(dtype):
        return f"oneDNN has no LSTM in {dtype} on this processor"
    if dtype == torch.float16 and torch.is_grad_enabled():
        return f"oneDNN has no LSTM in {dtype} that can be trained"
    return ""


def run(
    kernel: Kernel,
    x: Float[Tensor, "batch time input"],
    states: States,
    weights: Weights,
    lengths: Integer[Tensor, " batch"] | None,
) -> tuple[Tensor, States]:
    r"""Run one of torch's one-layer recurrences (`torch.lstm`, `torch.rnn_tanh`, ...).

    Shapes:
        - `x`: (batch, time, input), time at least 1; each of `states`: (batch, hidden)
        - returns: outputs (batch, time, hidden), zero in the padding, and the states
          after each row's last real step
    """
    # torch.compile fails in the backward pass of oneDNN's kernel, and torch.nn.LSTM
    # leaves compiled graphs for the same reason. The compiler takes seconds to import:
    # not before somebody uses it.
    if "torch._dynamo" not in sys.modules or is_exporting():
        return _run(kernel, x, states, weights, lengths)
    global _hidden_from_compiler  # noqa: PLW0603
    if _hidden_from_compiler is None:
        _hidden_from_compiler = torch.compiler.disable(_run)
    return _hidden_from_compiler(kernel, x, states, weights, lengths)


def _run(
    kernel: Kernel,
    x: Tensor,
    states: States,
    weights: Weights,
    lengths: Tensor | None,
) -> tuple[Tensor, States]:
    has_biases = weights[2] is not None
    parameters = [weight for weight in weights if weight is not None]
    dtypes = [state.dtype for state in states]
    # has_biases, num_layers, dropout, train, bidirectional
    options = (has_biases, 1, 0.0, _may_be_trained([x, *states, *parameters]), False)
    if lengths is None:
        # cuDNN refuses states that are not contiguous.
        start = [state[None].contiguous() for state in states]
        hx = start[0] if len(start) == 1 else start
        with _weights_may_be_scattered(x.is_cuda):
            y, *final = kernel(x, hx, parameters, *options, True)
        ends = tuple(state[0] for state in final)
    else:
        y, ends = _packed(kernel, x, states, parameters, options, lengths)
    # Under autocast torch computes and returns a lower precision.
    y = y.to(dtypes[0])
    return y, tuple(end.to(dtype) for end, dtype in zip(ends, dtypes, strict=True))


def _may_be_trained(tensors: list[Tensor]) -> bool:
    r"""Whether the kernel must keep what a backward pass needs."""
    # A trace keeps the answer. It may be used with gradients or without, and torch
    # traces a second time without them and compares.
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return any(tensor.requires_grad for tensor in tensors)
    return torch.is_grad_enabled()


def _packed(
    kernel: Kernel,
    x: Float[Tensor, "batch time input"],
    states: States,
    parameters: list[Tensor],
    options: tuple[bool, int, float, bool, bool],
    lengths: Integer[Tensor, " batch"],
) -> tuple[Tensor, States]:
    real = real_steps(lengths.to(x.device), x.shape[1])
    # Packing refuses a length of 0: such a row runs one blank step, which is dropped.
    packed = pack_padded_sequence(
        blank_padding(x, real),
        lengths.detach().to("cpu", torch.int64).clamp(min=1),
        batch_first=True,
        enforce_sorted=False,
    )
    data, batch_sizes, order, restore = packed
    if order is None or restore is None:
        raise RuntimeError("fused_recurrence: torch packed the rows without an order")
    start = [state[None].index_select(1, order) for state in states]
    hx = start[0] if len(start) == 1 else start
    with _weights_may_be_scattered(x.is_cuda):
        y_data, *final = kernel(data, batch_sizes, hx, parameters, *options)
    y, _ = pad_packed_sequence(
        PackedSequence(y_data, batch_sizes, order, restore),
        batch_first=True,
        total_length=x.shape[1],
    )
    some = real[:, :1]
    ends = tuple(
        torch.where(some, end[0].index_select(0, restore), state)
        for end, state in zip(final, states, strict=True)
    )
    return y.masked_fill(~real[..., None], 0.0), ends
