"""Visualization of label maps: palette images, and overlays with a legend."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image

from cat_seg.data.class_names import first_synonym
from cat_seg.visualization.fonts import can_draw
from cat_seg.visualization.legend import Entry, attach_legend
from cat_seg.visualization.palette import palette

# Pictures with a longer side below this (pixels) are enlarged by an integer factor before drawing.
SMALLEST_PICTURE = 384
# Lines between regions get one pixel of width per this many pixels of the longer side.
LINE_EVERY, LINE_COLOR, LINE_OPACITY = 1000, (255, 255, 255), 0.75
SMALLEST_FONT = 13  # pixels
# Color of pixels that no class is certain enough of.
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
    return np.asarray(attach_legend(picture, entries, max(SMALLEST_FONT, round(0.02 * longer))))


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
