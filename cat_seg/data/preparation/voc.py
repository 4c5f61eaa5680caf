"""PASCAL VOC 2012: the label maps of SegmentationClassAug, with and without background."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from cat_seg.data.preparation.jobs import Conversion, Job
from cat_seg.data.preparation.sources import class_table, find_raw, look_up, read_names
from cat_seg.data.registration import spec_of

OBJECTS = range(1, 21)
BACKGROUND = 0
# The values in the raw files, in class order.
RAW_IDS = {
    "voc_2012_test_sem_seg": OBJECTS,
    "voc_2012_test_background_sem_seg": (*OBJECTS, BACKGROUND),
}
DOWNLOAD = (
    "unpack VOCtrainval_11-May-2012.tar (host.robots.ox.ac.uk/pascal/VOC/voc2012), "
    "and SegmentationClassAug.zip in VOCdevkit/VOC2012"
)


def find_conversions(root: Path) -> list[Conversion]:
    """Return the conversions for PAS-20 and PAS-20b.

    Raises:
        UserError: the raw label maps or the list of validation images are missing.
    """
    return [_find_dataset(root, name) for name in RAW_IDS]


def _find_dataset(root: Path, name: str) -> Conversion:
    spec = spec_of(name)
    place = find_raw(root, spec, ("SegmentationClassAug",), DOWNLOAD)
    table = class_table(RAW_IDS[name], spec.ignore_label)
    jobs = []
    for stem in read_names(place.base / "ImageSets/Segmentation/val.txt"):
        raw = place.raw / f"{stem}.png"
        jobs.append(
            Job(
                label=place.labels / raw.name,
                image=place.image(f"{stem}.jpg"),
                sources=(raw,),
                make_label=partial(look_up, raw, table),
            )
        )
    return Conversion(spec, place.labels, tuple(jobs), place.warnings, drops_unlabeled=True)
