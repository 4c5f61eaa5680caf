"""Contact sheets: several images next to their label maps, with legends and captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from cat_seg.visualization.legend import (
    BACKGROUND,
    FAINT_TEXT,
    TEXT,
    attach_legend,
    draw_legend,
    load_font,
    shorten,
)
from cat_seg.visualization.overlay import blend, legend_entries, resize_together
from cat_seg.visualization.palette import palette

# In pixels.
MARGIN, GAP = 24, 8
HEADING_FONT, TITLE_FONT, CAPTION_FONT = 24, 15, 13
LEGEND_WIDTH = 240  # maximum, of the legend of a single image
PANEL_BACKGROUND = (238, 240, 243)


def contact_sheet(
    images: Sequence[np.ndarray],
    label_maps: Sequence[Sequence[np.ndarray]],
    names: Sequence[str],
    titles: Sequence[str] = (),
    alpha: float = 0.7,
    panel_size: int = 320,
    *,
    heading: str = "",
    remark: str = "",
    captions: Sequence[str] = (),
    columns: int = 1,
    legend_per_image: bool = False,
) -> np.ndarray:
    """Draw images next to their label maps (image | overlay | overlay ...) with a legend.

    For image | ground truth | prediction:
    `contact_sheet([image], [[truth, prediction]], names, ["image", "ground truth", "prediction"])`.
    Texts that are too long for their place are cut off.

    Args:
        images: R >= 1 images, each (H, W, 3) uint8 RGB; sizes may differ.
        label_maps: K label maps for each image, each (H, W) integers as in `draw_overlay`.
        names: class names in index order, shared by all label maps.
        titles: 1 + K titles, one for the images and one for each label map; none if empty.
        alpha: opacity of the class colors, 0..1.
        panel_size: longer side of every panel, in pixels.
        heading, remark: large and small line at the top; no line if empty.
        captions: R lines, one above each image; none if empty.
        columns: number of images in a row of the sheet.
        legend_per_image: draw a legend with shares beside each image instead of one without shares
            for the whole sheet. A share is of all pixels of the image's label maps.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: images, label maps, titles and captions differ in number.
    """
    if titles and any(len(maps) + 1 != len(titles) for maps in label_maps):
        raise ValueError(f"{len(titles)} titles; give one for the images and one per label map")
    if captions and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} images; give one per image")
    rows = [
        _panels(image, maps, palette(len(names)), alpha, panel_size)
        for image, maps in zip(images, label_maps, strict=True)
    ]
    legends = _legends(label_maps, names, panel_size) if legend_per_image else [None] * len(rows)
    column = max(panels[0].width for panels in rows)
    lines: list[Image.Image] = []
    for start in range(0, len(rows), columns):
        part = slice(start, start + columns)
        height = max(panels[0].height for panels in rows[part])
        cells = [
            _join([*(_center(panel, column, height) for panel in panels), legend])
            for panels, legend in zip(rows[part], legends[part], strict=True)
        ]
        if captions:
            cells = [
                _stack([_text(caption, CAPTION_FONT, FAINT_TEXT, cell.width), cell])
                for caption, cell in zip(captions[part], cells, strict=True)
            ]
        if titles and not lines:
            title_line = _join([_text(title, TITLE_FONT, TEXT, column, "m") for title in titles])
            cells = [_stack([title_line, cell]) for cell in cells]
        lines.append(_join(cells, MARGIN))
    sheet = _stack(lines, MARGIN if captions else GAP)
    if not legend_per_image:
        every_map = [labels for maps in label_maps for labels in maps]
        entries = legend_entries(every_map, names, with_share=False)
        sheet = attach_legend(sheet, entries, TITLE_FONT)
    if remark:
        sheet = _stack([_text(remark, CAPTION_FONT, FAINT_TEXT, sheet.width), sheet], 2 * GAP)
    if heading:
        sheet = _stack([_text(heading, HEADING_FONT, TEXT, sheet.width), sheet])
    size = sheet.width + 2 * MARGIN, sheet.height + 2 * MARGIN
    return np.asarray(_place(sheet, size, (MARGIN, MARGIN)))


def _panels(
    image: np.ndarray, maps: Sequence[np.ndarray], colors: np.ndarray, alpha: float, size: int
) -> list[Image.Image]:
    """Draw an image and its overlays with a longer side of `size` pixels."""
    scale = size / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    image, *maps = resize_together(image, maps, height, width)
    panels = [image, *(blend(image, labels, colors, alpha) for labels in maps)]
    return [Image.fromarray(panel) for panel in panels]


def _legends(
    label_maps: Sequence[Sequence[np.ndarray]], names: Sequence[str], max_height: int
) -> list[Image.Image]:
    """Draw one legend per image, all of the same width."""
    legends = [
        draw_legend(
            legend_entries(maps, names, with_share=True),
            CAPTION_FONT,
            LEGEND_WIDTH,
            max_height,
            flat=False,
        )
        for maps in label_maps
    ]
    width = max(legend.width for legend in legends)
    return [_place(legend, (width, legend.height), (0, 0)) for legend in legends]


def _text(
    text: str, size: int, color: tuple[int, int, int], width: int, align: str = "l"
) -> Image.Image:
    """Draw one line of text, cut off at `width` pixels; `align` is "l" (left) or "m" (middle)."""
    font = load_font(size)
    line = Image.new("RGB", (width, 2 * size), BACKGROUND)
    corner = (width / 2 if align == "m" else 0, size)
    font.draw(ImageDraw.Draw(line), corner, shorten(text, font, width), color, anchor=f"{align}m")
    return line


def _center(picture: Image.Image, width: int, height: int) -> Image.Image:
    corner = (width - picture.width) // 2, (height - picture.height) // 2
    return _place(picture, (width, height), corner, PANEL_BACKGROUND)


def _place(
    picture: Image.Image,
    size: tuple[int, int],
    corner: tuple[int, int],
    background: tuple[int, int, int] = BACKGROUND,
) -> Image.Image:
    canvas = Image.new("RGB", size, background)
    canvas.paste(picture, corner)
    return canvas


def _join(pictures: Sequence[Image.Image | None], gap: int = GAP) -> Image.Image:
    """Put pictures side by side, aligned at the top; None is left out."""
    shown = [picture for picture in pictures if picture is not None]
    width = sum(picture.width + gap for picture in shown) - gap
    joined = Image.new("RGB", (width, max(picture.height for picture in shown)), BACKGROUND)
    left = 0
    for picture in shown:
        joined.paste(picture, (left, 0))
        left += picture.width + gap
    return joined


def _stack(pictures: Sequence[Image.Image], gap: int = 0) -> Image.Image:
    """Put pictures below each other, aligned at the left."""
    height = sum(picture.height + gap for picture in pictures) - gap
    stacked = Image.new("RGB", (max(picture.width for picture in pictures), height), BACKGROUND)
    top = 0
    for picture in pictures:
        stacked.paste(picture, (0, top))
        top += picture.height + gap
    return stacked
