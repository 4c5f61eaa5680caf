"""Heat maps of values in 0..1, with a color bar."""

from __future__ import annotations

from math import ceil

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from cat_seg.visualization.legend import BACKGROUND, FAINT_TEXT, TEXT, load_font
from cat_seg.visualization.overlay import SMALLEST_FONT, SMALLEST_PICTURE

COLORS = "viridis"
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
# In multiples of the font size.
PADDING, BAR, GAP = 1, 0.9, 0.5


def heat_colors(values: np.ndarray) -> np.ndarray:
    """Return the colors (H, W, 3) uint8 of values (H, W) in 0..1, dark for low values."""
    table = matplotlib.colormaps[COLORS](np.arange(256), bytes=True)[:, :3]
    return table[np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)]


def draw_heat_map(values: np.ndarray, title: str) -> Image.Image:
    """Draw values as colors, with a horizontal color bar below.

    Maps with a longer side below 384 pixels are enlarged by an integer factor first.

    Args:
        values: (H, W) in 0..1.
        title: what the values are.
    """
    factor = ceil(SMALLEST_PICTURE / max(values.shape))
    picture = Image.fromarray(heat_colors(values)).resize(
        (values.shape[1] * factor, values.shape[0] * factor), Image.Resampling.NEAREST
    )
    size = max(SMALLEST_FONT, round(0.02 * max(picture.size)))
    bar = _color_bar(max(picture.width, 16 * size), size, title)
    joined = Image.new("RGB", (bar.width, picture.height + bar.height), BACKGROUND)
    joined.paste(picture, (0, 0))
    joined.paste(bar, (0, picture.height))
    return joined


def _color_bar(total: int, size: int, title: str) -> Image.Image:
    """Draw a title, the colors of 0..1 from left to right, and ticks below."""
    font, pad = load_font(size), round(PADDING * size)
    thick, gap = round(BAR * size), round(GAP * size)
    top = pad + size + gap
    bar = Image.new("RGB", (total, top + thick + gap + size + pad), BACKGROUND)
    draw = ImageDraw.Draw(bar)
    font.draw(draw, (pad, pad + size / 2), title, TEXT, anchor="lm")
    length = total - 2 * pad
    ramp = np.tile(np.linspace(0, 1, length), (thick, 1))
    bar.paste(Image.fromarray(heat_colors(ramp)), (pad, top))
    for tick in TICKS:
        text = f"{tick:g}"
        width = font.getlength(text)
        # The outer labels end where the bar ends.
        left = pad + min(max(0.0, tick * length - width / 2), length - width)
        font.draw(draw, (left, top + thick + gap + size / 2), text, FAINT_TEXT, anchor="lm")
    return bar
