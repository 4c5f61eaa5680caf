"""Descriptions of datasets: their class list, folders on disk, and label values."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cat_seg.data.folders import IMAGE_SUFFIXES
from cat_seg.data.label_values import LabelValues
from cat_seg.data.vocabularies import load_vocabulary
from cat_seg.utils.paths import WORK_ROOT, resolve


def datasets_root() -> Path:
    """Return $DETECTRON2_DATASETS, or the repository's datasets folder if it is not set."""
    given = os.environ.get("DETECTRON2_DATASETS")
    return resolve(given) if given else WORK_ROOT / "datasets"


@dataclass(frozen=True)
class Layout:
    """An image folder and a label folder, relative to the datasets root.

    Images and labels are matched by stem.
    """

    images: str
    labels: str
    # The image folder also holds images of other splits, which have no label in `labels`.
    shared_images: bool = False


@dataclass(frozen=True)
class DatasetSpec:
    """A semantic segmentation dataset and its possible layouts on disk."""

    name: str
    # Path of the list of class names, in label order.
    vocabulary: str
    # The layout on disk with the most label maps is used; ties go to the first.
    layouts: tuple[Layout, ...]
    label_suffix: str = ".png"
    ignore_label: int = 255
    # All names from this index on denote the background class, whose label is this index.
    background_from: int | None = None
    # Advice for the error message if no layout is on disk.
    made_by: str = "see datasets/README.md"
    # Number of labeled images in a complete copy; None if unknown.
    expected: int | None = None
    # Images without a labeled pixel have no label file, so `expected` is an upper bound.
    drops_unlabeled: bool = False
    # Table in datasets/raw_ids with the dataset's own category ids, and an offset to add to them.
    # Without a table, category ids are class indices.
    raw_ids: str | None = None
    raw_id_offset: int = 0
    # Filename suffixes of the images. Case makes no difference, as in `label_suffix`.
    image_suffixes: frozenset[str] = IMAGE_SUFFIXES
    # Also search subfolders, which must have the same names under both folders.
    subfolders: bool = False

    def label_values(self) -> LabelValues | None:
        """Return the mapping from values in the label files to classes.

        Returns:
            The mapping, or None if the values are class indices.

        Raises:
            UserError: the mapping does not fit the class names.
        """
        return None

    def classes(self) -> list[str]:
        """Read the class names, in label order.

        Raises:
            UserError: see `cat_seg.data.vocabularies.load_vocabulary`.
        """
        return load_vocabulary(self.vocabulary)

    def label_names(self) -> list[str]:
        """Read one name per label value: `classes`, with all background names merged into one."""
        names = self.classes()
        if self.background_from is None:
            return names
        return [*names[: self.background_from], "background"]

    def missing(self) -> str:
        """Return a one-line message: where the dataset was searched for and how to get it."""
        wanted = " or ".join(
            f"{layout.images} with {layout.labels}/*{self.label_suffix}" for layout in self.layouts
        )
        return (
            f"dataset {self.name} not found in {datasets_root()} (looked for {wanted}); "
            f"{self.made_by}, or set DETECTRON2_DATASETS to the folder that contains it"
        )
