"""The ablation's figure: every seed of every method as a dot."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tools.ablation.pipeline import Scores

SPREAD = 0.24  # half of the width that the seeds of a method take
TITLES = {
    "seen": "classes trained on",
    "unseen": "classes not trained on",
    "other domain": "all classes, in another style",
}


def draw_ablation(scores: Sequence[Scores], seeds: Sequence[int]) -> Figure:
    """Draw one panel for each measure.

    Each seed has its color and its place in all methods; a bar marks the mean of a method, and a
    dashed line that of the baseline, which is the first.
    """
    measures = list(scores[0].values)
    width = len(measures) * (2.6 + 0.4 * len(scores))
    figure = Figure(figsize=(width, 4.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        _draw_panel(axes, [(each.title, each.values[measure]) for each in scores], seeds)
        axes.set_title(TITLES[measure], loc="left", fontsize="medium")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.axes[0].set_ylabel("mIoU (%)")
    return figure


def _draw_panel(
    axes: Axes, methods: Sequence[tuple[str, Sequence[float]]], seeds: Sequence[int]
) -> None:
    step = 2 * SPREAD / max(1, len(seeds) - 1)
    for index, seed in enumerate(seeds):
        place = -SPREAD + index * step if len(seeds) > 1 else 0.0
        axes.plot(
            [number + place for number in range(len(methods))],
            [100 * values[index] for _, values in methods],
            linestyle="none",
            marker="o",
            markersize=6,
            alpha=0.85,
            label=f"seed {seed}",
        )
    means = [100 * fmean(values) for _, values in methods]
    for number, mean in enumerate(means):
        axes.hlines(mean, number - SPREAD - 0.12, number + SPREAD + 0.12, color="black", zorder=3)
        axes.annotate(
            f"{mean:.1f}",
            (number + SPREAD + 0.12, mean),
            xytext=(2, 0),
            textcoords="offset points",
            va="center",
            fontsize="x-small",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    axes.axhline(means[0], color="gray", linestyle="--", linewidth=1, zorder=0)
    axes.set_xticks(range(len(methods)), [title for title, _ in methods], rotation=30, ha="right")
    axes.set_xlim(-0.6, len(methods) - 0.3)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
