"""Numbers in Markdown tables, of documents and of the output of commands."""

from __future__ import annotations

import re
from collections.abc import Sequence

# First cell of a row -> heading -> cell.
Table = dict[str, dict[str, str]]


def table_below(text: str, line: str) -> Table:
    """Return the first table below a line of a text.

    Raises:
        LookupError: there is no such line, or no table below it.
    """
    lines = text.splitlines()
    if line not in lines:
        raise LookupError(f"there is no line {line!r}")
    tables = _tables(lines[lines.index(line) + 1 :])
    if not tables:
        raise LookupError(f"there is no table below {line!r}")
    return _by_name(tables[0])


def table_with(text: str, heading: str) -> Table:
    """Return the last table of a text that has a heading.

    Raises:
        LookupError: there is none.
    """
    found = [table for table in _tables(text.splitlines()) if heading in table[0]]
    if not found:
        raise LookupError(f"there is no table with the heading {heading!r}")
    return _by_name(found[-1])


def cell_of(table: Table, row: str, column: str) -> str:
    """Return a cell.

    Raises:
        LookupError: there is no such row or column.
    """
    if row not in table:
        raise LookupError(f"the table has no row {row!r}")
    if column not in table[row]:
        raise LookupError(f"the table has no column {column!r}")
    return table[row][column]


def number_of(text: str, pattern: str = "") -> float:
    """Return the number in a text: the group of `pattern`, or the whole text without commas.

    Raises:
        LookupError: it is not a number.
    """
    found = re.search(pattern, text) if pattern else None
    if pattern and not found:
        raise LookupError(f"nothing matches {pattern!r} in {text!r}")
    number = (found[1] if found else text).replace(",", "").rstrip(".")
    try:
        return float(number)
    except ValueError as error:
        raise LookupError(f"{number!r} is not a number") from error


def _tables(lines: Sequence[str]) -> list[list[list[str]]]:
    """Return all tables as rows of cells; the first row has the headings."""
    tables: list[list[list[str]]] = [[]]
    for line in lines:
        if not line.startswith("|"):
            tables.append([])
        elif set(line) - set("|-: "):
            cells = line.strip().removeprefix("|").removesuffix("|").split("|")
            tables[-1].append([cell.strip().strip("`*") for cell in cells])
    return [table for table in tables if len(table) > 1]


def _by_name(table: Sequence[Sequence[str]]) -> Table:
    headings, *rows = table
    # Markdown may leave out empty cells at the end of a row.
    return {
        row[0]: dict(zip(headings, [*row, *[""] * len(headings)], strict=False)) for row in rows
    }
