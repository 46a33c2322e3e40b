r"""Where a result comes from: machine, versions, commit, date."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy
import torch

ROOT = Path(__file__).resolve().parents[2]
# What a run is made of.
CODE = ("src", "experiments", "docs/*.py")


def provenance() -> dict[str, Any]:
    """Device, versions, commit and date of a run on the CPU."""
    return {
        "device": device(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "seqref": version(),
        },
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def version() -> str:
    """Version of the installed package; "unknown" for a bare source tree."""
    try:
        return metadata.version("seqref")
    except metadata.PackageNotFoundError:
        return "unknown"


def device() -> dict[str, Any]:
    """The processor, as the operating system names it."""
    return {
        "kind": "cpu",
        "name": _processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": instructions(),
    }


def instructions() -> list[str]:
    """What torch computes with here: its own vectors, and whether oneDNN has more."""
    found = [torch.backends.cpu.get_cpu_capability()]
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        found.append("bfloat16 in oneDNN")
    return found


def commit(root: Path = ROOT) -> dict[str, Any] | None:
    r"""The git commit of the code, or None outside a checkout.

    `clean` is False where a file of the package or of the experiments, or Python beside
    a page, differs from that commit.
    """
    head = _git(root, "rev-parse", "HEAD")
    tracked = _git(root, "ls-files", "--", *CODE)
    if not head or not tracked:
        return None
    changes = _git(root, "status", "--porcelain", "--", *CODE)
    return {"hash": head, "clean": changes == ""}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor_name() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return " ".join(value.split())
    return platform.processor() or platform.machine()
