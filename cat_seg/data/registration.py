"""Registration of datasets on disk in detectron2's catalogs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata

from cat_seg.data.folders import file_names, files_by_stem, holds
from cat_seg.data.label_values import LabelFile
from cat_seg.data.specs import DatasetSpec, Layout, datasets_root
from cat_seg.errors import UserError
from cat_seg.utils.paths import SHIPPED_ROOT


class DatasetMetadata(Metadata):
    """detectron2 metadata that looks up class names and folders on access.

    Importing therefore reads no files, and the datasets root may change afterwards.
    """

    spec: DatasetSpec

    @property
    def stuff_classes(self) -> list[str]:
        """Class names in label order."""
        return self.spec.classes()

    @property
    def stuff_dataset_id_to_contiguous_id(self) -> dict[int, int]:
        """Mapping from the dataset's own category ids to class indices.

        The name is detectron2's.

        Raises:
            AttributeError: the category ids are the class indices.
        """
        if self.spec.raw_ids is None:
            raise AttributeError(f"the category ids of {self.spec.name} are its class indices")
        offset = self.spec.raw_id_offset
        return {raw + offset: index for index, raw in enumerate(load_raw_ids(self.spec.raw_ids))}

    @property
    def image_root(self) -> str:
        """Folder of the images; raises UserError if the dataset is not on disk."""
        return str(datasets_root() / _present_layout(self.spec).images)

    @property
    def sem_seg_root(self) -> str:
        """Folder of the label maps; raises UserError if the dataset is not on disk."""
        return str(datasets_root() / _present_layout(self.spec).labels)


def load_raw_ids(name: str) -> list[int]:
    """Read datasets/raw_ids/NAME.json: the raw label value of each class, in class order."""
    return json.loads(
        (SHIPPED_ROOT / "datasets" / "raw_ids" / f"{name}.json").read_text(encoding="utf-8")
    )


def register(spec: DatasetSpec) -> None:
    """Add a dataset to detectron2's DatasetCatalog and MetadataCatalog.

    `DatasetCatalog.get(spec.name)` then returns dicts with file_name and sem_seg_file_name, sorted
    by file name. It raises UserError if the dataset is missing or incomplete.
    """
    DatasetCatalog.register(spec.name, partial(_load_records, spec))
    MetadataCatalog[spec.name] = DatasetMetadata(
        name=spec.name,
        spec=spec,
        ignore_label=spec.ignore_label,
        background_from=spec.background_from,
        evaluator_type="sem_seg",
    )


def unregister(name: str) -> None:
    """Undo `register` for the dataset of this name."""
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def spec_of(name: str) -> DatasetSpec:
    """Return the spec with which `register` added the dataset of this name.

    Raises:
        UserError: `register` added no dataset of that name.
    """
    # MetadataCatalog.get would create a missing entry.
    specs = {name: metadata.get("spec") for name, metadata in MetadataCatalog.items()}
    spec = specs.get(name)
    if spec is None:
        known = ", ".join(sorted(name for name, spec in specs.items() if spec is not None))
        raise UserError(f"unknown dataset {name!r}; choose from {known}")
    return spec


def is_on_disk(name: str) -> bool:
    """Return whether the folders of a registered dataset exist, in any of its layouts.

    Raises:
        UserError: `register` added no dataset of that name.
    """
    return _find_layout(spec_of(name)) is not None


class Pairs(NamedTuple):
    """Matched images and labels of a dataset.

    Attributes:
        records: dicts with file_name and sem_seg_file_name, sorted by file name.
        problems: one line about labels without an image and one about images without a label, if
            there are any.
    """

    records: list[dict[str, str]]
    problems: list[str]


def find_pairs(spec: DatasetSpec) -> Pairs:
    """Match the images and label maps of a dataset on disk by stem.

    Label maps are excluded from the images, so both may be in the same folder.

    Raises:
        UserError: no layout is on disk, or two files in a folder differ only in their suffix.
    """
    layout, values = _present_layout(spec), spec.label_values()
    image_root, label_root = datasets_root() / layout.images, datasets_root() / layout.labels
    labels = files_by_stem(label_root, {spec.label_suffix}, spec.subfolders)
    images = files_by_stem(
        image_root, spec.image_suffixes, spec.subfolders, without=frozenset(labels.values())
    )
    problems = _unmatched(labels, images, "label", f"no image of the same name in {image_root}")
    if not layout.shared_images:
        problems += _unmatched(
            images, labels, "image", f"no label of the same name in {label_root}"
        )
    records = [
        {
            "file_name": images[stem],
            "sem_seg_file_name": LabelFile(labels[stem], values) if values else labels[stem],
        }
        for stem in sorted(labels.keys() & images.keys())
    ]
    return Pairs(records, problems)


def why_incomplete(spec: DatasetSpec, count: int) -> str:
    """Return a one-line explanation why `count` labeled images are too few or too many."""
    found = f"{count} labeled images instead of {spec.expected}"
    if spec.expected is not None and count > spec.expected:
        return f"{found}; remove the extra files"
    layout = _present_layout(spec)
    images = file_names(datasets_root() / layout.images, spec.image_suffixes)
    if not layout.shared_images and sum(1 for _ in images) <= count:
        return f"{found}: the download is incomplete; download and unpack it again"
    return f"{found}; {spec.made_by}; if that does not help, download the dataset again"


def _find_layout(spec: DatasetSpec) -> Layout | None:
    root = datasets_root()
    present = [
        layout
        for layout in spec.layouts
        if holds(root / layout.images, spec.image_suffixes, spec.subfolders)
        and holds(root / layout.labels, {spec.label_suffix}, spec.subfolders)
    ]
    return fullest_layout(present, root, spec.label_suffix) if present else None


def fullest_layout(layouts: Sequence[Layout], root: Path, label_suffix: str) -> Layout:
    """Return the layout with the most label maps; ties go to the first.

    An interrupted preparation in one layout thus does not hide a complete copy in another.

    Args:
        layouts: at least one layout.
        root: the datasets root.
        label_suffix: filename suffix of the label maps.
    """
    if len(layouts) == 1:  # skip the count, which is slow for large folders
        return layouts[0]

    def labels(layout: Layout) -> int:
        folder = root / layout.labels
        return sum(1 for _ in file_names(folder, {label_suffix})) if folder.is_dir() else 0

    return max(layouts, key=labels)


def _present_layout(spec: DatasetSpec) -> Layout:
    layout = _find_layout(spec)
    if layout is None:
        raise UserError(spec.missing())
    return layout


def _load_records(spec: DatasetSpec) -> list[dict[str, str]]:
    records, problems = find_pairs(spec)
    if problems:
        raise UserError(problems[0])
    return records


def _unmatched(
    files: dict[str, str], partners: dict[str, str], kind: str, reason: str
) -> list[str]:
    unmatched = sorted(files.keys() - partners.keys())
    if not unmatched:
        return []
    return [
        f"{kind} {files[unmatched[0]]} has {reason} ({len(unmatched)} of {len(files)} {kind}s); "
        "add the missing files or remove the unmatched ones"
    ]
