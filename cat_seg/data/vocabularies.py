"""Vocabularies: shipped class lists, user files, and names given on the command line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cat_seg.data.class_files import read_class_file
from cat_seg.data.class_names import check_names, list_names
from cat_seg.errors import UserError
from cat_seg.utils.paths import SHIPPED_ROOT

SHIPPED = SHIPPED_ROOT / "datasets"


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
            vocabulary ("ade150" for datasets/ade150.json), or names separated by commas.
            Synonyms ("road, route") are supported only in files.

    Returns:
        The names in the given order.

    Raises:
        UserError: see `load_vocabulary`; or there is no name at all.
    """
    text = text.strip()
    if Path(text).suffix.lower() in (".json", ".txt"):
        return load_vocabulary(text)
    if text in {path.stem for path in SHIPPED.glob("*.json")}:
        return load_vocabulary(shipped_path(text))
    names = [name for name in text.split(",") if name.strip()]
    return check_names(names, f"vocabulary {text!r}")


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
            f"{key} ({path}) lists {len(names)} classes, dataset {dataset} has {len(own)}; {remedy}"
        )
    moved = [index for index, name in enumerate(names) if name != own[index]]
    if moved and sorted(names) == sorted(own):
        first = moved[0]
        raise UserError(
            f"{key} ({path}) lists the classes of dataset {dataset} in another order, class "
            f"{first} is {names[first]!r} and not {own[first]!r}; {remedy}"
        )
    return names
