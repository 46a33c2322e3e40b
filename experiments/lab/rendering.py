r"""From a record to the files that pages include."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.lab.drawing import THEMES, draw
from experiments.lab.experiment import Experiment
from experiments.lab.files import write_whole
from experiments.lab.tables import caption


def rendered_tables(
    experiment: Experiment, record: Mapping[str, Any]
) -> dict[str, str]:
    """Text of each Markdown file by its name, the caption `<name>.run.md` included."""
    tables = {**experiment.rendered(record), "run": caption(record)}
    return {f"{experiment.name}.{key}.md": text for key, text in tables.items()}


def rendered_figures(
    experiment: Experiment, record: Mapping[str, Any]
) -> dict[str, str]:
    """Text of each SVG file by its name: one light, one dark twin a figure."""
    return {
        f"{experiment.name}.{key}.{theme.name}.svg": draw(function, record, theme)
        for key, function in experiment.figures.items()
        for theme in THEMES
    }


def render(
    experiment: Experiment, record: Mapping[str, Any], folder: Path
) -> list[Path]:
    """Write every table and figure of a record; remove those it no longer has."""
    files = rendered_tables(experiment, record) | rendered_figures(experiment, record)
    for name, text in files.items():
        write_whole(folder / name, text)
    for path in rendered_files(experiment.name, folder):
        if path.name not in files:
            path.unlink()
    return [folder / name for name in files]


def rendered_files(name: str, folder: Path) -> list[Path]:
    """Files in `folder` that were rendered from the record of `name`."""
    files = [*folder.glob(f"{name}.*.md"), *folder.glob(f"{name}.*.svg")]
    return sorted(files)
