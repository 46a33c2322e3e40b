r"""Gives a page the state of a fresh interpreter, and takes it back afterwards."""

import contextlib
import decimal
import gc
import locale
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from pageblocks.patches import unpatched
from pageblocks.torch_state import fresh_torch

# Settings of the interpreter, each with its getter and its setter.
_SETTINGS = (
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (sys.getswitchinterval, sys.setswitchinterval),
    (sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    (random.getstate, random.setstate),
    (lambda: locale.setlocale(locale.LC_ALL),
     lambda name: locale.setlocale(locale.LC_ALL, name)),
    (lambda: decimal.getcontext().copy(), decimal.setcontext),
    (lambda: multiprocessing.get_start_method(allow_none=True),
     lambda method: multiprocessing.set_start_method(method, force=True)),
    (gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    (gc.get_threshold, lambda three: gc.set_threshold(*three)),
)  # fmt: skip
_HOOKS = ("displayhook", "excepthook", "breakpointhook", "ps1", "ps2")
# Not SIGALRM, with which pytest ends a page that hangs.
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE")


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    r"""Run a page in an empty folder, without sockets, and restore what it changed.

    Restored are the working folder, the environment, `sys.path`, `sys.argv`, modules
    imported from the page's folder, the interpreter's settings, handlers of signals,
    loggers, the random generators, NumPy's settings, every figure, torch's settings
    (`torch_state`), and functions and classes that were replaced (`patches`). Filters
    of warnings hold for one block.
    """
    with contextlib.ExitStack() as stack:
        for part in (
            _interpreter,
            _settings,
            _signals,
            _loggers,
            _no_sockets,
            _figures,
            _numpy,
            fresh_torch,
            unpatched,
        ):
            stack.enter_context(part())
        yield


def warm_up(texts: Iterable[str]) -> None:
    r"""Import torch before a page that uses it, so that this is not the page's time."""
    if any("torch" in text or "seqref" in text for text in texts):
        with contextlib.suppress(ImportError):
            import torch  # noqa: F401


@contextlib.contextmanager
def without_pytest_logging() -> Iterator[None]:
    r"""Take pytest's handlers off the root logger: with them, `basicConfig` is idle."""
    root = logging.getLogger()
    theirs = [h for h in root.handlers if _is_pytest(h)]
    for handler in theirs:
        root.removeHandler(handler)
    try:
        yield
    finally:
        for handler in theirs:
            root.addHandler(handler)


@contextlib.contextmanager
def _interpreter() -> Iterator[None]:
    folder, environment = os.getcwd(), dict(os.environ)
    path, argv, mask = list(sys.path), list(sys.argv), _mask()
    finders = list(sys.meta_path), list(sys.path_hooks)
    modules = set(sys.modules)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:
        os.chdir(empty)
        os.environ["MPLBACKEND"] = "Agg"
        sys.argv[:] = [""]
        # What was there before the page is not gone through again at its end.
        gc.freeze()
        try:
            yield
        finally:
            os.chdir(folder)
            for name in set(os.environ) - set(environment):
                del os.environ[name]
            os.environ.update(environment)
            sys.path[:], sys.argv[:] = path, argv
            sys.meta_path[:], sys.path_hooks[:] = finders
            for name in set(sys.modules) - modules:
                if _is_below(sys.modules[name], empty):
                    del sys.modules[name]
            os.umask(mask)
            gc.collect()
            gc.unfreeze()


def _mask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _is_below(module: Any, folder: str) -> bool:
    file = getattr(module, "__file__", None) or ""
    return os.path.realpath(file).startswith(os.path.realpath(folder) + os.sep)


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    before = [get() for get, _ in _SETTINGS]
    hooks = {name: getattr(sys, name) for name in _HOOKS if hasattr(sys, name)}
    try:
        yield
    finally:
        for (get, put), value in zip(_SETTINGS, before, strict=True):
            if get() != value:
                put(value)
        for name, hook in hooks.items():
            setattr(sys, name, hook)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: set by something that is not Python, and not to be set again.
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)


@contextlib.contextmanager
def _loggers() -> Iterator[None]:
    r"""Levels, handlers and filters of every logger; `logging.disable`."""
    before = {logger: _logger_state(logger) for logger in _all_loggers()}
    new = {"level": logging.NOTSET, "propagate": True, "disabled": False}
    root, raises = logging.root.manager.disable, logging.raiseExceptions
    try:
        yield
    finally:
        logging.root.manager.disable, logging.raiseExceptions = root, raises
        for logger in _all_loggers():
            state = before.get(logger, new | {"handlers": [], "filters": []})
            theirs = [h for h in logger.handlers if _is_pytest(h)]
            kept = [h for h in state["handlers"] if not _is_pytest(h)]
            if logger.level != state["level"]:
                logger.setLevel(state["level"])
            logger.propagate, logger.disabled = state["propagate"], state["disabled"]
            logger.handlers[:], logger.filters[:] = theirs + kept, state["filters"]


def _all_loggers() -> list[logging.Logger]:
    named = logging.root.manager.loggerDict.values()
    return [logging.root, *(x for x in named if isinstance(x, logging.Logger))]


def _logger_state(logger: logging.Logger) -> dict[str, Any]:
    kept = ("level", "propagate", "disabled")
    state = {name: getattr(logger, name) for name in kept}
    return state | {"handlers": [*logger.handlers], "filters": [*logger.filters]}


def _is_pytest(handler: logging.Handler) -> bool:
    return type(handler).__module__.startswith("_pytest")


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
