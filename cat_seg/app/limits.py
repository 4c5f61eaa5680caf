"""What the page and the endpoint accept, and the refusal of everything else in one line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cat_seg.data.class_names import check_names
from cat_seg.data.decoding import read_header
from cat_seg.data.vocabularies import SHIPPED, load_vocabulary, shipped_path
from cat_seg.errors import UserError

MEGABYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """Upper bounds for one request.

    Attributes:
        megabytes: size of an uploaded file.
        megapixels: pixels of an image, in millions.
        classes: number of class names.
        waiting: requests that wait for the model; further ones are refused.
    """

    megabytes: int = 20
    megapixels: int = 25
    classes: int = 1000
    waiting: int = 20


def shipped_lists() -> list[str]:
    """Return the names of the shipped class lists, such as "ade150"."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def read_names(text: str, limits: Limits) -> list[str]:
    """Split a text into class names at commas and line breaks.

    Unlike `cat_seg.data.parse_vocabulary`, never takes the text for a file name.

    Raises:
        UserError: there is no name, a duplicate, an invalid name, or too many names.
    """
    names = [part.strip() for part in re.split(r"[,\r\n]", text) if part.strip()]
    if not names:
        raise UserError('no class names: type at least one, such as "cat, grass, sky"')
    if len(names) > limits.classes:
        raise UserError(f"{len(names)} class names are more than the limit of {limits.classes}")
    return check_names(names, "class names")


def read_list(name: str) -> list[str]:
    """Return the class names of a shipped list.

    Raises:
        UserError: there is no such list.
    """
    if name not in shipped_lists():
        raise UserError(f"there is no class list {name!r}; choose {', '.join(shipped_lists())}")
    return load_vocabulary(shipped_path(name))


def check_picture(path: Path, limits: Limits) -> None:
    """Refuse a file that is too large, or is not an image, from its size and header alone.

    Raises:
        UserError: names the file without its folder.
    """
    if path.stat().st_size > limits.megabytes * MEGABYTE:
        raise UserError(f"{path.name} is larger than the limit of {limits.megabytes} MB")
    try:
        height, width = read_header("image", str(path)).size
    except UserError as error:
        raise UserError(without_folder(error, path)) from error
    if height * width > limits.megapixels * 10**6:
        raise UserError(
            f"{path.name} has {width}x{height} pixels, more than the limit of "
            f"{limits.megapixels} million; make it smaller"
        )


def without_folder(error: object, path: Path) -> str:
    """Return the text of an error without the folder of a file, which is the server's own."""
    return str(error).replace(str(path), path.name)
