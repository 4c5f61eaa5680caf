from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from cat_seg.data.label_values import LabelFile, LabelValues, color_codes
from cat_seg.data.reading import read_label
from cat_seg.errors import UserError

IDS = LabelValues.listed("KEY", [(7,), (8, 9), (300,)], {255}, 255)
RED, GREEN, BLUE = [255, 0, 0], [0, 255, 0], [0, 0, 255]
COLORS = LabelValues.listed(
    *("KEY", [(int(color_codes(RED)),), (int(color_codes(GREEN)),)], (), 255), are_colors=True
)


def test_ids_become_class_indices():
    raw = np.array([[7, 8, 9], [300, 255, 7]], np.uint16)
    found = IDS.class_indices(raw, "a.png")
    assert found.dtype == np.uint8
    assert found.tolist() == [[0, 1, 1], [2, 255, 0]]


def test_a_class_comes_before_what_is_ignored():
    values = LabelValues.listed("KEY", [(255,), (0,)], {0, 255}, 65535)
    found = values.class_indices(np.array([[0, 255]], np.uint8), "a.png")
    assert found.dtype == np.uint16
    assert found.tolist() == [[1, 0]]


@pytest.mark.parametrize("value", [0, 10, 65535])
def test_a_value_without_class_is_named_or_ignored(value):
    raw = np.array([[7, value]], np.uint16)
    with pytest.raises(UserError, match=f"label a.png has the value {value}, which KEY maps"):
        IDS.class_indices(raw, "a.png")
    lenient = LabelValues("KEY", IDS.table, 255, ignores_others=True)
    assert lenient.class_indices(raw, "a.png").tolist() == [[0, 255]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colors_of_rgb_and_palette_files(tmp_path, mode):
    pixels = Image.fromarray(np.array([[RED, GREEN], [GREEN, GREEN]], np.uint8))
    pixels.convert(mode).save(tmp_path / "a.png")
    path = LabelFile(str(tmp_path / "a.png"), COLORS)
    assert read_label(path).tolist() == [[0, 1], [1, 1]]
    assert read_label(path).dtype == np.int64
    assert read_label(path, dtype=None).dtype == np.uint8


def test_a_color_without_class_is_named(tmp_path):
    Image.fromarray(np.array([[RED, BLUE]], np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png has the color \[0, 0, 255\], which KEY maps"):
        read_label(LabelFile(str(tmp_path / "a.png"), COLORS))


def test_16_bits_are_no_colors(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png.* is not an 8-bit color image"):
        read_label(LabelFile(str(tmp_path / "a.png"), COLORS))


def test_the_path_keeps_its_values_between_processes():
    path = pickle.loads(pickle.dumps(LabelFile("a.png", IDS)))
    assert (path, path.values) == ("a.png", IDS)
