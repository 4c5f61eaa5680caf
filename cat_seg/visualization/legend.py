"""Legends of class names, in columns, for pictures of any size."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import cache
from math import ceil
from typing import NamedTuple

from PIL import Image, ImageDraw

from cat_seg.visualization.fonts import Font

BACKGROUND, TEXT, FAINT_TEXT = (255, 255, 255), (32, 33, 36), (110, 114, 120)

# In multiples of the font size.
LINE, PADDING, CHIP_AND_GAP, BEFORE_SHARE, BETWEEN_COLUMNS, LONGEST_ENTRY = 1.7, 1, 1.6, 1, 2, 26

# Maximum height of a legend below a picture, or width of a legend beside it, as a fraction of the
# picture's longer side.
LARGEST_LEGEND = 0.6


class Entry(NamedTuple):
    """One line of a legend.

    Attributes:
        name: the text.
        share: a note at the end of the line, or "".
        color: RGB of the color chip before the name; None for a line without a chip.
    """

    name: str
    share: str = ""
    color: tuple[int, int, int] | None = None


def draw_legend(
    entries: Sequence[Entry], size: int, max_width: float, max_height: float, flat: bool
) -> Image.Image:
    """Draw a legend on white, with entries ordered down the columns.

    Args:
        entries: at least one. If they do not all fit, the last line counts the remaining ones.
        size: font size, in pixels.
        max_width, max_height: maximum size in pixels, but there is always room for one line.
        flat: use as few rows as possible instead of as few columns as possible.
    """
    font, line, pad = load_font(size), round(LINE * size), PADDING * size
    columns = _columns(
        entries,
        size,
        room=max_width - 2 * pad,
        max_rows=max(1, int((max_height - 2 * pad) // line)),
        flat=flat,
    )
    width = _total([column.width for column in columns], size)
    legend = Image.new(
        "RGB", (ceil(width) + 2 * pad, len(columns[0].entries) * line + 2 * pad), BACKGROUND
    )
    draw, chip = ImageDraw.Draw(legend), _chip(size)
    left: float = pad
    for column in columns:
        name_left, right = left + CHIP_AND_GAP * size, left + column.width
        for row, entry in enumerate(column.entries):
            middle = pad + (row + 0.5) * line
            if entry.color is None:
                font.draw(draw, (left, middle), entry.name, FAINT_TEXT, anchor="lm")
                continue
            legend.paste(entry.color, (round(left), round(middle - size / 2)), chip)
            name = shorten(entry.name, font, column.name_width)
            font.draw(draw, (name_left, middle), name, TEXT, anchor="lm")
            font.draw(draw, (right, middle), entry.share, FAINT_TEXT, anchor="rm")
        left = right + BETWEEN_COLUMNS * size
    return legend


def attach_legend(picture: Image.Image, entries: Sequence[Entry], size: int) -> Image.Image:
    """Put a legend beside a portrait picture, or below any other.

    Args:
        picture: the picture.
        entries: see `draw_legend`.
        size: font size, in pixels.
    """
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


@cache
def load_font(size: int) -> Font:
    """Return the font of legends and titles at a size in pixels."""
    return Font(size)


def shorten(text: str, font: Font, width: float) -> str:
    """Truncate a text to `width` pixels, ending in an ellipsis if anything was cut."""
    if font.getlength(text) <= width:
        return text
    # Bisect, since names may be long.
    kept = bisect_right(range(len(text)), width, key=lambda n: font.getlength(text[:n] + "…")) - 1
    return text[: max(kept, 0)].rstrip() + "…"


class _Column(NamedTuple):
    """One column of entries. Widths are in pixels; share_width includes the gap before it."""

    entries: Sequence[Entry]
    width: float
    name_width: float
    share_width: float


def _columns(
    entries: Sequence[Entry], size: int, room: float, max_rows: int, flat: bool
) -> list[_Column]:
    length = cache(load_font(size).getlength)
    for rows in range(1 if flat else max_rows, max_rows + 1):
        columns = [
            _column(entries[start : start + rows], size, room, length)
            for start in range(0, len(entries), rows)
        ]
        if _total([column.width for column in columns], size) <= room:
            return columns
    while len(columns) > 1 and _total([column.width for column in columns], size) > room:
        columns.pop()
    shown = [entry for column in columns for entry in column.entries]
    hidden = len(entries) - len(shown)
    if hidden:
        last = columns[-1]
        remark = Entry(f"and {hidden + 1} more")
        columns[-1] = last._replace(entries=[*last.entries[:-1], remark])
    return columns


def _column(
    entries: Sequence[Entry], size: int, room: float, length: Callable[[str], float]
) -> _Column:
    share = max(length(entry.share) for entry in entries)
    share_width = share + BEFORE_SHARE * size if share else 0.0
    beside_name = CHIP_AND_GAP * size + share_width
    name_width = max(length(entry.name) for entry in entries)
    limit = min(LONGEST_ENTRY * size, room)
    if beside_name + name_width > limit:
        return _Column(entries, limit, limit - beside_name, share_width)
    # Not derived from the column width: rounding errors would truncate the longest name.
    return _Column(entries, beside_name + name_width, name_width, share_width)


def _total(widths: Sequence[float], size: int) -> float:
    return sum(widths) + BETWEEN_COLUMNS * size * (len(widths) - 1)


@cache
def _chip(size: int) -> Image.Image:
    """Return the mask of a rounded square, drawn at 4x size and reduced for smooth edges."""
    scale = 4
    mask = Image.new("L", (size * scale, size * scale))
    side = size * scale - 1
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, side, side), radius=size, fill=255)
    return mask.resize((size, size), Image.Resampling.LANCZOS)
