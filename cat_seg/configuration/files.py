"""Safe reading of YAML config files and their bases, with checks that YAML itself lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from cat_seg.errors import UserError
from cat_seg.utils.paths import SHIPPED_ROOT

BASE = "_BASE_"
# Limit on values, because nested aliases can expand a small file beyond any machine's memory.
MOST_VALUES = 100_000
# PyYAML takes about a second per 20,000 characters, and quadratic time for nested brackets.
LONGEST, MOST_BRACKETS = 200_000, 100

_NOT_KEYS = "a config consists of keys and values, such as SOLVER: {MAX_ITER: 100}"
# Raised when valid YAML cannot be turned into Python values, such as the date 2026-99-99.
_CONSTRUCTION = (
    yaml.YAMLError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
)


def read_config_files(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Read a config file and its base files.

    Args:
        path: a YAML file; its _BASE_ is a file, or a list of files, relative to its folder, else to
            the shipped configs/.

    Returns:
        Each file with its content, without _BASE_; later files override earlier ones.

    Raises:
        UserError: naming the file that is missing, unreadable, empty, not YAML, not a mapping or
            its own base, or the duplicate key.
    """
    if not os.path.isfile(path):
        raise UserError(f"--config-file {path}: no such file; see configs/")
    return list(_read_chain(path, ()))


def parse_yaml(text: str) -> Any:
    """Read YAML into plain values.

    Raises:
        UserError: the text is not YAML, is too long or too deeply nested, has a duplicate key, or
            expands to too many values.
    """
    if len(text) > LONGEST:
        raise UserError(f"it has more than {LONGEST} characters, too many for a config")
    if _nested_brackets(text) > MOST_BRACKETS:
        raise UserError("its values are nested too deeply")
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        if node is not None:
            _check_nodes(node)
        return yaml.safe_load(text)
    except UserError:
        raise
    except RecursionError as error:
        raise UserError("its values are nested too deeply") from error
    except _CONSTRUCTION as error:
        raise UserError(f"cannot be read: {' '.join(str(error).split())}") from error


def _nested_brackets(text: str) -> int:
    """Return the deepest nesting of brackets, including brackets within quotes."""
    steps = ({"[": 1, "{": 1, "]": -1, "}": -1}.get(character, 0) for character in text)
    return max(accumulate(steps), default=0)


def _read_chain(path: Path, above: tuple[Path, ...]) -> Iterator[tuple[Path, dict[str, Any]]]:
    if path.resolve() in above:
        raise UserError(f"{above[-1]}: its {BASE} leads back to itself; use another base file")
    content = _read(path)
    for file in _bases(path, content.pop(BASE, [])):
        yield from _read_chain(file, (*above, path.resolve()))
    yield path, content


def _bases(path: Path, given: Any) -> list[Path]:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: {BASE} is {given!r}; set it to a file or a list of files")
    return [_base(path, name) for name in names]


def _base(path: Path, name: str) -> Path:
    # os.path, unlike pathlib, does not raise for "~nobody" or very long names.
    beside = path.parent / os.path.expanduser(name)
    shipped = SHIPPED_ROOT / "configs" / name
    for file in (beside, shipped):
        if os.path.isfile(file):
            return file
    raise UserError(f"{path}: its {BASE} {name!r} not found; looked for {beside} and {shipped}")


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        content = parse_yaml(text)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a UTF-8 text file; give a YAML config") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        what = "it is empty" if content is None else f"it contains a {type(content).__name__}"
        raise UserError(f"{path}: {what}; {_NOT_KEYS}")
    return content


def _check_nodes(root: yaml.Node) -> None:
    """Refuse duplicate keys, and aliases that are recursive or expand to too many values."""
    visited = 0
    above: set[int] = set()

    def visit(node: yaml.Node, key: str) -> None:
        nonlocal visited
        visited += 1
        if visited > MOST_VALUES or id(node) in above:
            raise UserError("its aliases (*name) expand to too many values; write the values out")
        if not isinstance(node, yaml.CollectionNode):
            return
        above.add(id(node))
        if isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for name, value in node.value:
                below = f"{key}.{name.value}" if key else str(name.value)
                line = name.start_mark.line + 1
                if isinstance(name, yaml.ScalarNode) and below in lines:
                    raise UserError(
                        f"{below} is set twice, in line {lines[below]} and line {line}; keep one"
                    )
                lines[below] = line
                visit(value, below)
        else:
            for value in node.value:
                visit(value, key)
        above.remove(id(node))

    visit(root, "")
