"""The results table: one row per method, one column per benchmark, differences to a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from cat_seg.errors import UserError
from cat_seg.evaluation.results.columns import VIEWS, Column
from cat_seg.evaluation.results.methods import BASELINE
from cat_seg.evaluation.results.read import Run

COLUMNS = VIEWS["benchmarks"].headings


@dataclass(frozen=True)
class Cell:
    """A metric in one column, in percent.

    std: sample standard deviation over the runs; None for a single run.
    count: number of runs that were measured.
    difference: mean minus the baseline's mean, in points; None for the baseline itself, or if the
        baseline was not measured.
    incomplete: whether any run does not cover the full dataset.
    """

    mean: float
    std: float | None
    count: int
    difference: float | None = None
    incomplete: bool = False


@dataclass(frozen=True)
class Row:
    """All runs of one method with one backbone.

    baseline: the method that differences are relative to.
    cells: by the heading of the column; only those that were measured.
    source: where the figures were published; "" for runs.
    """

    method: str
    backbone: str
    runs: int
    baseline: str
    cells: Mapping[str, Cell]
    source: str = ""


def group(runs: Sequence[Run]) -> dict[tuple[str, str], list[Run]]:
    """Group the runs by backbone and method, in table order."""
    backbones = list(dict.fromkeys(run.backbone for run in runs))
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: (backbones.index(run.backbone), run.method)):
        groups.setdefault((run.backbone, run.method.name), []).append(run)
    return groups


def summarize(
    runs: Sequence[Run],
    metric: str = "mIoU",
    baseline: str | None = None,
    columns: Sequence[Column] = VIEWS["benchmarks"].columns,
) -> list[Row]:
    """Make one row for the runs of each method and backbone.

    Args:
        runs: the runs to summarize.
        metric: the name of a metric in the results.
        baseline: the method to compare with, for the same backbone; defaults to H-CLIP, or to the
            backbone's first method if H-CLIP is missing.
        columns: a column that is a mean is left out for a run without all of its benchmarks.

    Raises:
        UserError: no run has that metric, or no run is of that baseline.
    """
    _check_metric(runs, metric)
    groups = group(runs)
    methods = list(dict.fromkeys(method for _, method in groups))
    if baseline is not None and baseline not in methods:
        raise UserError(f"--baseline {baseline}: no such method; choose from {', '.join(methods)}")
    rows = []
    for (backbone, method), members in groups.items():
        rivals = [name for other, name in groups if other == backbone]
        chosen = baseline or (BASELINE if BASELINE in rivals else rivals[0])
        rows.append(Row(method, backbone, len(members), chosen, _cells(members, metric, columns)))
    return [_compared(row, rows) for row in rows]


def _check_metric(runs: Sequence[Run], metric: str) -> None:
    known = {name for run in runs for result in run.results.values() for name in result.metrics}
    if known and metric not in known:
        overall = sorted(name for name in known if not name.startswith(("IoU-", "ACC-")))
        raise UserError(
            f"--metric {metric}: no such metric; choose from {', '.join(overall)}, IoU-CLASS and "
            "ACC-CLASS"
        )


def _cells(runs: Sequence[Run], metric: str, columns: Sequence[Column]) -> dict[str, Cell]:
    cells = {}
    for column in columns:
        known: list[float] = []
        short = False
        for run in runs:
            values = {
                label: value
                for label in column.labels
                if label in run.results
                and (value := run.results[label].metrics.get(metric)) is not None
            }
            mean = column.value(values)
            if mean is not None:
                known.append(mean)
                short |= any(run.results[label].incomplete for label in values)
        if known:
            std = stdev(known) if len(known) > 1 else None
            cells[column.heading] = Cell(fmean(known), std, len(known), incomplete=short)
    return cells


def _compared(row: Row, rows: Sequence[Row]) -> Row:
    if row.method == row.baseline:
        return row
    reference: Mapping[str, Cell] = {}
    for other in rows:
        if (other.method, other.backbone) == (row.baseline, row.backbone):
            reference = other.cells
    cells = {
        column: replace(cell, difference=cell.mean - reference[column].mean)
        if column in reference
        else cell
        for column, cell in row.cells.items()
    }
    return replace(row, cells=cells)
