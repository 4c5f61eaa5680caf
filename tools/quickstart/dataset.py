"""Write the quickstart's scenes to disk, in the folders that configs/quickstart.yaml names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from cat_seg.utils.progress import bar
from tools.quickstart.classes import Classes
from tools.quickstart.drawing import Shape, draw_scene

SPLITS = ("train", "val_seen", "val_unseen")
SHAPES = (2, 4)  # minimum and maximum number per scene
RADIUS = (0.14, 0.26)  # range of a shape's radius, relative to the image side
TRIES = 30  # attempts to place a shape apart from the others


@dataclass(frozen=True)
class DatasetSettings:
    """Number of scenes per split, and their side in pixels."""

    train_scenes: int = 1600
    val_scenes: int = 120
    size: int = 128

    def scenes(self, split: str) -> int:
        """Return the number of scenes in a split."""
        return self.train_scenes if split == "train" else self.val_scenes


def write_dataset(folder: Path, classes: Classes, settings: DatasetSettings, seed: int) -> None:
    """Draw all splits into FOLDER/images/SPLIT/ and FOLDER/annotations/SPLIT/, as PNGs.

    Scene i of a split depends only on (seed, split, i). Training and seen-class scenes contain only
    seen classes. In the unseen-class split, the first shape of each scene has an unseen class and
    the others have any class.
    """
    total = sum(settings.scenes(split) for split in SPLITS)
    with bar(total=total, desc="draw scenes", unit="scene") as progress:
        for number, split in enumerate(SPLITS):
            images, labels = folder / "images" / split, folder / "annotations" / split
            images.mkdir(parents=True)
            labels.mkdir(parents=True)
            for index in range(settings.scenes(split)):
                rng = np.random.default_rng([seed, number, index])
                image, label = random_scene(rng, classes, split, settings.size)
                name = f"{split}_{index:05d}.png"
                Image.fromarray(image).save(images / name, compress_level=1)
                Image.fromarray(label).save(labels / name)
                progress.update()


def random_scene(
    rng: Generator, classes: Classes, split: str, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene of a split: RGB uint8 (size, size, 3), class indices uint8 (size, size)."""
    count = int(rng.integers(SHAPES[0], SHAPES[1] + 1))
    if split == "val_unseen":
        shapes = rng.choice(classes.seen_shapes + classes.unseen_shapes, count)
        shapes[0] = rng.choice(classes.unseen_shapes)
    else:
        shapes = rng.choice(classes.seen_shapes, count)
    ground = int(rng.choice(classes.grounds))
    return draw_scene(rng, classes.names, ground, _place(rng, shapes, size), size)


def _place(rng: Generator, classes: Sequence[int], size: int) -> list[Shape]:
    """Choose a radius and a center for each shape, apart from the others if possible."""
    placed: list[Shape] = []
    for index in classes:
        for _ in range(TRIES):
            radius = float(rng.uniform(*RADIUS)) * size
            x, y = rng.uniform(0.6 * radius, size - 0.6 * radius, 2)
            if all(np.hypot(x - s.x, y - s.y) > 0.85 * (radius + s.radius) for s in placed):
                break
        placed.append(Shape(int(index), float(x), float(y), radius))
    return placed
