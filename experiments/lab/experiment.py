r"""What an experiment is, and how the modules of `experiments` are found."""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar, runtime_checkable

from experiments.lab.claim import Claim
from experiments.lab.numbers import Numbers, numbers_of
from experiments.lab.tables import Pivot, Table

T = TypeVar("T")
NEITHER = "Experiment: give either `measure` with `cases`, or `run`"
FOLDER = Path(__file__).resolve().parents[1]


@runtime_checkable
class Track(Protocol):
    """Wraps the iterable of a long loop, for instance in a progress bar."""

    def __call__(self, items: Iterable[T], label: str) -> Iterable[T]: ...


def untracked(items: Iterable[T], label: str) -> Iterable[T]:
    """A `Track` that shows nothing."""
    return items


@dataclass(frozen=True, kw_only=True)
class Experiment:
    r"""What a module of this folder declares in the variable `experiment`.

    Either `cases` and `measure`, or `run`:

    - `cases` by name (or a function from a config to them) and `measure(case, config)`,
      which returns the quantities of one case. Those named in `series` are kept apart,
      as what figures are drawn from; `axes(config)` gives what they are drawn against.
    - `run(config, track)` returns `{"series": ..., "cases": ...}`, for what has no such
      form.

    Args:
        small: A config for the tests. A run is a function of its config alone; every
            seed is in it.
        full: The config that the pages print; the defaults of the class of `small`.
        claims: What is asserted of the cases.
        numbers: Scalars and texts for sentences; see `experiments.lab.numbers`.
        tables: By name a `Table` or a function from the record to one, or to Markdown.
        figures: By name a function `(figure, record, theme)` that draws into an empty
            figure, as `experiments.lab.figures` makes them.
        name: That of the module; filled in.
        title: First line of the module's docstring; filled in.
        module: Dotted name of the module, whose sources a record cites; filled in.
    """

    small: Any
    full: Any = None
    cases: Mapping[str, Any] | Callable[[Any], Mapping[str, Any]] = field(
        default_factory=dict
    )
    measure: Callable[[Any, Any], dict[str, Any]] | None = None
    run: Callable[[Any, Track], dict[str, Any]] | None = None
    series: Sequence[str] = ()
    axes: Callable[[Any], dict[str, Any]] = lambda config: {}
    claims: Sequence[Claim] = ()
    numbers: Numbers = ()
    tables: Mapping[str, Any] | Callable[[Any], dict[str, Any]] = field(
        default_factory=dict
    )
    figures: Mapping[str, Callable[..., None]] = field(default_factory=dict)
    name: str = ""
    title: str = ""
    module: str = ""

    def __post_init__(self) -> None:
        if not is_dataclass(self.small):
            raise TypeError(
                "Experiment: `small` must be a value of a dataclass, got "
                f"{self.small!r}"
            )
        if self.full is None:
            # Frozen, and this is the one value that has its default from another.
            object.__setattr__(self, "full", type(self.small)())
        if type(self.full) is not type(self.small):
            raise TypeError(
                "Experiment: `full` must be of the class of `small`, "
                f"{type(self.small).__name__}, got {type(self.full).__name__}"
            )
        if (self.run is None) == (self.measure is None):
            raise TypeError(NEITHER)

    @property
    def timed(self) -> bool:
        """Whether a claim of it rests on a clock."""
        return any(claim.timed for claim in self.claims)

    def result(self, config: Any, track: Track = untracked) -> dict[str, Any]:
        r"""Run with a config: numbers, series and cases.

        Raises:
            TypeError: `run` did not return the parts.
        """
        if self.run is not None:
            found = self.run(config, track)
            parts = set(found) if isinstance(found, dict) else set()
            if not {"series", "cases"} <= parts <= {"numbers", "series", "cases"}:
                got = sorted(parts) or type(found).__name__
                raise TypeError(
                    f"experiment {self.name}: `run` must return `series` and `cases`, "
                    f"and may return `numbers`, got {got}"
                )
        elif self.measure is not None:
            found = self._by_case(self.measure, config, track)
        else:
            raise TypeError(NEITHER)
        numbers = numbers_of(
            [*self.numbers, lambda cases: found.get("numbers", {})],
            found["cases"],
            found["series"],
        )
        return {"numbers": numbers, "series": found["series"], "cases": found["cases"]}

    def _by_case(
        self, measure: Callable[..., Any], config: Any, track: Track
    ) -> dict[str, Any]:
        declared = self.cases(config) if callable(self.cases) else self.cases
        cases: dict[str, Any] = {}
        series = {**self.axes(config), **{key: {} for key in self.series}}
        for name, case in track(list(declared.items()), self.name):
            cases[name] = dict(measure(case, config))
            for key in self.series:
                series[key][name] = cases[name].pop(key)
        return {"series": series, "cases": cases}

    def rendered(self, record: Mapping[str, Any]) -> dict[str, str]:
        """The Markdown of each table of a record."""
        made = self.tables(record) if callable(self.tables) else self.tables
        return {name: _text_of(table, record) for name, table in made.items()}


def _text_of(table: Any, record: Mapping[str, Any]) -> str:
    while not isinstance(table, str):
        table = (
            table.text(record) if isinstance(table, Table | Pivot) else table(record)
        )
    return table


def from_module(module: ModuleType) -> Experiment:
    r"""The experiment that a module declares, with its name and title.

    Raises:
        TypeError: The module declares none, or has no docstring.
    """
    name = module.__name__.rpartition(".")[2]
    declared = getattr(module, "experiment", None)
    if not isinstance(declared, Experiment):
        raise TypeError(
            f"experiment {name}: the module must declare `experiment`, an Experiment, "
            f"got {declared!r}"
        )
    lines = (module.__doc__ or "").strip().splitlines()
    if not lines:
        raise TypeError(f"experiment {name}: the module must have a docstring")
    title = lines[0].rstrip(".")
    return replace(declared, name=name, title=title, module=module.__name__)


def modules() -> dict[str, str]:
    r"""Dotted name of every experiment's module by its own name, in order.

    A folder is a subject. What begins with `_` is shared in its folder, and what two
    folders share lies in `lab`.

    Raises:
        ValueError: Two modules have one name.
    """
    found: dict[str, str] = {}
    for path in sorted(FOLDER.glob("*/[!_]*.py"), key=lambda path: path.stem):
        if path.parent.name == "lab":
            continue
        if path.stem in found:
            raise ValueError(f"experiments: two modules have the name {path.stem}")
        found[path.stem] = f"{FOLDER.name}.{path.parent.name}.{path.stem}"
    return found


def names() -> list[str]:
    """Names of all experiments."""
    return list(modules())


def find(name: str) -> Experiment:
    r"""One experiment by its name.

    Raises:
        ValueError: No module of that name exists.
    """
    known = modules()
    if name not in known:
        raise ValueError(
            f"experiments.find: `name` must be one of {', '.join(known)}, got {name!r}"
        )
    return from_module(importlib.import_module(known[name]))


def discover() -> list[Experiment]:
    """All experiments, in the order of their names."""
    return [find(name) for name in names()]


def config_of(config: Any) -> dict[str, Any]:
    """The fields of a config, tuples as they are."""
    return {part.name: getattr(config, part.name) for part in fields(config)}
