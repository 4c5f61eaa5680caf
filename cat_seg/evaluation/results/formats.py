"""Text formats of the results table: Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from tabulate import tabulate

from cat_seg.evaluation.results.table import COLUMNS, Cell, Row

MISSING = "-"
INCOMPLETE = "*"


def as_markdown(rows: Sequence[Row], metric: str, columns: Sequence[str] = COLUMNS) -> str:
    """Format as a Markdown table, also readable in a terminal, with an explanatory note."""
    return f"{_tabulate(rows, columns, 'github')}\n\n{_note(rows, metric)}\n"


def as_latex(rows: Sequence[Row], metric: str, columns: Sequence[str] = COLUMNS) -> str:
    """Format as a LaTeX booktabs table, with an explanatory comment above it."""
    table = _tabulate(rows, columns, "latex_booktabs")
    return f"% {_note(rows, metric)}\n{table}\n".replace("±", r"$\pm$").replace("(-", "($-$")


def as_csv(rows: Sequence[Row], metric: str, columns: Sequence[str] = COLUMNS) -> str:
    """Format as CSV: the means of all columns, then std, count and difference of each."""
    extra = [f"{column} {name}" for column in columns for name in ("std", "n", "difference")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "backbone", "runs", *columns, *extra])
    for row in rows:
        cells = [row.cells.get(column) for column in columns]
        means = [_number(cell.mean if cell else None) for cell in cells]
        rest = [
            _number(value)
            for cell in cells
            for value in ((cell.std, cell.count, cell.difference) if cell else (None, None, None))
        ]
        writer.writerow([row.method, row.backbone, _runs(row), *means, *rest])
    return text.getvalue()


FORMATS = {"markdown": as_markdown, "latex": as_latex, "csv": as_csv}


def _tabulate(rows: Sequence[Row], columns: Sequence[str], style: str) -> str:
    several = any(row.runs > 1 for row in rows)
    lines = [
        [
            row.method,
            row.backbone,
            *([_runs(row)] if several else []),
            *(_text(row.cells.get(column), row.runs) for column in columns),
        ]
        for row in rows
    ]
    headers = ["method", "backbone", *(["runs"] if several else []), *columns]
    align = ["left", "left", *["right"] * (len(headers) - 2)]
    return tabulate(lines, headers, tablefmt=style, disable_numparse=True, colalign=align)


def _runs(row: Row) -> str:
    return MISSING if row.source else str(row.runs)


def _text(cell: Cell | None, runs: int) -> str:
    if cell is None:
        return MISSING
    text = f"{cell.mean:.1f}" + INCOMPLETE * cell.incomplete
    if cell.std is not None:
        text += f" ± {cell.std:.1f}"
    if cell.count != runs:
        text += f" [n={cell.count}]"
    if cell.difference is not None:
        text += f" ({signed(cell.difference)})"
    return text


def signed(points: float) -> str:
    """Format a difference with sign and one decimal; a value that rounds to 0 gives +0.0."""
    return f"{round(points, 1) + 0.0:+.1f}"


def _number(value: float | None) -> float | str:
    return MISSING if value is None else round(value, 4)


def _note(rows: Sequence[Row], metric: str) -> str:
    text = f"{metric} in percent"
    cells = [(row, cell) for row in rows for cell in row.cells.values()]
    baselines = dict.fromkeys(row.baseline for row, cell in cells if cell.difference is not None)
    if baselines:
        text += (
            f"; in parentheses, the difference from {' or '.join(baselines)} with the same backbone"
        )
    if any(cell.std is not None for _, cell in cells):
        text += "; mean ± sample standard deviation over the runs"
    if any(cell.count != row.runs for row, cell in cells):
        text += "; n is the number of runs with a result"
    if any(cell.incomplete for _, cell in cells):
        text += f"; {INCOMPLETE} marks results on only part of a dataset"
    for source in dict.fromkeys(row.source for row in rows if row.source):
        text += f"; published: {source}"
    return f"{text}."
