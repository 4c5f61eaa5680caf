"""Reading images and label maps from files, with errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from detectron2.data import detection_utils
from numpy.typing import DTypeLike
from PIL import ExifTags, Image, ImageOps

from cat_seg.data.label_values import LabelFile
from cat_seg.errors import UserError

# EXIF orientations of images that are stored with height and width exchanged.
_LYING = range(5, 9)
# Kinds of images, as Pillow names them, whose pixels have an exact RGB color of 8 bits.
_COLOR_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})


@contextmanager
def _naming(kind: str, path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the decoders raise OSError, SyntaxError, struct.error and more
        reason = str(error) or type(error).__name__
        raise UserError(f"cannot read {kind} {path}: {reason}; replace or remove it") from error


def read_image(path: str, image_format: str) -> np.ndarray:
    """Read an image of any kind as uint8 (H, W, 3), turned as its EXIF orientation says.

    16-bit images lose their low bits, transparency is dropped.

    Args:
        path: an image file of any kind that PIL reads.
        image_format: the order of the channels, "RGB" or "BGR".

    Raises:
        UserError: the file is missing, truncated or no image, or has floating-point pixels.
    """
    with _naming("image", path):
        with Image.open(path) as file:
            mode = file.mode
            if mode.startswith("I"):  # PIL clips 16-bit grey where it should scale
                grey = np.asarray(ImageOps.exif_transpose(file)) >> 8
                return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        if mode != "F":
            return detection_utils.read_image(path, format=image_format)
    raise UserError(f"image {path} has floating-point pixels; save it with 8 or 16 bits")


def read_image_size(path: str) -> tuple[int, int]:
    """Read (H, W) of what `read_image` gives from the header of an image file.

    Raises:
        UserError: the file is missing or no image.
    """
    with _naming("image", path), Image.open(path) as file:
        width, height = file.size
        turned = file.getexif().get(ExifTags.Base.Orientation) in _LYING
    return (width, height) if turned else (height, width)


def read_label(path: str, dtype: DTypeLike | None = np.int64) -> np.ndarray:
    """Read a label map of 8 or 16 bits (grey or palette PNG, TIFF) as a writable (H, W) array.

    Fits `sem_seg_loading_fn` of detectron2's SemSegEvaluator.

    Args:
        path: the label file; palette images give the palette's indices. What a `LabelFile` says
            of its values is applied.
        dtype: integer type of the result; None keeps that of the file.

    Raises:
        UserError: the file is missing, truncated or no image, or has more than one channel or
            no integers.
    """
    values = path.values if isinstance(path, LabelFile) else None
    if values and values.are_colors:
        label = values.class_indices(read_colors(path), path)
        return label.astype(dtype or label.dtype)
    with _naming("label", path), Image.open(path) as image:
        label = np.asarray(image)
    if label.ndim != 2 or label.dtype.kind not in "bui":
        raise UserError(
            f"label {path} is not one channel of integers (shape {label.shape}, {label.dtype}); "
            "store one class index a pixel"
        )
    if values:
        label = values.class_indices(label, path)
    return label.astype(dtype or label.dtype)


def read_colors(path: str) -> np.ndarray:
    """Read a label map whose colors tell the classes, as uint8 RGB (H, W, 3).

    Raises:
        UserError: the file is missing, damaged or no image, or has no colors of 8 bits.
    """
    with _naming("label", path), Image.open(path) as image:
        if image.mode not in _COLOR_MODES:
            raise UserError(f"it has no colors of 8 bits (mode {image.mode})")
        return np.asarray(image.convert("RGB"))


def check_label_values(label: np.ndarray, path: str, num_classes: int, ignore_label: int) -> None:
    """Refuse a label map with a value that is neither a class index nor the ignore label.

    Args:
        label: (H, W) integers.
        path: the file it came from, for the message.
        num_classes: class indices are 0 to num_classes - 1.
        ignore_label: the value of unlabelled pixels.

    Raises:
        UserError: naming the file and the first such value.
    """
    wrong = label[((label < 0) | (label >= num_classes)) & (label != ignore_label)]
    if wrong.size:
        raise UserError(
            f"label {path} has the value {wrong[0]}, which is neither a class index "
            f"(0 to {num_classes - 1}) nor the ignore label {ignore_label}"
        )


def check_label_size(
    label_size: tuple[int, int], label_path: str, image_size: tuple[int, int], image_path: str
) -> None:
    """Refuse a label map that is not as large as its image; sizes are (H, W).

    Raises:
        UserError: naming both files and sizes.
    """
    if label_size != image_size:
        raise UserError(
            f"label {label_path} is {label_size[1]}x{label_size[0]} pixels, "
            f"its image {image_path} is {image_size[1]}x{image_size[0]}; make them equal"
        )
