"""AFR's gates drawn beside images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from cat_seg.analysis.hyperspherical import feature_changes
from cat_seg.enhanced_cat_seg_model import EnhancedCATSeg
from cat_seg.visualization.palette import LINE_COLORS

ROW = (11.5, 2.6)  # inches
BINS = 40  # of the channel gate


class Rectification(NamedTuple):
    """What AFR does to one image.

    Attributes:
        name: of the image.
        image: (H, W, 3) uint8 RGB.
        spatial: spatial gate (h, w) on CLIP's grid, 0..1.
        change: |rectified - x| / |x| on the grid, (h, w).
        turn: mean angle in degrees that AFR turns a feature by.
        channel: channel gate (C,), 0..1.
        uncertainty, mix: 0..1; AFR has one of each for a whole image.
    """

    name: str
    image: np.ndarray
    spatial: np.ndarray
    change: np.ndarray
    turn: float
    channel: np.ndarray
    uncertainty: float
    mix: float


@torch.no_grad()
def rectify(model: EnhancedCATSeg, name: str, image: Tensor) -> Rectification:
    """Apply AFR to an image, resized as a whole to CLIP's input size.

    Args:
        model: has AFR, and is in evaluation mode.
        name: of the image.
        image: (3, H, W), RGB in 0..255.
    """
    assert model.afr is not None
    pixels = (image.to(model.device) - model.pixel_mean) / model.pixel_std
    features = model.guidance(pixels[None]).res3
    gates = model.afr.gates(features)
    change, turn = feature_changes(features, model.afr(features)[0])
    return Rectification(
        name,
        image.permute(1, 2, 0).byte().cpu().numpy(),
        gates.spatial[0, 0].float().cpu().numpy(),
        change[0].cpu().numpy(),
        turn.mean().item(),
        gates.channel[0].float().cpu().numpy(),
        gates.uncertainty.item(),
        gates.mix.item(),
    )


def draw_rectifications(rows: Sequence[Rectification], title: str = "") -> Figure:
    """Draw a row for each image: the image, spatial gate, change of the features, channel gate.

    Each column of maps has one color scale, from the smallest to the largest value in it. The
    uncertainty, the mix and the turn are written below each image.

    Args:
        rows: at least one.
        title: title of the figure.
    """
    size = (ROW[0], ROW[1] * len(rows) + 0.5)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title)
    grid = figure.subplots(len(rows), 4, squeeze=False, width_ratios=(1, 1, 1, 1.2))
    for axes, row in zip(grid[:, 0], rows, strict=True):
        axes.imshow(row.image)
        axes.set_title(row.name, loc="left", fontsize="small", parse_math=False)
        text = f"uncertainty {row.uncertainty:.3f}, mix {row.mix:.3f}, turn {row.turn:.3g}°"
        axes.set_xlabel(text, fontsize="small")
        axes.set(xticks=[], yticks=[])
    for column, label in ((1, "spatial"), (2, "change")):
        maps = [getattr(row, label) for row in rows]
        low, high = min(one.min() for one in maps), max(one.max() for one in maps)
        for axes, row, values in zip(grid[:, column], rows, maps, strict=True):
            height, width = row.image.shape[:2]
            image = axes.imshow(
                values, vmin=low, vmax=high, extent=(0, width, height, 0), interpolation="none"
            )
            axes.set(xticks=[], yticks=[])
        title = "spatial gate" if label == "spatial" else "relative change of the features"
        grid[0, column].set_title(title, loc="left", fontsize="small")
        figure.colorbar(image, ax=list(grid[:, column]), location="bottom", shrink=0.8)
    for axes, row in zip(grid[:, 3], rows, strict=True):
        _draw_channels(axes, row)
    grid[0, 3].set_title("channel gate", loc="left", fontsize="small")
    return figure


def _draw_channels(axes: Axes, row: Rectification) -> None:
    color = LINE_COLORS[2]
    axes.hist(row.channel, BINS, range=(0, 1), color=color, alpha=0.7)
    mean = float(row.channel.mean())
    axes.axvline(mean, color=color, linewidth=2)
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"mean {mean:.3f}, {len(row.channel)} channels", fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
