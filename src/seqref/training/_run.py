r"""A training run as one file: everything that the next step depends on."""

import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from seqref import __version__
from seqref.recurrence import map_state
from seqref.training import _generators
from seqref.training._file import in_words, read_file, remove_leftovers, write_file
from seqref.training._lock import Lock
from seqref.training._pack import describe, differences, pack, plain, unpack
from seqref.training._stream import Place
from seqref.training.checkpoint import Checkpoints

FORMAT = "run/1"
# What a release of torch may add a name to.
LOOSE = ("optimizer", "scheduler")
SHOWN = 4


@dataclass(frozen=True)
class Moment:
    r"""Where a run stands after a step."""

    step: dict[str, Any] | None
    place: Place
    state: Any


@dataclass(frozen=True)
class Run:
    r"""The objects of a run, and what must be the same when it is resumed."""

    checkpoints: Checkpoints
    model: nn.Module
    optimizer: Optimizer
    scheduler: Any
    settings: dict[str, Any]

    def lock(self) -> Lock:
        r"""Keeps other runs out of the folder, which is made where it is missing.

        Raises:
            OSError: the folder cannot be made.
        """
        folder = Path(self.checkpoints.folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise in_words(
                error, f"fit: `checkpoints.folder` {str(folder)!r} cannot be made"
            ) from error
        return Lock(folder, "fit: `checkpoints.folder`")

    @property
    def own(self) -> dict[str, torch.Generator]:
        r"""The generators among `stateful`: batches may be drawn from them."""
        stateful = self.checkpoints.stateful.items()
        return {n: v for n, v in stateful if isinstance(v, torch.Generator)}

    def begin(self, steps: int, locked: bool) -> Moment | None:
        r"""Load the newest file, where there is one and it is asked for.

        Without the lock a temporary file may be that of a run that is going on.

        Raises:
            ValueError: there is one and it is not asked for; or the file is torn,
                foreign, of another run, or beyond `steps`. Nothing has been changed
                then.
        """
        folder, files = Path(self.checkpoints.folder), self.checkpoints.files()
        if files and not self.checkpoints.resume:
            raise ValueError(
                f"fit: `checkpoints.folder` {str(folder)!r} already holds a run "
                f"({files[-1].name}); go on from it with resume=True, or choose "
                "another folder"
            )
        if locked:
            remove_leftovers(folder, r"step-\d+\.safetensors")
        if not files:
            return None
        return self._load(steps)

    def save(self, moment: Moment) -> None:
        r"""Write the file of this moment, then delete those that are too old."""
        tensors: dict[str, Tensor] = {}
        tree = {
            # Its own class of dict has a place for more, which a file has not.
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self._schedule_state(),
            "stateful": {n: _get(v) for n, v in self.checkpoints.stateful.items()},
            "place": {**asdict(moment.place), "now": _generators.read(self.own)},
            "state": moment.state,
        }
        packed = {name: pack(part, name, tensors) for name, part in tree.items()}
        config = {
            "format": FORMAT,
            "step": moment.step,
            "settings": self.settings,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "seqref": __version__,
            },
            "tree": packed,
        }
        number = moment.step["number"] if moment.step else 0
        try:
            write_file(self.checkpoints.path(number), tensors, config)
        except OSError as error:
            raise in_words(error, "fit", _kept(self.checkpoints)) from error
        for old in self.checkpoints.files()[: -self.checkpoints.keep]:
            old.unlink(missing_ok=True)

    def _load(self, steps: int) -> Moment:
        path, tensors, config = read_newest(self.checkpoints, "fit")
        changes = []
        for part, value in self.settings.items():
            old = config.get("settings", {}).get(part)
            changes += differences(old, value, part, loose=part in LOOSE)
        if changes:
            more = f"; and {len(changes) - SHOWN} more" * (len(changes) > SHOWN)
            raise ValueError(
                f"fit: {str(path)!r} is of another run: {'; '.join(changes[:SHOWN])}"
                f"{more} (build model, optimizer and scheduler as for a new run)"
            )
        try:
            tree = {n: unpack(part, tensors) for n, part in config["tree"].items()}
            step = config["step"]
            made = step["number"] if step else 0
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"fit: {str(path)!r} does not hold the run that its header describes: "
                f"{error}"
            ) from error
        if made > steps:
            raise ValueError(
                f"fit: `steps` must be at least the {made} that were made by "
                f"{str(path)!r}, got {steps}"
            )
        return self._restore(tree, step)

    def _restore(self, tree: dict[str, Any], step: dict[str, Any] | None) -> Moment:
        self.model.load_state_dict(tree["model"])
        self.optimizer.load_state_dict(tree["optimizer"])
        if isinstance(self.scheduler, LRScheduler):
            self.scheduler.load_state_dict(tree["scheduler"])
        for name, value in self.checkpoints.stateful.items():
            _set(value, tree["stateful"][name])
        place, state = Place(**tree["place"]), tree["state"]
        _generators.restore(place.now)
        if state is not None:
            device = next(iter(self.model.parameters())).device
            # Copied out of the file's bytes: in memory that is aligned otherwise
            # products of matrices may round otherwise.
            state = map_state(lambda tensor: tensor.to(device, copy=True), state)
        return Moment(step, place, state)

    def _schedule_state(self) -> Any:
        scheduled = isinstance(self.scheduler, LRScheduler)
        return self.scheduler.state_dict() if scheduled else None


def _kept(checkpoints: Checkpoints) -> str:
    files = checkpoints.files()
    if not files:
        return "; no file of the run is there yet"
    return (
        f"; the run up to {str(files[-1])!r} is kept: go on from there with resume=True"
    )


def read_newest(
    checkpoints: Checkpoints, where: str
) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    r"""The newest file of a run: its path, tensors and header.

    Raises:
        ValueError: it is torn or foreign; the message names the file before it.
    """
    *older, path = checkpoints.files()
    try:
        tensors, config = read_file(path, where)
        kind = config.get("format") if isinstance(config, dict) else None
        if kind != FORMAT:
            raise ValueError(
                f"{where}: {str(path)!r} must have format {FORMAT!r}, got {kind!r}"
            )
    except ValueError as error:
        if not older:
            raise
        raise ValueError(
            f"{error}. The file before it is {older[-1].name}: delete the newer one to "
            "go on from there"
        ) from error
    return path, tensors, config


def settings_of(
    model: nn.Module,
    batches: Iterable[Any],
    optimizer: Optimizer,
    scheduler: LRScheduler | Callable[[int], float] | None,
    max_norm: float | None,
    seed: int | None,
    checkpoints: Checkpoints,
) -> dict[str, Any]:
    r"""What two runs must share for the one to go on where the other stopped.

    Raises:
        ValueError: the optimizer has a parameter that is not the model's.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    groups = []
    for index, group in enumerate(optimizer.param_groups):
        strangers = [p for p in group["params"] if id(p) not in names]
        if strangers:
            raise ValueError(
                "fit: with `checkpoints`, each parameter of `optimizer` must be one "
                f"of `model`, got a stranger of shape {tuple(strangers[0].shape)} in "
                f"group {index}"
            )
        parameters = [names[id(p)] for p in group["params"]]
        groups.append({**group, "params": parameters})
    tensors = model.state_dict().items()
    schedule = None
    if isinstance(scheduler, LRScheduler):
        schedule = {"kind": type(scheduler).__qualname__, **scheduler.state_dict()}
    elif scheduler is not None:
        schedule = {"kind": "function"}
    return {
        "model": {n: _shape(t) for n, t in tensors},
        "optimizer": describe({"kind": type(optimizer).__qualname__, "groups": groups}),
        "scheduler": describe(schedule),
        "max_norm": describe(max_norm),
        "seed": seed,
        "batches": _length(batches),
        "config": plain(dict(checkpoints.config), "fit", "checkpoints.config"),
        "stateful": sorted(checkpoints.stateful),
    }


def _length(batches: Any) -> int | None:
    try:
        return len(batches)
    except TypeError:
        return None


def _shape(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return describe(value)
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"


def _get(value: Any) -> Any:
    return value.state_dict() if hasattr(value, "state_dict") else value.get_state()


def _set(value: Any, state: Any) -> None:
    if hasattr(value, "load_state_dict"):
        value.load_state_dict(state)
    else:
        value.set_state(state)
