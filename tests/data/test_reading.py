from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cat_seg.data.reading import (
    check_label_size,
    check_label_values,
    read_image,
    read_image_size,
    read_label,
)
from cat_seg.errors import UserError


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_images_in_both_channel_orders(tmp_path):
    path, pixels = str(tmp_path / "a.png"), _noise(3, 4)
    Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(read_image(path, "RGB"), pixels)
    np.testing.assert_array_equal(read_image(path, "BGR"), pixels[..., ::-1])


def test_grey_images_get_three_channels(tmp_path):
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
    with pytest.raises(UserError, match=r"label\.png is 4x3 pixels, its image image\.jpg is 3x4"):
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
    "pixels", [_noise(2, 2), np.zeros((2, 2), dtype=np.float32)], ids=["colour", "float"]
)
def test_a_label_is_one_channel_of_integers(tmp_path, pixels):
    path = str(tmp_path / "a.tif")
    Image.fromarray(pixels).save(path)
    with pytest.raises(UserError, match=r"a\.tif is not one channel of integers"):
        read_label(path)


def test_values_in_range_and_ignored_pass():
    check_label_values(np.array([[0, 2, 255]]), "a.png", num_classes=3, ignore_label=255)


@pytest.mark.parametrize("value", [3, 254, -1, 256])
def test_a_value_out_of_range_is_named(value):
    label = np.array([[0, 255, value]])
    with pytest.raises(UserError, match=rf"a\.png has the value {value}, .*\(0 to 2\).* 255"):
        check_label_values(label, "a.png", num_classes=3, ignore_label=255)
