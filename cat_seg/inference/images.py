"""Input images of the Python API: files, PIL images, arrays and tensors, all to uint8 RGB."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypeAlias, TypeGuard

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from cat_seg.data import read_image
from cat_seg.data.decoding import without_warnings
from cat_seg.errors import UserError

ImageInput: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray | Tensor"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")
WANTED = (
    "give a path, a PIL image, an array (height, width, 3) or a tensor (3, height, width); "
    "for several images, a list of these"
)


def is_one_image(images: object) -> TypeGuard[ImageInput]:
    """Return whether an argument is a single image rather than an iterable of images."""
    return isinstance(images, str | os.PathLike | Image.Image | np.ndarray | Tensor)


def path_of(image: object) -> Path | None:
    """Return the path of an image given as a file, None for an image in memory."""
    return Path(image) if isinstance(image, str | os.PathLike) else None


def to_rgb(image: object, ignore_orientation: bool = False) -> np.ndarray:
    """Convert an input image to uint8 RGB (H, W, 3).

    Args:
        image: the path of an image file; a PIL image; a uint8 array (H, W), (H, W, 1), (H, W, 3)
            RGB or (H, W, 4) RGBA; or a tensor (3, H, W) RGB, uint8 or floating point in 0..1.
            Transparency is dropped.
        ignore_orientation: leave the pixels of files and PIL images as stored, ignoring EXIF
            orientation.

    Raises:
        UserError: the image is none of these, is empty or damaged, or is a URL.
    """
    if isinstance(image, str) and _URL.match(image):
        raise UserError(f"image {image[:80]} is a URL; download it first, and give the file")
    if isinstance(image, str | os.PathLike):
        return read_image(os.path.expanduser(os.fspath(image)), "RGB", ignore_orientation)
    if isinstance(image, Image.Image):
        return _from_pil(image, ignore_orientation)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Tensor):
        return _from_tensor(image)
    raise UserError(f"an image cannot be of type {type(image).__name__}; {WANTED}")


def _from_pil(image: Image.Image, ignore_orientation: bool) -> np.ndarray:
    if image.mode == "F" or image.mode.startswith("I"):
        raise UserError(
            f"a PIL image of mode {image.mode} has no 8-bit pixels; convert it, or give its file"
        )
    try:
        with without_warnings():
            turned = image if ignore_orientation else ImageOps.exif_transpose(image)
            pixels = np.asarray(turned.convert("RGB"))
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        raise UserError(f"a PIL image cannot be read: {error}; {WANTED}") from error
    if not pixels.size:
        raise UserError(f"a PIL image of {image.width}x{image.height} pixels is empty")
    return pixels


def _from_array(image: np.ndarray) -> np.ndarray:
    is_gray = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    is_color = image.ndim == 3 and image.shape[2] in (3, 4)
    if image.dtype != np.uint8 or not image.size or not (is_gray or is_color):
        raise UserError(
            "an image array must be uint8 and (height, width), (height, width, 3) RGB or "
            f"(height, width, 4) RGBA, not {image.shape} {image.dtype}"
        )
    if is_gray:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return image[..., :3]


def _from_tensor(image: Tensor) -> np.ndarray:
    is_real = image.is_floating_point()
    if (
        image.ndim != 3
        or len(image) != 3
        or not image.numel()
        or not (is_real or image.dtype == torch.uint8)
    ):
        raise UserError(
            "an image tensor must be (3, height, width) RGB, uint8 or floating point in 0..1, "
            f"not {tuple(image.shape)} {image.dtype}"
        )
    image = image.detach().cpu()
    if is_real:
        low, high = image.aminmax()
        if not (low >= 0 and high <= 1):  # also if NaN
            raise UserError(
                f"an image tensor of floating point must be in 0..1, not {low:.3g}..{high:.3g}"
            )
        image = (image.double() * 255).round().byte()
    return image.permute(1, 2, 0).contiguous().numpy()
