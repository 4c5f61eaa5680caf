"""What a result says, draws and saves."""

from __future__ import annotations

import json
import sys
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cat_seg.errors import UserError
from cat_seg.inference import Result
from cat_seg.visualization.heat_map import heat_colors
from cat_seg.visualization.overlay import UNKNOWN_COLOR
from cat_seg.visualization.palette import palette

HEIGHT, WIDTH = 400, 500  # large enough to be drawn as it is


def result(classes: int = 3, **changes) -> Result:
    """Three vertical stripes of classes 0, 1, 2 with confidences 0.2, 0.5 and 0.9."""
    stripe = np.arange(WIDTH) * 3 // WIDTH
    winner = np.tile(stripe, (HEIGHT, 1))
    confidence = np.array([0.2, 0.5, 0.9], dtype=np.float32)[winner]
    values = {
        "winner": winner,
        "names": ("cat", "dog, hound", "sky", *(f"class {i}" for i in range(3, classes)))[:classes],
        "confidence": confidence,
        "margin": confidence / 2,
        "entropy": 1 - confidence,
        "image": np.full((HEIGHT, WIDTH, 3), (200, 40, 40), dtype=np.uint8),
    }
    return Result(**values | changes)


def test_pixels_below_the_threshold_are_unknown():
    whole = result()
    np.testing.assert_array_equal(whole.labels, whole.winner)
    some = whole.with_threshold(0.5)
    np.testing.assert_array_equal(some.labels, np.where(whole.winner == 0, 255, whole.winner))
    assert (some.with_threshold(0.95).labels == 255).all()
    np.testing.assert_array_equal(some.with_threshold(None).labels, whole.winner)
    assert some.labels.dtype == np.int64


@pytest.mark.parametrize(("classes", "unknown"), [(255, 255), (256, 65535), (1000, 65535)])
def test_unknown_is_never_a_class(classes, unknown):
    some = result(classes).with_threshold(0.5)
    assert some.unknown == unknown and some.labels.max() == unknown
    mask = some.mask()
    np.testing.assert_array_equal(np.asarray(mask), some.labels)
    assert mask.mode == ("P" if unknown == 255 else "I;16")


def test_the_mask_of_256_classes_without_threshold_is_a_palette_image():
    assert result(256).mask().mode == "P"
    assert result(257).mask().mode == "I;16"


@pytest.mark.parametrize("threshold", [-0.1, 1.1, "much", float("nan"), [0.5]])
def test_a_threshold_is_a_number_from_0_to_1(threshold):
    with pytest.raises(UserError, match=r"threshold is .*; give a number from 0 to 1"):
        result().with_threshold(threshold)


def test_areas_are_shares_of_all_pixels():
    areas = result().areas()
    assert list(areas) == ["cat", "dog, hound", "sky"]
    assert sum(areas.values()) == pytest.approx(1)
    some = result().with_threshold(0.5).areas()
    assert some["unknown"] == areas["cat"] and some["cat"] == 0 and some["sky"] == areas["sky"]


def test_to_dict_is_json_with_the_largest_class_first():
    some = result(source=Path("photos/ü.jpg")).with_threshold(0.4)
    found = json.loads(json.dumps(some.to_dict()))
    assert found["source"] == "photos/ü.jpg"
    assert (found["width"], found["height"], found["threshold"]) == (WIDTH, HEIGHT, 0.4)
    assert found["unknown"] == some.areas()["unknown"] > 0
    assert [one["name"] for one in found["classes"]] == ["dog, hound", "sky"]
    assert [one["index"] for one in found["classes"]] == [1, 2]
    for one, confidence in zip(found["classes"], (0.5, 0.9), strict=True):
        assert one["area"] == some.areas()[one["name"]]
        assert one["confidence"] == pytest.approx(confidence)
    assert found["confidence"] == pytest.approx(some.confidence.mean())
    assert found["entropy"] == pytest.approx(some.entropy.mean())


def test_unknown_pixels_are_gray_in_the_overlay_and_its_legend():
    picture = np.asarray(result().with_threshold(0.5).overlay())
    pixel = picture[HEIGHT // 2, WIDTH // 6].astype(int)
    assert pixel.max() - pixel.min() <= 1
    colored = picture[HEIGHT // 2, WIDTH // 2].astype(float)
    expected = np.array((200, 40, 40)) * 0.45 + palette(3)[1] * 0.55
    np.testing.assert_allclose(colored, expected, atol=1)
    legend = picture[HEIGHT:].reshape(-1, 3)
    assert (legend == UNKNOWN_COLOR).all(axis=1).any()
    assert not (legend == palette(3)[0]).all(axis=1).any()  # "cat" has no pixels left
    whole = np.asarray(result().overlay())[HEIGHT:].reshape(-1, 3)
    assert not (whole == UNKNOWN_COLOR).all(axis=1).any()


def test_a_picture_of_unknown_pixels_alone():
    picture = np.asarray(result().with_threshold(1).overlay())
    assert (picture[HEIGHT:].reshape(-1, 3) == UNKNOWN_COLOR).all(axis=1).any()


def test_the_confidence_map_has_a_color_bar():
    picture = np.asarray(result().confidence_map())
    for column, value in ((WIDTH // 6, 0.2), (WIDTH // 2, 0.5), (WIDTH - 9, 0.9)):
        expected = heat_colors(np.array([[value]], dtype=np.float32))[0, 0]
        np.testing.assert_array_equal(picture[5, column], expected)
    bar = picture[HEIGHT:]
    for end in (0.0, 1.0):
        assert (bar == heat_colors(np.array([[end]]))[0, 0]).all(axis=2).any()
    assert picture.shape[1] == WIDTH


def test_files_hold_what_is_drawn(tmp_path):
    some = result().with_threshold(0.5)
    some.save(tmp_path / "a.png")
    some.save(str(tmp_path / "a.jpg"))
    some.save_mask(tmp_path / "mask.png")
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(some.overlay()))
    with Image.open(tmp_path / "a.jpg") as picture:
        assert picture.format == "JPEG"
    with Image.open(tmp_path / "mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), some.labels)
        assert tuple(mask.getpalette()[3 * 255 :]) == UNKNOWN_COLOR
        assert mask.getpalette()[:9] == palette(3).ravel().tolist()


@pytest.mark.parametrize(
    ("write", "name", "told"),
    [
        (Result.save, "no/a.png", "cannot write .*a.png: No such file"),
        (Result.save, "a.xyz", "cannot be written as .xyz; use .png"),
        (Result.save, "a", "as files without suffix; use .png"),
        (Result.save_mask, "a.jpg", "masks are PNG files"),
    ],
)
def test_a_file_that_cannot_be_written_is_named(tmp_path, write, name, told):
    with pytest.raises(UserError, match=told):
        write(result(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_notebook_shows_a_result(monkeypatch):
    shown = []
    display = SimpleNamespace(display=shown.append)
    notebook = SimpleNamespace(get_ipython=lambda: object(), display=display)
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    one = result()
    one.show()
    assert shown == [one]
    with Image.open(BytesIO(one._repr_png_())) as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(one.overlay()))
