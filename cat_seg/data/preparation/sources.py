"""Where raw data lies, and tables from the values in raw files to class indices."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cat_seg.data.folders import IMAGE_SUFFIXES, holds
from cat_seg.data.reading import read_label
from cat_seg.data.registration import DatasetSpec, fullest_layout
from cat_seg.errors import UserError


class Place(NamedTuple):
    """A copy of a raw dataset on disk and where the registration looks for what is made of it.

    Attributes:
        base: the folder that holds the rest.
        raw: the file or folder of raw labels.
        images: folder of the images.
        labels: folder of the label maps to make.
        has_images: whether there are images already.
    """

    base: Path
    raw: Path
    images: Path
    labels: Path
    has_images: bool

    def image(self, name: str) -> Path | None:
        """Path of an image; None where there are no images yet."""
        return self.images / name if self.has_images else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to tell about missing images."""
        missing = f"no images in {self.images} yet: label sizes are not compared with theirs"
        return () if self.has_images else (missing,)


def find_raw(root: Path, spec: DatasetSpec, names: Sequence[str], download: str) -> Place:
    """Find raw data in the first layout of a dataset that has it.

    Args:
        root: folder of all datasets.
        spec: the dataset; what its layouts' folders have in common holds the raw data too.
        names: what is looked for there, in this order.
        download: what to do where there is none.

    Raises:
        UserError: naming all places looked at.
    """
    bases = [os.path.commonpath([layout.images, layout.labels]) for layout in spec.layouts]
    candidates = [(base, f"{base}/{name}") for base in dict.fromkeys(bases) for name in names]
    present = [candidate for candidate in candidates if (root / candidate[1]).exists()]
    if not present:
        looked = " or ".join(raw for _, raw in candidates)
        raise UserError(
            f"no raw labels for {spec.name} in {root} (looked for {looked}); {download}, "
            "or name the folder that has it with --root"
        )
    base, raw = present[0]
    layouts = [layout for layout, of in zip(spec.layouts, bases, strict=True) if of == base]
    existing = [layout for layout in layouts if holds(root / layout.images, IMAGE_SUFFIXES)]
    # Label maps that an earlier run wrote in another layout are not made a second time.
    layout = fullest_layout(existing or layouts, root, spec.label_suffix)
    return Place(
        base=root / base,
        raw=root / raw,
        images=root / layout.images,
        labels=root / layout.labels,
        has_images=bool(existing),
    )


def read_names(path: Path) -> list[str]:
    """Read a file of one name a line.

    Raises:
        UserError: it is missing, empty, or something else than names.
    """
    try:
        names = path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; it is part of the archive"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file ({error}); replace it") from error
    if not names:
        raise UserError(f"{path} lists no images; replace it")
    wrong = [name for name in names if not re.fullmatch(r"[\w.-]+", name)]
    if wrong:
        raise UserError(f"{path} is no list of image names: it has {wrong[0]!r}; replace it")
    return list(dict.fromkeys(names))


def list_files(folder: Path, suffix: str) -> list[Path]:
    """Return the files below a folder that end so, in order, without hidden ones.

    Raises:
        UserError: there is none.
    """
    files = sorted(path for path in folder.rglob(f"*{suffix}") if not path.name.startswith("."))
    if not files:
        raise UserError(f"{folder} holds no *{suffix}; unpack the archive again")
    return files


def class_table(raw_ids: Iterable[int], ignore_label: int) -> np.ndarray:
    """Return the class index for every 16-bit raw value: i for raw_ids[i], else ignore_label."""
    table = np.full(2**16, ignore_label, np.min_scalar_type(ignore_label))
    for index, raw_id in enumerate(raw_ids):
        table[raw_id] = index
    return table


def one_less(label: np.ndarray, ignore_label: int) -> np.ndarray:
    """Count classes from 0 instead of 1; 0, which is no class, becomes the ignore label."""
    return np.where(label == 0, ignore_label, label.astype(np.int64) - 1)


def look_up(path: Path, table: np.ndarray) -> np.ndarray:
    """Read a raw label map (H, W) and put a table's values in place of its own.

    Raises:
        UserError: the file is no label map.
    """
    return np.take(table, read_label(str(path), np.uint16))
