"""The images that a command line refers to, and the names of their pictures."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path

from cat_seg.data import IMAGE_SUFFIXES
from cat_seg.errors import UserError
from cat_seg.utils.paths import resolve

# Maximum bytes in a picture's name. Most file systems allow 255, including what is appended to it.
LONGEST_NAME = 200


def find_images(inputs: Sequence[str], output: Path) -> list[Path]:
    """List the image files that the inputs refer to, each once.

    Files directly in `output` are skipped as pictures from earlier runs.

    Raises:
        UserError: an input matches no image, or a folder cannot be read.
    """
    found: dict[str, Path] = {}
    for text in inputs:
        files = [file for file in _expand(text) if _real(file.parent) != _real(output)]
        if not files:
            raise UserError(
                f"--input {text}: no images found outside the output folder; "
                'give image files, folders of images, or a quoted pattern like "photos/*.jpg"'
            )
        for file in files:
            found.setdefault(_real(file), file)
    return list(found.values())


def _real(path: Path) -> str:
    return os.path.realpath(path)  # unlike Path.resolve, does not raise for circular links


def _expand(text: str) -> Iterator[Path]:
    try:
        path = resolve(text)
        if path.is_file():
            yield path
            return
        is_folder = path.is_dir()
    except (OSError, RuntimeError) as error:  # RuntimeError: "~name" for an unknown user
        raise UserError(f"--input {text}: {getattr(error, 'strerror', None) or error}") from error
    pattern = os.path.expanduser(text)
    for match in [path] if is_folder else map(Path, sorted(glob.glob(pattern, recursive=True))):
        try:
            files = sorted(match.iterdir()) if match.is_dir() else [match]
            files = [file for file in files if not file.is_dir()]
        except OSError as error:
            raise UserError(f"--input {text}: cannot read {match}: {error.strerror}") from error
        for file in files:
            # Only explicitly named files, handled above, are tried whatever their suffix.
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
                yield file


def picture_names(images: Sequence[Path]) -> list[str]:
    """Name the picture of each image after its stem, with a number added if the name is taken.

    All NAME and NAME_mask are distinct, even on case-insensitive file systems. Long stems are
    truncated to leave room for what is appended.
    """
    taken: set[str] = set()
    names = []
    for stem in (_cut(image.stem) for image in images):
        for name in chain([stem], (f"{stem}_{number}" for number in count(2))):
            files = {name.casefold(), f"{name}_mask".casefold()}
            if not files & taken:
                break
        taken |= files
        names.append(name)
    return names


def _cut(stem: str) -> str:
    while len(os.fsencode(stem)) > LONGEST_NAME:
        stem = stem[:-1]
    return stem
