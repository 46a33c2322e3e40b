r"""What an experiment is, and how the modules of `seqref.experiments` are found."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from types import ModuleType
from typing import Any, Protocol, TypeVar, runtime_checkable

from experiments.lab.claim import Claim

T = TypeVar("T")
PACKAGE = "seqref.experiments"
REQUIRED = ("SMALL", "FULL", "CLAIMS", "FIGURES", "run", "tables", "main")


@runtime_checkable
class Track(Protocol):
    """Wraps the iterable of a long loop, for instance in a progress bar."""

    def __call__(self, items: Iterable[T], label: str) -> Iterable[T]: ...


def untracked(items: Iterable[T], label: str) -> Iterable[T]:
    """A `Track` that shows nothing."""
    return items


@dataclass(frozen=True)
class Experiment:
    r"""The parts of an experiment module.

    - `small`, `full`: two values of one config dataclass, `SMALL` and `FULL`. A run is
      a function of its config alone; every seed is in it.
    - `run(config, track)` returns `{"numbers": ..., "series": ..., "cases": ...}`:
      scalars for sentences, arrays for tables and figures, and the quantities of each
      case that the claims are checked on.
    - `claims`: the module's `CLAIMS`.
    - `tables(record)` returns Markdown by table name; `figures` maps a figure name to
      a function `(figure, record, theme)` that draws into an empty figure.
    """

    name: str
    title: str
    small: Any
    full: Any
    run: Callable[..., dict[str, Any]]
    claims: Sequence[Claim]
    tables: Callable[[Mapping[str, Any]], dict[str, str]]
    figures: Mapping[str, Callable[..., None]]

    @property
    def timed(self) -> bool:
        """Whether a claim of it rests on a clock."""
        return any(claim.timed for claim in self.claims)


def from_module(module: ModuleType) -> Experiment:
    r"""Read an experiment from its module.

    Raises:
        TypeError: The module lacks a part, or a part is of the wrong kind.
    """
    name = module.__name__.rpartition(".")[2]
    missing = [part for part in REQUIRED if not hasattr(module, part)]
    if missing:
        raise TypeError(
            f"experiment {name}: the module must define {', '.join(REQUIRED)}, "
            f"got none for {', '.join(missing)}"
        )
    kinds = {type(module.SMALL), type(module.FULL)}
    if len(kinds) != 1 or not is_dataclass(module.SMALL):
        raise TypeError(
            f"experiment {name}: `SMALL` and `FULL` must be values of one dataclass, "
            f"got {type(module.SMALL).__name__} and {type(module.FULL).__name__}"
        )
    if not (module.__doc__ or "").strip():
        raise TypeError(f"experiment {name}: the module must have a docstring")
    return Experiment(
        name=name,
        title=(module.__doc__ or "").strip().splitlines()[0].rstrip("."),
        small=module.SMALL,
        full=module.FULL,
        run=module.run,
        claims=tuple(module.CLAIMS),
        tables=module.tables,
        figures=dict(module.FIGURES),
    )


def names() -> list[str]:
    """Names of all experiments: every module that lies directly in the package."""
    package = importlib.import_module(PACKAGE)
    found = pkgutil.iter_modules(package.__path__)
    return sorted(entry.name for entry in found if not entry.ispkg)


def find(name: str) -> Experiment:
    r"""One experiment by its name.

    Raises:
        ValueError: No module of that name exists.
    """
    known = names()
    if name not in known:
        raise ValueError(
            f"experiments.find: `name` must be one of {', '.join(known)}, got {name!r}"
        )
    return from_module(importlib.import_module(f"{PACKAGE}.{name}"))


def discover() -> list[Experiment]:
    """All experiments, in the order of their names."""
    return [find(name) for name in names()]
