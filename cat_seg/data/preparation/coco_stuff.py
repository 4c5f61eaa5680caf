"""COCO-Stuff 164k: the label maps of stuffthingmaps_trainval2017.zip."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from cat_seg.data.preparation.jobs import Conversion, Job, splits_on_disk
from cat_seg.data.preparation.sources import class_table, find_raw, list_files, look_up
from cat_seg.data.registration import load_raw_ids, spec_of

DATASETS = {
    "train2017": "coco_2017_train_stuff_all_sem_seg",
    "val2017": "coco_2017_test_stuff_all_sem_seg",
}
DOWNLOAD = (
    "download stuffthingmaps_trainval2017.zip (github.com/nightrome/cocostuff) "
    "and unpack it in coco-stuff/annotations"
)


def find_conversions(root: Path) -> list[Conversion]:
    """Return the conversions of the splits on disk; a missing split is a warning.

    Raises:
        UserError: no split is on disk.
    """
    return splits_on_disk([partial(_find_split, root, split) for split in DATASETS])


def _find_split(root: Path, split: str) -> Conversion:
    spec = spec_of(DATASETS[split])
    folders = (f"annotations/{split}", f"stuffthingmaps_trainval2017/{split}")
    place = find_raw(root, spec, folders, DOWNLOAD)
    table = class_table(load_raw_ids("coco_stuff"), spec.ignore_label)
    jobs = tuple(
        Job(
            label=place.labels / raw.name,
            image=place.image(f"{raw.stem}.jpg"),
            sources=(raw,),
            make_label=partial(look_up, raw, table),
        )
        for raw in list_files(place.raw, ".png")
    )
    return Conversion(spec, place.labels, jobs, place.warnings)
