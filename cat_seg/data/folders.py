"""Listing of the files in an image or label folder."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from cat_seg.errors import UserError

# Filename suffixes of images, in lower case.
IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm"}
    | {".tif", ".tiff", ".webp"}
)


def holds(folder: Path, suffixes: Collection[str], subfolders: bool = False) -> bool:
    """Return whether a folder exists and `file_names` finds a file in it."""
    return folder.is_dir() and any(True for _ in file_names(folder, suffixes, subfolders))


def file_names(folder: Path, suffixes: Collection[str], subfolders: bool = False) -> Iterator[str]:
    """Yield the names of the files in a folder that end in one of `suffixes`, in any case.

    Hidden files are skipped: macOS puts a "._name.png" next to every file on foreign disks.
    With `subfolders`, names are paths relative to the folder, and symlink cycles are not followed.
    """
    endings, seen = _lower(suffixes), {os.path.realpath(folder)}
    folders = [""]
    while folders:
        below = folders.pop()
        for entry in _entries(folder / below):
            name = os.path.join(below, entry.name)
            if subfolders and entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in seen:
                    seen.add(real)
                    folders.append(name)
            elif entry.name.lower().endswith(endings):
                yield name


def _lower(suffixes: Collection[str]) -> tuple[str, ...]:
    return tuple(suffix.lower() for suffix in suffixes)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read folder {folder}: {error.strerror}") from error


def files_by_stem(
    folder: Path,
    suffixes: Collection[str],
    subfolders: bool,
    without: Collection[str] = frozenset(),
) -> dict[str, str]:
    """Return the paths of the files that `file_names` finds, keyed by name without suffix.

    Args:
        folder: an existing folder.
        suffixes: filename suffixes, in any case.
        subfolders: see `file_names`.
        without: paths to skip.

    Raises:
        UserError: two files differ only in their suffix.
    """
    files: dict[str, str] = {}
    endings = _lower(suffixes)
    for name in sorted(file_names(folder, suffixes, subfolders)):
        path = os.path.join(folder, name)
        if path in without:
            continue
        ending = max(filter(name.lower().endswith, endings), key=len)
        stem = name[: -len(ending)]
        if files.setdefault(stem, path) != path:
            raise UserError(f"{files[stem]} and {path} differ only in the suffix; remove one")
    return files
