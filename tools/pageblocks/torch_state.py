r"""torch's process-wide settings: what a page may change, and how it is put back.

Put back are default dtype and device, grad mode, autocast, threads, deterministic
algorithms, anomaly detection, denormals, precisions and flags of the backends, kernels
of scaled dot-product attention, modes left open, hooks on all modules and optimizers,
classes that `torch.load` trusts, configuration of the compiler, and the generators.
"""

import contextlib
import contextvars
import copy
import sys
from collections.abc import Callable, Iterator
from typing import Any

# What torch seeds its default generator with in a fresh interpreter.
_FRESH_SEED = 67280421310721

_PRECISIONS = (
    "fp32_precision",
    "cuda.matmul.fp32_precision",
    "cudnn.fp32_precision",
    "cudnn.conv.fp32_precision",
    "cudnn.rnn.fp32_precision",
    "mkldnn.fp32_precision",
    "mkldnn.matmul.fp32_precision",
    "mkldnn.conv.fp32_precision",
    "mkldnn.rnn.fp32_precision",
)
_FLAGS = (
    "cuda.matmul.allow_fp16_reduced_precision_reduction",
    "cuda.matmul.allow_bf16_reduced_precision_reduction",
    "cudnn.enabled",
    "cudnn.benchmark",
    "cudnn.deterministic",
    "mkldnn.deterministic",
    "mkldnn.enabled",
    "opt_einsum.enabled",
    "opt_einsum.strategy",
    "quantized.engine",
)
# Changed by their own functions of the name `enable_...`, read by `..._enabled`.
_ATTENTION = ("flash_sdp", "mem_efficient_sdp", "math_sdp", "cudnn_sdp")
# Objects that hold what is registered for the whole process.
_REGISTRIES = (
    ("torch.nn.modules.module", "_global_buffer_registration_hooks"),
    ("torch.nn.modules.module", "_global_module_registration_hooks"),
    ("torch.nn.modules.module", "_global_parameter_registration_hooks"),
    ("torch.nn.modules.module", "_global_backward_pre_hooks"),
    ("torch.nn.modules.module", "_global_backward_hooks"),
    ("torch.nn.modules.module", "_global_forward_pre_hooks"),
    ("torch.nn.modules.module", "_global_forward_hooks"),
    ("torch.nn.modules.module", "_global_forward_hooks_always_called"),
    ("torch.nn.modules.module", "_global_forward_hooks_with_kwargs"),
    ("torch.optim.optimizer", "_global_optimizer_pre_hooks"),
    ("torch.optim.optimizer", "_global_optimizer_post_hooks"),
    ("torch.serialization", "_package_registry"),
)
_VARIABLES = (
    ("torch.nn.modules.module", "_global_is_full_backward_hook"),
    ("torch.utils.checkpoint", "_checkpoint_debug_enabled"),
    ("torch.hub", "_hub_dir"),
)


@contextlib.contextmanager
def fresh_torch() -> Iterator[None]:
    r"""Seed torch as a fresh interpreter is; put its settings back afterwards."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        yield
        return
    put_back = [take(torch) for take in _ALL]
    torch.manual_seed(_FRESH_SEED)
    # A warning that torch gives once per process would depend on earlier pages.
    torch.set_warn_always(True)
    try:
        yield
    finally:
        for put in put_back:
            put()
        if "torch._dynamo" in sys.modules:
            sys.modules["torch._dynamo"].reset()


@contextlib.contextmanager
def same_generators() -> Iterator[None]:
    r"""Let torch's generators go on afterwards as if nothing had been drawn."""
    torch: Any = sys.modules.get("torch")
    put = _generators(torch) if torch is not None else lambda: None
    try:
        yield
    finally:
        put()


Restore = Callable[[], None]


def _modes(torch: Any) -> Restore:
    r"""Modes that were entered and not left; the default device is one of them."""
    lib = torch._C
    stacks = [
        (
            lib._len_torch_function_stack,
            lib._get_function_stack_at,
            lib._pop_torch_function_stack,
            lib._push_on_torch_function_stack,
        ),
        (
            lib._len_torch_dispatch_stack,
            lib._get_dispatch_stack_at,
            lambda: lib._pop_torch_dispatch_stack(None),
            lib._push_on_torch_dispatch_stack,
        ),
    ]
    before = [[at(i) for i in range(length())] for length, at, _, _ in stacks]
    device = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)

    def put() -> None:
        for (length, at, pop, push), modes in zip(stacks, before, strict=True):
            if [at(i) for i in range(length())] == modes:
                continue
            while length():
                pop()
            for mode in modes:
                push(mode)
        torch._GLOBAL_DEVICE_CONTEXT.device_context = device

    return put


def _defaults(torch: Any) -> Restore:
    r"""Settings with a getter and a setter of one argument."""
    pairs = [
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.get_num_threads, torch.set_num_threads),
        (torch.is_warn_always_enabled, torch.set_warn_always),
        (torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
        (torch._C._is_multithreading_enabled, torch._C._set_multithreading_enabled),
        (_flushes_denormals, torch.set_flush_denormal),
        *(
            (getattr(torch.backends.cuda, f"{name}_enabled"),
             getattr(torch.backends.cuda, f"enable_{name}"))
            for name in _ATTENTION
        ),
        *(
            pair
            for device in ("cpu", "cuda")
            for pair in (
                (lambda d=device: torch.is_autocast_enabled(d),
                 lambda on, d=device: torch.set_autocast_enabled(d, on)),
                (lambda d=device: torch.get_autocast_dtype(d),
                 lambda dtype, d=device: torch.set_autocast_dtype(d, dtype)),
            )
        ),
    ]  # fmt: skip
    before = [get() for get, _ in pairs]

    def put() -> None:
        for (get, put_one), value in zip(pairs, before, strict=True):
            if get() != value:
                put_one(value)

    return put


def _flushes_denormals() -> bool:
    # The setting is the processor's, so Python's own numbers show it.
    return float("1e-310") * float("1.0") == 0.0


def _checks(torch: Any) -> Restore:
    r"""Determinism and anomaly detection, each with an option."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    anomaly = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()

    def put() -> None:
        now = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        # Setting this one imports a large part of torch.
        if now != (deterministic, warn_only):
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill
        torch.autograd.set_detect_anomaly(*anomaly)

    return put


def _backends(torch: Any) -> Restore:
    r"""Flags and precisions of `torch.backends`."""
    paths = [p for p in (*_FLAGS, *_PRECISIONS) if _holder(torch, p) is not None]
    before = {path: _read(torch, path) for path in paths}
    legacy = _legacy(torch)

    def put() -> None:
        # Old and new names of one setting: once the old ones are right, so are the
        # new ones, which are finer.
        if _legacy(torch) != legacy and None not in legacy:
            torch.set_float32_matmul_precision(legacy[0])
            torch.backends.cudnn.allow_tf32 = legacy[1]
        for path, value in before.items():
            if _read(torch, path) != value:
                setattr(_holder(torch, path), path.rpartition(".")[2], value)

    return put


def _legacy(torch: Any) -> tuple[Any, ...]:
    r"""The older precision settings; `None` where they contradict the newer ones."""
    values: list[Any] = []
    for get in (
        torch.get_float32_matmul_precision,
        lambda: torch.backends.cudnn.allow_tf32,
        lambda: torch.backends.cuda.matmul.allow_tf32,
    ):
        try:
            values.append(get())
        except RuntimeError:
            values.append(None)
    return tuple(values)


def _holder(torch: Any, path: str) -> Any:
    r"""The object whose attribute `path` names, or `None` where this torch has none."""
    holder = torch.backends
    *names, last = path.split(".")
    for name in names:
        holder = getattr(holder, name, None)
    return holder if hasattr(holder, last) else None


def _read(torch: Any, path: str) -> Any:
    return getattr(_holder(torch, path), path.rpartition(".")[2])


def _registries(torch: Any) -> Restore:
    r"""Hooks of all modules and optimizers, ways to load, variables of modules."""
    held = [
        getattr(sys.modules[module], name)
        for module, name in _REGISTRIES
        if hasattr(sys.modules.get(module), name)
    ]
    contents = [copy.copy(registry) for registry in held]
    variables = [
        (sys.modules[module], name, getattr(sys.modules[module], name))
        for module, name in _VARIABLES
        if hasattr(sys.modules.get(module), name)
    ]
    safe, loaded = list(torch.serialization.get_safe_globals()), set(sys.modules)

    def put() -> None:
        for registry, content in zip(held, contents, strict=True):
            if registry != content:
                registry.clear()
                (registry.extend if isinstance(content, list) else registry.update)(
                    content
                )
        for module, name, value in variables:
            setattr(module, name, value)
        _trust(torch, safe, loaded)

    return put


def _trust(torch: Any, safe: list[Any], loaded: set[str]) -> None:
    r"""Take away what a page told `torch.load` to trust.

    What modules of torch add themselves, when a page is the first to load them, stays.
    """
    kept = [
        entry
        for entry in torch.serialization.get_safe_globals()
        if any(entry is one for one in safe) or _is_of_new_module(entry, loaded)
    ]
    gone = [e for e in safe if not any(e is one for one in kept)]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*kept, *gone])


def _is_of_new_module(entry: Any, loaded: set[str]) -> bool:
    module = str(getattr(entry, "__module__", ""))
    return module.startswith("torch.") and module not in loaded


def _configurations(torch: Any) -> Restore:
    r"""Modules such as `torch._dynamo.config`, also those that a page imports first."""
    before = {id(entry): _override(entry) for _, _, entry in _entries()}
    unset = sys.modules["torch.utils._config_module"]._UNSET_SENTINEL

    def put() -> None:
        for module, name, entry in _entries():
            value = before.get(id(entry), unset)
            if _override(entry) is value:
                continue
            if isinstance(entry.user_override, contextvars.ContextVar):
                entry.user_override.set(value)
            else:
                entry.user_override = value
            # As it now is, once more: this tells torch that a setting has changed.
            setattr(module, name, getattr(module, name))

    return put


def _entries() -> Iterator[tuple[Any, str, Any]]:
    kind = sys.modules["torch.utils._config_module"].ConfigModule
    for module in list(sys.modules.values()):
        if isinstance(module, kind):
            for name, entry in module._config.items():
                yield module, name, entry


def _override(entry: Any) -> Any:
    value = entry.user_override
    return value.get() if isinstance(value, contextvars.ContextVar) else value


def _generators(torch: Any) -> Restore:
    printing = copy.copy(torch._tensor_str.PRINT_OPTS)
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def put() -> None:
        vars(torch._tensor_str.PRINT_OPTS).update(vars(printing))
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)

    return put


_ALL: tuple[Callable[[Any], Restore], ...] = (
    _modes,
    _defaults,
    _checks,
    _backends,
    _registries,
    _configurations,
    _generators,
)
