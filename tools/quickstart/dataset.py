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
from tools.quickstart.drawing import Shape, draw_scene, restyle

SPLITS = ("train", "val_seen", "val_unseen")
OTHER = "val_other"  # a second domain: the classes of val_unseen in another style
TRIES = 30  # attempts to place a shape apart from the others


@dataclass(frozen=True)
class DatasetSettings:
    """What the scenes are like, and how many there are.

    Attributes:
        train_scenes: scenes of the training split.
        val_scenes: scenes of every other split.
        size: their side in pixels.
        shapes: minimum and maximum number of shapes per scene.
        radius: range of a shape's radius, relative to the side.
        apart: distance of two shapes, relative to the sum of their radii, from which on they count
            as apart; the smaller, the more they occlude each other.
        other_domain: whether there is a split in another style.
    """

    train_scenes: int = 1600
    val_scenes: int = 120
    size: int = 128
    shapes: tuple[int, int] = (2, 4)
    radius: tuple[float, float] = (0.14, 0.26)
    apart: float = 0.85
    other_domain: bool = False

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return (*SPLITS, OTHER) if self.other_domain else SPLITS

    def scenes(self, split: str) -> int:
        """Return the number of scenes in a split."""
        return self.train_scenes if split == "train" else self.val_scenes


def write_dataset(folder: Path, classes: Classes, settings: DatasetSettings, seed: int) -> None:
    """Draw all splits into FOLDER/images/SPLIT/ and FOLDER/annotations/SPLIT/, as PNGs.

    Scene i of a split depends only on (seed, split, i). Training and seen-class scenes contain only
    seen classes. In the other splits, the first shape of each scene has an unseen class and the
    others have any class.
    """
    total = sum(settings.scenes(split) for split in settings.splits)
    with bar(total=total, desc="draw scenes", unit="scene") as progress:
        for number, split in enumerate(settings.splits):
            images, labels = folder / "images" / split, folder / "annotations" / split
            images.mkdir(parents=True)
            labels.mkdir(parents=True)
            for index in range(settings.scenes(split)):
                rng = np.random.default_rng([seed, number, index])
                image, label = random_scene(rng, classes, split, settings)
                name = f"{split}_{index:05d}.png"
                Image.fromarray(image).save(images / name, compress_level=1)
                Image.fromarray(label).save(labels / name)
                progress.update()


def random_scene(
    rng: Generator, classes: Classes, split: str, settings: DatasetSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene of a split: RGB uint8 (size, size, 3), class indices uint8 (size, size)."""
    least, most = settings.shapes
    count = int(rng.integers(least, most + 1))
    if split in ("val_unseen", OTHER):
        shapes = rng.choice(classes.seen_shapes + classes.unseen_shapes, count)
        shapes[0] = rng.choice(classes.unseen_shapes)
    else:
        shapes = rng.choice(classes.seen_shapes, count)
    ground = int(rng.choice(classes.grounds))
    placed = _place(rng, shapes, settings)
    image, label = draw_scene(rng, classes.names, ground, placed, settings.size)
    return (restyle(rng, image) if split == OTHER else image), label


def _place(rng: Generator, classes: Sequence[int], settings: DatasetSettings) -> list[Shape]:
    """Choose a radius and a center for each shape, apart from the others if possible."""
    placed: list[Shape] = []
    for index in classes:
        for _ in range(TRIES):
            radius = float(rng.uniform(*settings.radius)) * settings.size
            x, y = rng.uniform(0.6 * radius, settings.size - 0.6 * radius, 2)
            reach = [settings.apart * (radius + other.radius) for other in placed]
            away = [np.hypot(x - other.x, y - other.y) for other in placed]
            if all(distance > least for distance, least in zip(away, reach, strict=True)):
                break
        placed.append(Shape(int(index), float(x), float(y), radius))
    return placed
