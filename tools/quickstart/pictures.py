"""The quickstart's figures: training curves, and images next to ground truth and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from cat_seg.utils.files import atomic_write
from cat_seg.utils.metrics_file import read_metrics
from cat_seg.visualization import contact_sheet

PANEL = 224  # pixels
LOSSES = {
    "loss_sem_seg": "segmentation (BCE)",
    "loss_hpa": "prototype alignment (HPA)",
    "loss_afr": "feature rectification (AFR)",
}


def write_curves(path: Path, runs: Mapping[str, Path]) -> None:
    """Plot the losses of some runs over the iterations.

    Args:
        path: the PNG to write.
        runs: maps each run's title to its metrics.json.
    """
    figure = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    for axes, (title, metrics) in zip(panels, runs.items(), strict=True):
        draw_losses(axes, metrics)
        axes.set(title=title, xlabel="iteration", yscale="log")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    panels[0].set_ylabel("weighted loss")
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def draw_losses(axes: Axes, metrics: Path) -> None:
    """Plot one line per loss in a metrics.json on `axes`."""
    entries = [(i, e) for i, e in read_metrics(metrics).items() if "total_loss" in e]
    for key, label in LOSSES.items():
        points = [(i, e[key]) for i, e in entries if key in e]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1.8)
    if not axes.lines:  # detectron2 writes a single loss only as the total
        points = [(i, e["total_loss"]) for i, e in entries]
        axes.plot(*zip(*points, strict=True), label=LOSSES["loss_sem_seg"], linewidth=1.8)


def write_sheet(
    path: Path,
    images: Sequence[Path],
    truths: Sequence[Path],
    predictions: Sequence[Path],
    names: Sequence[str],
) -> None:
    """Draw one row per image (image, ground truth, prediction), and a legend.

    Args:
        path: the PNG to write.
        images, truths, predictions: PNG files; the last two hold class indices.
        names: class names in index order.
    """
    sheet = contact_sheet(
        [np.asarray(Image.open(file).convert("RGB")) for file in images],
        [
            [np.asarray(Image.open(file)).astype(int) for file in pair]
            for pair in zip(truths, predictions, strict=True)
        ],
        names,
        ["image", "ground truth", "prediction"],
        alpha=1.0,  # opaque, because blended textures would look like other colors
        panel_size=PANEL,
    )
    with atomic_write(path) as file:
        Image.fromarray(sheet).save(file, "PNG")
