"""Fonts for text in any script: DejaVu Sans, with system fonts as fallback."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageDraw, ImageFont, features
from tqdm import tqdm

# Prefixes of the Unicode names of Chinese, Japanese and Korean characters.
EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC")

_STYLES = (
    "bold",
    "black",
    "heavy",
    "light",
    "thin",
    "medium",
    "italic",
    "oblique",
    "mono",
    "serif",
)
_MAIN = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


class Font:
    """DejaVu Sans at a size in pixels, with system fonts as fallback for missing characters.

    Characters that no font has are drawn as escape codes, and a message on stderr says once what
    to install.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._main = _load(_MAIN, size)

    def getlength(self, text: str) -> float:
        """Return the width of a text in pixels."""
        return sum(_load(path, self._size).getlength(part) for path, part in _runs(text))

    def draw(
        self,
        draw: ImageDraw.ImageDraw,
        corner: tuple[float, float],
        text: str,
        fill: tuple[int, int, int],
        anchor: str,
    ) -> None:
        """Draw a line of text.

        Args:
            corner: position (x, y) of the anchor.
            anchor: as in Pillow: "l", "m" or "r" (left, middle, right), then "a" or "m" (ascender,
                middle).
        """
        runs = list(_runs(text))
        if [path for path, _ in runs] == [_MAIN]:
            draw.text(corner, runs[0][1], fill, self._main, anchor=anchor)
            return
        left = corner[0] - self.getlength(text) * {"l": 0, "m": 0.5, "r": 1}[anchor[0]]
        ascent, descent = self._main.getmetrics()
        baseline = corner[1] + {"a": ascent, "m": (ascent - descent) / 2}[anchor[1]]
        for path, part in runs:
            font = _load(path, self._size)
            draw.text((left, baseline), part, fill, font, anchor="ls")
            left += font.getlength(part)


def can_draw(text: str) -> bool:
    """Return whether fonts have all characters of a text; if not, say once what to install."""
    remedies = {_remedy(character) for character, path in _characters(text) if path is None}
    for remedy in sorted(remedies):
        _tell(remedy)
    return not remedies


def _runs(text: str) -> Iterator[tuple[Path, str]]:
    """Split a text into parts that are each drawn with one font."""
    if text.isascii():
        yield _MAIN, text
        return
    can_draw(text)
    pairs = [
        (path or _MAIN, character if path else _escaped(character))
        for character, path in _characters(text)
    ]
    for path, group in groupby(pairs, key=lambda pair: pair[0]):
        yield path, "".join(part for _, part in group)


def _characters(text: str) -> Iterator[tuple[str, Path | None]]:
    """Yield the characters of a text with their fonts.

    Marks use the font of the preceding character if it has them.
    """
    before = _MAIN
    for character in text:
        modifies = unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf")
        if modifies and ord(character) in _characters_of(before):
            yield character, before
            continue
        path = _font_with(character)
        if path is None and _is_ignorable(character):
            continue
        yield character, path
        before = path or _MAIN


def _is_ignorable(character: str) -> bool:
    """Return whether a character only affects how others look: joiners, variation selectors."""
    return unicodedata.category(character) == "Cf" or "VARIATION SELECTOR" in _name(character)


@cache
def _font_with(character: str) -> Path | None:
    """Return the first font that can draw a character; DejaVu Sans comes first."""
    if _needs_bidi(character) and not features.check("raqm"):
        return None  # without Raqm, Pillow would draw the letters from left to right
    return next((path for path in _fonts() if _draws(path, character)), None)


def _fonts() -> Iterator[Path]:
    yield _MAIN
    yield from _system_fonts()


@cache
def _system_fonts() -> Sequence[Path]:
    """Return the system's font files, plain styles first."""
    paths = {Path(path) for path in font_manager.findSystemFonts()}
    usable = [path for path in paths if "lastresort" not in path.stem.lower()]
    return sorted(usable, key=lambda path: (_is_styled(path), path.name, path))


def _is_styled(path: Path) -> bool:
    return any(style in path.stem.lower() for style in _STYLES)


def _draws(path: Path, character: str) -> bool:
    if ord(character) not in _characters_of(path):
        return False
    # Color emoji fonts have characters without an outline.
    return path == _MAIN or _load(path, 32).getmask(character).getbbox() is not None


@cache
def _characters_of(path: Path) -> frozenset[int]:
    """Return the code points of a font; none if the file is broken or has only bitmaps."""
    try:
        font = FT2Font(str(path))
        if not font.scalable:
            return frozenset()
        _load(path, 32)
        return frozenset(font.get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@cache
def _load(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()


def _name(character: str) -> str:
    return unicodedata.name(character, "")


def _remedy(character: str) -> str:
    if _needs_bidi(character) and not features.check("raqm"):
        return "FriBiDi (on Debian: libfribidi0)"
    if _name(character).startswith(EAST_ASIAN):
        return "a CJK font (on Debian: fonts-noto-cjk)"
    return "more fonts (on Debian: fonts-noto-core and fonts-symbola)"


def _needs_bidi(character: str) -> bool:
    return unicodedata.bidirectional(character) in ("R", "AL")


@cache
def _tell(remedy: str) -> None:
    """Print, once per remedy, why some names are drawn differently."""
    tqdm.write(
        "warning: no font for some characters in class names, which are drawn as their index or "
        f"escape codes; install {remedy}",
        file=sys.stderr,
    )
