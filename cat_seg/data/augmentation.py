"""Faster versions of detectron2's training augmentations, which skip work that is thrown away.

They draw the same random numbers and give bit-identical pixels. The only difference: a side that
detectron2 would round to 0 pixels, in a long, thin image, becomes 1 pixel.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from fvcore.transforms.transform import Transform
from PIL import Image

LEVELS = np.arange(256, dtype=np.uint8)


class ResizeShortestEdge(T.ResizeShortestEdge):
    """detectron2's ResizeShortestEdge, but a side is never rounded to 0 in long, thin images."""

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw the new size for an image (H, W, 3)."""
        drawn = super().get_transform(image)
        if isinstance(drawn, T.ResizeTransform):
            drawn.new_h, drawn.new_w = max(drawn.new_h, 1), max(drawn.new_w, 1)
        return drawn


class RandomCrop(T.RandomCrop):
    """detectron2's RandomCrop, but a side of a relative crop is never rounded to 0."""

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Draw the crop size (height, width) for an image of size (height, width)."""
        height, width = super().get_crop_size(image_size)
        return max(height, 1), max(width, 1)


class ResizeAndCrop(T.Augmentation):
    """A resize followed by a crop, which computes only the cropped part of the resized image."""

    def __init__(
        self, resize: T.ResizeShortestEdge, crop: T.RandomCrop_CategoryAreaConstraint | None
    ) -> None:
        """Apply `resize`, then `crop` unless it is None."""
        super().__init__()
        self.resize = resize
        self.crop = crop

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> Transform:
        """Draw the size and the crop for an image (H, W, 3) and its labels (H, W)."""
        old = image.shape[:2]
        drawn = self.resize.get_transform(image)
        new = (drawn.new_h, drawn.new_w) if isinstance(drawn, T.ResizeTransform) else old
        if self.crop is None:
            return CroppedResize(old, new, T.CropTransform(0, 0, new[1], new[0]))
        if self.crop.single_category_max_area < 1:  # otherwise the crop ignores the labels
            sem_seg = sem_seg.take(_nearest(old[0], new[0]), 0).take(_nearest(old[1], new[1]), 1)
        # The crop reads only the size of the image.
        return CroppedResize(old, new, self.crop.get_transform(np.broadcast_to(0, new), sem_seg))


class CroppedResize(Transform):
    """Resize and crop: PIL's bilinear interpolation for images, nearest neighbor for labels.

    Labels are read at floor(position x old / new). This is PyTorch's "nearest", which the
    published recipe uses.
    """

    def __init__(self, old: tuple[int, int], new: tuple[int, int], crop: T.CropTransform) -> None:
        """Resize from `old` (H, W) to `new` (H, W), then take `crop`."""
        super().__init__()
        self.old = old
        self.new = new
        self.crop = crop

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Transform an image, uint8 (H, W, 3)."""
        height, (new_height, new_width) = self.old[0], self.new
        crop = self.crop
        left, right = crop.x0, crop.x0 + crop.w
        # PIL resizes horizontally, rounds to 8 bits, then resizes vertically. Between the two
        # passes, drop the columns outside the crop. The first pass needs only the rows that the
        # crop depends on.
        ratio = height / new_height
        reach = max(ratio, 1) + 1
        first = max(math.floor(crop.y0 * ratio - reach), 0)
        last = min(math.ceil((crop.y0 + crop.h) * ratio + reach), height)
        wide = Image.fromarray(img[first:last]).resize(
            (new_width, last - first), Image.Resampling.BILINEAR
        )
        narrow = Image.new("RGB", (crop.w, height))
        narrow.paste(wide.crop((left, 0, right, last - first)), (0, first))
        resized = narrow.resize((crop.w, new_height), Image.Resampling.BILINEAR)
        return np.asarray(resized.crop((0, crop.y0, crop.w, crop.y0 + crop.h)))

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Transform labels (H, W) of any dtype."""
        crop = self.crop
        rows = _nearest(self.old[0], self.new[0])[crop.y0 : crop.y0 + crop.h]
        columns = _nearest(self.old[1], self.new[1])[crop.x0 : crop.x0 + crop.w]
        return segmentation.take(rows, 0).take(columns, 1)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Transform points (N, 2), each (x, y)."""
        scale = np.divide(self.new, self.old)[::-1]
        return self.crop.apply_coords(coords * scale)


class ColorAugmentation(ColorAugSSDTransform):
    """detectron2's SSD color augmentation, with lookup tables for 8-bit to 8-bit mappings."""

    def __init__(self, img_format: str) -> None:
        """Accept images in "RGB" or "BGR"."""
        # The base class reverses channels by an index that results in planes, which OpenCV must
        # copy. `apply_image` does it instead.
        super().__init__(img_format="BGR")
        self.exchange = img_format == "RGB"

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Transform an image, uint8 (H, W, 3)."""
        if not self.exchange:
            return super().apply_image(img)
        return super().apply_image(img[:, :, ::-1].copy())[:, :, ::-1]

    def convert(self, img: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        """Return alpha x img + beta, clipped to uint8, for a uint8 image."""
        return cv2.LUT(img, super().convert(LEVELS, alpha, beta))


def _nearest(old: int, new: int) -> np.ndarray:
    """Return the source positions that PyTorch's "nearest" uses along one axis for float64 input.

    With other dtypes, the size ratio is rounded to float32, which occasionally gives different
    positions.
    """
    positions = torch.arange(old, dtype=torch.float64)[None, None]
    return F.interpolate(positions, size=new)[0, 0].long().numpy()
