from __future__ import annotations

import warnings
import zlib
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import PIL
import pytest
from PIL import Image

from cat_seg.data.reading import (
    check_label_size,
    check_label_values,
    read_colors,
    read_image,
    read_image_size,
    read_label,
)
from cat_seg.errors import UserError
from tests.image_files import write_gray_tiff


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_images_in_both_channel_orders(tmp_path):
    path, pixels = str(tmp_path / "a.png"), _noise(3, 4)
    Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(read_image(path, "RGB"), pixels)
    np.testing.assert_array_equal(read_image(path, "BGR"), pixels[..., ::-1])


def test_gray_images_get_three_channels(tmp_path):
    path = str(tmp_path / "a.png")
    Image.fromarray(np.array([[7, 9]], dtype=np.uint8)).save(path)
    np.testing.assert_array_equal(read_image(path, "RGB"), [[[7] * 3, [9] * 3]])


def test_exif_orientation_is_applied(tmp_path):
    path, pixels = str(tmp_path / "a.png"), _noise(3, 4)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path, "RGB"), np.rot90(pixels, -1))


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_the_size_in_the_header_is_that_of_the_image(tmp_path, orientation, suffix):
    path, exif = str(tmp_path / f"a.{suffix}"), Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    Image.fromarray(_noise(3, 4)).save(path, exif=exif)
    assert read_image_size(path) == read_image(path, "RGB").shape[:2]


def test_the_size_takes_no_more_than_the_header(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(_noise(300, 400)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    assert read_image_size(str(path)) == (300, 400)
    path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cannot read image .*a\.jpg"):
        read_image_size(str(path))


def test_sizes_that_differ_are_one_line_with_both():
    check_label_size((3, 4), "label.png", (3, 4), "image.jpg")
    with pytest.raises(
        UserError, match=r"label\.png is 4x3 pixels, but its image image\.jpg is 3x4"
    ):
        check_label_size((3, 4), "label.png", (4, 3), "image.jpg")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_labels(tmp_path, suffix):
    path = str(tmp_path / f"a.{suffix}")
    label = np.array([[0, 846, 300], [65535, 255, 256]], dtype=np.uint16)
    Image.fromarray(label).save(path)
    read = read_label(path)
    np.testing.assert_array_equal(read, label)
    assert read.dtype == np.int64
    assert read.flags.writeable


def test_palette_labels_give_indices(tmp_path):
    path = str(tmp_path / "a.png")
    label = Image.fromarray(np.array([[0, 1, 20, 255]], dtype=np.uint8), mode="L")
    palette = label.convert("P")
    palette.putdata([0, 1, 20, 255])
    palette.putpalette([v for i in range(256) for v in (255 - i, i // 2, 7)])
    palette.save(path)
    np.testing.assert_array_equal(read_label(path), [[0, 1, 20, 255]])


def test_label_dtype_as_the_evaluator_asks(tmp_path):
    path = str(tmp_path / "a.png")
    Image.fromarray(np.array([[3]], dtype=np.uint8)).save(path)
    assert read_label(path, dtype=np.int32).dtype == np.int32


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("read", [lambda path: read_image(path, "RGB"), read_label])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text"])
def test_an_unreadable_file_is_one_line_that_names_it(tmp_path, suffix, read, damage):
    path = tmp_path / f"a.{suffix}"
    if damage != "missing":
        Image.fromarray(_noise(40, 40)).save(path)
        content = path.read_bytes()
        damaged = {"empty": b"", "truncated": content[: len(content) // 2], "text": b"no image"}
        path.write_bytes(damaged[damage])
    with pytest.raises(UserError, match=r"cannot read (image|label) ") as caught:
        read(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "pixels", [_noise(2, 2), np.zeros((2, 2), dtype=np.float32)], ids=["color", "float"]
)
def test_a_label_is_one_channel_of_integers(tmp_path, pixels):
    path = str(tmp_path / "a.tif")
    Image.fromarray(pixels).save(path)
    with pytest.raises(UserError, match=r"a\.tif is not a single channel of integers"):
        read_label(path)


def test_a_palette_with_transparency_is_no_warning(tmp_path):
    path = str(tmp_path / "a.png")
    picture = Image.fromarray(_noise(20, 30)).quantize(64)
    picture.save(path, transparency=bytes([0] * 8 + [255] * 56))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_image(path, "RGB")
    np.testing.assert_array_equal(found, np.asarray(picture.convert("RGB")))


def test_values_in_range_and_ignored_pass():
    check_label_values(np.array([[0, 2, 255]]), "a.png", num_classes=3, ignore_label=255)


@pytest.mark.parametrize("value", [3, 254, -1, 256])
def test_a_value_out_of_range_is_named(value):
    label = np.array([[0, 255, value]])
    with pytest.raises(UserError, match=rf"a\.png has the value {value}, .*\(0 to 2\).* 255"):
        check_label_values(label, "a.png", num_classes=3, ignore_label=255)


needs_pillow_13 = pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13,
    reason="Pillow 12 cannot read the YCbCr TIFF files that it writes itself",
)


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *product(["png", "bmp", "tif", "webp"], ["RGB", "L", "P", "1", "RGBA"]),
        *product(["jpg"], ["RGB", "L", "1", "CMYK", "YCbCr"]),
        *product(["tif"], ["LA", "CMYK"]),
        pytest.param("tif", "YCbCr", marks=needs_pillow_13),
        ("png", "LA"),
    ],
)
def test_ordinary_images_are_what_pillow_makes_of_them(tmp_path, suffix, mode):
    path = str(tmp_path / f"a.{suffix}")
    Image.fromarray(_noise(20, 30)).convert(mode).save(path)
    with Image.open(path) as file:
        expected = np.asarray(file.convert("RGB"))
    found = read_image(path, "RGB")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(read_image(path, "BGR"), expected[..., ::-1])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_of_sixteen_bits_the_upper_eight_are_taken(tmp_path, suffix):
    path = str(tmp_path / f"a.{suffix}")
    color = np.random.default_rng(0).integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    for pixels in (color, color[..., 0]):
        cv2.imwrite(path, pixels)
        expected = np.broadcast_to((pixels >> 8).reshape(20, 30, -1), (20, 30, 3))
        np.testing.assert_array_equal(read_image(path, "BGR"), expected)
        assert read_image_size(path) == (20, 30)


def test_twelve_packed_bits_are_scaled(tmp_path):
    path, values = tmp_path / "a.tif", np.arange(4096).reshape(64, 64)
    write_gray_tiff(path, values, 12)
    np.testing.assert_array_equal(read_image(str(path), "RGB")[..., 1], values >> 4)


@pytest.mark.parametrize("read", [lambda path: read_image(path, "RGB"), read_image_size])
@pytest.mark.parametrize(
    ("pixels", "suffix"),
    [
        (_noise(9, 9)[..., 0].astype(np.uint16) * 16, "png"),  # 12 bits in 16
        (_noise(9, 9)[..., 0].astype(np.uint16), "tif"),  # 8 bits in 16
        (_noise(9, 9).astype(np.uint16) * 16, "png"),
        (_noise(9, 9).astype(np.uint16), "tif"),
        (_noise(9, 9)[..., 0].astype(np.int32), "tif"),  # 8 bits in 32
    ],
)
def test_an_image_that_would_be_black_is_refused(tmp_path, read, pixels, suffix):
    path = str(tmp_path / f"a.{suffix}")
    if pixels.ndim == 3:
        cv2.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    with pytest.raises(UserError, match=rf"a\.{suffix} is nearly black.*save it as an 8-bit image"):
        read(path)


@pytest.mark.parametrize("read", [lambda path: read_image(path, "RGB"), read_image_size])
@pytest.mark.parametrize("values", [[-1, 60000], [0, 65536], [0, 2**31 - 1]])
def test_an_image_of_more_than_sixteen_bits_is_refused(tmp_path, read, values):
    path = str(tmp_path / "a.tif")
    Image.fromarray(np.array([values], dtype=np.int32)).save(path)
    with pytest.raises(UserError, match=r"a\.tif has values from .*save it with 8 or 16 bits"):
        read(path)


def test_the_size_of_an_image_that_no_model_can_take_is_refused(tmp_path):
    path = str(tmp_path / "a.tif")
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(path)
    with pytest.raises(UserError, match=r"a\.tif has floating-point pixels"):
        read_image_size(path)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_labels_of_few_bits_are_indices(tmp_path, bits):
    label = np.arange(2**bits).reshape(-1, 2)
    write_gray_tiff(tmp_path / "a.tif", label, bits)
    np.testing.assert_array_equal(read_label(str(tmp_path / "a.tif")), label)
    _write_png(tmp_path / "a.png", label, bits)
    np.testing.assert_array_equal(read_label(str(tmp_path / "a.png")), label)
    # As an image, the largest value is white.
    expected = label * (255 // (2**bits - 1))
    for suffix in ("tif", "png"):
        found = read_image(str(tmp_path / f"a.{suffix}"), "RGB")
        np.testing.assert_array_equal(found[..., 0], expected)


def _write_png(path: Path, gray: np.ndarray, bits: int) -> None:
    """Write a gray PNG: Pillow packs palette images, and a changed header makes one gray."""
    palette = Image.fromarray(gray.astype(np.uint8)).convert("P")
    palette.putdata(gray.ravel().tolist())
    palette.save(path, bits=bits)
    content = bytearray(path.read_bytes())
    content[25] = 0  # the color type, in the first chunk
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_inverted_labels_are_refused(tmp_path, bits):
    path = tmp_path / "a.tif"
    write_gray_tiff(path, np.arange(4).reshape(2, 2) % 2, bits, white_is_zero=True)
    with pytest.raises(UserError, match=r"a\.tif stores 0 as white"):
        read_label(str(path))


@pytest.mark.parametrize(
    ("header", "is_label"),
    [(b"P5 2 1 255\n", True), (b"P5 2 1 20\n", False), (b"P4 2 1\n", False)],
)
def test_only_values_that_pillow_leaves_alone_are_labels(tmp_path, header, is_label):
    path = tmp_path / "a.pgm"
    path.write_bytes(header + b"\x03\x13")
    if is_label:
        np.testing.assert_array_equal(read_label(str(path)), [[3, 19]])
    else:
        with pytest.raises(UserError, match=r"label .*a\.pgm .*save label maps as PNG"):
            read_label(str(path))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 100}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),  # never one channel
        ("JPEG2000", {"irreversible": True}),
        ("AVIF", {}),
        ("TIFF", {"compression": "jpeg"}),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_labels_in_lossy_formats_are_refused_by_content(tmp_path, kind, options, suffix):
    if kind not in Image.registered_extensions().values():
        pytest.skip(f"this Pillow has no {kind}")
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(_noise(16, 16)[..., 0] % 20).save(path, format=kind, **options)
    with pytest.raises(UserError, match=r"label .*a\.\w+ is a .*; save label maps as PNG"):
        read_label(str(path))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {"compression": "raw"}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("TIFF", {"compression": "packbits"}),
        ("TIFF", {"compression": "zstd"}),
        ("TIFF", {"compression": "lzma"}),
    ],
)
def test_labels_in_lossless_formats_keep_their_values(tmp_path, kind, options):
    path, label = tmp_path / "a.jpg", np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(label).save(path, format=kind, **options)
    np.testing.assert_array_equal(read_label(str(path)), label)


def test_labels_that_are_colors_are_exact_too(tmp_path):
    path = str(tmp_path / "a.png")
    for pixels in (_noise(8, 8), _noise(8, 8)[..., 0]):
        Image.fromarray(pixels).save(path)
        expected = np.broadcast_to(pixels.reshape(8, 8, -1), (8, 8, 3))
        np.testing.assert_array_equal(read_colors(path), expected)
    Image.fromarray(_noise(8, 8)).save(path, format="JPEG")
    with pytest.raises(UserError, match=r"a\.png is a JPEG file"):
        read_colors(path)
    cv2.imwrite(path, _noise(8, 8).astype(np.uint16) * 257)
    with pytest.raises(UserError, match=r"a\.png is not an 8-bit color image"):
        read_colors(path)
