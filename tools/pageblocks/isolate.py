r"""Gives a page the state of a fresh interpreter, and takes it back afterwards."""

import contextlib
import copy
import gc
import os
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

# What torch seeds its default generator with in a fresh interpreter.
_FRESH_SEED = 67280421310721


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    r"""Run a page in an empty folder, without sockets, and restore what it changed.

    Restored are the working folder, the environment, `sys.path`, `sys.argv`, the
    random generators, torch's defaults, NumPy's print options and every figure.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_interpreter())
        stack.enter_context(_no_sockets())
        stack.enter_context(_figures())
        stack.enter_context(_numpy())
        stack.enter_context(_torch())
        yield


def warm_up(texts: Iterable[str]) -> None:
    r"""Import torch before a page that uses it, so that this is not the page's time."""
    if any("torch" in text or "seqref" in text for text in texts):
        with contextlib.suppress(ImportError):
            import torch  # noqa: F401


@contextlib.contextmanager
def _interpreter() -> Iterator[None]:
    folder, environment = os.getcwd(), dict(os.environ)
    path, argv, state = list(sys.path), list(sys.argv), random.getstate()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:
        os.chdir(empty)
        os.environ["MPLBACKEND"] = "Agg"
        try:
            yield
        finally:
            os.chdir(folder)
            for name in set(os.environ) - set(environment):
                del os.environ[name]
            os.environ.update(environment)
            sys.path[:], sys.argv[:] = path, argv
            random.setstate(state)
            gc.collect()


@contextlib.contextmanager
def _no_sockets() -> Iterator[None]:
    import pytest_socket

    pytest_socket.disable_socket(allow_unix_socket=True)
    try:
        yield
    finally:
        pytest_socket.enable_socket()


@contextlib.contextmanager
def _figures() -> Iterator[None]:
    try:
        yield
    finally:
        pyplot: Any = sys.modules.get("matplotlib.pyplot")
        if pyplot is not None:
            pyplot.close("all")
            pyplot.rcdefaults()


@contextlib.contextmanager
def _numpy() -> Iterator[None]:
    np: Any = sys.modules.get("numpy")
    if np is None:
        yield
        return
    options, state, errors = np.get_printoptions(), np.random.get_state(), np.geterr()
    options.pop("override_repr", None)
    try:
        yield
    finally:
        np.set_printoptions(**options)
        np.random.set_state(state)
        np.seterr(**errors)


@contextlib.contextmanager
def _torch() -> Iterator[None]:
    torch: Any = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "grad": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "warn_always": torch.is_warn_always_enabled(),
    }
    printing = copy.copy(torch._tensor_str.PRINT_OPTS)
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    torch.manual_seed(_FRESH_SEED)
    # A warning that torch gives once per process would depend on earlier pages.
    torch.set_warn_always(True)
    try:
        yield
    finally:
        _restore_torch(torch, before)
        vars(torch._tensor_str.PRINT_OPTS).update(vars(printing))
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def _restore_torch(torch: Any, before: dict[str, Any]) -> None:
    torch.set_default_dtype(before["dtype"])
    if torch.get_default_device() != before["device"]:
        torch.set_default_device(None)
    torch.set_grad_enabled(before["grad"])
    torch.set_num_threads(before["threads"])
    # Setting this one imports a large part of torch.
    if torch.are_deterministic_algorithms_enabled() != before["deterministic"]:
        torch.use_deterministic_algorithms(before["deterministic"])
    torch.autograd.set_detect_anomaly(before["anomaly"])
    torch.set_float32_matmul_precision(before["precision"])
    torch.set_warn_always(before["warn_always"])
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
