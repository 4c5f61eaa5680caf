"""Location of raw data, and conversion of raw label values to class indices."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cat_seg.data.folders import IMAGE_SUFFIXES, holds
from cat_seg.data.reading import read_label
from cat_seg.data.registration import fullest_layout
from cat_seg.data.specs import DatasetSpec
from cat_seg.errors import UserError


class Place(NamedTuple):
    """A raw dataset on disk, and the registered folders for its images and label maps.

    Attributes:
        base: common parent folder of the paths below.
        raw: the file or folder of raw labels.
        images: folder of the images.
        labels: folder of the label maps to write.
        has_images: whether the image folder already has images.
    """

    base: Path
    raw: Path
    images: Path
    labels: Path
    has_images: bool

    def image(self, name: str) -> Path | None:
        """Return the path of an image; None if there are no images yet."""
        return self.images / name if self.has_images else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warning about missing images, if there are none."""
        missing = f"no images in {self.images} yet, so label sizes are not checked against them"
        return () if self.has_images else (missing,)


def find_raw(root: Path, spec: DatasetSpec, names: Sequence[str], download: str) -> Place:
    """Find raw data in the first layout of a dataset that has it.

    Args:
        root: the datasets root.
        spec: the dataset. Raw data is searched in the common parent of each layout's folders.
        names: relative paths to look for there, in this order.
        download: advice for the error message if there is none.

    Raises:
        UserError: there is no raw data; the message names all places searched.
    """
    bases = [os.path.commonpath([layout.images, layout.labels]) for layout in spec.layouts]
    candidates = [(base, f"{base}/{name}") for base in dict.fromkeys(bases) for name in names]
    present = [candidate for candidate in candidates if (root / candidate[1]).exists()]
    if not present:
        looked = " or ".join(raw for _, raw in candidates)
        raise UserError(
            f"no raw labels for {spec.name} in {root} (looked for {looked}); {download}, "
            "or give the folder that contains it with --root"
        )
    base, raw = present[0]
    layouts = [layout for layout, of in zip(spec.layouts, bases, strict=True) if of == base]
    existing = [layout for layout in layouts if holds(root / layout.images, IMAGE_SUFFIXES)]
    # Continue in the layout of an earlier run, so that its label maps are not written again.
    layout = fullest_layout(existing or layouts, root, spec.label_suffix)
    return Place(
        base=root / base,
        raw=root / raw,
        images=root / layout.images,
        labels=root / layout.labels,
        has_images=bool(existing),
    )


def read_names(path: Path) -> list[str]:
    """Read a file with one name per line, dropping duplicates.

    Raises:
        UserError: it is missing, empty, or contains anything but names.
    """
    try:
        names = path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; unpack the archive again"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file ({error}); replace it") from error
    if not names:
        raise UserError(f"{path} lists no images; replace it")
    wrong = [name for name in names if not re.fullmatch(r"[\w.-]+", name)]
    if wrong:
        raise UserError(
            f"{path} is not a list of image names: it contains {wrong[0]!r}; replace it"
        )
    return list(dict.fromkeys(names))


def list_files(folder: Path, suffix: str) -> list[Path]:
    """Return the sorted files below a folder that end in `suffix`, without hidden ones.

    Raises:
        UserError: there are none.
    """
    files = sorted(path for path in folder.rglob(f"*{suffix}") if not path.name.startswith("."))
    if not files:
        raise UserError(f"{folder} contains no *{suffix} files; unpack the archive again")
    return files


def class_table(raw_ids: Iterable[int], ignore_label: int) -> np.ndarray:
    """Return a table of class indices for all 16-bit raw values: i at raw_ids[i].

    All other entries are ignore_label.
    """
    table = np.full(2**16, ignore_label, np.min_scalar_type(ignore_label))
    for index, raw_id in enumerate(raw_ids):
        table[raw_id] = index
    return table


def one_less(label: np.ndarray, ignore_label: int) -> np.ndarray:
    """Shift labels from 1-based to 0-based; 0, which is not a class, becomes the ignore label."""
    return np.where(label == 0, ignore_label, label.astype(np.int64) - 1)


def look_up(path: Path, table: np.ndarray) -> np.ndarray:
    """Read a raw label map (H, W) and map its values through a table.

    Raises:
        UserError: the file is not a label map.
    """
    return np.take(table, read_label(str(path), np.uint16))
