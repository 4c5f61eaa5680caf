"""Mappers from a dataset entry (two paths) to model inputs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform

from cat_seg.data.augmentation import (
    ColorAugmentation,
    RandomCrop,
    ResizeAndCrop,
    ResizeShortestEdge,
)
from cat_seg.data.reading import check_label_size, check_label_values, read_image, read_label
from cat_seg.data.vocabularies import load_vocabulary
from cat_seg.errors import UserError
from cat_seg.utils.sizes import padded_size

# Gray value of padded pixels, as published.
IMAGE_PADDING = 128

# Options of detectron2's augmentations.
_FORMATS = ("RGB", "BGR")
_SAMPLING = ("choice", "range")
_FLIPS = ("horizontal", "vertical", "none")
_CROPS = ("absolute", "absolute_range", "relative", "relative_range")


class TrainMapper:
    """Mapper that reads an image and its label map, augments both, and pads them.

    Like detectron2's, the augmentations draw from NumPy's and Python's global generators.
    """

    @configurable
    def __init__(
        self,
        *,
        augmentations: Sequence[T.Augmentation | Transform],
        image_format: str,
        num_classes: int,
        ignore_label: int,
        size_divisibility: int = -1,
        ignore_orientation: bool = False,
    ) -> None:
        """Build the mapper from explicit arguments, or from a config with `TrainMapper(cfg)`.

        Args:
            augmentations: applied in order to image and labels together. Labels keep the dtype of
                their file, which detectron2's own resizing does not support; use
                `cat_seg.data.augmentation.CroppedResize`.
            image_format: channel order, "RGB" or "BGR".
            num_classes: labels are 0 to num_classes - 1, or the ignore label.
            ignore_label: value of unlabeled and padded pixels.
            size_divisibility: pad height and width, at the bottom and right, to a multiple of
                this many pixels; no padding if it is not positive.
            ignore_orientation: read images and labels as stored, ignoring EXIF orientation.
        """
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.size_divisibility = size_divisibility
        self.ignore_orientation = ignore_orientation
        # 8 bits if they suffice, to move less data from workers and to the device.
        self.label_type = np.uint8 if max(num_classes - 1, ignore_label) < 256 else np.int32

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read INPUT.*, the ignore value and the number of training classes.

        Raises:
            UserError: a value is not one of detectron2's options, or the class list is invalid.
        """
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "augmentations": _train_augmentations(cfg.INPUT, head.IGNORE_VALUE),
            "image_format": _choice(cfg.INPUT, "FORMAT", _FORMATS),
            "num_classes": len(load_vocabulary(head.TRAIN_CLASS_JSON)),
            "ignore_label": head.IGNORE_VALUE,
            "size_divisibility": cfg.INPUT.SIZE_DIVISIBILITY,
            "ignore_orientation": cfg.INPUT.IGNORE_EXIF_ORIENTATION,
        }

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map one dataset entry.

        Args:
            record: file_name and sem_seg_file_name; other entries are passed through.

        Returns:
            The record with image, uint8 (3, H, W); sem_seg (H, W), uint8, or int32 if uint8 is
            too small; and height and width of the image on disk.

        Raises:
            UserError: a file is unreadable, or a label map has an invalid value or another size
                than its image; the message names the file.
        """
        image = read_image(record["file_name"], self.image_format, self.ignore_orientation)
        label_path = record["sem_seg_file_name"]
        label = read_label(label_path, None, self.ignore_orientation)
        height, width = image.shape[:2]
        check_label_size(label.shape, label_path, (height, width), record["file_name"])
        check_label_values(label, label_path, self.num_classes, self.ignore_label)

        augmented = T.AugInput(image, sem_seg=label)
        self.augmentations(augmented)
        size = padded_size(augmented.sem_seg.shape, self.size_divisibility)
        padded_image = np.full((3, *size), IMAGE_PADDING, dtype=np.uint8)
        padded_label = np.full(size, self.ignore_label, dtype=self.label_type)
        _fill(padded_image, augmented.image.transpose(2, 0, 1))
        _fill(padded_label, augmented.sem_seg)
        return record | {
            "image": torch.from_numpy(padded_image),
            "sem_seg": torch.from_numpy(padded_label),
            "height": height,
            "width": width,
        }


class InferenceMapper:
    """Mapper that reads an image and resizes it to INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST."""

    @configurable
    def __init__(
        self,
        *,
        augmentations: Sequence[T.Augmentation | Transform],
        image_format: str,
        ignore_orientation: bool = False,
    ) -> None:
        """Build the mapper from explicit arguments, or from a config with `InferenceMapper(cfg)`.

        Args:
            augmentations: applied in order to the image.
            image_format: channel order, "RGB" or "BGR".
            ignore_orientation: read images as stored, ignoring EXIF orientation.
        """
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.ignore_orientation = ignore_orientation

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read INPUT.*; MIN_SIZE_TEST 0 disables resizing.

        Raises:
            UserError: INPUT.FORMAT is unknown, or a size is invalid.
        """
        if cfg.INPUT.MIN_SIZE_TEST < 0 or cfg.INPUT.MAX_SIZE_TEST < 1:
            raise UserError(
                f"INPUT.MIN_SIZE_TEST is {cfg.INPUT.MIN_SIZE_TEST} and INPUT.MAX_SIZE_TEST is "
                f"{cfg.INPUT.MAX_SIZE_TEST}; set MIN_SIZE_TEST to 0 (no resizing) or more, and "
                "MAX_SIZE_TEST to 1 or more"
            )
        resize = ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, "choice")
        return {
            "augmentations": [resize],
            "image_format": _choice(cfg.INPUT, "FORMAT", _FORMATS),
            "ignore_orientation": cfg.INPUT.IGNORE_EXIF_ORIENTATION,
        }

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Map one dataset entry.

        Args:
            record: file_name; other entries (sem_seg_file_name) are passed through.

        Returns:
            The record with image, uint8 (3, H, W), and height and width of the image on disk.

        Raises:
            UserError: the file is missing, truncated or not an image; the message names it.
        """
        image = read_image(record["file_name"], self.image_format, self.ignore_orientation)
        return record | {
            "image": self.resized(image),
            "height": image.shape[0],
            "width": image.shape[1],
        }

    def resized(self, image: np.ndarray) -> torch.Tensor:
        """Resize an image, uint8 (H, W, 3) in `image_format`, to a new tensor (3, H', W')."""
        augmented = T.AugInput(image)
        self.augmentations(augmented)
        return torch.from_numpy(augmented.image.transpose(2, 0, 1).copy())


def _train_augmentations(inputs: CfgNode, ignore_label: int) -> list[T.Augmentation | Transform]:
    sizes, sampling = inputs.MIN_SIZE_TRAIN, _choice(inputs, "MIN_SIZE_TRAIN_SAMPLING", _SAMPLING)
    if not sizes or not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise UserError(
            f"INPUT.MIN_SIZE_TRAIN is {tuple(sizes)}; set it to one or more integers of at least 0 "
            "(0 means no resizing)"
        )
    if sampling == "range" and (len(sizes) != 2 or sizes[0] > sizes[1]):
        raise UserError(
            f"INPUT.MIN_SIZE_TRAIN is {tuple(sizes)}; with MIN_SIZE_TRAIN_SAMPLING 'range', set it "
            "to two sizes (min, max)"
        )
    if inputs.MAX_SIZE_TRAIN < 1:
        raise UserError(f"INPUT.MAX_SIZE_TRAIN is {inputs.MAX_SIZE_TRAIN}; set it to 1 or more")
    resize = ResizeShortestEdge(sizes, inputs.MAX_SIZE_TRAIN, sampling)
    crop = _crop(inputs.CROP, ignore_label) if inputs.CROP.ENABLED else None
    augmentations: list[T.Augmentation | Transform] = [ResizeAndCrop(resize, crop)]
    if inputs.COLOR_AUG_SSD:
        augmentations.append(ColorAugmentation(img_format=inputs.FORMAT))
    flip = _choice(inputs, "RANDOM_FLIP", _FLIPS)
    if flip != "none":
        augmentations.append(
            T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical")
        )
    return augmentations


def _crop(crop: CfgNode, ignore_label: int) -> T.RandomCrop_CategoryAreaConstraint:
    kind, size = _choice(crop, "TYPE", _CROPS, "INPUT.CROP"), crop.SIZE
    wanted = None
    if len(size) != 2 or min(size) <= 0:
        wanted = "a height and a width above 0"
    elif kind.startswith("relative") and max(size) > 1:
        wanted = f"fractions of at most 1, since INPUT.CROP.TYPE is {kind!r}"
    elif kind.startswith("absolute") and not all(isinstance(side, int) for side in size):
        wanted = f"integers (pixels), since INPUT.CROP.TYPE is {kind!r}"
    elif kind == "absolute_range" and size[0] > size[1]:
        wanted = f"the smallest and the largest side, since INPUT.CROP.TYPE is {kind!r}"
    if wanted:
        raise UserError(f"INPUT.CROP.SIZE is {list(size)}; set it to {wanted}")
    constrained = T.RandomCrop_CategoryAreaConstraint(
        kind, size, crop.SINGLE_CATEGORY_MAX_AREA, ignore_label
    )
    constrained.crop_aug = RandomCrop(kind, size)
    return constrained


def _choice(node: CfgNode, key: str, choices: Collection[str], prefix: str = "INPUT") -> str:
    value = node[key]
    if value not in choices:
        raise UserError(f"{prefix}.{key} is {value!r}; set it to one of {', '.join(choices)}")
    return value


def _fill(padded: np.ndarray, values: np.ndarray) -> None:
    """Copy values (..., H, W) into the upper left corner of a larger array."""
    height, width = values.shape[-2:]
    padded[..., :height, :width] = values
