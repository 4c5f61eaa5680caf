"""Visualization of label maps: palette images, overlays with a legend, contact sheets."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image, ImageDraw

from cat_seg.data.class_names import first_synonym
from cat_seg.visualization.fonts import can_draw
from cat_seg.visualization.legend import BACKGROUND, TEXT, Entry, draw_legend, load_font, shorten
from cat_seg.visualization.palette import palette

# Pictures with a longer side below this (pixels) are enlarged by an integer factor before drawing.
SMALLEST_PICTURE = 384
# Maximum height of a legend below a picture, or width of a legend beside it, as a fraction of the
# picture's longer side.
LARGEST_LEGEND = 0.6
# Lines between regions get one pixel of width per this many pixels of the longer side.
LINE_EVERY, LINE_COLOR, LINE_OPACITY = 1000, (255, 255, 255), 0.75
# Font sizes, in pixels.
SMALLEST_FONT, SHEET_FONT = 13, 15
# Of pixels that no class is certain enough of.
UNKNOWN_COLOR = (128, 128, 128)


def mask_image(labels: np.ndarray, num_classes: int, unknown: int | None = None) -> Image.Image:
    """Convert labels (H, W) in 0..num_classes-1 to an image whose pixel values are the labels.

    If all values fit into 8 bits, it is a palette image with the colors of the overlays; else it
    is 16-bit gray.

    Args:
        labels: (H, W) integers.
        num_classes: number of classes.
        unknown: a further value in `labels`, colored gray.
    """
    if max(num_classes - 1, unknown or 0) > 255:
        return Image.fromarray(labels.astype(np.uint16))
    image = Image.fromarray(labels.astype(np.uint8))
    colors = palette(num_classes)
    if unknown is not None:
        colors = np.concatenate([colors, np.full((unknown + 1 - num_classes, 3), UNKNOWN_COLOR)])
    image.putpalette(colors.astype(np.uint8).tobytes())
    return image


def draw_overlay(
    image: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    alpha: float = 0.55,
    unknown: int | None = None,
) -> np.ndarray:
    """Draw a label map over its image, with a legend of the classes present and their shares.

    The legend is beside a portrait picture and below any other, largest class first. Images with a
    longer side below 384 pixels are enlarged by an integer factor first.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) integers; values outside 0..len(names)-1 are ignored pixels, left uncolored.
        names: class names in index order; of synonyms ("building, edifice"), the first is shown.
        alpha: opacity of the class colors, 0..1.
        unknown: value of pixels to draw in gray, listed last in the legend as "unknown".

    Returns:
        (H', W', 3) uint8 RGB, the picture with its legend.
    """
    entries = legend_entries([labels], names, with_share=True)
    colors = palette(len(names))
    if unknown is not None:
        is_unknown = labels == unknown
        if is_unknown.any():
            entry = Entry("unknown", percent(is_unknown.mean()), UNKNOWN_COLOR)
            entries = [*(entry for entry in entries if entry.color), entry]
        labels = np.where(is_unknown, len(names), labels)
        gray = np.asarray(Image.fromarray(image).convert("L"))[..., None]
        image = np.where(is_unknown[..., None], gray, image)
        colors = np.concatenate([colors, np.array([UNKNOWN_COLOR], dtype=np.uint8)])
    factor = ceil(SMALLEST_PICTURE / max(labels.shape))
    image, labels = resize_together(
        image, [labels], labels.shape[0] * factor, labels.shape[1] * factor
    )
    picture = Image.fromarray(blend(image, labels, colors, alpha))
    longer = max(picture.size)
    return np.asarray(_with_legend(picture, entries, max(SMALLEST_FONT, round(0.02 * longer))))


def contact_sheet(
    images: Sequence[np.ndarray],
    label_maps: Sequence[Sequence[np.ndarray]],
    names: Sequence[str],
    titles: Sequence[str],
    alpha: float = 0.7,
    panel_size: int = 320,
) -> np.ndarray:
    """Draw one row per image (image | overlay | overlay ...), with one legend for all rows.

    For image | ground truth | prediction:
    `contact_sheet([image], [[truth, prediction]], names, ["image", "ground truth", "prediction"])`.

    Args:
        images: R images, each (H, W, 3) uint8 RGB; sizes may differ.
        label_maps: K label maps for each image, each (H, W) integers as in `draw_overlay`.
        names: class names in index order, shared by all label maps.
        titles: 1 + K column titles.
        alpha: opacity of the class colors, 0..1.
        panel_size: longer side of every panel, in pixels.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    colors = palette(len(names))
    rows = []
    for image, maps in zip(images, label_maps, strict=True):
        scale = panel_size / max(image.shape[:2])
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        image, *maps = resize_together(image, maps, height, width)
        panels = [image, *(blend(image, labels, colors, alpha) for labels in maps)]
        rows.append([Image.fromarray(panel) for panel in panels])
    entries = legend_entries(
        [labels for maps in label_maps for labels in maps], names, with_share=False
    )
    return np.asarray(_with_legend(_grid(rows, titles), entries, SHEET_FONT))


def _grid(rows: Sequence[Sequence[Image.Image]], titles: Sequence[str]) -> Image.Image:
    """Arrange pictures in rows below column titles; pictures in the same row have the same size."""
    gap, font = SHEET_FONT // 2, load_font(SHEET_FONT)
    column = max(row[0].width for row in rows)
    top = 2 * SHEET_FONT
    height = top + sum(row[0].height + gap for row in rows) - gap
    grid = Image.new("RGB", (len(titles) * (column + gap) - gap, height), BACKGROUND)
    draw = ImageDraw.Draw(grid)
    lefts = [index * (column + gap) for index in range(len(titles))]
    for left, title in zip(lefts, titles, strict=True):
        center = (left + column / 2, top / 2)
        font.draw(draw, center, shorten(title, font, column), TEXT, anchor="mm")
    for row in rows:
        for left, panel in zip(lefts, row, strict=True):
            grid.paste(panel, (left + (column - panel.width) // 2, top))
        top += row[0].height + gap
    return grid


def resize_together(
    image: np.ndarray, maps: Sequence[np.ndarray], height: int, width: int
) -> list[np.ndarray]:
    """Resize an image (H, W, 3), and its label maps (H, W) without interpolation."""
    rows = np.arange(height) * image.shape[0] // height
    columns = np.arange(width) * image.shape[1] // width
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    return [np.asarray(resized), *(labels[np.ix_(rows, columns)] for labels in maps)]


def blend(image: np.ndarray, labels: np.ndarray, colors: np.ndarray, alpha: float) -> np.ndarray:
    """Blend class colors over an image, with a thin light line between regions.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) integers; pixels with values outside 0..len(colors)-1 are left uncolored.
        colors: (n, 3) uint8, see `palette`.
        alpha: opacity of the class colors, 0..1.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    known = (labels >= 0) & (labels < len(colors))
    color = colors[np.where(known, labels, 0)]
    edge = _boundaries(labels)
    color[edge] = LINE_COLOR
    opacity = np.where(edge, LINE_OPACITY, np.where(known, alpha, 0)).astype(np.float32)
    mixed = image + (color.astype(np.float32) - image) * opacity[..., None]
    return mixed.round().astype(np.uint8)


def _boundaries(labels: np.ndarray) -> np.ndarray:
    """Return a mask (H, W) bool of the lines between regions, wider for larger label maps.

    Lines cover the pixels below or to the right of a boundary.
    """
    edge = np.zeros(labels.shape, dtype=bool)
    for step in range(1, 1 + max(1, round(max(labels.shape) / LINE_EVERY))):
        edge[step:] |= labels[step:] != labels[:-step]
        edge[:, step:] |= labels[:, step:] != labels[:, :-step]
    return edge


def legend_entries(
    label_maps: Sequence[np.ndarray], names: Sequence[str], with_share: bool
) -> list[Entry]:
    """List the classes in label maps (H, W) by decreasing area, with their colors from `palette`.

    Args:
        label_maps: integers; values outside 0..len(names)-1 count only in the total for shares.
        names: class names in index order.
        with_share: add each class's share of all pixels.
    """
    counts = np.zeros(len(names), dtype=np.int64)
    for labels in label_maps:
        known = labels[(labels >= 0) & (labels < len(names))]
        counts += np.bincount(known.ravel(), minlength=len(names))
    pixels = sum(labels.size for labels in label_maps)
    colors = palette(len(names)).tolist()
    present = [index for index in np.argsort(-counts, kind="stable") if counts[index] > 0]
    entries = [
        Entry(
            name=_shown_name(names[index], index),
            share=percent(counts[index] / pixels) if with_share else "",
            color=tuple(colors[index]),
        )
        for index in present
    ]
    return entries or [Entry("no labeled pixels")]


def _shown_name(name: str, index: int) -> str:
    """Return the first synonym in NFC, or the class index if fonts cannot draw it."""
    shown = unicodedata.normalize("NFC", " ".join(first_synonym(name).split()))
    return shown if can_draw(shown) else f"class {index}"


def percent(share: float) -> str:
    """Format a share in 0..1 for a legend."""
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


def _with_legend(picture: Image.Image, entries: Sequence[Entry], size: int) -> Image.Image:
    """Put a legend beside a portrait picture, or below any other."""
    limit = LARGEST_LEGEND * max(picture.size)
    if picture.height > picture.width:
        legend = draw_legend(entries, size, limit, picture.height, flat=False)
        corner = (picture.width, 0)
        canvas = (picture.width + legend.width, max(picture.height, legend.height))
    else:
        legend = draw_legend(entries, size, picture.width, limit, flat=True)
        corner = (0, picture.height)
        canvas = (max(picture.width, legend.width), picture.height + legend.height)
    joined = Image.new("RGB", canvas, BACKGROUND)
    joined.paste(picture, (0, 0))
    joined.paste(legend, corner)
    return joined
