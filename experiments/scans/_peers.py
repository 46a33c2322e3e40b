r"""What a linear scan is timed against: forward and backward, with equal inputs."""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from experiments.lab.timing import Contestant
from experiments.scans._forms import Form, logarithms, of_mambapy, tree
from seqref.ops.linear_scan import linear_scan

# Batch, time, width.
Size = tuple[int, int, int]

# The recurrence and its gradients, one number after the other along the width.
SOURCE = """
void forward(const float *restrict a, const float *restrict b, float *restrict h,
             long batch, long time, long n) {
    for (long row = 0; row < batch; row++)
        for (long t = 0; t < time; t++) {
            long at = (row * time + t) * n;
            for (long i = at; i < at + n; i++)
                h[i] = t ? a[i] * h[i - n] + b[i] : b[i];
        }
}
void backward(const float *restrict a, const float *restrict h,
              const float *restrict grad, float *restrict grad_a,
              float *restrict grad_b, long batch, long time, long n) {
    for (long row = 0; row < batch; row++)
        for (long t = time - 1; t >= 0; t--) {
            long at = (row * time + t) * n;
            int last = t == time - 1;
            for (long i = at; i < at + n; i++) {
                grad_b[i] = last ? grad[i] : a[i + n] * grad_b[i + n] + grad[i];
                grad_a[i] = t ? grad_b[i] * h[i - n] : 0;
            }
        }
}
"""


@cache
def compiled() -> Any:
    """The loop in C, for the processor at hand; None where nothing compiles it."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "scan.c"), Path(folder, "scan.so")
        source.write_text(SOURCE, encoding="utf-8")
        # Not -ffast-math: by older compilers it makes the process that loads the
        # library take small numbers for zero.
        options = ("-O3", "-march=native", "-shared", "-fPIC")
        # Some compilers do not know the processor by that name.
        made = subprocess.run(
            [compiler, *options, source, "-o", library],
            check=False,
            capture_output=True,
        )
        return None if made.returncode else ctypes.CDLL(str(library))


def loop_in_c(a: Tensor, b: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    """States and both gradients, by the compiled loop."""
    sizes = [ctypes.c_long(size) for size in b.shape]

    def call(name: str, *tensors: Tensor) -> None:
        pointers = [ctypes.c_void_p(x.data_ptr()) for x in tensors]
        getattr(compiled(), name)(*pointers, *sizes)

    h, grad_a, grad_b = (torch.empty_like(b) for _ in range(3))
    call("forward", a, b, h)
    call("backward", a, h, grad, grad_a, grad_b)
    return h, grad_a, grad_b


def of_backend(name: str) -> Form:
    """The op by one backend."""
    return lambda a, b: linear_scan(a, b, backend=name)[0]


FORMS: dict[str, Form] = {
    "mambapy": of_mambapy,
    "parallel": of_backend("parallel"),
    "reference": of_backend("reference"),
    "tree": tree,
    "logarithms": logarithms,
}


def results(size: Size, low: float, seed: int) -> dict[str, Callable[[], Any]]:
    """By contestant a call that gives states and gradients."""
    generator = lab.generator(seed)
    a = low + (1 - low) * torch.rand(size, generator=generator)
    b, grad = (torch.randn(size, generator=generator) for _ in range(2))
    inputs = a.requires_grad_(), b.requires_grad_()

    def by_autograd(form: Form) -> Callable[[], Any]:
        def call() -> tuple[Tensor, ...]:
            h = form(*inputs)
            return h, *torch.autograd.grad(h, inputs, grad)

        return call

    calls = {name: by_autograd(form) for name, form in FORMS.items()}
    if compiled() is not None:
        calls["c"] = lambda: loop_in_c(a.detach(), b.detach(), grad)
    return calls


def contestants(size: Size, low: float, seed: int) -> dict[str, Contestant]:
    """All forms, to be timed; inputs and what comes from above are not counted."""
    return {name: Contestant(call) for name, call in results(size, low, seed).items()}
