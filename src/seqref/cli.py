r"""The console command `seqref`: one row of `COMMANDS` for each thing that is run."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata


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
        "experiments",
        "measure the claims of the pages",
        "seqref.experiments.framework.commands",
    ),
    Command(
        "train-lm",
        "train a character language model on a text file",
        "seqref.training.train_lm",
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
    r"""Run the command line and return its exit status.

    0: it worked. 1: it ran, and the result is not as claimed. 2: bad arguments, bad
    input or a missing extra; the message says which. 130: stopped by Ctrl-C. 141: who
    read the output has closed it, as `head` does.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    known = {command.name for command in COMMANDS}
    chosen = next((word for word in given if word in known), None)
    try:
        # Building the parser imports the subcommand, which can take seconds.
        parser = build_parser(chosen)
        arguments = parser.parse_args(given)
        if arguments.command is None:
            parser.print_help()
            return 0
        status = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Who read the output has enough, as `head` does; Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, RuntimeError, OSError) as error:
        print(f"seqref: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("seqref: stopped", file=sys.stderr)
        return 130


def _version() -> str:
    try:
        return f"seqref {metadata.version('seqref')}"
    except metadata.PackageNotFoundError:
        return "seqref (not installed)"


if __name__ == "__main__":
    raise SystemExit(main())
