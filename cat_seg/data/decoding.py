"""Decoding of image files with Pillow: complete and correctly oriented, or an error."""

from __future__ import annotations

import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from PIL.Image import Transpose

from cat_seg.errors import UserError

if TYPE_CHECKING:  # at run time, Pillow imports its plugins itself
    from PIL.TiffImagePlugin import TiffImageFile

# Without a handler, Python prints Pillow's log messages about broken files.
logging.getLogger("PIL").addHandler(logging.NullHandler())

# Transpose operations that apply each EXIF orientation to the stored pixels, and their inverses.
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_TURNS_BACK = _TURNS | {6: Transpose.ROTATE_90, 8: Transpose.ROTATE_270}
# EXIF orientations that swap height and width.
_LYING = range(5, 9)

_LFS_POINTER = b"version https://git-lfs"


class Decoded(NamedTuple):
    """A decoded image and how the file stores it.

    Attributes:
        image: all pixels in memory, with EXIF orientation applied as requested.
        format: Pillow's name of the format, such as "PNG", by content and not by file name.
        rawmode: Pillow's name of the stored pixel layout, such as "L;4" or "RGB;16B".
        compression: Pillow's name of a TIFF file's compression; "" for other formats.
        largest: the value of white in a PPM file; None for other formats.
    """

    image: Image.Image
    format: str
    rawmode: str
    compression: str
    largest: int | None


def decode(kind: str, path: str, ignore_orientation: bool = False) -> Decoded:
    """Decode the first frame of an image file.

    PNG checksums are verified. Unreadable EXIF data is ignored.

    Args:
        kind: what to call the file in messages, "image" or "label".
        path: the file.
        ignore_orientation: return the pixels as stored, ignoring EXIF orientation.

    Raises:
        UserError: the file is missing, damaged, truncated, too large or not an image.
    """
    with _opened(kind, path) as image:
        file_format, rawmode = image.format or "", _rawmode(image)
        # Pillow's TIFF reader applies the orientation while loading the pixels, and drops the tag.
        is_turned = file_format == "TIFF"
        compression = str(image.info.get("compression", "")) if is_turned else ""
        orientation = _orientation(image) if is_turned else None
        largest = _largest(image)
        image.load()
        if not is_turned:  # after loading, since PNG files may store EXIF data after the pixels
            orientation = _orientation(image)
        turns = _TURNS_BACK if is_turned else _TURNS
        turned: Image.Image = image
        if is_turned == ignore_orientation and orientation in turns:
            turned = image.transpose(turns[orientation])
        return Decoded(turned, file_format, rawmode, compression, largest)


class Header(NamedTuple):
    """Header of an image file: size (H, W) after decoding, and Pillow's format and mode names."""

    size: tuple[int, int]
    format: str
    mode: str
    rawmode: str


def read_header(kind: str, path: str, ignore_orientation: bool = False) -> Header:
    """Read the header of an image file; see `decode` for arguments and errors.

    The size of a PNG file ignores EXIF orientation, which may be stored after the pixels.
    """
    with _opened(kind, path) as image:
        width, height = image.size
        lying = False
        if image.format == "TIFF":  # its `size` depends on the Pillow version
            tags = cast("TiffImageFile", image).tag_v2
            width, height = tags[ExifTags.Base.ImageWidth], tags[ExifTags.Base.ImageLength]
        if image.format != "PNG" and not ignore_orientation:
            lying = _orientation(image) in _LYING
        size = (width, height) if lying else (height, width)
        return Header(size, image.format or "", image.mode, _rawmode(image))


@contextmanager
def _opened(kind: str, path: str) -> Iterator[ImageFile.ImageFile]:
    try:
        with without_warnings(), _complete_files_only():
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise OSError("it is not a regular file")
            with open(path, "rb") as stream:
                yield _open(stream)
    except Exception as error:  # the decoders raise OSError, SyntaxError, struct.error and more
        raise UserError(
            f"cannot read {kind} {path}: {_reason(error, path)}; {_advice(error)}"
        ) from error


def _open(stream: IO[bytes]) -> ImageFile.ImageFile:
    image = Image.open(stream)
    if image.format == "EPS":  # Pillow would run Ghostscript
        raise OSError("PostScript is not supported")
    if image.format == "PNG":
        image.verify()
        stream.seek(0)
        image = Image.open(stream)
    return image


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence Pillow's warnings (transparency, EXIF data, sizes), which do not name the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _complete_files_only() -> Iterator[None]:
    # Some libraries set LOAD_TRUNCATED_IMAGES, so that Pillow fills missing pixels with gray.
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _reason(error: Exception, path: str) -> str:
    if isinstance(error, UnidentifiedImageError):
        with open(path, "rb") as stream:
            start = stream.read(len(_LFS_POINTER))
        if not start:
            return "it is empty"
        if start == _LFS_POINTER:
            return "it is a Git LFS pointer (fetch the file with `git lfs pull`)"
        return "it is not an image, or Pillow does not support its format"
    if isinstance(error, Image.DecompressionBombError):
        assert Image.MAX_IMAGE_PIXELS is not None  # without a limit, there is no such error
        return f"it has more pixels than the limit of {2 * Image.MAX_IMAGE_PIXELS}"
    if isinstance(error, MemoryError):
        return "it does not fit in memory"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _advice(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError | MemoryError):
        return "resize it"
    return "replace or remove it"


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # EXIF parsing raises many types, and the pixels are still usable
        return None


def _rawmode(image: ImageFile.ImageFile) -> str:
    arguments = image.tile[0][3] if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _largest(image: ImageFile.ImageFile) -> int | None:
    if image.format != "PPM" or not image.tile:
        return None
    codec, _, _, arguments = image.tile[0]
    return arguments[1] if codec != "raw" and isinstance(arguments, tuple) else None
