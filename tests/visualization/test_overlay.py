from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cat_seg.visualization import legend
from cat_seg.visualization.overlay import draw_overlay, mask_image
from cat_seg.visualization.palette import palette

NAMES = ["sky", "building, edifice", "tree", "road"]


@pytest.fixture
def legends(monkeypatch) -> list[list]:
    """The entries of every legend drawn."""
    drawn = []
    original = legend.draw_legend

    def draw_legend(entries, *args, **kwargs):
        drawn.append(entries)
        return original(entries, *args, **kwargs)

    monkeypatch.setattr(legend, "draw_legend", draw_legend)
    return drawn


def halves(height: int, width: int, left: int, right: int) -> np.ndarray:
    return np.where(np.arange(width) < width // 2, left, right) * np.ones((height, 1), dtype=int)


def test_a_color_belongs_to_an_index():
    assert palette(5).dtype == np.uint8
    np.testing.assert_array_equal(palette(1500)[:5], palette(5))
    # Pictures of one version can be laid beside those of the next.
    assert palette(3).tolist() == [[68, 136, 221], [238, 204, 0], [204, 51, 0]]


def test_colors_differ():
    assert len(np.unique(palette(1000), axis=0)) == 1000
    first = palette(12).astype(float)
    distance = np.linalg.norm(first[:, None] - first[None], axis=-1) + 1000 * np.eye(12)
    assert distance.min() > 60
    many = palette(847).astype(float)
    assert np.linalg.norm(np.diff(many, axis=0), axis=1).min() > 60


def test_colors_repeat_beyond_the_lattice():
    assert palette(5000).shape == (5000, 3)


@pytest.mark.parametrize(
    ("height", "width"), [(32, 32), (20, 400), (400, 20), (100, 150), (1000, 700), (700, 4000)]
)
def test_pictures_of_any_size_keep_the_picture_and_get_a_legend(height, width):
    picture = draw_overlay(
        np.zeros((height, width, 3), dtype=np.uint8), halves(height, width, 0, 2), NAMES, alpha=1.0
    )
    factor = -(-384 // max(height, width))
    height, width = height * factor, width * factor
    if height > width:
        assert picture.shape[0] == height and picture.shape[1] > width
    else:
        assert picture.shape[1] >= width and picture.shape[0] > height
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[height // 2, width // 4], palette(4)[0])
    np.testing.assert_array_equal(picture[height // 2, width - 1 - width // 4], palette(4)[2])
    legend = picture[:, width:] if height > width else picture[height:]
    for index, shown in enumerate([True, False, True, False]):
        assert (legend == palette(4)[index]).all(axis=-1).any() == shown


def test_the_image_shows_through():
    image = np.full((400, 400, 3), 100, dtype=np.uint8)
    picture = draw_overlay(image, halves(400, 400, 0, 1), NAMES, alpha=0.25)
    expected = 0.75 * 100 + 0.25 * palette(1)[0]
    np.testing.assert_allclose(picture[200, 100], expected, atol=0.51)


@pytest.mark.parametrize("ignored", [255, -1, 4])
def test_ignored_pixels_stay_bare(legends, ignored):
    image = np.full((400, 400, 3), 100, dtype=np.uint8)
    picture = draw_overlay(image, halves(400, 400, 0, ignored), NAMES)
    assert picture[200, 300].tolist() == [100, 100, 100]
    assert [(entry.name, entry.share) for entry in legends[0]] == [("sky", "50%")]


def test_a_thin_line_separates_regions():
    image = np.zeros((400, 400, 3), dtype=np.uint8)
    picture = draw_overlay(image, halves(400, 400, 0, 1), NAMES)
    bright = picture[:400].min(axis=-1) > 180
    assert bright[:, 200].all()
    assert bright.sum() == 400


def test_the_legend_lists_what_is_there_by_area(legends):
    labels = np.full((100, 100), 3)
    labels[:40] = 1
    labels[40] = 0
    labels[41, :5] = 2
    draw_overlay(np.zeros((100, 100, 3), dtype=np.uint8), labels, NAMES)
    assert [(entry.name, entry.share) for entry in legends[0]] == [
        ("road", "59%"),
        ("building", "40%"),
        ("sky", "1.0%"),
        ("tree", "<0.1%"),
    ]
    assert [entry.color for entry in legends[0]] == [
        tuple(palette(4)[index].tolist()) for index in (3, 1, 0, 2)
    ]


def test_a_picture_without_labels_says_so(legends):
    draw_overlay(np.zeros((9, 9, 3), dtype=np.uint8), np.full((9, 9), 255), NAMES)
    assert [entry.name for entry in legends[0]] == ["no labeled pixels"]


def test_many_classes_and_long_names_fit(legends):
    names = [f"a rather long name of class {index} with many words" for index in range(300)]
    labels = np.arange(300).repeat(300).reshape(300, 300)
    picture = draw_overlay(np.zeros((300, 300, 3), dtype=np.uint8), labels, names)
    assert len(legends[0]) == 300
    assert picture.shape[1] == 600 and picture.shape[0] < 1000


@pytest.mark.parametrize(("classes", "mode"), [(4, "P"), (256, "P"), (257, "I;16")])
def test_mask_images_hold_the_labels(tmp_path, classes, mode):
    labels = np.array([[0, 1], [2, classes - 1]])
    mask_image(labels, classes).save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as read:
        assert read.mode == mode
        np.testing.assert_array_equal(np.asarray(read), labels)
        if mode == "P":
            colors = np.array(read.getpalette()).reshape(-1, 3)[:classes]
            np.testing.assert_array_equal(colors, palette(classes))
