"""A chart of the results table: the metric on each benchmark, and below it the differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cat_seg.evaluation.results.formats import signed
from cat_seg.evaluation.results.table import COLUMNS, Row
from cat_seg.visualization.palette import LINE_COLORS

WIDTH = 10.0  # inches
HEIGHTS = {"mean": 3.0, "difference": 2.2}  # panel height in inches, by the cell value it shows
GROUP = 0.86  # fraction of a benchmark's width taken by its bars
WIDEST = 0.3  # maximum fraction taken by a single bar
UPRIGHT = 24  # maximum bars in a panel with unrotated value labels
LEAST_DIFFERENCE = 0.5  # minimum axis range in points, both ways, so that noise looks small
ROOM = {0: 0.18, 90: 0.3}  # label rotation -> vertical margin for labels, as a fraction of a panel


def draw_chart(
    rows: Sequence[Row], metric: str, headings: Sequence[str] = COLUMNS
) -> Figure | None:
    """Draw bars grouped by benchmark, with one color per method and one panel per backbone.

    Differences to the baseline are too small to see in those bars and get their own panel. There,
    the baseline shows only the spread of its own runs. Error bars are sample standard deviations.

    Returns:
        The figure, or None if nothing was measured.
    """
    measured = [row for row in rows if row.cells]
    if not measured:
        return None
    columns = [name for name in headings if any(name in row.cells for row in measured)]
    panels: list[tuple[str, list[Row], str]] = []
    for backbone in dict.fromkeys(row.backbone for row in measured):
        shown = [row for row in measured if row.backbone == backbone]
        panels.append((f"{metric} (%), {backbone}", shown, "mean"))
        if any(cell.difference is not None for row in shown for cell in row.cells.values()):
            title = f"difference from {shown[0].baseline} (points), {backbone}"
            panels.append((title, shown, "difference"))

    heights = [HEIGHTS[quantity] for _, _, quantity in panels]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(panels), squeeze=False, gridspec_kw={"height_ratios": heights})
    colors = _colors(measured)
    for axes, (title, shown, quantity) in zip(grid[:, 0], panels, strict=True):
        _draw_bars(axes, shown, columns, quantity, colors)
        axes.set_title(title, loc="left", fontsize="medium")
    handles = [Patch(color=color, label=method) for method, color in colors.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False)
    return figure


def _colors(rows: Sequence[Row]) -> dict[str, str]:
    """Assign a color to each method; the first row's baseline is gray."""
    methods = list(dict.fromkeys(row.method for row in rows))
    methods.sort(key=lambda method: method != rows[0].baseline)
    chosen = dict(zip(methods, cycle(LINE_COLORS), strict=False))
    return {row.method: chosen[row.method] for row in rows}


def _draw_bars(
    axes: Axes,
    rows: Sequence[Row],
    columns: Sequence[str],
    quantity: str,
    colors: Mapping[str, str],
) -> None:
    """Draw one panel; each method keeps its place in every benchmark, even if not measured."""
    width = min(GROUP / len(rows), WIDEST)
    rotation = 0 if len(rows) * len(columns) <= UPRIGHT else 90
    for place, row in enumerate(rows):
        for group, column in enumerate(columns):
            cell = row.cells.get(column)
            if cell is None:
                continue
            x = group + (place - (len(rows) - 1) / 2) * width
            value = getattr(cell, quantity)
            if value is not None:
                axes.bar(x, value, width * 0.92, color=colors[row.method])
                text = f"{value:.1f}" if quantity == "mean" else signed(value)
                _label(axes, x, value, cell.std or 0.0, text, rotation)
            if cell.std is not None and (value is not None or row.method == row.baseline):
                color = colors[row.method] if value is None else "black"
                axes.errorbar(x, value or 0.0, cell.std, color=color, linewidth=1.2, capsize=2.5)
    axes.margins(y=ROOM[rotation])
    if quantity == "mean":
        axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 100])
    else:
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, -LEAST_DIFFERENCE), max(high, LEAST_DIFFERENCE))
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)


def _label(axes: Axes, x: float, value: float, std: float, text: str, rotation: int) -> None:
    """Write a label just beyond a bar and its error bar."""
    side = 1 if value >= 0 else -1
    axes.annotate(
        text,
        (x, value + side * std),
        xytext=(0, 3 * side),
        textcoords="offset points",
        ha="center",
        va="bottom" if value >= 0 else "top",
        rotation=rotation,
        fontsize=9,
    )
