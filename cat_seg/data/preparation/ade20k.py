"""ADE20K: the 150 classes of the scene parsing challenge, and the 847 of the full dataset."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cat_seg.data.preparation.jobs import Conversion, Job, splits_on_disk
from cat_seg.data.preparation.sources import class_table, find_raw, list_files, one_less
from cat_seg.data.reading import check_label_size, read_colors, read_label
from cat_seg.data.registration import load_raw_ids, spec_of

CHALLENGE = {
    "validation": "ade20k_150_test_sem_seg",
    "training": "ade20k_150_train_sem_seg",
}
SHORTER_SIDE = 512  # maximum, in the full dataset
DOWNLOAD_150 = (
    "download ADEChallengeData2016.zip (sceneparsing.csail.mit.edu) and unpack it in that folder"
)
DOWNLOAD_FULL = (
    "download ADE20K_2021_17_01.zip (groups.csail.mit.edu/vision/datasets/ADE20K, after "
    "registration) and unpack it in that folder"
)


def find_challenge(root: Path) -> list[Conversion]:
    """Return the conversions for A-150 and its training set; a missing split is a warning.

    Raises:
        UserError: neither split is on disk.
    """
    return splits_on_disk([partial(_find_split, root, split) for split in CHALLENGE])


def _find_split(root: Path, split: str) -> Conversion:
    spec = spec_of(CHALLENGE[split])
    place = find_raw(root, spec, (f"annotations/{split}",), DOWNLOAD_150)
    jobs = tuple(
        Job(
            label=place.labels / raw.name,
            image=place.image(f"{raw.stem}.jpg"),
            sources=(raw,),
            make_label=partial(_challenge_label, raw, spec.ignore_label),
        )
        for raw in list_files(place.raw, ".png")
    )
    return Conversion(spec, place.labels, jobs, place.warnings)


def _challenge_label(raw: Path, ignore_label: int) -> np.ndarray:
    return one_less(read_label(str(raw)), ignore_label)


def find_full(root: Path) -> list[Conversion]:
    """Return the conversion for A-847, which writes images too.

    Raises:
        UserError: there are no raw images.
    """
    spec = spec_of("ade20k_full_sem_seg_freq_val_all")
    place = find_raw(root, spec, ("images/ADE/validation",), DOWNLOAD_FULL)
    table = class_table(load_raw_ids("ade847"), spec.ignore_label)
    jobs = []
    for image in list_files(place.raw, ".jpg"):
        segments = image.with_name(f"{image.stem}_seg.png")
        jobs.append(
            Job(
                label=place.labels / f"{image.stem}{spec.label_suffix}",
                image=place.images / image.name,
                sources=(image, segments),
                make_label=partial(_full_label, segments, image, table),
                make_image=partial(_full_image, image),
            )
        )
    return [Conversion(spec, place.labels, tuple(jobs))]


def _full_label(segments: Path, image_path: Path, table: np.ndarray) -> np.ndarray:
    colors = read_colors(str(segments)).astype(np.uint16)
    # Red and green encode the object class number, as listed in raw_ids/ade847.json. 0 is
    # unlabeled.
    label = np.take(table, colors[..., 0] // 10 * 256 + colors[..., 1])
    with Image.open(image_path) as image:
        check_label_size(label.shape, str(segments), image.size[::-1], str(image_path))
    size = _reduced_size(*label.shape[::-1])
    return cv2.resize(label, size, interpolation=cv2.INTER_NEAREST) if size else label


def _full_image(path: Path) -> bytes:
    """Re-encode the image with PIL's defaults, as the published script does for every image.

    EXIF data is dropped: segments match the pixels as stored, so readers must not rotate them.
    """
    with Image.open(path) as file:
        size = _reduced_size(*file.size)
        pixels = np.asarray(file if file.mode in ("L", "RGB") else file.convert("RGB"))
    if size:
        # Not PIL, which smooths when downscaling.
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    content = BytesIO()
    Image.fromarray(pixels).save(content, format="JPEG")
    return content.getvalue()


def _reduced_size(width: int, height: int) -> tuple[int, int] | None:
    """Return the size (width, height) with a reduced shorter side; None if it is short enough."""
    shorter = min(width, height)
    if shorter <= SHORTER_SIDE:
        return None
    return round(width / shorter * SHORTER_SIDE), round(height / shorter * SHORTER_SIDE)
