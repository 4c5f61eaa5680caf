"""The augmentations give detectron2's own pixels and labels, bit by bit."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform

from cat_seg.data.augmentation import ColorAugmentation, CroppedResize, ResizeAndCrop
from cat_seg.data.build import fixed_randomness

SIZES = (24, 33, 48, 61, 96)


def picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def classes(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    """Blocks of 5x5 pixels of one class each."""
    blocks = np.random.default_rng(height * width).integers(0, 4, (height, width))
    return blocks.repeat(5, 0).repeat(5, 1)[:height, :width].astype(dtype)


def augment(position: int, augmentations: list, image: np.ndarray, label: np.ndarray) -> tuple:
    inputs = T.AugInput(image.copy(), sem_seg=label)
    with fixed_randomness(1, position):
        T.AugmentationList(augmentations)(inputs)
        drawn_next = np.random.rand(), random.random()
    return inputs.image, inputs.sem_seg, drawn_next


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("sizes", [SIZES, (0,)], ids=["resized", "as they are"])
@pytest.mark.parametrize(
    "crop",
    [None, ("absolute", [40, 40], 1.0), ("absolute", [40, 40], 0.4), ("relative", [0.3, 0.6], 0.9)],
    ids=["uncropped", "cropped", "limited area", "relative"],
)
def test_a_cropped_resize_gives_what_resizing_and_cropping_give(dtype, sizes, crop):
    def resize() -> T.ResizeShortestEdge:
        return T.ResizeShortestEdge(sizes, 150, "choice")

    crops = [T.RandomCrop_CategoryAreaConstraint(*crop, 255)] if crop else []
    for position, size in enumerate([(48, 64), (61, 47), (50, 30), (33, 100), (97, 96)] * 3):
        image, label = picture(*size), classes(*size, dtype)
        # Published: labels as float64, which detectron2 resizes by PyTorch.
        expected = augment(position, [resize(), *crops], image, label.astype(np.float64))
        ours = ResizeAndCrop(resize(), crops[0] if crops else None)
        found = augment(position, [ours], image, label)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
        assert found[1].dtype == dtype
        assert found[2] == expected[2]


def test_labels_are_those_of_pytorchs_nearest_at_every_ratio():
    for old in (1, 7, 200, 333, 480):
        positions = np.arange(old, dtype=np.uint16)[:, None]
        for new in (1, 100, 192, 307, 499, 768, 853):
            resize = CroppedResize((old, 1), (new, 2), T.CropTransform(0, 0, 2, new))
            expected = F.interpolate(
                torch.arange(old, dtype=torch.float64)[None, None, :, None], size=(new, 2)
            )
            np.testing.assert_array_equal(resize.apply_segmentation(positions), expected[0, 0])


def test_points_go_where_their_pixels_go():
    resize = CroppedResize((10, 20), (30, 40), T.CropTransform(8, 6, 20, 10))
    np.testing.assert_array_equal(resize.apply_coords(np.array([[5.0, 4.0]])), [[2.0, 6.0]])


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
def test_colors_are_detectron2s(image_format):
    image, label = picture(40, 50), classes(40, 50)
    changed = 0
    for position in range(40):
        expected = augment(position, [ColorAugSSDTransform(image_format)], image, label)
        found = augment(position, [ColorAugmentation(image_format)], image, label)
        np.testing.assert_array_equal(found[0], expected[0])
        assert found[2] == expected[2]
        changed += not np.array_equal(found[0], image)
    assert changed > 30
