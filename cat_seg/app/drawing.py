"""What the page shows of a result: reduced pictures, and small pieces of HTML."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from math import ceil

import numpy as np
from PIL import Image

from cat_seg.data.class_names import first_synonym
from cat_seg.errors import UserError
from cat_seg.inference import Result
from cat_seg.inference.result import encode
from cat_seg.visualization.heat_map import heat_colors
from cat_seg.visualization.overlay import UNKNOWN_COLOR, blend, percent, resize_together
from cat_seg.visualization.palette import palette

# Longer side of a picture on the page, in pixels: larger ones are reduced, smaller ones enlarged.
LARGEST_SHOWN, SMALLEST_SHOWN = 1280, 512
DOWNLOADS = {"mask.png": "Mask", "classes.json": "Class list", "overlay.png": "Overlay"}


@dataclass(frozen=True)
class Row:
    """A class present in a result: its name, color, share of the pixels and mean confidence."""

    name: str
    color: tuple[int, int, int]
    share: float
    confidence: float


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size (H, W) in which the page shows an image of `size`."""
    longer = max(size)
    scale = min(1.0, LARGEST_SHOWN / longer) if longer > SMALLEST_SHOWN else 1.0
    factor = ceil(SMALLEST_SHOWN / longer) if longer < SMALLEST_SHOWN else 1
    height, width = (max(1, round(side * scale * factor)) for side in size)
    return height, width


def draw_pictures(result: Result, opacity: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw the image and the classes over it, each (h, w, 3) uint8 RGB of `shown_size`."""
    labels = np.where(result.labels == result.unknown, len(result.names), result.labels)
    image, labels = resize_together(result.image, [labels], *shown_size(labels.shape))
    colors = np.concatenate([palette(len(result.names)), np.array([UNKNOWN_COLOR], dtype=np.uint8)])
    return image, blend(image, labels, colors, opacity)


def draw_confidence(result: Result) -> np.ndarray:
    """Draw the confidence as colors: (h, w, 3) uint8 RGB of `shown_size`."""
    height, width = shown_size(result.confidence.shape)
    colors = Image.fromarray(heat_colors(result.confidence))
    return np.asarray(colors.resize((width, height), Image.Resampling.BILINEAR))


def pixel_at(result: Result, shown: tuple[int, int]) -> tuple[int, int]:
    """Return the pixel (row, column) of the full image at a point (x, y) of a shown picture."""
    size = result.labels.shape
    height, width = shown_size(size)
    row = min(max(int((shown[1] + 0.5) * size[0] / height), 0), size[0] - 1)
    column = min(max(int((shown[0] + 0.5) * size[1] / width), 0), size[1] - 1)
    return row, column


def rows_of(result: Result) -> list[Row]:
    """List the classes present, largest first; unknown pixels come last."""
    labels = np.where(result.labels == result.unknown, len(result.names), result.labels).ravel()
    count = len(result.names) + 1
    areas = np.bincount(labels, minlength=count)
    sums = np.bincount(labels, weights=result.confidence.ravel(), minlength=count)
    colors = [*palette(len(result.names)).tolist(), UNKNOWN_COLOR]
    names = [*map(first_synonym, result.names), "unknown"]
    order = [*np.argsort(-areas[:-1], kind="stable").tolist(), count - 1]
    return [
        Row(names[i], tuple(colors[i]), float(areas[i] / labels.size), float(sums[i] / areas[i]))
        for i in order
        if areas[i]
    ]


def legend_html(result: Result) -> str:
    """Return the legend: color, name, share of the pixels and mean confidence of each class."""
    rows = "".join(
        f"<tr><td>{_chip(row.color)}{escape(row.name)}</td>"
        f'<td class="share"><span class="bar"><i style="width:{100 * row.share:.1f}%;'
        f'background:rgb{row.color}"></i></span><b>{escape(percent(row.share))}</b></td>'
        f"<td>{row.confidence:.0%}</td></tr>"
        for row in rows_of(result)
    )
    return (
        '<div class="legend"><table><thead><tr><th>Class</th><th>Share of pixels</th>'
        f"<th>Confidence</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def pixel_html(result: Result, shown: tuple[int, int]) -> str:
    """Return class and confidence of the pixel at a point (x, y) of a shown picture."""
    row, column = pixel_at(result, shown)
    label, confidence = int(result.labels[row, column]), result.confidence[row, column]
    margin, winner = result.margin[row, column], int(result.winner[row, column])
    name, color = escape(first_synonym(result.names[winner])), palette(winner + 1)[winner]
    if label == result.unknown:
        name, color = f"unknown (most likely {name})", np.array(UNKNOWN_COLOR)
    return (
        f'<div class="pixel">{_chip(tuple(color.tolist()))}<b>{name}</b> confidence '
        f"{confidence:.0%}, {margin:.0%} ahead of the next class "
        f'<span class="where">at x {column}, y {row}</span></div>'
    )


def links_html(key: str, result: Result, threshold: float, opacity: float) -> str:
    """Return the download links of a kept result."""
    height, width = result.labels.shape
    query = f"threshold={threshold:g}&amp;opacity={opacity:g}"
    links = "".join(
        f'<a class="download" href="files/{key}/{name}?{query}" download>{title}</a>'
        for name, title in DOWNLOADS.items()
    )
    return f'<div class="downloads">{links}<span>{width}x{height} pixels, full size</span></div>'


def download(result: Result, name: str, opacity: float) -> tuple[bytes, str]:
    """Return content and media type of a file of DOWNLOADS.

    Raises:
        UserError: there is no such file.
    """
    if name == "mask.png":
        return encode(result.mask()), "image/png"
    if name == "overlay.png":
        return encode(result.overlay(opacity)), "image/png"
    if name == "classes.json":
        text = json.dumps(result.names, ensure_ascii=False, indent=2) + "\n"
        return text.encode(errors="backslashreplace"), "application/json"
    raise UserError(f"there is no file {name!r}; choose {', '.join(DOWNLOADS)}")


def status_html(text: str, kind: str = "") -> str:
    """Return a line of status; `kind` is "", "busy" or "error"."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="status {kind}" role="{role}">{escape(text)}</div>'


def _chip(color: tuple[int, ...]) -> str:
    return f'<span class="chip" style="background:rgb{color}"></span>'
