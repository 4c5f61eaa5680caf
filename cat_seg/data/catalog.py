"""The project's built-in datasets. Importing this module registers them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from cat_seg.data.mess import MESS, MESS_DATASETS
from cat_seg.data.registration import register, spec_of
from cat_seg.data.specs import DatasetSpec, Layout
from cat_seg.data.vocabularies import shipped_path
from cat_seg.errors import UserError


class Benchmark(NamedTuple):
    """A column of the results table: its heading and its dataset."""

    label: str
    dataset: str


BENCHMARKS = (
    Benchmark("A-847", "ade20k_full_sem_seg_freq_val_all"),
    Benchmark("A-150", "ade20k_150_test_sem_seg"),
    Benchmark("PC-459", "context_459_test_sem_seg"),
    Benchmark("PC-59", "context_59_test_sem_seg"),
    Benchmark("PAS-20", "voc_2012_test_sem_seg"),
    Benchmark("PAS-20b", "voc_2012_test_background_sem_seg"),
)


def _coco_layouts(split: str) -> tuple[Layout, ...]:
    labels = f"coco/coco_stuff/annotations_detectron2/{split}2017_stuff"
    return (
        Layout(f"coco/coco_stuff/images/{split}2017", labels),
        Layout("coco/coco_stuff/images", labels, shared_images=True),
        Layout(f"coco-stuff/images/{split}2017", f"coco-stuff/annotations_detectron2/{split}2017"),
    )


def _context_layouts(label_folder: str) -> tuple[Layout, ...]:
    return (
        Layout(
            "pcontext/images", f"pcontext/annotations_detectron2/{label_folder}", shared_images=True
        ),
        Layout("pcontext/images", "pcontext/annotations_detectron2", shared_images=True),
        Layout(
            "VOCdevkit/VOC2010/JPEGImages",
            f"VOCdevkit/VOC2010/annotations_detectron2/{label_folder}",
            shared_images=True,
        ),
    )


def _voc_layouts(label_folder: str) -> tuple[Layout, ...]:
    voc = "VOCdevkit/VOC2012"
    return tuple(
        # Earlier versions of this project wrote to the second layout.
        Layout(f"{voc}/JPEGImages", f"{voc}/{folder}", shared_images=True)
        for folder in (f"{label_folder}/val", label_folder)
    )


def _made_by(script: str) -> str:
    return f"run `python datasets/prepare_{script}.py`"


def _ade20k_150(name: str, split: str, expected: int) -> DatasetSpec:
    ade = "ADEChallengeData2016"
    return DatasetSpec(
        f"ade20k_150_{name}_sem_seg",
        shipped_path("ade150"),
        (Layout(f"{ade}/images/{split}", f"{ade}/annotations_detectron2/{split}"),),
        made_by=_made_by("ade20k_150"),
        expected=expected,
    )


DATASETS = (
    DatasetSpec(
        "coco_2017_train_stuff_all_sem_seg",
        shipped_path("coco"),
        _coco_layouts("train"),
        made_by=_made_by("coco_stuff"),
        expected=118287,
        raw_ids="coco_stuff",
        raw_id_offset=1,  # label maps count COCO's categories from 0
    ),
    DatasetSpec(
        "coco_2017_test_stuff_all_sem_seg",
        shipped_path("coco"),
        _coco_layouts("val"),
        made_by=_made_by("coco_stuff"),
        expected=5000,
        raw_ids="coco_stuff",
        raw_id_offset=1,  # label maps count COCO's categories from 0
    ),
    _ade20k_150("train", "training", 20210),
    _ade20k_150("test", "validation", 2000),
    DatasetSpec(
        "ade20k_full_sem_seg_freq_val_all",
        shipped_path("ade847"),
        (
            Layout(
                "ADE20K_2021_17_01/images_detectron2/validation",
                "ADE20K_2021_17_01/annotations_detectron2/validation",
            ),
        ),
        label_suffix=".tif",
        ignore_label=65535,
        made_by=_made_by("ade20k_full"),
        expected=2000,
        raw_ids="ade847",
    ),
    DatasetSpec(
        "voc_2012_test_sem_seg",
        shipped_path("voc20"),
        _voc_layouts("annotations_detectron2"),
        made_by=_made_by("voc"),
        expected=1449,
        drops_unlabeled=True,
    ),
    # Labels are 0 to 20, and 20 is background. All names from index 20 on denote background.
    DatasetSpec(
        "voc_2012_test_background_sem_seg",
        shipped_path("voc20b"),
        _voc_layouts("annotations_detectron2_bg"),
        background_from=20,
        made_by=_made_by("voc"),
        expected=1449,
    ),
    DatasetSpec(
        "context_59_test_sem_seg",
        shipped_path("pc59"),
        _context_layouts("pc59_val"),
        made_by=_made_by("pascal_context_59"),
        expected=5104,
    ),
    DatasetSpec(
        "context_459_test_sem_seg",
        shipped_path("pc459"),
        _context_layouts("pc459_val"),
        label_suffix=".tif",
        ignore_label=65535,
        made_by=_made_by("pascal_context_459"),
        expected=5104,
    ),
)

_MESS_SPECS = {label: spec for dataset in MESS_DATASETS for label, spec in dataset.parts.items()}

# The headings of all benchmarks, MESS included, by dataset.
LABELS = {benchmark.dataset: benchmark.label for benchmark in BENCHMARKS} | {
    spec.name: label for label, spec in _MESS_SPECS.items()
}

# What else may be given for datasets: MESS, and a dataset of it that has several parts.
GROUPS = {MESS: tuple(spec.name for spec in _MESS_SPECS.values())} | {
    dataset.label: tuple(spec.name for spec in dataset.parts.values())
    for dataset in MESS_DATASETS
    if len(dataset.parts) > 1
}

for _spec in (*DATASETS, *_MESS_SPECS.values()):
    register(_spec)


def _plain(name: str) -> str:
    return re.sub("[ _-]", "", name.lower())


_BY_PLAIN_NAME = {_plain(label): (dataset,) for dataset, label in LABELS.items()} | {
    _plain(label): datasets for label, datasets in GROUPS.items()
}


def is_group(name: str) -> bool:
    """Return whether a name on the command line is MESS, the group of its 22 datasets."""
    return _plain(name) == _plain(MESS)


def is_mess(dataset: str) -> bool:
    """Return whether a registered dataset is one of MESS's."""
    return dataset in GROUPS[MESS]


def datasets_named(names: Iterable[str]) -> list[str]:
    """Resolve names on the command line to dataset names, without duplicates.

    Args:
        names: dataset names, benchmark labels such as "A-150" or "Dark Zurich", or groups
            ("MESS", "PAXRay-4"). Case, blanks, "-" and "_" make no difference in labels and groups.

    Raises:
        UserError: a name is none of these.
    """
    chosen = dict.fromkeys(
        dataset for name in names for dataset in _BY_PLAIN_NAME.get(_plain(name), (name,))
    )
    for name in chosen:
        try:
            spec_of(name)
        except UserError as error:
            labels = ", ".join(benchmark.label for benchmark in BENCHMARKS)
            raise UserError(f"{error}, or the benchmarks {labels}, or {MESS}") from error
    return list(chosen)
