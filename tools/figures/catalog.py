"""The list of figures in the documents: where each one stands, and what prints it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools.figures.reading import Table, cell_of, number_of, table_below, table_with

FIGURES = Path(__file__).with_name("figures.yaml")


@dataclass(frozen=True)
class Tolerance:
    """How far a figure may be from the documented one.

    Attributes:
        absolute: largest difference.
        factor: largest ratio of the larger to the smaller one, 1 for none.
    """

    absolute: float = 0.0
    factor: float = 1.0

    def accepts(self, documented: float, measured: float) -> bool:
        """Return whether a measured figure agrees with the documented one."""
        small, large = sorted((abs(documented), abs(measured)))
        same_sign = documented * measured > 0
        within = abs(documented - measured) <= self.absolute + 1e-9 * large
        return within or (same_sign and large <= small * self.factor)


@dataclass(frozen=True)
class Figure:
    """A figure of a document beside the one that its command printed."""

    name: str
    documented: float
    measured: float
    agrees: bool


@dataclass(frozen=True)
class Check:
    """Figures that stand together in a document.

    Attributes:
        file: the document.
        tolerance: how far they may be off.
        pattern: regular expression whose one group is the figure; blanks in it match line breaks.
        output: the same for the output of the command. With several matches, the largest counts.
        table: a line of the document; the first table below it holds the figures.
        source: a heading of the output's table.
        rows: row of the document -> rows of the output, of which the largest value counts; all
            rows, by the same names, if empty.
        columns: column of the document -> columns of the output.
        cell: regular expression whose one group is the figure in a cell.
    """

    file: Path
    tolerance: Tolerance
    pattern: str = ""
    output: str = ""
    table: str = ""
    source: str = ""
    rows: Mapping[str, Sequence[str]] | None = None
    columns: Mapping[str, Sequence[str]] | None = None
    cell: str = ""

    def documented(self) -> dict[str, float]:
        """Return the figures in the document, by name.

        Raises:
            LookupError: they are not there.
        """
        text = self.file.read_text(encoding="utf-8")
        if not self.table:
            values = _matches(self.pattern, text)
            if len(values) > 1:
                raise LookupError(f"{self.pattern!r} matches {len(values)} times")
            return {self.pattern: values[0]}
        table = table_below(text, self.table)
        found = {
            f"{row}, {column}": number_of(cell_of(table, row, column), self.cell)
            for row in self.rows or table
            for column in self.columns or {}
            if cell_of(table, row, column)
        }
        if not found:
            raise LookupError(f"the table below {self.table!r} is empty")
        return found

    def compared(self, printed: str) -> list[Figure]:
        """Compare the figures in the document with those that a command printed.

        Raises:
            LookupError: a figure is in neither the document nor the output.
        """
        measured: dict[str, float] = {}
        documented = self.documented()
        if self.table:
            table = table_with(printed, self.source)
            for name in documented:
                row, _, column = name.rpartition(", ")
                measured[name] = self._largest(table, row, column)
        else:
            measured[self.pattern] = max(_matches(self.output, printed))
        return [
            Figure(name, value, measured[name], self.tolerance.accepts(value, measured[name]))
            for name, value in documented.items()
        ]

    def _largest(self, table: Table, row: str, column: str) -> float:
        rows = (self.rows or {}).get(row, [row])
        columns = (self.columns or {})[column]
        cells = [cell_of(table, one, other) for one in rows for other in columns]
        return max(number_of(cell, self.cell) for cell in cells if cell)


@dataclass(frozen=True)
class Command:
    """A command and the figures that it prints.

    Attributes:
        name: for reports and files.
        shown: the command as it stands in the documents.
        arguments: arguments of Python that do the same.
        minutes: how long it takes on two cores, about.
        slow: whether it runs with `--all` alone.
        checks: its figures.
    """

    name: str
    shown: str
    arguments: tuple[str, ...]
    minutes: float
    slow: bool
    checks: tuple[Check, ...]


def read_catalog(path: Path, root: Path) -> list[Command]:
    """Read the list of commands and figures.

    Args:
        path: the YAML file; its comment describes it.
        root: the folder that the documents are relative to.

    Raises:
        ValueError: an entry is not as described.
    """
    return [_command(entry, root) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]


def _command(entry: Mapping[str, Any], root: Path) -> Command:
    known = {"name", "command", "run", "minutes", "slow", "checks"}
    if unknown := {*entry} - known:
        raise ValueError(f"{entry.get('name')}: unknown {', '.join(sorted(unknown))}")
    python, *arguments = shlex.split(entry.get("run", entry["command"]))
    if Path(python).name != "python":
        raise ValueError(f"{entry['name']}: its command, or `run`, must start with python")
    return Command(
        entry["name"],
        entry["command"],
        tuple(arguments),
        entry["minutes"],
        entry.get("slow", False),
        tuple(_check(check, entry["name"], root) for check in entry["checks"]),
    )


def _check(entry: Mapping[str, Any], name: str, root: Path) -> Check:
    given = {**entry, "file": root / entry["file"]}
    given["tolerance"] = Tolerance(**given.pop("tolerance", {}))
    for key in ("rows", "columns"):
        given[key] = {
            one: [other] if isinstance(other, str) else other
            for one, other in (given.get(key) or {}).items()
        }
    check = Check(**given)
    complete = check.source and check.columns if check.table else check.pattern and check.output
    if not complete:
        raise ValueError(
            f"{name}: give table, source and columns, or pattern and output, in {check.file.name}"
        )
    return check


def _matches(pattern: str, text: str) -> list[float]:
    """Return the numbers in the one group of a pattern.

    Raises:
        LookupError: there is none.
    """
    found = re.findall(pattern.replace(" ", r"\s+"), text)
    if not found:
        raise LookupError(f"nothing matches {pattern!r}")
    return [number_of(each) for each in found]
