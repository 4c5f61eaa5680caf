"""Plots of calibration: reliability diagram, and what a threshold keeps and gets right."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from cat_seg.analysis.calibration import Calibration
from cat_seg.visualization.palette import LINE_COLORS

SIZE = (9.6, 5.6)  # inches
LEAST = 0.001  # share of pixels; the accuracy of smaller bins is mostly chance
HEADROOM = 0.03  # keeps lines at 0% and 100% off the frame


def draw_calibration(measured: Mapping[str, Calibration], title: str = "") -> Figure:
    """Draw the reliability diagram on the left and the effect of a threshold on the right.

    Left: accuracy over mean confidence, one point for each bin with at least 0.1% of the pixels,
    and the share of pixels in each bin. Right: accuracy and share of the pixels that a threshold
    keeps.

    Args:
        measured: the calibration by the name of what was measured; each has a color.
        title: title of the whole figure.
    """
    figure = Figure(figsize=SIZE, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title)
    panels = figure.subplots(2, 2, sharex="col", height_ratios=(2.4, 1))
    (reliability, accuracy), (share, kept) = panels
    diagonal = {"color": LINE_COLORS[0], "linestyle": "--", "linewidth": 1.2}
    reliability.plot([0, 1], [0, 1], label="perfectly calibrated", **diagonal)
    for (name, one), color in zip(measured.items(), cycle(LINE_COLORS[1:]), strict=False):
        line = {"color": color, "linewidth": 1.8}
        filled = one.share >= LEAST
        reliability.plot(
            one.confidence[filled],
            one.accuracy[filled],
            label=f"{name}: ECE {one.error:.3f}",
            marker="o",
            markersize=4.5,
            **line,
        )
        share.stairs(one.share, one.edges, color=color, fill=True, alpha=0.2)
        share.stairs(one.share, one.edges, **line)
        accuracy.plot(one.thresholds, one.kept_accuracy, label=name, **line)
        kept.plot(one.thresholds, one.kept, **line)

    _describe(reliability, "Reliability", "accuracy")
    _describe(share, "", "pixels")
    _describe(accuracy, "Pixels kept by a threshold", "accuracy of kept")
    _describe(kept, "", "kept")
    for axes in (reliability, accuracy, kept):
        axes.set_ylim(-HEADROOM, 1 + HEADROOM)
    share.set_ylim(bottom=0)
    for axes, text in ((share, "confidence"), (kept, "threshold")):
        axes.set_xlim(-HEADROOM, 1 + HEADROOM)
        axes.set_xlabel(text)
    reliability.legend(frameon=False)
    accuracy.legend(frameon=False, loc="lower right")
    return figure


def _describe(axes: Axes, title: str, ylabel: str) -> None:
    axes.set_title(title, loc="left", fontsize="medium")
    axes.set_ylabel(ylabel)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
