"""Vocabularies: shipped class lists, user files, and names given on the command line."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from cat_seg.data.class_files import read_class_file
from cat_seg.data.class_names import check_names, list_names
from cat_seg.errors import UserError
from cat_seg.utils.paths import SHIPPED_ROOT, resolve

SHIPPED = SHIPPED_ROOT / "datasets"

_EXTENSION = re.compile(r"\.[a-z][a-z0-9]{1,4}$", re.IGNORECASE)  # not "car." or "no.5"
# Similarity (0 to 1, see difflib) of a mistyped list name; only long words may lack a digit, since
# "cocoa" is more likely a class than a misspelled "coco".
_SIMILAR, _LONG_WORD = 0.75, 6


def shipped_path(name: str) -> str:
    """Return the path of a shipped vocabulary, such as datasets/ade150.json for "ade150"."""
    return str(SHIPPED / f"{name}.json")


def load_vocabulary(path: str) -> list[str]:
    """Read the class names in a file, in index order.

    Args:
        path: a .txt file with one name per line, or a JSON list of names. A relative path may also
            be relative to the repository root. A name may list synonyms ("road, route"); models
            prompt with the first.

    Returns:
        The names without surrounding whitespace.

    Raises:
        UserError: see `cat_seg.data.class_files.read_class_file` and
            `cat_seg.data.class_names.check_names`.
    """
    return check_names(read_class_file(path), str(path))


def parse_vocabulary(text: str) -> list[str]:
    """Parse a vocabulary given as text.

    Args:
        text: a path ending in .json or .txt (see `load_vocabulary`), the name of a shipped
            vocabulary ("ade150" for datasets/ade150.json), or names separated by commas. A single
            name needs no comma, unless it looks like a file or a list's name: "ade151," is a class.
            Synonyms ("road, route") are supported only in files.

    Returns:
        The names in the given order.

    Raises:
        UserError: see `load_vocabulary`; or there is no name at all; or a text without a comma
            looks like a file or like the name of a shipped vocabulary that does not exist.
    """
    text = text.strip()
    if Path(text).suffix.lower() in (".json", ".txt"):
        return load_vocabulary(text)
    if text in shipped_names():
        return load_vocabulary(shipped_path(text))
    if "," not in text:
        _refuse_lost_list(text)
    names = [name for name in text.split(",") if name.strip()]
    return check_names(names, f"vocabulary {text!r}")


def shipped_names() -> list[str]:
    """Return the names of the shipped vocabularies, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def _refuse_lost_list(text: str) -> None:
    """Refuse a text that is meant as a file or as a shipped vocabulary, but is neither."""
    shipped = shipped_names()
    if _is_like_a_path(text):
        problem = "looks like a path, but class lists end in .json or .txt"
    elif closest := _misspelled(text, shipped):
        problem = f"looks like the name of a shipped list; did you mean {closest}?"
    else:
        return
    raise UserError(
        f"vocabulary {_short(text)!r} {problem} (shipped lists: {', '.join(shipped)}); if it is "
        f"a class, add a comma: {_short(text) + ','!r}"
    )


def _is_like_a_path(text: str) -> bool:
    if text.startswith(("./", "../", "/", "~/")) or "\\" in text:
        return True
    if re.search("[./]", text) and os.path.isfile(resolve(text)):
        return True
    if " " in text:
        return False
    # "tv/monitor" is a name, since the shipped lists know both words; "lists/mine" is not.
    return bool(_EXTENSION.search(text)) or ("/" in text and not _has_known_words(text))


def _has_known_words(text: str) -> bool:
    """Return whether every part between slashes is a word of a class in a shipped list."""
    known = {
        word
        for name in shipped_names()
        for synonyms in load_vocabulary(shipped_path(name))
        for word in re.findall(r"\w+", synonyms.lower())
    }
    return all(part in known for part in text.lower().split("/"))


def _misspelled(text: str, shipped: Sequence[str]) -> str | None:
    """Return the shipped list that a text probably means, such as "ade150" for "ade_151"."""
    if " " in text:
        return None
    plain = {re.sub("[-_]", "", name): name for name in shipped}
    word = re.sub("[-_]", "", text.lower())
    families = "|".join({match[0] for name in plain if (match := re.match("[a-z]+", name))})
    of_family = re.match(rf"({families})[-_]?\d", text.lower())  # "pc60", but not "pc"
    has_digit = any(character.isdigit() for character in word)
    if not (has_digit or len(word) >= _LONG_WORD or word in plain):
        return None
    closest = difflib.get_close_matches(word, plain, n=1, cutoff=0 if of_family else _SIMILAR)
    return plain[closest[0]] if closest else None


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."


def vocabulary_from(names: Iterable[str] | str | Path) -> list[str]:
    """Return the class names that a caller of the Python API passed in any supported form.

    Args:
        names: class names in index order, as a list, tuple, NumPy array or iterator; a string for
            `parse_vocabulary`; or the Path of a class list.

    Raises:
        UserError: see `load_vocabulary`; or `names` is none of these, or is unordered.
    """
    if isinstance(names, str):
        return parse_vocabulary(names)
    if isinstance(names, Path):
        return load_vocabulary(str(names))
    return list_names(names, "the vocabulary")


def check_class_list(
    key: str, path: str, dataset: str, own: Sequence[str], remedy: str
) -> list[str]:
    """Read a class list for a dataset, which may word the dataset's class names differently.

    Args:
        key: the config key that gives the list.
        path: path of the list.
        dataset, own: name and class names of the dataset.
        remedy: advice for the error message if list and dataset do not match.

    Returns:
        The names in the list.

    Raises:
        UserError: see `load_vocabulary`; or the list has a different number of classes than the
            dataset, or the same names in a different order.
    """
    names = load_vocabulary(path)
    if len(names) != len(own):
        raise UserError(
            f"{key} ({path}) lists {len(names)} classes, but dataset {dataset} has "
            f"{len(own)}; {remedy}"
        )
    moved = [index for index, name in enumerate(names) if name != own[index]]
    if moved and sorted(names) == sorted(own):
        first = moved[0]
        raise UserError(
            f"{key} ({path}) lists the classes of dataset {dataset} in a different order: class "
            f"{first} is {names[first]!r} instead of {own[first]!r}; {remedy}"
        )
    return names
