"""The six benchmarks as their preparation leaves them, with one or two small images each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cat_seg.utils.paths import REPO_ROOT

SIZES = ((24, 40), (36, 30))
BLOCK = 6


class Miniature(NamedTuple):
    """Where a benchmark's files are, and what its labels hold."""

    dataset: str
    images: str  # folder
    labels: str  # folder
    names: str
    suffix: str = ".png"
    ignored: int = 255
    # PAS-20b has fewer classes than names: all from index 20 on are background.
    classes: int | None = None
    # Hundreds of score maps are slow: one image has to do.
    count: int = 2
    # Classes that tests/tiny.py's model happens to answer with: their metrics are not 0.
    answered: tuple[int, ...] = ()

    @property
    def vocabulary(self) -> list[str]:
        """The names to ask for."""
        return json.loads((REPO_ROOT / "datasets" / f"{self.names}.json").read_text())

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each image."""
        return SIZES[: self.count]


VOC, CONTEXT = "VOCdevkit/VOC2012", "VOCdevkit/VOC2010"
ADE, ADE_FULL = "ADEChallengeData2016", "ADE20K_2021_17_01"
MINIATURES = {
    "A-847": Miniature(
        "ade20k_full_sem_seg_freq_val_all",
        f"{ADE_FULL}/images_detectron2/validation",
        f"{ADE_FULL}/annotations_detectron2/validation",
        *("ade847", ".tif", 65535),
        count=1,
        answered=(109, 236, 302, 325, 783),
    ),
    "PC-459": Miniature(
        "context_459_test_sem_seg",
        f"{CONTEXT}/JPEGImages",
        f"{CONTEXT}/annotations_detectron2/pc459_val",
        *("pc459", ".tif", 65535),
        count=1,
        answered=(127, 223, 298, 328, 400, 438),
    ),
    "A-150": Miniature(
        "ade20k_150_test_sem_seg",
        f"{ADE}/images/validation",
        f"{ADE}/annotations_detectron2/validation",
        "ade150",
        answered=(28, 89, 41, 80),
    ),
    "PC-59": Miniature(
        "context_59_test_sem_seg",
        f"{CONTEXT}/JPEGImages",
        f"{CONTEXT}/annotations_detectron2/pc59_val",
        "pc59",
    ),
    "PAS-20": Miniature(
        "voc_2012_test_sem_seg", f"{VOC}/JPEGImages", f"{VOC}/annotations_detectron2", "voc20"
    ),
    "PAS-20b": Miniature(
        "voc_2012_test_background_sem_seg",
        f"{VOC}/JPEGImages",
        f"{VOC}/annotations_detectron2_bg",
        "voc20b",
        classes=21,
    ),
}


def write(root: Path, label: str) -> None:
    """Write one benchmark: blocks of a few classes, the lowest and highest too, some ignored."""
    one = MINIATURES[label]
    generator = np.random.default_rng(len(one.dataset))
    classes = one.classes or len(one.vocabulary)
    kind = np.uint16 if one.ignored > 255 else np.uint8
    for folder in (one.images, one.labels):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index, size in enumerate(one.sizes):
        image = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / one.images / f"{index}.jpg")
        shape = (size[0] // BLOCK, size[1] // BLOCK)
        some = generator.choice(one.answered or range(classes), shape)
        some = np.where(generator.random(shape) < 0.8, some, generator.integers(0, classes, shape))
        some.flat[:3] = 0, classes - 1, one.ignored
        values = some.repeat(BLOCK, 0).repeat(BLOCK, 1)
        padding = [(0, side - found) for side, found in zip(size, values.shape, strict=True)]
        values = np.pad(values, padding, constant_values=one.ignored).astype(kind)
        Image.fromarray(values).save(root / one.labels / f"{index}{one.suffix}")
