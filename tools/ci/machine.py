"""Say in one line what this machine is, for whoever reads a result from elsewhere."""

import os
import platform
from importlib import metadata
from pathlib import Path

# The instruction sets by which torch and its libraries choose their kernels.
CHOSEN_BY = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "sve", "sve2", "bf16", "i8mm"),
)


def processor(listing: str) -> tuple[str, list[str]]:
    """Name and instruction sets, from what Linux says in /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in listing.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), " ".join(value.split()))
    flags = fields.get("flags") or fields.get("Features") or ""
    name = fields.get("model name") or platform.processor() or platform.machine()
    return name, [one for one in CHOSEN_BY if one in flags.split()]


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def torch_version(environment: Path) -> str:
    """The torch of a virtual environment, without importing it."""
    folders = [str(path) for path in environment.glob("lib/python*/site-packages")]
    installed = metadata.distributions(name="torch", path=folders)
    return next((one.version for one in installed), "none")


def describe(environment: Path, listing: Path = Path("/proc/cpuinfo")) -> str:
    """Processor, instruction sets, cores, Python, and the torch that the tests had."""
    name, sets = processor(listing.read_text() if listing.is_file() else "")
    parts = [
        f"{name} ({platform.machine()})",
        " ".join(sets) or "instruction sets not known",
        f"{cores()} cores",
        f"Python {platform.python_version()}",
        f"torch {torch_version(environment)}",
    ]
    return "machine: " + ", ".join(parts)
