"""Reading of class lists in .txt and .json files, with checks of the file format."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Sequence
from pathlib import Path

from cat_seg.errors import UserError
from cat_seg.utils.paths import resolve

EXAMPLE = '["cat", "dog"]'

# "0 red", "0: red", "0,red", "[0] red", "0) red"
_NUMBERED = re.compile(r"\s*[\[(]?(\d{1,9})(?:\s|[\])]|\s*[.:;,=|-])\s*\S")
_BULLET = re.compile(r"\s*[-*•]\s+\S")


def read_class_file(path: str) -> object:
    """Read a class list file without checking the names themselves.

    Args:
        path: a .txt file with one name per line, else a JSON file. A relative path may also be
            relative to the repository root. Lines end in LF or CRLF; trailing blank lines are
            dropped.

    Returns:
        The lines of a .txt file, or the content of a JSON file.

    Raises:
        UserError: the file is missing, not UTF-8 text or not JSON; or a .txt file contains blank
            lines, comments, numbered lines or bullets.
    """
    file = resolve(path)
    text = _read_text(file)
    return _lines(text, file) if file.suffix.lower() == ".txt" else _json(text, file)


def _read_text(file: Path) -> str:
    try:
        content = file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot read the class list {file}: {reason}; give an existing file"
        ) from error
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content[:64]
    if utf16:
        raise UserError(f"{file} is UTF-16 text or a binary file; save the class list as UTF-8")
    try:
        # utf-8-sig: editors on Windows write a byte order mark.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text; save the class list as UTF-8") from error


def _lines(text: str, file: Path) -> list[str]:
    """Return the lines of a .txt list."""
    if text.lstrip().startswith("[") and text.rstrip().endswith("]"):
        raise UserError(f"{file} contains a JSON list; rename it to {file.stem}.json")
    # str.splitlines would also split at form feeds, U+2028 and more.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise UserError(
                f"{file}: line {number} is blank, but each line must be a class; remove the line"
            )
        if line.lstrip().startswith(("#", "//")):
            raise UserError(
                f"{file}: line {number} looks like a comment ({line.strip()[:40]!r}), but each "
                "line must be a class; remove it, or use a JSON list if it is a class name"
            )
    _refuse_list_items(lines, file)
    return lines


def _refuse_list_items(lines: Sequence[str], file: Path) -> None:
    """Refuse a list if all lines begin with a bullet, or with numbers counting up from 0 or 1.

    A single line may begin with 1.
    """
    numbers = [int(match[1]) for line in lines if (match := _NUMBERED.match(line))]
    if lines and numbers in (list(range(len(lines))), list(range(1, max(2, len(lines)) + 1))):
        kind = "an index"
    elif lines and all(map(_BULLET.match, lines)):
        kind = "a bullet"
    else:
        return
    raise UserError(
        f"{file}: each line begins with {kind} ({lines[0].strip()[:40]!r}); write only the names, "
        "in index order, or use a JSON list if the names really begin this way"
    )


def _json(text: str, file: Path) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"{error}{_hint(text, error.pos)}"
    except RecursionError:
        reason = "lists are nested too deeply"
    except ValueError:  # an integer of thousands of digits
        reason = "a number is too long"
    raise UserError(
        f"{file} is not valid JSON ({reason}); expected a list of class names like {EXAMPLE}"
    )


def _hint(text: str, position: int) -> str:
    """Return the most likely mistake at the position where the JSON parser stopped."""
    found, before = text[position : position + 1], text[:position].rstrip()[-1:]
    if found in ("'", "‘", "’", "“", "”", "`"):
        return f": names need straight double quotes, not {found}"
    if found in ("]", "}") and before == ",":
        return f": remove the comma before {found}"
    if not text.strip():
        return ": the file is empty"
    if position >= len(text.rstrip()):
        return ": the file ends before the list does"
    return ""
