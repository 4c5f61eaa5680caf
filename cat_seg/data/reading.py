"""Reading images and label maps from files, with errors that name the file."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from cat_seg.data.decoding import Decoded, decode, read_header, without_warnings
from cat_seg.data.label_values import LabelFile
from cat_seg.errors import UserError

# Images whose header says all there is to know: their 8 bits become RGB in only one way.
_PLAIN_MODES = frozenset({"1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
# Kinds of images, as Pillow names them, whose pixels have an exact RGB color of 8 bits.
_COLOR_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})
# Without a value of this share of white, a 16-bit image is nearly black in 8 bits.
_DARKEST_WHITE = 1 / 16

# Formats that keep class indices, and TIFF's compressions that do.
_LOSSLESS = frozenset({"PNG", "TIFF", "BMP", "GIF", "PPM"})
_LOSSLESS_TIFF = frozenset(
    {"raw", "tiff_raw_16", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "lzma"}
    | {"zstd", "tiff_ccitt", "group3", "group4"}
)
# Pillow multiplies grey values of fewer than 8 bits, so that the largest becomes 255.
_GREY_STEPS = {"L;2": 85, "L;4": 17}


def read_image(path: str, image_format: str, ignore_orientation: bool = False) -> np.ndarray:
    """Read an image of any kind as uint8 (H, W, 3), turned as its EXIF orientation says.

    Transparency is dropped, and of files with several frames the first is read. Of 16 bits the
    upper 8 are taken. An image of which that leaves almost nothing is refused, since it most
    likely holds 8 to 12 bits stored in 16 or 32: all its values are below 1/16 of the largest
    that 16 bits hold (65535).

    Args:
        path: an image file of any kind that PIL reads.
        image_format: the order of the channels, "RGB" or "BGR".
        ignore_orientation: leave the pixels as they are stored.

    Raises:
        UserError: the file is missing, damaged or no image; has floating-point pixels, or integers
            that are no 16 bits; or is nearly black as described above.
    """
    decoded = decode("image", path, ignore_orientation)
    if decoded.image.mode == "F":
        raise UserError(f"image {path} has floating-point pixels; save it with 8 or 16 bits")
    if decoded.image.mode.startswith("I"):
        pixels = _upper_bits(np.asarray(decoded.image), path, 12 if _has(decoded, ";12") else 16)
    else:
        try:
            with without_warnings():
                pixels = np.asarray(decoded.image.convert("RGB"))
        except (ValueError, MemoryError) as error:
            raise UserError(
                f"cannot convert image {path} to RGB: {error or 'not enough memory'}; "
                "save it as an RGB image with 8 bits"
            ) from error
    is_deep = decoded.image.mode.startswith("I") or _has(decoded, ";16")
    if is_deep and pixels.max() < 256 * _DARKEST_WHITE:
        raise UserError(
            f"image {path} is nearly black: its 16-bit values are all below 1/16 of 65535; "
            "if it holds fewer bits, save it with 8"
        )
    return pixels[..., ::-1] if image_format == "BGR" else pixels


def _has(decoded: Decoded, bits: str) -> bool:
    return bits in decoded.rawmode


def _upper_bits(grey: np.ndarray, path: str, bits: int) -> np.ndarray:
    """Take the upper 8 bits of integers (H, W), as uint8 (H, W, 3)."""
    if grey.min() < 0 or grey.max() >= 2**bits:
        raise UserError(
            f"image {path} has values from {grey.min()} to {grey.max()}, which are no 16 bits; "
            "save it with 8 or 16 bits"
        )
    return np.repeat((grey >> (bits - 8)).astype(np.uint8)[..., None], 3, axis=2)


def read_image_size(path: str, ignore_orientation: bool = False) -> tuple[int, int]:
    """Read (H, W) of what `read_image` gives, from the header where that is enough.

    PNG files and those with more than 8 bits a channel are read as a whole: the former may have
    their orientation at the end, and the latter may be refused for their values.

    Raises:
        UserError: the file is missing or no image, or `read_image` refuses it for what was read.
    """
    header = read_header("image", path, ignore_orientation)
    is_plain = header.mode in _PLAIN_MODES and ";16" not in header.rawmode
    if is_plain and header.format != "PNG":
        return header.size
    return read_image(path, "RGB", ignore_orientation).shape[:2]


def read_label(
    path: str, dtype: DTypeLike | None = np.int64, ignore_orientation: bool = False
) -> np.ndarray:
    """Read a label map of up to 16 bits (grey or palette PNG, TIFF) as a writable (H, W) array.

    It is turned as its EXIF orientation says, and of files with several frames the first is read.
    Fits `sem_seg_loading_fn` of detectron2's SemSegEvaluator.

    Args:
        path: the label file; palette images give the palette's indices. What a `LabelFile` says
            of its values is applied.
        dtype: integer type of the result; None keeps that of the file.
        ignore_orientation: leave the pixels as they are stored.

    Raises:
        UserError: the file is missing, damaged or no image, of a kind that changes values (its
            content counts, not its name), or has more than one channel or no integers.
    """
    values = path.values if isinstance(path, LabelFile) else None
    if values and values.are_colors:
        label = values.class_indices(read_colors(path, ignore_orientation), path)
        return label.astype(dtype or label.dtype)
    decoded = decode("label", path, ignore_orientation)
    _check_lossless(decoded, path)
    _check_indices(decoded, path)
    label = np.asarray(decoded.image)
    if label.ndim != 2 or label.dtype.kind not in "bui":
        raise UserError(
            f"label {path} is not one channel of integers (shape {label.shape}, {label.dtype}); "
            "store one class index a pixel"
        )
    if decoded.rawmode in _GREY_STEPS:
        label = label // _GREY_STEPS[decoded.rawmode]
    if values:
        label = values.class_indices(label, path)
    return label.astype(dtype or label.dtype)


def read_colors(path: str, ignore_orientation: bool = False) -> np.ndarray:
    """Read a label map whose colors tell the classes, as uint8 RGB (H, W, 3).

    Raises:
        UserError: the file is missing, damaged or no image, of a kind that changes values, or has
            no colors of 8 bits.
    """
    decoded = decode("label", path, ignore_orientation)
    _check_lossless(decoded, path)
    if decoded.image.mode not in _COLOR_MODES or _has(decoded, ";16"):
        raise UserError(
            f"label {path} has no colors of 8 bits (mode {decoded.image.mode}); save it as an RGB "
            "PNG"
        )
    with without_warnings():
        return np.asarray(decoded.image.convert("RGB"))


def _check_lossless(decoded: Decoded, path: str) -> None:
    """Refuse a format that does not give back the values that were saved."""
    reason = None
    if decoded.format not in _LOSSLESS:
        reason = f"is a {decoded.format} file, a kind that does not keep class indices"
    elif decoded.format == "TIFF" and decoded.compression not in _LOSSLESS_TIFF:
        reason = f"is a TIFF file with {decoded.compression} compression, which changes values"
    if reason:
        raise UserError(f"label {path} {reason}; save label maps as PNG")


def _check_indices(decoded: Decoded, path: str) -> None:
    """Refuse grey values that Pillow changes in a way that cannot be told apart from indices."""
    reason = None
    if ";" in decoded.rawmode and "I" in decoded.rawmode.split(";")[1]:
        reason = "stores 0 as white, so that it is unclear which class is 0"
    elif decoded.largest not in (None, 255, 65535):
        reason = f"has {decoded.largest} as its largest value, to which others are relative"
    if reason:
        raise UserError(f"label {path} {reason}; save label maps as PNG")


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
