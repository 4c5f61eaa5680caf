"""Lists of class names: the shipped ones, a user's files, and names typed on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from cat_seg.errors import UserError
from cat_seg.paths import REPO_ROOT, resolve

SHIPPED = REPO_ROOT / "datasets"


def shipped_path(name: str) -> str:
    """Return the path of a shipped vocabulary: "ade150" is datasets/ade150.json."""
    return str(SHIPPED / f"{name}.json")


def load_vocabulary(path: str) -> list[str]:
    """Read the class names of a file, in index order.

    Args:
        path: a .txt file with one name a line, or a JSON list of names; a relative path also
            resolves from the repository root. A name may list synonyms ("road, route"), of which
            models prompt the first.

    Returns:
        The names without surrounding blanks.

    Raises:
        UserError: the file is missing, no text or no JSON, is not a list of non-empty strings, is
            empty, or has a name twice.
    """
    if Path(path).suffix.lower() == ".txt":
        lines = _parse_file(path, str.splitlines)
        return check_names([line for line in lines if line.strip()], str(path))
    return check_names(_parse_file(path, json.loads), str(path))


def parse_vocabulary(text: str) -> list[str]:
    """Turn what a user typed into class names.

    Args:
        text: a path ending in .json or .txt (see `load_vocabulary`), the name of a shipped
            vocabulary ("ade150" for datasets/ade150.json), or names separated by commas.
            Synonyms ("road, route") are possible in files only.

    Returns:
        The names in the given order.

    Raises:
        UserError: as in `load_vocabulary`, or no name at all.
    """
    text = text.strip()
    if Path(text).suffix.lower() in (".json", ".txt"):
        return load_vocabulary(text)
    if text in {path.stem for path in SHIPPED.glob("*.json")}:
        return load_vocabulary(shipped_path(text))
    names = [name for name in text.split(",") if name.strip()]
    return check_names(names, f"vocabulary {text!r}")


def check_class_list(
    key: str, path: str, dataset: str, own: Sequence[str], remedy: str
) -> list[str]:
    """Read a class list that names the classes of a dataset, perhaps in other words.

    Args:
        key: the config key that gives the list.
        path: of the list.
        dataset, own: name and class names of the dataset.
        remedy: what to do where they do not fit, for the message.

    Returns:
        The names of the list.

    Raises:
        UserError: as in `load_vocabulary`; the list has another number of classes, or the same
            ones in another order.
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


def _parse_file(path: str, parse: Callable[[str], object]) -> object:
    file = resolve(path)
    try:
        # utf-8-sig: editors on Windows put a byte order mark first.
        return parse(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(
            f"cannot read the class list {file}: {error.strerror}; give an existing file"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text; save the class list as UTF-8") from error
    except json.JSONDecodeError as error:
        raise UserError(
            f'{file} is not JSON ({error}); expected a list of class names like ["cat", "dog"]'
        ) from error


def check_names(names: object, source: str) -> list[str]:
    """Return class names without surrounding blanks.

    Args:
        names: what should be a list of them.
        source: where it comes from, for messages.

    Raises:
        UserError: it is not a list of non-empty strings, is empty, or has a name twice.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f'{source} is not a list of class names like ["cat", "dog"]')
    if not names:
        raise UserError(f"{source} has no class names; list at least one")
    stripped = [name.strip() for name in names]
    for index, name in enumerate(stripped):
        if not name.split(",")[0].strip():
            raise UserError(f"{source}: class {index} has an empty name ({names[index]!r})")
    _refuse_duplicates(stripped, source)
    return stripped


def _refuse_duplicates(names: Sequence[str], source: str) -> None:
    first_index: dict[str, int] = {}
    for index, name in enumerate(names):
        if first_index.setdefault(name, index) != index:
            raise UserError(
                f"{source}: classes {first_index[name]} and {index} are both {name!r}; keep one"
            )
