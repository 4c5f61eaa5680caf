"""PASCAL Context: 59 classes (trainval_merged.json) or 459 (LabelMaps in trainval/*.mat)."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle
from scipy.io import loadmat

from cat_seg.data.preparation.jobs import Conversion, Job
from cat_seg.data.preparation.sources import class_table, find_raw, one_less, read_names
from cat_seg.data.registration import load_raw_ids, spec_of
from cat_seg.errors import UserError
from cat_seg.utils.paths import SHIPPED_ROOT

MERGED = "trainval_merged.json"
# Names of the validation images: the published file, or the copy in this repository.
VALIDATION_LIST = "pascalcontext_val.txt"
DOWNLOAD_59 = (
    "unpack VOCtrainval_03-May-2010.tar (host.robots.ox.ac.uk/pascal/VOC/voc2010), and put "
    "trainval_merged.json of the Detail API (github.com/zhanghang1989/detail-api) into "
    "VOCdevkit/VOC2010"
)
DOWNLOAD_459 = (
    "unpack VOCtrainval_03-May-2010.tar (host.robots.ox.ac.uk/pascal/VOC/voc2010), and "
    "trainval.tar.gz of PASCAL Context (cs.stanford.edu/~roozbeh/pascal-context) in "
    "VOCdevkit/VOC2010"
)

Entry = dict[str, Any]


def find_59(root: Path) -> list[Conversion]:
    """Return the conversion for PC-59.

    Raises:
        UserError: trainval_merged.json is missing or invalid.
    """
    spec = spec_of("context_59_test_sem_seg")
    place = find_raw(root, spec, (MERGED,), DOWNLOAD_59)
    table = class_table(load_raw_ids("pc59"), spec.ignore_label)
    images, by_image = _load_merged(place.raw)
    jobs = []
    for image in images:
        name = Path(image["file_name"])
        jobs.append(
            Job(
                label=place.labels / f"{name.stem}{spec.label_suffix}",
                image=place.image(name.name),
                sources=(place.raw,),
                make_label=partial(_draw, place.raw, image, by_image[image["id"]], table),
            )
        )
    return [Conversion(spec, place.labels, tuple(jobs), place.warnings)]


def find_459(root: Path) -> list[Conversion]:
    """Return the conversion for PC-459, limited to the validation images in trainval/.

    Raises:
        UserError: the folder trainval is missing, or contains no validation image.
    """
    spec = spec_of("context_459_test_sem_seg")
    place = find_raw(root, spec, ("trainval",), DOWNLOAD_459)
    names = _validation_names(root, place.base)
    raw = [path for name in names if (path := place.raw / f"{name}.mat").exists()]
    if not raw:
        raise UserError(
            f"{place.raw} has none of the {len(names)} validation images ({names[0]}.mat, ...); "
            f"{DOWNLOAD_459}"
        )
    warnings = place.warnings
    if len(raw) < len(names):
        first = next(name for name in names if not (place.raw / f"{name}.mat").exists())
        warnings += (
            f"{len(names) - len(raw)} of the {len(names)} validation images are missing from "
            f"{place.raw} (first: {first}.mat); the download is incomplete",
        )
    jobs = tuple(
        Job(
            label=place.labels / f"{path.stem}{spec.label_suffix}",
            image=place.image(f"{path.stem}.jpg"),
            sources=(path,),
            make_label=partial(_label_map, path, spec.ignore_label),
        )
        for path in raw
    )
    return [Conversion(spec, place.labels, jobs, warnings)]


def _validation_names(root: Path, base: Path) -> list[str]:
    for folder in (base, root / "VOCdevkit/VOC2010"):
        if (folder / VALIDATION_LIST).exists():
            return read_names(folder / VALIDATION_LIST)
    return read_names(SHIPPED_ROOT / "datasets" / VALIDATION_LIST)


def _load_merged(path: Path) -> tuple[list[Entry], dict[Any, list[Entry]]]:
    """Read the validation images, and the annotations grouped by image id.

    The Detail API calls the id image_id, and the annotations annos_segmentation.
    """
    try:
        content = json.loads(path.read_bytes())
        images = [
            {
                "id": image["image_id"] if "image_id" in image else image["id"],
                "file_name": Path(image["file_name"]).name,
                "height": image["height"],
                "width": image["width"],
            }
            for image in content["images"]
            if image["phase"] == "val"
        ]
        key = "annos_segmentation" if "annos_segmentation" in content else "annotations"
        by_image = defaultdict(list)
        for annotation in content[key]:
            by_image[annotation["image_id"]].append(annotation)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not the {MERGED} of the Detail API ({error!r}); replace it"
        ) from error
    if not images:
        raise UserError(f"{path} has no images with phase 'val'; replace it")
    return images, by_image


def _draw(path: Path, image: Entry, annotations: list[Entry], table: np.ndarray) -> np.ndarray:
    """Draw the masks of an image in order, later ones over earlier ones."""
    height, width = image["height"], image["width"]
    ids = np.zeros((height, width), np.uint16)
    for number, annotation in enumerate(annotations):
        try:
            ids[_decode(annotation["segmentation"], height, width)] = annotation["category_id"]
        except Exception as error:  # a broken mask can raise any type
            raise UserError(
                f"{path}: annotation {number} of {image['file_name']} is corrupt ({error}); "
                "replace the file"
            ) from error
    return np.take(table, ids)


def _decode(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Decode an RLE (compressed or as a list) or polygons into a (height, width) bool mask."""
    if isinstance(segmentation, list):
        segmentation = rle.merge(rle.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = rle.frPyObjects(segmentation, height, width)
    return rle.decode(segmentation).astype(bool)


def _label_map(path: Path, ignore_label: int) -> np.ndarray:
    content = loadmat(path, variable_names=["LabelMap"])
    if "LabelMap" not in content:
        raise UserError(f"{path} has no LabelMap; replace or remove it")
    return one_less(content["LabelMap"], ignore_label)
