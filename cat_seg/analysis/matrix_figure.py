"""Square matrices over classes, with the class names on both axes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cat_seg.data.class_names import first_synonym
from cat_seg.visualization.palette import LINE_COLORS

# Inches of a cell, by the largest number of classes that has it.
CELLS = ((12, 0.55), (60, 0.26), (250, 0.115))
MOST_NAMED = CELLS[-1][0]  # classes; the names of more are not drawn
UNNAMED_SIDE = 14.0  # inches
MOST_WRITTEN = 12  # classes whose values are written into the cells
LONGEST_NAME = 26  # characters
UNSEEN_COLOR = LINE_COLORS[1]


class Axis(NamedTuple):
    """The texts of a matrix: of its rows, its columns, and its values."""

    rows: str
    columns: str
    values: str


def draw_matrix(
    values: np.ndarray,
    names: Sequence[str],
    texts: Axis,
    *,
    title: str = "",
    norm: Normalize | None = None,
    emphasized: Collection[int] = (),
) -> Figure:
    """Draw a matrix as colors.

    The size of the figure follows the number of classes, so that up to 250 names can be read.

    Args:
        values: (n, n); NaN is drawn gray.
        names: n class names, of which the first synonyms are drawn.
        texts: what is drawn.
        title: title of the figure.
        norm: maps values to 0..1; linear by default.
        emphasized: classes whose names have another color.
    """
    count = len(names)
    cell = next((inches for most, inches in CELLS if count <= most), UNNAMED_SIDE / count)
    side = max(3.2, cell * count)
    room = 2.3 if count <= MOST_NAMED else 0.7  # for names
    figure = Figure(figsize=(side + room + 1.0, side + room), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colors = "viridis"
    axes.set_facecolor("#d9d9d9")
    image = axes.imshow(np.ma.masked_invalid(values), cmap=colors, norm=norm, interpolation="none")
    figure.colorbar(image, ax=axes, shrink=0.6, label=texts.values)
    axes.set(xlabel=texts.columns, ylabel=texts.rows)
    axes.set_title(title, loc="left", fontsize="medium", parse_math=False)
    if count > MOST_NAMED:
        axes.set(xticks=[], yticks=[])
        return figure
    size = min(9.0, 0.72 * cell * 72)
    shown = [short_name(name) for name in names]
    axes.set_xticks(range(count), shown, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(count), shown, fontsize=size, parse_math=False)
    axes.tick_params(length=0)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        for index in emphasized:
            labels[index].set_color(UNSEEN_COLOR)
    if count <= MOST_WRITTEN:
        shades = np.ma.filled(image.norm(np.ma.masked_invalid(values)), 1.0)
        for row, column in np.argwhere(np.isfinite(values)).tolist():
            value = float(values[row, column])
            color = "white" if shades[row, column] < 0.6 else "black"
            text = f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=7.5)
    return figure


def short_name(name: str, longest: int = LONGEST_NAME) -> str:
    """Return the first synonym, cut off at `longest` characters."""
    first = " ".join(first_synonym(name).split())
    return first if len(first) <= longest else f"{first[: longest - 1]}…"
