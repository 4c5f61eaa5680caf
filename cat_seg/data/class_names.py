"""Validation of class names."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from cat_seg.data.class_files import EXAMPLE
from cat_seg.errors import UserError

MOST_NAMES = 100_000
# CLIP reads at most 77 tokens, and tokenizing very long words takes quadratic time.
LONGEST_NAME = 2_000  # characters

# Format characters that scripts and emoji need: the joiners, and the tags of regional flags.
_WANTED_FORMAT = {0x200C, 0x200D, *range(0xE0020, 0xE0080)}
# Letters and symbols that are invisible: Hangul fillers and the blank Braille pattern.
_BLANK = {0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0}


def first_synonym(name: str) -> str:
    """Return the first synonym of a name like "road, route", used in prompts and pictures."""
    return name.split(",")[0].strip()


def check_names(names: object, source: str) -> list[str]:
    """Validate class names and return them without surrounding whitespace.

    Args:
        names: the supposed list of class names.
        source: where they come from, for messages.

    Raises:
        UserError: `names` is not a list of strings, is empty, has more than MOST_NAMES names or
            duplicates; or a name is longer than LONGEST_NAME, has no visible character before its
            first comma, or has control characters.
    """
    names = _check_type(names, source)
    if not names:
        raise UserError(f"{source} has no class names; list at least one")
    if len(names) > MOST_NAMES:
        raise UserError(f"{source} has more than {MOST_NAMES} class names; list fewer")
    stripped = [str(name).strip() for name in names]
    for index, name in enumerate(stripped):
        _check_name(name, f"{source}: class {index}", names[index])
    _refuse_duplicates(stripped, source)
    return stripped


def list_names(names: Iterable[str], source: str) -> list[str]:
    """Validate the class names in any ordered collection or iterator; see `check_names`.

    Raises:
        UserError: see `check_names`; or `names` is unordered or not iterable.
    """
    kind = type(names).__name__
    if isinstance(names, (set, frozenset)):
        raise UserError(f"{source} is a {kind}, which has no order; give a list of class names")
    if isinstance(names, (bytes, bytearray, memoryview, Mapping)):
        raise UserError(f"{source} is a {kind}; give a list of class names like {EXAMPLE}")
    try:
        listed = list(islice(iter(names), MOST_NAMES + 1))
    except TypeError as error:  # not iterable, or an array without dimensions
        raise UserError(
            f"{source} must be a list of class names or a string, not {kind}; try {EXAMPLE}"
        ) from error
    return check_names(listed, source)


def _check_type(names: object, source: str) -> list[str]:
    """Return `names` if it is a list of strings."""
    expected = f"{source} is not a list of class names like {EXAMPLE}"
    if not isinstance(names, list):
        raise UserError(f"{expected} but {_kind(names)}; write only the names, in index order")
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise UserError(f"{expected}: entry {index} is {_kind(name)}; write names in quotes")
    return names


def _kind(value: object) -> str:
    """Describe a value's type in JSON terms, or by its Python type if JSON has no such type."""
    kinds = {dict: "an object", list: "a list", str: "a string", type(None): "null"}
    kinds |= {bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), f"of type {type(value).__name__}")


def _check_name(name: str, subject: str, given: str) -> None:
    shown = _shown(given)
    if not first_synonym(name):
        raise UserError(f"{subject} has an empty name ({shown}); name or remove it")
    if len(name) > LONGEST_NAME:
        raise UserError(f"{subject} has a name of {len(name)} characters ({shown}); shorten it")
    for character in name:
        if _is_control(character):
            raise UserError(
                f"{subject} has the control character U+{ord(character):04X} in its name "
                f"({shown}); remove it"
            )
    # CLIP's tokenizer cleans texts the same way.
    text = html.unescape(html.unescape(first_synonym(name)))
    if not any(map(_is_visible, text)):
        raise UserError(f"{subject} has no visible character in its name ({shown}); rename it")


def _shown(name: str) -> str:
    return repr(name) if len(name) <= 60 else f"{name[:60]!r}..."


def _is_control(character: str) -> bool:
    """Return whether a character is a line break, tab, direction mark, lone surrogate or similar.

    This includes zero-width spaces, but not the format characters in _WANTED_FORMAT.
    """
    if ord(character) in _WANTED_FORMAT:
        return False
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _is_visible(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNPS" and ord(character) not in _BLANK


def _refuse_duplicates(names: Sequence[str], source: str) -> None:
    first_index: dict[str, int] = {}
    for index, name in enumerate(names):
        if first_index.setdefault(name, index) != index:
            raise UserError(
                f"{source}: classes {first_index[name]} and {index} are both {name!r}; keep one"
            )
