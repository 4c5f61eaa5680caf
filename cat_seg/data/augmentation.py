"""detectron2's training augmentations without the work whose result nobody sees.

They draw the same random numbers and give the same pixels, bit by bit. Where detectron2's would
leave nothing of a long, thin image, one pixel is left.
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
    """detectron2's, but no side of the result is rounded to 0, however long and thin the image."""

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw the size for an image (H, W, 3)."""
        drawn = super().get_transform(image)
        if isinstance(drawn, T.ResizeTransform):
            drawn.new_h, drawn.new_w = max(drawn.new_h, 1), max(drawn.new_w, 1)
        return drawn


class RandomCrop(T.RandomCrop):
    """detectron2's, but no side of a relative crop is rounded to 0."""

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Draw the size (height, width) of a crop from an image of a size (height, width)."""
        height, width = super().get_crop_size(image_size)
        return max(height, 1), max(width, 1)


class ResizeAndCrop(T.Augmentation):
    """A resize, and a crop of its result that alone is computed."""

    def __init__(
        self, resize: T.ResizeShortestEdge, crop: T.RandomCrop_CategoryAreaConstraint | None
    ) -> None:
        """Apply `resize`, then `crop`, or nothing more where that is None."""
        super().__init__()
        self.resize = resize
        self.crop = crop

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> Transform:
        """Draw size and crop for an image (H, W, 3) and its labels (H, W)."""
        old = image.shape[:2]
        drawn = self.resize.get_transform(image)
        new = (drawn.new_h, drawn.new_w) if isinstance(drawn, T.ResizeTransform) else old
        if self.crop is None:
            return CroppedResize(old, new, T.CropTransform(0, 0, new[1], new[0]))
        if self.crop.single_category_max_area < 1:  # otherwise labels are not looked at
            sem_seg = sem_seg.take(_nearest(old[0], new[0]), 0).take(_nearest(old[1], new[1]), 1)
        # Of the image only the size is asked for.
        return CroppedResize(old, new, self.crop.get_transform(np.broadcast_to(0, new), sem_seg))


class CroppedResize(Transform):
    """Resizes images bilinearly, as PIL does, and labels to floor(position x old / new).

    The latter is PyTorch's "nearest", which the published recipe takes.
    """

    def __init__(self, old: tuple[int, int], new: tuple[int, int], crop: T.CropTransform) -> None:
        """Resize from `old` to `new` (H, W), of which `crop` is wanted."""
        super().__init__()
        self.old = old
        self.new = new
        self.crop = crop

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Map an image, uint8 (H, W, 3)."""
        height, (new_height, new_width) = self.old[0], self.new
        crop = self.crop
        left, right = crop.x0, crop.x0 + crop.w
        # PIL resizes along rows, rounds to 8 bits, and resizes along columns. In between, columns
        # outside the crop can go, and rows that it does not reach need not be there.
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
        """Map labels (H, W) of any type."""
        crop = self.crop
        rows = _nearest(self.old[0], self.new[0])[crop.y0 : crop.y0 + crop.h]
        columns = _nearest(self.old[1], self.new[1])[crop.x0 : crop.x0 + crop.w]
        return segmentation.take(rows, 0).take(columns, 1)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Map points (N, 2), x before y."""
        scale = np.divide(self.new, self.old)[::-1]
        return self.crop.apply_coords(coords * scale)


class ColourAugmentation(ColorAugSSDTransform):
    """detectron2's SSD colours; what maps 8 bits to 8 bits is computed once a level."""

    def __init__(self, img_format: str) -> None:
        """Take images in "RGB" or "BGR"."""
        # The base exchanges channels by an index that leaves planes, which OpenCV has to copy.
        super().__init__(img_format="BGR")
        self.exchange = img_format == "RGB"

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Map an image, uint8 (H, W, 3)."""
        if not self.exchange:
            return super().apply_image(img)
        return super().apply_image(img[:, :, ::-1].copy())[:, :, ::-1]

    def convert(self, img: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        """alpha x img + beta of uint8, clipped to uint8."""
        return cv2.LUT(img, super().convert(LEVELS, alpha, beta))


def _nearest(old: int, new: int) -> np.ndarray:
    """The positions that PyTorch's nearest neighbour takes along one axis, of float64 values.

    (Other types round the ratio of the sizes to float32 and so take others now and then.)
    """
    positions = torch.arange(old, dtype=torch.float64)[None, None]
    return F.interpolate(positions, size=new)[0, 0].long().numpy()
