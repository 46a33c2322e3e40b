r"""The console command `seqref`: one row of `COMMANDS` for each thing that is run."""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TextIO


@dataclass(frozen=True)
class Command:
    r"""One subcommand.

    `module` is imported only when the subcommand is called. It defines
    `add_parser(subparsers)`, which adds a parser called `name` and gives it
    `set_defaults(run=function)`; `function(arguments)` returns the exit status.
    """

    name: str
    help: str
    module: str


COMMANDS = (
    Command(
        "train-lm",
        "train a character language model on a text file",
        "seqref.training.train_lm",
    ),
    Command(
        "train-pronouncer",
        "train a model that says how English words are pronounced",
        "seqref.training.train_pronouncer",
    ),
    Command(
        "pronounce",
        "say how words are pronounced, by a model of train-pronouncer",
        "seqref.training._pronounce",
    ),
)


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The command line; only the chosen subcommand's module is imported."""
    parser = argparse.ArgumentParser(
        prog="seqref", description="The reference on sequence models."
    )
    parser.add_argument("--version", action="version", version=_version())
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in COMMANDS:
        if command.name == chosen:
            importlib.import_module(command.module).add_parser(subparsers)
        else:
            subparsers.add_parser(command.name, help=command.help)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; see `status_of`."""
    return status_of("seqref", lambda: _called(argv))


def status_of(program: str, called: Callable[[], int]) -> int:
    r"""Call a command and return its exit status, errors told on standard error.

    0: it worked. 1: it ran, and the result is not as claimed. 2: bad arguments, bad
    input, a missing extra, no room on disk or in memory; the message says which. 130:
    stopped by Ctrl-C. 141: who read the output has closed it, as `head` does. A command
    may have more of them.
    """
    with _standard_streams():
        try:
            status = called()
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            # Who read the output has enough, as `head` does.
            return 141
        except MemoryError as error:
            known = str(error) or "no more is known"
            _tell(f"{program}: error: not enough memory: {known}")
            return 2
        except (ValueError, RuntimeError, OSError) as error:
            _tell(f"{program}: error: {error}")
            return 2
        except KeyboardInterrupt:
            _tell(f"{program}: stopped")
            return 130
        finally:
            _settle(sys.stdout)
            _settle(sys.stderr)


def _called(argv: Sequence[str] | None) -> int:
    given = list(sys.argv[1:] if argv is None else argv)
    known = {command.name for command in COMMANDS}
    chosen = next((word for word in given if word in known), None)
    # Building the parser imports the subcommand, which can take seconds.
    parser = build_parser(chosen)
    arguments = parser.parse_args(given)
    if arguments.command is None:
        parser.print_help()
        return 0
    return arguments.run(arguments)


@contextlib.contextmanager
def _standard_streams() -> Iterator[None]:
    r"""Stand-ins where standard output or standard error is closed."""
    before = sys.stdout, sys.stderr
    if None in before:
        for number in range(3):
            try:
                os.fstat(number)
            except OSError:
                # The lowest number that is free, which is this one: else a file that is
                # written later would get it, and what a library prints.
                os.open(os.devnull, os.O_RDWR)
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            sys.stdout, sys.stderr = (stream or nowhere for stream in before)
            try:
                yield
            finally:
                sys.stdout, sys.stderr = before
    else:
        yield


def _tell(text: str) -> None:
    # Standard error may be lost as well.
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr)


def _settle(stream: TextIO) -> None:
    r"""Drop what a lost stream holds: Python would try again at exit, and complain."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            number = stream.fileno()
            handle = os.open(os.devnull, os.O_WRONLY)
            os.dup2(handle, number)
            os.close(handle)


def _version() -> str:
    try:
        return f"seqref {metadata.version('seqref')}"
    except metadata.PackageNotFoundError:
        return "seqref (not installed)"


if __name__ == "__main__":
    raise SystemExit(main())
