r"""`python -m experiments`: list, run, judge, render and margins."""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.lab import margin_tables, margins
from experiments.lab.experiment import Experiment, discover, find, untracked
from experiments.lab.files import write_whole
from experiments.lab.progress import bars
from experiments.lab.provenance import provenance
from experiments.lab.record import judgements, load, measure, path_of, save
from experiments.lab.rendering import render
from experiments.lab.sources import hash_of
from seqref.cli import status_of

DATA = Path("docs") / "_data"
SMALL_RUNS = Path("runs") / "experiments"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; see `seqref.cli.status_of`."""

    def called() -> int:
        arguments = build_parser().parse_args(argv)
        return arguments.run(arguments)

    return status_of("experiments", called)


def build_parser() -> argparse.ArgumentParser:
    """The command line of a checkout."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description="Measure the claims of the pages, and draw what they show.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="name every experiment and its claims")
    listing.add_argument(
        "--changed",
        action="store_true",
        help="those whose code has changed since their record was measured",
    )
    listing.set_defaults(run=run_list)
    _add_run(actions)
    _add_judge(actions)
    _add_render(actions)
    _add_margins(actions)
    return parser


def _add_judge(actions: Any) -> None:
    parser = actions.add_parser(
        "judge",
        help="judge the claims again on the cases that are stored, without a run",
        description=(
            "Judge every claim on the stored cases and write sentence and verdict to "
            "the record: for a claim that was reworded or given another bound. Numbers "
            "and cases stay as they were measured."
        ),
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="default: all")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the records")
    parser.set_defaults(run=run_judge)


def _add_run(actions: Any) -> None:
    parser = actions.add_parser(
        "run",
        help="run an experiment, write its record, tables and figures",
        description=(
            "Run an experiment. The full configuration writes to docs/_data of the "
            "checkout, the small one to runs/experiments, so that a quick look never "
            "takes the place of the committed result."
        ),
    )
    parser.add_argument(
        "name", metavar="NAME", help="an experiment, `all`, or `timed`: those on time"
    )
    parser.add_argument("--full", action="store_true", help="the configuration printed")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--force", action="store_true", help="let a small result replace a full one"
    )
    parser.add_argument(
        "--no-render", action="store_true", help="write the record only"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=run_run)


def _add_render(actions: Any) -> None:
    parser = actions.add_parser(
        "render", help="draw tables and figures again from the records"
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="default: all")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the records")
    parser.set_defaults(run=run_render)


def _add_margins(actions: Any) -> None:
    parser = actions.add_parser(
        "margins",
        help="how far the claims of the small runs are from turning",
        description=(
            "Run SMALL of each experiment in every setting of instruction sets and "
            "threads, and with other seeds, and write how far each claim is from "
            "turning. What is stored is not run again, so a run that was stopped goes "
            "on. The exit status is 1 where a verdict turned."
        ),
    )
    parser.add_argument(
        "names", metavar="NAME", nargs="*", help="experiments; default: all"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--again", action="store_true", help="run those named again, stored or not"
    )
    parser.add_argument(
        "--no-run", action="store_true", help="write the tables of what is stored"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run_margins)


def run_list(arguments: argparse.Namespace) -> int:
    """Print the name, the title and the claims of every experiment."""
    if arguments.changed:
        for experiment in discover():
            print(f"{experiment.name}: {changed_since(experiment.name)}")
        return 0
    for experiment in discover():
        print(f"{experiment.name}: {experiment.title}")
        for claim in experiment.claims:
            print(f"    {claim.id}: {claim.sentence}")
    return 0


def run_run(arguments: argparse.Namespace) -> int:
    """Run experiments; the exit status is 1 where a claim did not come out."""
    size = "full" if arguments.full else "small"
    folder = arguments.out or default_folder(full=arguments.full)
    track = untracked if arguments.quiet else bars
    good = True
    chosen = _chosen(arguments.name)
    # Before the measurement, which can take hours and would be lost.
    check_writable(folder)
    for experiment in chosen:
        _refuse_to_replace(experiment, folder, size, force=arguments.force)
        record = measure(experiment, full=arguments.full, track=track)
        written = [save(record, folder)]
        if not arguments.no_render:
            written += render(experiment, record, folder)
        good = report(record) and good
        print(f"{experiment.name}: {len(written)} files in {folder}")
    return 0 if good else 1


def check_writable(folder: Path) -> None:
    r"""Make the folder, and raise `OSError` unless a file can be made in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"experiments: `--out` must be a folder that can be written to, got "
            f"{folder} ({error.strerror})"
        ) from error


def changed_since(name: str) -> str:
    """What the stored record says of the code that measured it, beside today's."""
    record = load(name, default_folder(full=True))
    then = record["run"].get("sources")
    if then is None:
        return "measured before hashes of sources were kept"
    return "as measured" if then == hash_of(find(name).module) else "changed since"


def run_judge(arguments: argparse.Namespace) -> int:
    """Judge records again and write them; the status is 1 where a claim fell."""
    folder = arguments.out or default_folder(full=True)
    good = True
    for experiment in _chosen(arguments.name or "all"):
        record = load(experiment.name, folder)
        record["claims"] = judgements(experiment, record["cases"])
        save(record, folder)
        good = report(record) and good
    return 0 if good else 1


def run_render(arguments: argparse.Namespace) -> int:
    """Render the records of a folder again."""
    folder = arguments.out or default_folder(full=True)
    for experiment in _chosen(arguments.name or "all"):
        written = render(experiment, load(experiment.name, folder), folder)
        print(f"{experiment.name}: {len(written)} files in {folder}")
    return 0


def run_margins(arguments: argparse.Namespace) -> int:
    """Run what is not stored, then print and write the narrowest margins."""
    folder = arguments.out or default_folder(full=True)
    check_writable(folder)
    path = folder / "margins.json"
    track = untracked if arguments.quiet else bars
    chosen = [find(name) for name in arguments.names] or discover()
    if not arguments.no_run:
        stored = {} if arguments.again else margins.load(path)["experiments"]
        jobs = margins.jobs_of(chosen, stored)
        for experiment, setting, run in track(margins.Runs(jobs), "margins"):
            # Read again: another process may have written meanwhile.
            data = margins.load(path)
            run["on"] = margins.place(data["machines"], provenance())
            margins.keep(data["experiments"], experiment, setting, run)
            data["numbers"] = margin_tables.numbers(data)
            margins.save(data, path)
    data = margins.load(path)
    counted = margin_tables.numbers(data)
    if data.get("numbers") != counted:
        # A merge joins the runs of both sides and keeps the counts of one.
        data["numbers"] = counted
        margins.save(data, path)
    for name, text in margin_tables.tables(data).items():
        write_whole(folder / f"margins.{name}.md", text)
        print(f"{text}")
    return 1 if data["numbers"]["turned"] else 0


def report(record: Mapping[str, Any]) -> bool:
    """Print what became of each claim; True where all hold and all controls fail."""
    good = True
    for identifier, claim in record["claims"].items():
        passed = claim["holds"] and not claim["control_holds"]
        good = good and passed
        mark = "holds" if claim["holds"] else "DOES NOT HOLD"
        control = "HOLDS TOO" if claim["control_holds"] else "fails, as it must"
        print(f"{identifier} {mark}: {claim['sentence']}")
        print(
            f"    {claim['case']}: {claim['number']:.4g}; "
            f"control {claim['control']}: {claim['control_number']:.4g}, {control}"
        )
    return good


def default_folder(*, full: bool) -> Path:
    r"""Where results go: docs/_data of the checkout we stand in, or runs/experiments.

    Raises:
        ValueError: A full run outside a checkout, with no folder given.
    """
    if not full:
        return SMALL_RUNS
    here = Path.cwd()
    for root in (here, *here.parents):
        if (root / "mkdocs.yml").is_file() and (root / DATA).is_dir():
            return root / DATA
    raise ValueError(
        "experiments: `--out` must name a folder, since this is no checkout of "
        f"seqref; got none in {here}"
    )


def _chosen(name: str) -> Sequence[Experiment]:
    if name == "timed":
        return [experiment for experiment in discover() if experiment.timed]
    return discover() if name == "all" else [find(name)]


def _refuse_to_replace(
    experiment: Experiment, folder: Path, size: str, *, force: bool
) -> None:
    if size == "full" or force or not path_of(experiment.name, folder).is_file():
        return
    if load(experiment.name, folder)["run"]["size"] == "full":
        raise ValueError(
            f"experiments: `--out` must not hold a full result of "
            f"{experiment.name} when a small one is written, got {folder}; "
            f"pass --force to replace it"
        )
