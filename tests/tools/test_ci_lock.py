"""The lock: what pyproject.toml asks for, for every Python, and nothing of torch's."""

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (ROOT / "constraints.txt").read_text(encoding="utf-8")
TORCH = (ROOT / "constraints-torch.txt").read_text(encoding="utf-8")

PYTHONS = ("3.11.0", "3.11.2", "3.11.7", "3.12.1", "3.13.0", "3.14.0")
OF_TORCH = re.compile(r"torch.*|triton|nvidia-.*|cuda-.*")
EXACT = re.compile(r"==([^*,]+)")


def parse(text: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def asked(project: dict) -> Iterator[Requirement]:
    """What the sessions install: torch stands apart, triton where there is a GPU."""
    extras = project["project"]["optional-dependencies"]
    groups = project["dependency-groups"]
    lists = [project["project"]["dependencies"], *extras.values(), *groups.values()]
    for requirement in map(Requirement, chain(*lists)):
        if requirement.name not in ("seqref", "torch", "triton"):
            yield requirement


def holds(pin: Requirement, python: str) -> bool:
    minor = python.rpartition(".")[0]
    where = {"python_full_version": python, "python_version": minor}
    return pin.marker is None or pin.marker.evaluate(where)


def faults(lock: str, project: dict, python: str) -> list[str]:
    """What is wrong with a lock for one Python, in words."""
    pins: dict[str, list[str]] = defaultdict(list)
    wrong = []
    for pin in parse(lock):
        name, exact = canonicalize_name(pin.name), EXACT.fullmatch(str(pin.specifier))
        if exact is None or pin.extras:
            wrong.append(f"{name}: not a version")
        elif holds(pin, python):
            pins[name].append(exact[1])
    wrong += [
        f"{name}: {len(all_)} versions" for name, all_ in pins.items() if all_[1:]
    ]
    wrong += [f"{name}: comes with torch" for name in pins if OF_TORCH.fullmatch(name)]
    for requirement in asked(project):
        versions = pins.get(canonicalize_name(requirement.name), [])
        if not versions:
            wrong.append(f"{requirement.name}: missing")
        elif versions[0] not in requirement.specifier:
            wrong.append(f"{requirement}: locked at {versions[0]}")
    return wrong


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_holds_for_every_python(python: str) -> None:
    assert faults(LOCK, PROJECT, python) == []


@pytest.mark.parametrize(
    ("lock", "fault"),
    [
        ("numpy==2.0", "jaxtyping: missing"),
        ("numpy==1.2\njaxtyping==0.3", "numpy>=1.26: locked at 1.2"),
        (
            "jaxtyping==0.3\nnumpy==2.0 ; python_full_version >= '3.11.5'",
            "numpy: missing",
        ),
        ("jaxtyping==0.3\nnumpy==2.0\nnumpy==2.1", "numpy: 2 versions"),
        ("jaxtyping==0.3\nnumpy>=2.0", "numpy: not a version"),
        ("jaxtyping==0.3\nnumpy[all]==2.0", "numpy: not a version"),
        ("jaxtyping==0.3\nnumpy==2\ntriton==3.6", "triton: comes with torch"),
        ("jaxtyping==0.3\nnumpy==2\nnvidia-nccl==3", "nvidia-nccl: comes with torch"),
    ],
)
def test_a_fault_of_a_lock_is_named(lock: str, fault: str) -> None:
    wanted = {"dependencies": ["torch>=2", "numpy>=1.26", "jaxtyping>=0.3"]}
    project = {"project": {**wanted, "optional-dependencies": {}}}
    assert fault in faults(lock, {**project, "dependency-groups": {}}, "3.11.2")


def test_a_group_and_an_extra_are_asked_for() -> None:
    names = {requirement.name for requirement in asked(PROJECT)}
    assert {"mkdocs", "pytest", "nox", "uv", "ruff", "pyright", "zensical"} <= names


def test_the_lock_is_made_by_the_session() -> None:
    assert "#    nox -s lock\n" in LOCK


def test_torch_is_pinned_apart() -> None:
    (pin,) = parse(TORCH)
    (exact,) = pin.specifier
    (wanted,) = (
        one
        for one in map(Requirement, PROJECT["project"]["dependencies"])
        if one.name == "torch"
    )
    assert (pin.name, exact.operator, pin.marker) == ("torch", "==", None)
    assert exact.version in wanted.specifier
