"""Reading of image and label files, with errors that name the file."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from cat_seg.data.decoding import Decoded, decode, read_header, without_warnings
from cat_seg.data.label_values import LabelFile
from cat_seg.errors import UserError

# Pillow modes of 8-bit images that `read_image` never refuses for their values, so that the header
# is enough to know the size.
_PLAIN_MODES = frozenset({"1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
# Pillow modes whose pixels convert exactly to 8-bit RGB.
_COLOR_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})
# A 16-bit image whose values are all below this fraction of white is nearly black in 8 bits.
_DARKEST_WHITE = 1 / 16

# Lossless formats, and lossless TIFF compressions.
_LOSSLESS = frozenset({"PNG", "TIFF", "BMP", "GIF", "PPM"})
_LOSSLESS_TIFF = frozenset(
    {"raw", "tiff_raw_16", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "lzma"}
    | {"zstd", "tiff_ccitt", "group3", "group4"}
)
# Factors by which Pillow scales 2-bit and 4-bit gray values, so that the largest becomes 255.
_GRAY_STEPS = {"L;2": 85, "L;4": 17}


def read_image(path: str, image_format: str, ignore_orientation: bool = False) -> np.ndarray:
    """Read an image of any kind as uint8 (H, W, 3), rotated to its EXIF orientation.

    Transparency is dropped, and only the first frame is read. 16-bit values are reduced to their
    upper 8 bits. An image that would become nearly black, with all values below 1/16 of 65535, is
    refused: most likely it stores 8 to 12 bits in 16 or 32.

    Args:
        path: an image file in any format that PIL reads.
        image_format: channel order, "RGB" or "BGR".
        ignore_orientation: return the pixels as stored, ignoring EXIF orientation.

    Raises:
        UserError: the file is missing, damaged or not an image; has floating-point pixels or
            integers outside 16 bits; or is nearly black as described above.
    """
    decoded = decode("image", path, ignore_orientation)
    if decoded.image.mode == "F":
        raise UserError(
            f"image {path} has floating-point pixels; save it with 8 or 16 bits per channel"
        )
    if decoded.image.mode.startswith("I"):
        pixels = _upper_bits(np.asarray(decoded.image), path, 12 if _has(decoded, ";12") else 16)
    else:
        try:
            with without_warnings():
                pixels = np.asarray(decoded.image.convert("RGB"))
        except (ValueError, MemoryError) as error:
            raise UserError(
                f"cannot convert image {path} to RGB: {error or 'not enough memory'}; "
                "save it as an 8-bit RGB image"
            ) from error
    is_deep = decoded.image.mode.startswith("I") or _has(decoded, ";16")
    if is_deep and pixels.max() < 256 * _DARKEST_WHITE:
        raise UserError(
            f"image {path} is nearly black: its 16-bit values are all below 1/16 of 65535; "
            "if its values have fewer bits, save it as an 8-bit image"
        )
    return pixels[..., ::-1] if image_format == "BGR" else pixels


def _has(decoded: Decoded, bits: str) -> bool:
    return bits in decoded.rawmode


def _upper_bits(gray: np.ndarray, path: str, bits: int) -> np.ndarray:
    """Return the upper 8 of `bits` bits of gray values (H, W), as uint8 (H, W, 3)."""
    if gray.min() < 0 or gray.max() >= 2**bits:
        raise UserError(
            f"image {path} has values from {gray.min()} to {gray.max()}, which do not fit in "
            f"{bits} bits; save it with 8 or 16 bits per channel"
        )
    return np.repeat((gray >> (bits - 8)).astype(np.uint8)[..., None], 3, axis=2)


def read_image_size(path: str, ignore_orientation: bool = False) -> tuple[int, int]:
    """Return the size (H, W) that `read_image` would give, from the header alone if possible.

    PNG files and files with more than 8 bits per channel are read in full: a PNG may store its
    orientation at the end, and the others may be refused because of their values.

    Raises:
        UserError: the file is missing or not an image, or `read_image` refuses it because of what
            was read.
    """
    header = read_header("image", path, ignore_orientation)
    is_plain = header.mode in _PLAIN_MODES and ";16" not in header.rawmode
    if is_plain and header.format != "PNG":
        return header.size
    return read_image(path, "RGB", ignore_orientation).shape[:2]


def read_label(
    path: str, dtype: DTypeLike | None = np.int64, ignore_orientation: bool = False
) -> np.ndarray:
    """Read a label map of up to 16 bits (gray or palette PNG, TIFF) as a writable (H, W) array.

    It is rotated to its EXIF orientation, and only the first frame is read. Can serve as
    `sem_seg_loading_fn` of detectron2's SemSegEvaluator.

    Args:
        path: the label file. Palette images give palette indices. The values of a `LabelFile` are
            mapped to class indices.
        dtype: integer type of the result; None keeps the type of the file.
        ignore_orientation: return the pixels as stored, ignoring EXIF orientation.

    Raises:
        UserError: the file is missing, damaged or not an image; its format (by content, not by
            name) is lossy; or it has more than one channel or no integers.
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
            f"label {path} is not a single channel of integers (shape {label.shape}, "
            f"{label.dtype}); store one class index per pixel"
        )
    if decoded.rawmode in _GRAY_STEPS:
        label = label // _GRAY_STEPS[decoded.rawmode]
    if values:
        label = values.class_indices(label, path)
    return label.astype(dtype or label.dtype)


def read_colors(path: str, ignore_orientation: bool = False) -> np.ndarray:
    """Read a label map that encodes classes as colors, as uint8 RGB (H, W, 3).

    Raises:
        UserError: the file is missing, damaged or not an image, its format is lossy, or its
            pixels are not 8-bit colors.
    """
    decoded = decode("label", path, ignore_orientation)
    _check_lossless(decoded, path)
    if decoded.image.mode not in _COLOR_MODES or _has(decoded, ";16"):
        raise UserError(
            f"label {path} is not an 8-bit color image (mode {decoded.image.mode}); save it as an "
            "RGB PNG"
        )
    with without_warnings():
        return np.asarray(decoded.image.convert("RGB"))


def _check_lossless(decoded: Decoded, path: str) -> None:
    """Refuse lossy formats."""
    reason = None
    if decoded.format not in _LOSSLESS:
        reason = f"is a {decoded.format} file, which may not preserve class indices"
    elif decoded.format == "TIFF" and decoded.compression not in _LOSSLESS_TIFF:
        reason = f"is a TIFF file with {decoded.compression} compression, which is lossy"
    if reason:
        raise UserError(f"label {path} {reason}; save label maps as PNG")


def _check_indices(decoded: Decoded, path: str) -> None:
    """Refuse gray values that Pillow inverts or rescales, since they may not be class indices."""
    reason = None
    if ";" in decoded.rawmode and "I" in decoded.rawmode.split(";")[1]:
        reason = "stores 0 as white, so its class indices are ambiguous"
    elif decoded.largest not in (None, 255, 65535):
        reason = f"has a maximum value of {decoded.largest}, so its values would be rescaled"
    if reason:
        raise UserError(f"label {path} {reason}; save label maps as PNG")


def check_label_values(label: np.ndarray, path: str, num_classes: int, ignore_label: int) -> None:
    """Refuse a label map with a value that is neither a class index nor the ignore label.

    Args:
        label: (H, W) integers.
        path: the file it came from, for the message.
        num_classes: class indices are 0 to num_classes - 1.
        ignore_label: the value of unlabeled pixels.

    Raises:
        UserError: there is such a value; the message names the file and the first one.
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
    """Refuse a label map whose size (H, W) differs from that of its image.

    Raises:
        UserError: the sizes differ; the message names both files and sizes.
    """
    if label_size != image_size:
        raise UserError(
            f"label {label_path} is {label_size[1]}x{label_size[0]} pixels, but "
            f"its image {image_path} is {image_size[1]}x{image_size[0]}; make the sizes equal"
        )
