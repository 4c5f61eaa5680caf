"""Pictures of label maps: colours, overlays with a legend, and contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import ceil
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND, TEXT, FAINT_TEXT = (255, 255, 255), (32, 33, 36), (110, 114, 120)
# Pictures with a longer side below this (pixels) are enlarged by a whole factor before drawing.
SMALLEST_PICTURE = 384
# Legends grow to this share of the picture's height (below it) or width (beside it).
LARGEST_LEGEND = 0.6


@cache
def _colour_order() -> np.ndarray:
    """Order a lattice of moderately light, moderately saturated RGB colours: (N, 3) uint8.

    Each colour is the one farthest in OKLab (Ottosson 2020) from all before it.
    """
    levels = np.arange(0, 256, 17)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _oklab(rgb)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    keep = (lab[:, 0] > 0.5) & (lab[:, 0] < 0.85) & (chroma > 0.1) & (chroma < 0.2)
    rgb, lab = rgb[keep], lab[keep]
    chosen = [int(np.abs(rgb - (68, 136, 221)).sum(axis=1).argmin())]
    distance = np.full(len(rgb), np.inf)
    while len(chosen) < len(rgb):
        distance = np.minimum(distance, ((lab - lab[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(distance.argmax()))
    return rgb[chosen].astype(np.uint8)


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """Convert sRGB in 0..255 to OKLab, where distances follow what people see: (N, 3) both."""
    value = rgb / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


def palette(n: int) -> np.ndarray:
    """Colours of classes 0..n-1: (n, 3) uint8 RGB.

    The colour of an index is always the same, whatever `n`. The first 1000 or so all differ,
    the earlier ones the most; beyond that the colours repeat.
    """
    order = _colour_order()
    return order[np.arange(n) % len(order)]


def draw_overlay(
    image: np.ndarray, labels: np.ndarray, names: Sequence[str], alpha: float = 0.55
) -> np.ndarray:
    """Draw a label map over its image, with a legend of the classes in it and their shares.

    The legend stands below a landscape picture and beside a portrait, largest class first.
    Images with a longer side below 384 pixels are enlarged by a whole factor first.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) integers; values outside 0..len(names)-1 are ignored pixels, left bare.
        names: class names in index order; of synonyms ("building, edifice") the first is shown.
        alpha: how much of the class colour covers the image, 0..1.

    Returns:
        (H', W', 3) uint8 RGB, the picture and its legend.
    """
    image, labels = _enlarge(image, labels)
    picture = Image.fromarray(_blend(image, labels, palette(len(names)), alpha))
    size = _font_size(picture.size)
    entries = _entries([labels], names, with_share=True)
    beside = picture.height > picture.width
    if beside:
        legend = _legend(entries, size, LARGEST_LEGEND * picture.width, picture.height)
    else:
        legend = _legend(entries, size, picture.width, LARGEST_LEGEND * picture.height)
    return np.asarray(_join(picture, legend, beside))


def contact_sheet(
    images: Sequence[np.ndarray],
    label_maps: Sequence[Sequence[np.ndarray]],
    names: Sequence[str],
    titles: Sequence[str],
    alpha: float = 0.7,
    panel_size: int = 320,
) -> np.ndarray:
    """Draw one row per image, image | overlay | overlay ..., with one legend for all.

    For image | ground truth | prediction:
    `contact_sheet([image], [[truth, prediction]], names, ["image", "ground truth", "prediction"])`.

    Args:
        images: R images, each (H, W, 3) uint8 RGB; sizes may differ.
        label_maps: for each image the same number K of label maps, each (H, W) integers as in
            `draw_overlay`.
        names: class names in index order, shared by all label maps.
        titles: 1 + K column titles.
        alpha: how much of the class colour covers the image, 0..1.
        panel_size: longer side of every panel, in pixels.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    colours = palette(len(names))
    rows = []
    for image, maps in zip(images, label_maps, strict=True):
        scaled, *scaled_maps = _fit(image, maps, panel_size)
        overlays = [_blend(scaled, labels, colours, alpha) for labels in scaled_maps]
        rows.append([Image.fromarray(panel) for panel in (scaled, *overlays)])

    size = 15
    gap = size // 2
    font = _font(size)
    column = max(panel.width for row in rows for panel in row)
    width = len(titles) * (column + gap) - gap
    top = 2 * size
    sheet = Image.new(
        "RGB", (width, top + sum(row[0].height + gap for row in rows) - gap), BACKGROUND
    )
    draw = ImageDraw.Draw(sheet)
    for index, title in enumerate(titles):
        middle = index * (column + gap) + column / 2
        draw.text((middle, top / 2), _shorten(title, font, column), TEXT, font, anchor="mm")
    for row in rows:
        for index, panel in enumerate(row):
            sheet.paste(panel, (index * (column + gap) + (column - panel.width) // 2, top))
        top += row[0].height + gap
    flat = [labels for maps in label_maps for labels in maps]
    legend = _legend(_entries(flat, names, with_share=False), size, width, sheet.height)
    return np.asarray(_join(sheet, legend, beside=False))


def _enlarge(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Enlarge an image and its labels by a whole factor where they are too small to look at."""
    factor = ceil(SMALLEST_PICTURE / max(labels.shape))
    if factor == 1:
        return image, labels
    height, width = labels.shape
    enlarged = Image.fromarray(image).resize((width * factor, height * factor), Image.BICUBIC)
    return np.asarray(enlarged), labels.repeat(factor, axis=0).repeat(factor, axis=1)


def _fit(image: np.ndarray, maps: Sequence[np.ndarray], side: int) -> list[np.ndarray]:
    """Resize an image and its label maps so that the longer side has `side` pixels."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    resized = Image.fromarray(image).resize((width, height), Image.LANCZOS)
    rows = (np.arange(height) * image.shape[0]) // height
    columns = (np.arange(width) * image.shape[1]) // width
    return [np.asarray(resized), *(labels[rows[:, None], columns] for labels in maps)]


def _blend(image: np.ndarray, labels: np.ndarray, colours: np.ndarray, alpha: float) -> np.ndarray:
    """Lay class colours over an image, with a thin line of the pure colour along boundaries."""
    known = (labels >= 0) & (labels < len(colours))
    colour = colours[np.where(known, labels, 0)]
    opacity = np.where(_boundaries(labels), 1.0, alpha) * known
    mixed = image + (colour.astype(np.float32) - image) * opacity[..., None].astype(np.float32)
    return mixed.round().astype(np.uint8)


def _boundaries(labels: np.ndarray) -> np.ndarray:
    """Mark the pixels next to another label, in a line that suits the picture: (H, W) bool."""
    edge = np.zeros(labels.shape, dtype=bool)
    for step in range(1, 1 + max(1, round(max(labels.shape) / 1200))):
        down = labels[step:] != labels[:-step]
        across = labels[:, step:] != labels[:, :-step]
        edge[step:] |= down
        edge[:-step] |= down
        edge[:, step:] |= across
        edge[:, :-step] |= across
    return edge


class _Entry(NamedTuple):
    """One line of a legend; without a colour it is a remark."""

    name: str
    share: str
    colour: tuple[int, ...] | None


def _entries(
    label_maps: Sequence[np.ndarray], names: Sequence[str], with_share: bool
) -> list[_Entry]:
    """List the classes in the label maps by falling area."""
    counts = np.zeros(len(names), dtype=np.int64)
    for labels in label_maps:
        known = labels[(labels >= 0) & (labels < len(names))]
        counts += np.bincount(known.ravel(), minlength=len(names))
    pixels = sum(labels.size for labels in label_maps)
    colours = palette(len(names)).tolist()
    present = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i] > 0]
    return [
        _Entry(
            name=" ".join(names[i].split(",")[0].split()),
            share=_percent(counts[i] / pixels) if with_share else "",
            colour=tuple(colours[i]),
        )
        for i in present
    ]


def _percent(share: float) -> str:
    if share < 0.001:
        return "<0.1%"
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


def _font_size(picture: tuple[int, int]) -> int:
    """Font size (pixels) that reads well when the picture is shown at screen size."""
    return max(13, round(0.02 * max(picture)))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(
        Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size
    )


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Cut a text to `width` pixels, with an ellipsis where something is missing."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _legend(
    entries: Sequence[_Entry], size: int, max_width: float, max_height: float
) -> Image.Image:
    """Set legend entries in columns, read downwards, within a box of pixels.

    What does not fit is counted in a last line. At least one line is always drawn, and a
    column is never narrower than eight times the font size.
    """
    font = _font(size)
    pad, line = size, round(1.7 * size)
    share_width = max((font.getlength(e.share) for e in entries), default=0)
    name_width = max((font.getlength(e.name) for e in entries), default=0)
    swatch = 1.6 * size
    gap = size if share_width else 0
    room = max(8 * size, max_width - 2 * pad)
    cell = min(swatch + name_width + gap + share_width, room)
    columns = max(1, int((room + 2 * pad) // (cell + 2 * pad)))
    max_rows = max(1, int((max_height - 2 * pad) // line))
    if len(entries) > columns * max_rows:
        shown = columns * max_rows - 1
        more = _Entry(f"and {len(entries) - shown} more", "", None)
        entries = [*entries[:shown], more]
    columns = max(1, min(columns, len(entries)))
    rows = ceil(len(entries) / columns)
    columns = max(1, ceil(len(entries) / max(1, rows)))

    width = ceil(2 * pad + columns * (cell + 2 * pad) - 2 * pad)
    legend = Image.new("RGB", (width, 2 * pad + max(1, rows) * line), BACKGROUND)
    draw = ImageDraw.Draw(legend)
    for index, entry in enumerate(entries):
        left = pad + (index // rows) * (cell + 2 * pad)
        middle = pad + (index % rows + 0.5) * line
        if entry.colour is None:
            draw.text((left, middle), entry.name, FAINT_TEXT, font, anchor="lm")
            continue
        half = size / 2
        box = (left, middle - half, left + size, middle + half)
        draw.rounded_rectangle(box, radius=size / 4, fill=entry.colour)
        name = _shorten(entry.name, font, cell - swatch - gap - share_width)
        draw.text((left + swatch, middle), name, TEXT, font, anchor="lm")
        draw.text((left + cell, middle), entry.share, FAINT_TEXT, font, anchor="rm")
    return legend


def _join(picture: Image.Image, legend: Image.Image, beside: bool) -> Image.Image:
    """Put a legend beside or below a picture."""
    if beside:
        size = (picture.width + legend.width, max(picture.height, legend.height))
        corner = (picture.width, 0)
    else:
        size = (max(picture.width, legend.width), picture.height + legend.height)
        corner = (0, picture.height)
    joined = Image.new("RGB", size, BACKGROUND)
    joined.paste(picture, (0, 0))
    joined.paste(legend, corner)
    return joined
