"""Fonts for texts in any writing: DejaVu Sans, and what else the system has."""

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

# What the Unicode names of Chinese, Japanese and Korean characters begin with.
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
    """DejaVu Sans at a size in pixels, which borrows characters from fonts of the system.

    Characters that no font has are drawn as their escape codes, and stderr names once what to
    install.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._main = _load(_MAIN, size)

    def getlength(self, text: str) -> float:
        """The width of a text in pixels."""
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
            corner: where the anchor goes (x, y).
            anchor: as in Pillow: "l", "m" or "r" for left, middle or right, then "a" or "m" for
                the ascender or the middle.
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
    """Whether fonts have all characters of a text; stderr says once what to install if not."""
    remedies = {_remedy(character) for character, path in _characters(text) if path is None}
    for remedy in sorted(remedies):
        _tell(remedy)
    return not remedies


def _runs(text: str) -> Iterator[tuple[Path, str]]:
    """Split a text into parts that one font draws."""
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
    """The characters of a text, each with its font; marks keep to the font before them."""
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
    """Joiners and variation selectors, which choose how others look."""
    return unicodedata.category(character) == "Cf" or "VARIATION SELECTOR" in _name(character)


@cache
def _font_with(character: str) -> Path | None:
    """The first font that draws a character, DejaVu Sans if it does."""
    if _needs_bidi(character) and not features.check("raqm"):
        return None  # Pillow alone would set the letters from left to right
    return next((path for path in _fonts() if _draws(path, character)), None)


def _fonts() -> Iterator[Path]:
    yield _MAIN
    yield from _system_fonts()


@cache
def _system_fonts() -> Sequence[Path]:
    """Font files of the system, plain styles first."""
    paths = {Path(path) for path in font_manager.findSystemFonts()}
    usable = [path for path in paths if "lastresort" not in path.stem.lower()]
    return sorted(usable, key=lambda path: (_is_styled(path), path.name, path))


def _is_styled(path: Path) -> bool:
    return any(style in path.stem.lower() for style in _STYLES)


def _draws(path: Path, character: str) -> bool:
    if ord(character) not in _characters_of(path):
        return False
    # Fonts of coloured pictures have characters without an outline.
    return path == _MAIN or _load(path, 32).getmask(character).getbbox() is not None


@cache
def _characters_of(path: Path) -> frozenset[int]:
    """The code points of a font; none where the file is broken or has bitmaps alone."""
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
        return "Debian's libfribidi0, or FriBiDi of your system"
    if _name(character).startswith(EAST_ASIAN):
        return "a font such as those of Debian's fonts-noto-cjk"
    return "a font such as those of Debian's fonts-noto-core and fonts-symbola"


def _needs_bidi(character: str) -> bool:
    return unicodedata.bidirectional(character) in ("R", "AL")


@cache
def _tell(remedy: str) -> None:
    """Print, once for each remedy, why names are not drawn as they are."""
    tqdm.write(
        "pictures: some names have characters that cannot be drawn here, and get their index or "
        f"escape codes; install {remedy}",
        file=sys.stderr,
    )
