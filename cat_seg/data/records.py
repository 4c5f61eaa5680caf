"""Loading of dataset entries, and checks that a config's datasets can be used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.utils import comm

from cat_seg.data.specs import datasets_root
from cat_seg.data.vocabularies import check_class_list
from cat_seg.errors import UserError
from cat_seg.utils.agreement import raise_on_every_rank, require_same

Record = dict[str, Any]


def load_records(names: Iterable[str]) -> list[Record]:
    """Load and concatenate the entries of registered datasets.

    Returns:
        Dicts with file_name and sem_seg_file_name.

    Raises:
        UserError: a dataset is missing on disk, cannot be loaded, or has no label maps.
    """
    return [record for name in names for record in _load_one(name)]


def agreed_records(names: Iterable[str]) -> list[Record]:
    """Return `load_records(names)`, of which every process must find the same.

    Every process must call this. Machines may keep the files in different folders.

    Raises:
        UserError: in all processes: as in `load_records`, or the entries of a rank differ from
            those of rank 0 in number or in file names.
    """
    found: list[Record] = []
    for name in names:
        records = raise_on_every_rank(partial(load_records, [name]))
        if comm.get_world_size() > 1:
            require_same(
                f"dataset {name}",
                f"{len(records)} images (list {_digest(records)})",
                "make the files of all machines the same",
            )
        found += records
    return found


def _digest(records: Sequence[Record]) -> str:
    """Return a hash of the file names, without the folders in which machines may differ."""
    digest = hashlib.sha256()
    for key in ("file_name", "sem_seg_file_name"):
        files = [record[key] for record in records]
        start = len(os.path.commonpath(files))
        digest.update("\0".join(file[start:] for file in files).encode(errors="surrogateescape"))
    return digest.hexdigest()[:8]


def _load_one(name: str) -> list[Record]:
    try:
        records = get_detection_dataset_dicts(name, filter_empty=False)
    except UserError:
        raise
    except Exception as error:  # detectron2's own datasets raise any type if files are missing
        reason = " ".join(str(error).split()) or type(error).__name__
        whose = "detectron2's " if MetadataCatalog.get(name).get("spec") is None else ""
        raise UserError(
            f"{whose}dataset {name} cannot be loaded from {datasets_root()}: {reason}; "
            "add its files, or choose another dataset"
        ) from error
    if "sem_seg_file_name" not in records[0]:
        raise UserError(f"dataset {name} has no label maps for semantic segmentation")
    return records


def _check_registered(name: str, key: str) -> None:
    if name in DatasetCatalog:
        return
    raise UserError(f"unknown dataset {name!r} in {key}; choose from {_semantic_datasets()}")


def check_test_dataset(name: str) -> None:
    """Refuse a dataset in DATASETS.TEST that is unknown or not for semantic segmentation.

    Raises:
        UserError: the dataset is refused; the message lists the valid ones.
    """
    _check_registered(name, "DATASETS.TEST")
    metadata = MetadataCatalog.get(name)
    if metadata.get("ignore_label") is None or metadata.get("stuff_classes") is None:
        raise UserError(
            f"dataset {name!r} in DATASETS.TEST is not for semantic segmentation; "
            f"choose from {_semantic_datasets()}"
        )


def _semantic_datasets() -> str:
    return ", ".join(
        sorted(
            name
            for name in DatasetCatalog
            if MetadataCatalog.get(name).get("evaluator_type") == "sem_seg"
        )
    )


def check_train_dataset(cfg: CfgNode, name: str) -> None:
    """Refuse a dataset in DATASETS.TRAIN that is unknown or does not fit the config.

    Args:
        cfg: reads TRAIN_CLASS_JSON and IGNORE_VALUE of MODEL.SEM_SEG_HEAD.
        name: the dataset.

    Raises:
        UserError: the dataset is refused; the message names the config key.
    """
    _check_registered(name, "DATASETS.TRAIN")
    metadata, head = MetadataCatalog.get(name), cfg.MODEL.SEM_SEG_HEAD
    check_class_list(
        "MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON",
        head.TRAIN_CLASS_JSON,
        name,
        metadata.get("stuff_classes", ()),
        "use the class list of that dataset",
    )
    if metadata.ignore_label != head.IGNORE_VALUE:
        raise UserError(
            f"dataset {name} has the ignore label {metadata.ignore_label}, but "
            f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE is {head.IGNORE_VALUE}; make them equal"
        )
