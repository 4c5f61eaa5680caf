"""Overview picture of a dataset: a few images beside their colored labels and class names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from cat_seg.visualization.legend import (
    BACKGROUND,
    FAINT_TEXT,
    TEXT,
    draw_legend,
    load_font,
    shorten,
)
from cat_seg.visualization.overlay import blend, legend_entries, percent, resize_together
from cat_seg.visualization.palette import palette

# In pixels. Images keep their aspect ratio inside panels of this size.
PANEL_WIDTH, PANEL_HEIGHT = 400, 300
LEGEND_WIDTH = 240
GAP, MARGIN = 8, 24
TITLE_FONT, TEXT_FONT = 24, 13
CAPTION = 2 * TEXT_FONT
HEADING = 2 * TITLE_FONT + CAPTION
PANEL_BACKGROUND = (238, 240, 243)
LABEL_OPACITY = 0.75

CELL_WIDTH = 2 * (PANEL_WIDTH + GAP) + LEGEND_WIDTH
CELL_HEIGHT = CAPTION + PANEL_HEIGHT
MOST_COLUMNS = 2


class Sample(NamedTuple):
    """An image (H, W, 3) uint8 RGB, its label map (H, W) of integers, and a caption."""

    caption: str
    image: np.ndarray
    label: np.ndarray


def draw_sheet(
    title: str, remark: str, samples: Sequence[Sample], names: Sequence[str]
) -> Image.Image:
    """Draw samples in a grid, each as image | label | legend of its classes, largest first.

    Args:
        title: the heading.
        remark: a line below the heading.
        samples: at least one.
        names: names of the label values, in index order. Pixels with other values are ignored and
            left uncolored.
    """
    columns = min(MOST_COLUMNS, len(samples))
    rows = -(-len(samples) // columns)
    width = 2 * MARGIN + columns * (CELL_WIDTH + MARGIN) - MARGIN
    height = 2 * MARGIN + HEADING + rows * (CELL_HEIGHT + MARGIN) - MARGIN
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    room, below = width - 2 * MARGIN, MARGIN + round(1.5 * TITLE_FONT)
    _write(sheet, title, (MARGIN, MARGIN), TITLE_FONT, TEXT, room)
    _write(sheet, remark, (MARGIN, below), TEXT_FONT, FAINT_TEXT, room)
    for index, sample in enumerate(samples):
        row, column = divmod(index, columns)
        left = MARGIN + column * (CELL_WIDTH + MARGIN)
        top = MARGIN + HEADING + row * (CELL_HEIGHT + MARGIN)
        _draw_sample(sheet, sample, names, left, top)
    return sheet


def _draw_sample(
    sheet: Image.Image, sample: Sample, names: Sequence[str], left: int, top: int
) -> None:
    height, width = sample.image.shape[:2]
    ignored = percent(float(np.mean((sample.label < 0) | (sample.label >= len(names)))))
    caption = f"{sample.caption}  ·  {width} x {height}  ·  {ignored} ignored"
    _write(sheet, caption, (left, top), TEXT_FONT, FAINT_TEXT, CELL_WIDTH)
    top += CAPTION
    scale = min(PANEL_WIDTH / width, PANEL_HEIGHT / height)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    image, label = resize_together(sample.image, [sample.label], *size)
    drawn = blend(image, label, palette(len(names)), LABEL_OPACITY)
    for panel in (image, drawn):
        corner = (PANEL_WIDTH - size[1]) // 2, (PANEL_HEIGHT - size[0]) // 2
        box = Image.new("RGB", (PANEL_WIDTH, PANEL_HEIGHT), PANEL_BACKGROUND)
        box.paste(Image.fromarray(panel), corner)
        sheet.paste(box, (left, top))
        left += PANEL_WIDTH + GAP
    entries = legend_entries([sample.label], names, with_share=True)
    legend = draw_legend(entries, TEXT_FONT, LEGEND_WIDTH, PANEL_HEIGHT, flat=False)
    sheet.paste(legend, (left, top))


def _write(
    sheet: Image.Image,
    text: str,
    corner: tuple[int, int],
    size: int,
    color: tuple[int, int, int],
    width: int,
) -> None:
    """Draw one line of text, with its upper left corner at `corner`, truncated to `width`."""
    font = load_font(size)
    font.draw(ImageDraw.Draw(sheet), corner, shorten(text, font, width), color, anchor="la")
