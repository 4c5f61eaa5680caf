"""Print the figures in README.md and docs/ again, and compare them with what stands there.

By default only the commands run that take minutes; --all runs the others too. Exit status: 0 if all
figures that were printed agree, 1 if one differs or could not be printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cat_seg.errors import UserError, one_line_errors
from cat_seg.utils.files import exclusive_lock
from cat_seg.utils.paths import REPO_ROOT
from tools.figures.catalog import FIGURES, read_catalog
from tools.figures.pipeline import print_again
from tools.figures.report import report


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.figures", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="run only these commands")
    parser.add_argument("--all", action="store_true", help="also run those that take long")
    parser.add_argument("--list", action="store_true", help="list the commands and run nothing")
    parser.add_argument(
        "--output",
        type=Path,
        default=REPO_ROOT / "output" / "figures",
        help="folder for the outputs; a second run keeps what is finished (default: %(default)s)",
    )
    parser.add_argument(
        "--figures", type=Path, default=FIGURES, help="the list (default: %(default)s)"
    )
    parser.add_argument(
        "--root", type=Path, default=REPO_ROOT, help="folder of the documents (default: the clone)"
    )
    return parser.parse_args(argv)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the commands and print the report; returns the exit status."""
    args = parse_args(argv)
    commands = read_catalog(args.figures, args.root)
    if unknown := {*args.names} - {command.name for command in commands}:
        known = ", ".join(command.name for command in commands)
        raise UserError(f"{', '.join(sorted(unknown))}: no such name; choose from {known}")
    chosen = [
        command
        for command in commands
        if (command.name in args.names if args.names else args.all or not command.slow)
    ]
    if args.list:
        for command in commands:
            slow = ", with --all alone" if command.slow else ""
            print(f"{command.name}: {command.shown} (about {command.minutes:g} min{slow})")
        return 0
    args.output.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(args.output):
        printed = print_again(chosen, args.output)
    text, bad = report(commands, printed, args.root)
    print(text)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
