"""Legends of class names, set in columns, for pictures of any size."""

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


class Entry(NamedTuple):
    """One line of a legend.

    name: what it says.
    share: a remark at the end of the line, or "".
    colour: RGB of the chip before the name; without one the line is a remark.
    """

    name: str
    share: str = ""
    colour: tuple[int, int, int] | None = None


def draw_legend(
    entries: Sequence[Entry], size: int, max_width: float, max_height: float, flat: bool
) -> Image.Image:
    """Draw a legend on white, in columns that are read downwards.

    Args:
        entries: at least one; where there are too many, a last line counts the rest.
        size: of the font, in pixels.
        max_width, max_height: the legend grows no larger than this (pixels), except for one line.
        flat: take as few rows as fit in place of as few columns.
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
    left = pad
    for column in columns:
        name_left, right = left + CHIP_AND_GAP * size, left + column.width
        for row, entry in enumerate(column.entries):
            middle = pad + (row + 0.5) * line
            if entry.colour is None:
                font.draw(draw, (left, middle), entry.name, FAINT_TEXT, anchor="lm")
                continue
            legend.paste(entry.colour, (round(left), round(middle - size / 2)), chip)
            name = shorten(entry.name, font, column.name_width)
            font.draw(draw, (name_left, middle), name, TEXT, anchor="lm")
            font.draw(draw, (right, middle), entry.share, FAINT_TEXT, anchor="rm")
        left = right + BETWEEN_COLUMNS * size
    return legend


@cache
def load_font(size: int) -> Font:
    """The font of legends and titles at a size in pixels."""
    return Font(size)


def shorten(text: str, font: Font, width: float) -> str:
    """Cut a text to `width` pixels, with an ellipsis where something is missing."""
    if font.getlength(text) <= width:
        return text
    # By bisection, as names may be long.
    kept = bisect_right(range(len(text)), width, key=lambda n: font.getlength(text[:n] + "…")) - 1
    return text[: max(kept, 0)].rstrip() + "…"


class _Column(NamedTuple):
    """Entries below each other; widths in pixels, the share's with the gap before it."""

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
    # Not computed back from the sum, where rounding would cut the longest name.
    return _Column(entries, beside_name + name_width, name_width, share_width)


def _total(widths: Sequence[float], size: int) -> float:
    return sum(widths) + BETWEEN_COLUMNS * size * (len(widths) - 1)


@cache
def _chip(size: int) -> Image.Image:
    """Mask of a square with round corners, drawn large and reduced for smooth edges."""
    scale = 4
    mask = Image.new("L", (size * scale, size * scale))
    side = size * scale - 1
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, side, side), radius=size, fill=255)
    return mask.resize((size, size), Image.LANCZOS)
