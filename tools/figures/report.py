"""The report: every figure as agrees, differs or not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from cat_seg.errors import UserError
from tools.figures.catalog import Check, Command

AGREES, DIFFERS, FAILED, NOT_RUN = "agrees", "DIFFERS", "FAILED", "not run"
LONGEST = 60  # characters of a figure's name

Row = tuple[str, str, str, str, str]


def report(
    commands: Sequence[Command], printed: Mapping[str, str | UserError], root: Path
) -> tuple[str, bool]:
    """Compare what the commands printed with the documents.

    Args:
        commands: all commands.
        printed: by name of a command that was run, its output or why it failed.
        root: the folder that the documents are named relative to.

    Returns:
        A table with a line of totals, and whether a figure differs or could not be printed.
    """
    rows: list[Row] = []
    problems: list[str] = []
    for command in commands:
        output = printed.get(command.name)
        for check in command.checks:
            place = check.file.relative_to(root).as_posix()
            rows += [(command.name, place, *cells) for cells in _rows(check, output, problems)]
        if isinstance(output, UserError):
            problems.append(f"{command.name}: {output}")
    states = [row[-1] for row in rows]
    totals = ", ".join(
        f"{states.count(state)} {state.lower()}"
        for state in (AGREES, DIFFERS, FAILED, NOT_RUN)
        if state in states
    )
    cells = [(*row[:2], _short(row[2]), *row[3:]) for row in rows]
    table = tabulate(cells, ["command", "document", "figure", "values", ""], "github")
    return "\n".join([table, "", *problems, totals]), DIFFERS in states or FAILED in states


def _rows(
    check: Check, output: str | UserError | None, problems: list[str]
) -> list[tuple[str, str, str]]:
    """Return name, values and state of the figures of a check."""
    try:
        documented = check.documented()
        if not isinstance(output, str):
            state = NOT_RUN if output is None else FAILED
            return [(name, f"{value:.10g}", state) for name, value in documented.items()]
        return [
            (
                figure.name,
                f"{figure.documented:.10g}, now {figure.measured:.10g}",
                AGREES if figure.agrees else DIFFERS,
            )
            for figure in check.compared(output)
        ]
    except LookupError as error:
        problems.append(f"{check.file.name}: {error.args[0]}")
        return [(check.pattern or check.table, "-", FAILED)]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
