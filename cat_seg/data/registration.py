"""How a dataset on disk becomes an entry of detectron2's catalogues."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata

from cat_seg.data.vocabularies import load_vocabulary
from cat_seg.errors import UserError
from cat_seg.paths import REPO_ROOT, resolve

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff"})


@dataclass(frozen=True)
class Layout:
    """Two folders, relative to the datasets root, whose files match by name without suffix."""

    images: str
    labels: str
    # The image folder also holds images of other splits, which have no label here.
    shared_images: bool = False


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset for semantic segmentation and the layouts it may have on disk."""

    name: str
    # Path of the JSON list of class names, in the order of the label values.
    vocabulary: str
    # The first that is on disk is used.
    layouts: tuple[Layout, ...]
    label_suffix: str = ".png"
    ignore_label: int = 255
    # Index from which on all names stand for one background class, which is labelled so.
    background_from: int | None = None
    # What to do where no layout is on disk.
    made_by: str = "see datasets/README.md"


class DatasetMetadata(Metadata):
    """detectron2 metadata that looks up names and folders when they are asked for.

    The datasets root may therefore change after the import, and importing reads no file.
    """

    spec: DatasetSpec

    @property
    def stuff_classes(self) -> list[str]:
        """Class names in the order of the label values."""
        return load_vocabulary(self.spec.vocabulary)

    @property
    def image_root(self) -> str:
        """Folder of the images; UserError where the dataset is not on disk."""
        return str(datasets_root() / _present_layout(self.spec).images)

    @property
    def sem_seg_root(self) -> str:
        """Folder of the label maps; UserError where the dataset is not on disk."""
        return str(datasets_root() / _present_layout(self.spec).labels)


def datasets_root() -> Path:
    """Return $DETECTRON2_DATASETS, or the repository's datasets folder where it is not set."""
    given = os.environ.get("DETECTRON2_DATASETS")
    return resolve(given) if given else REPO_ROOT / "datasets"


def register(spec: DatasetSpec) -> None:
    """Add a dataset to detectron2's DatasetCatalog and MetadataCatalog.

    `DatasetCatalog.get(spec.name)` gives dicts with file_name and sem_seg_file_name, in the order
    of the file names, or raises UserError where the dataset is missing or incomplete.
    """
    DatasetCatalog.register(spec.name, partial(_load_records, spec))
    MetadataCatalog[spec.name] = DatasetMetadata(
        name=spec.name,
        spec=spec,
        ignore_label=spec.ignore_label,
        background_from=spec.background_from,
        evaluator_type="sem_seg",
    )


def is_on_disk(name: str) -> bool:
    """Say whether the folders of a dataset added by `register` are there, in any layout.

    Raises:
        UserError: `register` added no dataset of that name.
    """
    spec = MetadataCatalog[name].get("spec") if name in MetadataCatalog else None
    if spec is None:
        raise UserError(f"unknown dataset {name!r}")
    return _find_layout(spec) is not None


def _find_layout(spec: DatasetSpec) -> Layout | None:
    root = datasets_root()
    for layout in spec.layouts:
        if _holds(root / layout.images, IMAGE_SUFFIXES) and _holds(
            root / layout.labels, {spec.label_suffix}
        ):
            return layout
    return None


def _holds(folder: Path, suffixes: Collection[str]) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(os.path.splitext(entry.name)[1].lower() in suffixes for entry in entries)


def _present_layout(spec: DatasetSpec) -> Layout:
    layout = _find_layout(spec)
    if layout is None:
        wanted = " or ".join(
            f"{layout.images} with {layout.labels}/*{spec.label_suffix}" for layout in spec.layouts
        )
        raise UserError(
            f"dataset {spec.name} is not in {datasets_root()} (looked for {wanted}); "
            f"{spec.made_by}, or point DETECTRON2_DATASETS at the folder that has it"
        )
    return layout


def _load_records(spec: DatasetSpec) -> list[dict[str, str]]:
    layout = _present_layout(spec)
    image_root, label_root = datasets_root() / layout.images, datasets_root() / layout.labels
    images = _files_by_stem(image_root, IMAGE_SUFFIXES)
    labels = _files_by_stem(label_root, {spec.label_suffix})
    _refuse_unmatched(labels, images, "label", f"no image of that name in {image_root}")
    if not layout.shared_images:
        _refuse_unmatched(images, labels, "image", f"no label of that name in {label_root}")
    return [
        {"file_name": images[stem], "sem_seg_file_name": labels[stem]} for stem in sorted(labels)
    ]


def _files_by_stem(folder: Path, suffixes: Collection[str]) -> dict[str, str]:
    files: dict[str, str] = {}
    for name in sorted(os.listdir(folder)):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in suffixes:
            continue
        path = os.path.join(folder, name)
        if files.setdefault(stem, path) != path:
            raise UserError(f"{files[stem]} and {path} differ in the suffix alone; remove one")
    return files


def _refuse_unmatched(
    files: dict[str, str], partners: dict[str, str], kind: str, reason: str
) -> None:
    unmatched = sorted(files.keys() - partners.keys())
    if unmatched:
        raise UserError(
            f"{kind} {files[unmatched[0]]} has {reason} ({len(unmatched)} such of {len(files)}); "
            "add what is missing or remove it"
        )
