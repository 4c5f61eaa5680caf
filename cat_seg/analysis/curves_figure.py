"""Curves of the diagnostics that a training writes to metrics.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import cycle
from math import ceil
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cat_seg.analysis.gradients import ADAPTED, ALL, OTHER, PARTS, REFERENCE
from cat_seg.visualization.palette import LINE_COLORS

MOST_LABELED = len(LINE_COLORS) - 1  # lines in a panel; more have no legend
# From the first panel to the last, and from the first line to the last.
PART_ORDER = (ALL, *PARTS, *ADAPTED.values(), OTHER)
GATE_ORDER = ("channel", "spatial", "uncertainty", "mix", "change", "turn")
PANEL = (4.2, 2.5)  # inches
COLUMNS = 3

Curves = dict[str, dict[int, float]]  # metric -> iteration -> value


class Panel(NamedTuple):
    """One plot.

    Attributes:
        title: its title.
        lines: curve by label.
        bands: half the width of a band around a line, by label.
        log: whether the values have a logarithmic axis.
    """

    title: str
    lines: Mapping[str, Mapping[int, float]]
    bands: Mapping[str, Mapping[int, float]] = {}
    log: bool = False


def curves_of(metrics: Mapping[int, Mapping[str, float]], prefixes: Iterable[str]) -> Curves:
    """Select the metrics of a metrics.json whose names start with one of `prefixes`."""
    chosen, found = tuple(prefixes), Curves()
    for iteration, values in metrics.items():
        for name, value in values.items():
            if name.startswith(chosen):
                found.setdefault(name, {})[iteration] = value
    return found


def gradient_panels(curves: Curves) -> list[Panel]:
    """Return a panel for each part: the norms of the gradients of all losses."""
    return _by_part(curves, "gradient/", "/norm", log=True)


def cosine_panels(curves: Curves) -> list[Panel]:
    """Return a panel for each part: the cosines of the losses to the segmentation loss."""
    return _by_part(curves, "gradient/", "/cosine", log=False)


def update_panels(curves: Curves) -> list[Panel]:
    """Return one panel: the relative length of the optimizer steps of all parts."""
    lines = {part: curves[f"update/{part}"] for part in PART_ORDER if f"update/{part}" in curves}
    return [Panel("relative update", lines, log=True)] if lines else []


def rectification_panels(curves: Curves) -> list[Panel]:
    """Return a panel for each of AFR's gates, uncertainty, mix and change."""
    panels = []
    for gate in GATE_ORDER:
        mean, spread = (curves.get(f"afr/{gate}/{what}") for what in ("mean", "std"))
        if mean:
            panels.append(Panel(gate, {gate: mean}, {gate: spread} if spread else {}))
    return panels


def prototype_panels(curves: Curves) -> list[Panel]:
    """Return HPA's panels: cosine to the own prototype, by class too, and angles."""
    classes = {
        name.removeprefix("hpa/cosine/class/"): curve
        for name, curve in curves.items()
        if name.startswith("hpa/cosine/class/")
    }
    own = {
        label: curves[name]
        for label, name in (
            ("cosine to the own prototype", "hpa/cosine/mean"),
            ("share nearest to the own prototype", "hpa/nearest/own"),
        )
        if name in curves
    }
    angles = {
        label: curves[name]
        for label, name in (
            ("mean", "hpa/angle/mean"),
            ("nearest", "hpa/angle/nearest"),
            ("smallest", "hpa/angle/min"),
        )
        if name in curves
    }
    panels = (
        Panel("features and prototypes", own),
        Panel("cosine to the own prototype, by class", classes),
        Panel("angles between prototypes (degrees)", angles),
    )
    return [panel for panel in panels if panel.lines]


def draw_curves(panels: list[Panel], title: str = "", first: Iterable[str] = ()) -> Figure:
    """Draw panels in rows of three, over the training iteration.

    Args:
        panels: at least one. Lines with the same label share a color. If panels share labels, the
            figure has one legend. More lines than there are colors are drawn thin and without one.
        title: title of the figure.
        first: labels that take the first colors even if no panel has them, so that two figures
            agree.
    """
    columns = min(COLUMNS, len(panels))
    rows = ceil(len(panels) / columns)
    size = (PANEL[0] * columns, PANEL[1] * rows + (0.4 if title else 0))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title)
    labels = dict.fromkeys(label for panel in panels for label in panel.lines)
    colors = dict(zip(dict.fromkeys([*first, *labels]), cycle(LINE_COLORS[1:]), strict=False))
    shared = len(labels) < sum(len(panel.lines) for panel in panels)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel, colors)
        if 1 < len(panel.lines) <= MOST_LABELED and not shared:
            axes.legend(frameon=False, fontsize="small")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if shared:
        handles = [Line2D([], [], color=colors[label], label=label) for label in labels]
        figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    return figure


def _by_part(curves: Curves, prefix: str, suffix: str, *, log: bool) -> list[Panel]:
    parts: dict[str, dict[str, dict[int, float]]] = {}
    for name, curve in curves.items():
        if name.startswith(prefix) and name.endswith(suffix):
            loss, part = name.removeprefix(prefix).removesuffix(suffix).rsplit("/", 1)
            parts.setdefault(part, {})[loss] = curve
    return [
        Panel(part, dict(sorted(parts[part].items(), key=_segmentation_first)), log=log)
        for part in PART_ORDER
        if part in parts
    ]


def _segmentation_first(line: tuple[str, Any]) -> tuple[bool, str]:
    return f"loss_{line[0]}" != REFERENCE, line[0]


def _draw(axes: Axes, panel: Panel, colors: Mapping[str, str]) -> None:
    many = len(panel.lines) > MOST_LABELED
    for label, curve in panel.lines.items():
        marker = "o" if len(curve) == 1 else None  # a line through one point would be invisible
        style: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.6} if many else {"linewidth": 1.8}
        iterations, values = list(curve), list(curve.values())
        axes.plot(iterations, values, color=colors[label], label=label, marker=marker, **style)
        if label in panel.bands:
            spread = [panel.bands[label][iteration] for iteration in iterations]
            low, high = (
                [value + sign * half for value, half in zip(values, spread, strict=True)]
                for sign in (-1, 1)
            )
            axes.fill_between(iterations, low, high, color=colors[label], alpha=0.15, linewidth=0)
    if panel.log and any(value > 0 for curve in panel.lines.values() for value in curve.values()):
        axes.set_yscale("log")
    axes.set_title(panel.title, loc="left", fontsize="medium")
    axes.set_xlabel("training iteration")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
