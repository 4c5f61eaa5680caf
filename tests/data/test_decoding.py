"""Files that are damaged, odd or turned: decoded completely, or refused in one line."""

from __future__ import annotations

import os
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from cat_seg.data.decoding import decode, read_header
from cat_seg.data.reading import read_image, read_image_size, read_label
from cat_seg.errors import UserError

# The pixels as shown, from the pixels as stored, by EXIF orientation (written by hand).
SHOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
# Options of Pillow's encoders by a name and a suffix.
ENCODINGS = {
    "png": {},
    "raw.tif": {"compression": "raw"},
    "lzw.tif": {"compression": "tiff_lzw"},
    "lossless.webp": {"lossless": True},
    "best.jpg": {"quality": 100, "subsampling": 0},
    "gif": {},
    "bmp": {},
    "ppm": {},
    "progressive.jpg": {"progressive": True},
    "lossy.webp": {},
    "jp2": {},
    "deflate.tif": {"compression": "tiff_adobe_deflate"},
    "jpeg.tif": {"compression": "jpeg"},
}
ORIENTABLE = list(ENCODINGS)[:5]


def smooth(height: int = 30, width: int = 40) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x // width, 255 * y // height, 99 + 0 * x], axis=2).astype(np.uint8)


def save(folder: Path, encoding: str, pixels: np.ndarray, orientation: int | None = None) -> str:
    path, options = str(folder / f"image.{encoding}"), dict(ENCODINGS[encoding])
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("encoding", ORIENTABLE)
def test_images_are_turned_once_in_every_format(tmp_path, encoding, orientation):
    pixels = smooth(5, 8)
    path = save(tmp_path, encoding, pixels, orientation)
    tolerance = 12 if "jpg" in encoding else 0
    for ignored, expected in ((False, SHOWN[orientation](pixels)), (True, pixels)):
        found = read_image(path, "RGB", ignored)
        np.testing.assert_allclose(found.astype(int), expected, atol=tolerance)
        assert read_image_size(path, ignored) == found.shape[:2]


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("encoding", ["png", "raw.tif", "lzw.tif"])
def test_labels_are_turned_as_images_are(tmp_path, encoding, dtype, orientation):
    label = np.arange(40, dtype=dtype).reshape(5, 8)
    path = save(tmp_path, encoding, label, orientation)
    np.testing.assert_array_equal(read_label(path), SHOWN[orientation](label))
    np.testing.assert_array_equal(read_label(path, ignore_orientation=True), label)


def test_an_orientation_behind_the_pixels_counts(tmp_path):
    path = save(tmp_path, "png", smooth(5, 8), 6)
    content = Path(path).read_bytes()
    start = content.index(b"eXIf") - 4
    length = 12 + int.from_bytes(content[start : start + 4], "big")
    exif, rest = content[start : start + length], content[:start] + content[start + length :]
    end = rest.index(b"IEND") - 4
    Path(path).write_bytes(rest[:end] + exif + rest[end:])
    np.testing.assert_array_equal(read_image(path, "RGB"), SHOWN[6](smooth(5, 8)))
    assert read_image_size(path) == (8, 5)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_data_that_cannot_be_read_count_as_none(tmp_path, suffix):
    path = str(tmp_path / f"image.{suffix}")
    Image.fromarray(smooth()).save(path, exif=b"Exif\0\0MM no exif data")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path, "RGB").shape == (30, 40, 3)
        assert read_image_size(path) == (30, 40)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_one_changed_byte_in_the_pixels_of_a_png_is_found(tmp_path, mode):
    path = tmp_path / "image.png"
    noise = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    whole = path.read_bytes()
    readers = [lambda p: read_image(p, "RGB"), read_image_size]
    if mode != "RGB":
        readers.append(read_label)
    for position in np.linspace(whole.index(b"IDAT"), len(whole) - 13, 40).astype(int):
        damaged = bytearray(whole)
        damaged[position] ^= 16
        path.write_bytes(damaged)
        for read in readers:
            with pytest.raises(UserError, match=r"cannot read (image|label) .*image\.png"):
                read(str(path))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("filled", [False, True], ids=["plain", "LOAD_TRUNCATED_IMAGES"])
def test_cut_files_are_refused_or_complete(tmp_path, monkeypatch, encoding, filled):
    # Libraries set this to have the rest of a file filled with gray.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", filled)
    path = Path(save(tmp_path, encoding, smooth()))
    content, expected = path.read_bytes(), read_image(str(path), "RGB")
    cuts = {
        *np.linspace(0, len(content) - 1, 25).astype(int),
        *range(len(content) - 4, len(content)),
    }
    refused = 0
    for length in cuts:
        path.write_bytes(content[:length])
        try:
            np.testing.assert_array_equal(read_image(str(path), "RGB"), expected)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refused += 1
    assert refused >= 24
    assert ImageFile.LOAD_TRUNCATED_IMAGES is filled


@pytest.fixture
def no_file(tmp_path, monkeypatch, request):
    """A path that is not a regular file."""
    path = tmp_path / "image.png"
    if request.param == "folder":
        path.mkdir()
    elif request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "dangling link":
        path.symlink_to(tmp_path / "nowhere.png")
    elif request.param == "circle of links":
        path.symlink_to(path)
    elif request.param == "socket":
        monkeypatch.chdir(tmp_path)  # the whole path may be too long for a socket
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    return str(path)


@pytest.mark.parametrize(
    ("no_file", "reason"),
    [
        ("folder", "it is not a regular file"),
        ("pipe", "it is not a regular file"),
        ("socket", "it is not a regular file"),
        ("dangling link", "No such file or directory"),
        ("circle of links", "Too many levels of symbolic links"),
        ("missing", "No such file or directory"),
    ],
    indirect=["no_file"],
)
def test_what_is_no_file_is_refused_and_not_waited_for(no_file, reason):
    for read in (lambda path: read_image(path, "RGB"), read_image_size, read_label):
        with pytest.raises(UserError, match=rf"image\.png: {reason}; replace or remove it"):
            read(no_file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (
            b"<!DOCTYPE html><html></html>",
            "it is not an image, or Pillow does not support its format",
        ),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
    ],
)
def test_what_is_no_image_is_described(tmp_path, content, reason):
    path = tmp_path / "page.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"page\.jpg: {reason}"):
        read_image(str(path), "RGB")


def test_postscript_is_never_run(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    Image.fromarray(smooth()).save(path, format="EPS")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("it was run"))
    with pytest.raises(UserError, match="PostScript is not supported"):
        read_image(str(path), "RGB")


def test_an_image_with_too_many_pixels_names_the_limit(tmp_path, monkeypatch):
    path = save(tmp_path, "png", smooth(30, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    with pytest.raises(UserError, match=r"has more pixels than the limit of 1198; resize it"):
        read_image(path, "RGB")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path, "RGB").shape == (30, 40, 3)


def test_lack_of_memory_is_one_line(tmp_path, monkeypatch):
    path = save(tmp_path, "bmp", smooth())
    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", _no_memory)
    with pytest.raises(UserError, match="it does not fit in memory; resize it"):
        read_image(path, "RGB")


def _no_memory(image):
    raise MemoryError


def test_names_of_any_bytes_are_printable(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/bad_\xff\nbyte.png")
    with pytest.raises(UserError) as caught:
        read_image(path, "RGB")
    assert r"bad_\udcff\nbyte.png" in str(caught.value)
    str(caught.value).encode()
    Image.fromarray(smooth()).save(path)
    assert read_image(path, "RGB").shape == (30, 40, 3)


def test_the_first_frame_of_several_is_read(tmp_path):
    frames = [Image.fromarray(np.full((4, 6, 3), value, np.uint8)) for value in (50, 150, 250)]
    for suffix in ("gif", "tif", "png", "webp"):
        path, options = (
            str(tmp_path / f"a.{suffix}"),
            {"lossless": True} if suffix == "webp" else {},
        )
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert (read_image(path, "RGB") == 50).all()
        assert read_image_size(path) == (4, 6)


def test_what_a_file_says_of_its_pixels(tmp_path):
    path = save(tmp_path, "lzw.tif", np.arange(6, dtype=np.uint8).reshape(2, 3), 6)
    decoded = decode("image", path)
    assert (decoded.format, decoded.rawmode, decoded.compression) == ("TIFF", "L", "tiff_lzw")
    header = read_header("image", path)
    assert (header.size, header.format, header.mode, header.rawmode) == ((3, 2), "TIFF", "L", "L")
