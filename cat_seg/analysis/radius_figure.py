"""Plots of the hyperbolic radius: distributions per model, and trajectories over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from cat_seg.analysis.radius import IMAGE, TEXT, Trajectory
from cat_seg.visualization.palette import LINE_COLORS

# Model title -> IMAGE or TEXT + vocabulary name -> radii (or their trajectory).
Distributions = Mapping[str, Mapping[str, Sequence[float] | Tensor]]
Trajectories = Mapping[str, Mapping[str, Trajectory]]

MOST_DOTS = 200  # maximum number of radii drawn as individual dots
PANEL = (5.2, 2.3)  # inches
LONGEST_HEADING = 40  # characters; longer headings would run into the next panel


def draw_radii(distributions: Distributions, trajectories: Trajectories, title: str = "") -> Figure:
    """Draw one row for each vocabulary and one for image patches.

    The left column shows the distributions of models. The right column shows the trajectories of
    training runs: mean and standard deviation. A model and a run with the same title share a color.

    Args:
        distributions: drawn from top to bottom, the model before training first.
        trajectories: training runs by title.
        title: title of the whole figure.
    """
    sides = [side for side in (distributions, trajectories) if side]
    rows = list(dict.fromkeys(key for side in sides for model in side.values() for key in model))
    rows.sort(key=lambda measured: measured == IMAGE)  # below the text
    titles = list(dict.fromkeys(key for side in sides for key in side))
    palette = LINE_COLORS if distributions else LINE_COLORS[1:]
    colors = dict(zip(titles, cycle(palette), strict=False))

    size = (PANEL[0] * len(sides), PANEL[1] * len(rows) + 0.6)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title)
    panels = figure.subplots(len(rows), len(sides), squeeze=False, sharex="col")
    for measured, row in zip(rows, panels, strict=True):
        for axes, side in zip(row, sides, strict=True):
            draw = _draw_distributions if side is distributions else _draw_trajectories
            shown: dict[str, Any] = {
                name: model[measured] for name, model in side.items() if measured in model
            }
            if shown:
                draw(axes, shown, colors)
            else:
                axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
                axes.set_yticks([])
            axes.set_title(_heading(measured), loc="left", fontsize="medium")
            axes.spines[["top", "right"]].set_visible(False)
    for axes, side in zip(panels[-1], sides, strict=True):
        axes.set_xlabel("hyperbolic radius" if side is distributions else "training iteration")
    return figure


def _heading(measured: str) -> str:
    text = "image patches" if measured == IMAGE else f"text: {measured.removeprefix(TEXT)}"
    return text if len(text) <= LONGEST_HEADING else f"{text[: LONGEST_HEADING - 1]}…"


def _draw_distributions(
    axes: Axes, shown: Mapping[str, Sequence[float] | Tensor], colors: Mapping[str, str]
) -> None:
    for height, (name, radii) in enumerate(shown.items()):
        values, color = np.asarray(radii), colors[name]
        violin = axes.violinplot(
            values, [height], orientation="horizontal", widths=0.8, showextrema=False
        )
        violin["bodies"][0].set(facecolor=color, alpha=0.3)  # type: ignore[index]  # it is a list
        if len(values) <= MOST_DOTS:
            # Deterministic, evenly spread jitter.
            offsets = (np.arange(len(values)) * 0.618 % 1 - 0.5) * 0.3
            axes.scatter(values, height + offsets, s=9, color=color, alpha=0.7, linewidths=0)
        axes.plot([values.mean()] * 2, [height - 0.35, height + 0.35], color=color, linewidth=2)
    axes.set_yticks(range(len(shown)), list(shown))
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.25)


def _draw_trajectories(
    axes: Axes, shown: Mapping[str, Trajectory], colors: Mapping[str, str]
) -> None:
    for name, run in shown.items():
        mean, std = np.asarray(run.mean), np.asarray(run.std)
        alone = "o" if len(mean) == 1 else None  # a line through one point would be invisible
        axes.plot(run.iteration, mean, color=colors[name], label=name, linewidth=1.8, marker=alone)
        band = (mean - std, mean + std)
        axes.fill_between(run.iteration, *band, color=colors[name], alpha=0.15, linewidth=0)
    axes.set_ylabel("mean ± std")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize="small")
