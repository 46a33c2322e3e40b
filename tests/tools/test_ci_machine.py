"""The line of the summary that says what the machine is."""

import os
import platform
from pathlib import Path

import pytest

from ci.machine import cores, describe, processor, torch_version

X86 = """processor : 0
model name\t: Some  CPU
flags\t\t: fpu sse2 avx2 avx512f avx512_bf16 amx_tile

processor : 1
model name\t: Other CPU
flags\t\t: fpu sse2
"""
ARM = "processor : 0\nFeatures : fp asimd sve i8mm\n"


def test_processor_of_x86() -> None:
    sets = ["avx2", "avx512f", "avx512_bf16", "amx_tile"]
    assert processor(X86) == ("Some CPU", sets)


def test_a_set_is_a_whole_word() -> None:
    assert processor("flags : avx512_vnni_x notavx2")[1] == []


def test_processor_of_arm() -> None:
    name, sets = processor(ARM)
    assert name == (platform.processor() or platform.machine())
    assert sets == ["asimd", "sve", "i8mm"]


def test_version_of_an_environment(tmp_path: Path) -> None:
    assert torch_version(tmp_path) == "none"
    folder = tmp_path / "lib/python3.11/site-packages/torch-9.8.7.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torch\nVersion: 9.8.7"
    )
    assert torch_version(tmp_path) == "9.8.7"


def test_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert cores() == 7


def test_one_line(tmp_path: Path) -> None:
    listing = tmp_path / "cpuinfo"
    listing.write_text(X86)
    kind, python = platform.machine(), platform.python_version()
    assert describe(tmp_path, listing) == (
        f"machine: Some CPU ({kind}), avx2 avx512f avx512_bf16 amx_tile, "
        f"{cores()} cores, Python {python}, torch none"
    )


def test_nothing_is_known(tmp_path: Path) -> None:
    assert "instruction sets not known" in describe(tmp_path, tmp_path / "missing")
