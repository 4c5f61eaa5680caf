from __future__ import annotations

import numpy as np
import pytest

from cat_seg.visualization import contact_sheet, draw_overlay, palette
from cat_seg.visualization.contact_sheet import (
    CAPTION_FONT,
    GAP,
    HEADING_FONT,
    MARGIN,
    PANEL_BACKGROUND,
    TITLE_FONT,
)

NAMES = ["sky, heaven", "grass", "road", "tree"]
TITLES = 2 * TITLE_FONT  # height of their line
TOP = MARGIN + TITLES
GRAY = 60


def image(height: int, width: int, value: int = GRAY) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def labels(height: int, width: int, value: int = 1) -> np.ndarray:
    return np.full((height, width), value)


def shows(sheet: np.ndarray, color: np.ndarray) -> bool:
    return bool((sheet == color).all(axis=-1).any())


def blank(part: np.ndarray) -> bool:
    return part.size > 0 and bool((part == 255).all())


def one(**settings: object) -> np.ndarray:
    """A sheet of one opaque image of 40 x 40 pixels, whose panels are 100 x 100."""
    given = {"alpha": 1.0, "panel_size": 100} | settings
    return contact_sheet([image(40, 40)], [[labels(40, 40)]], NAMES, **given)


def test_rows_of_image_truth_and_prediction():
    images = [image(60, 60, 100), image(30, 60, 50)]
    maps = [[labels(60, 60, 0), labels(60, 60, 1)], [labels(30, 60, 255), labels(30, 60, 1)]]
    titles = ["image", "ground truth", "prediction"]
    sheet = contact_sheet(images, maps, NAMES, titles, alpha=1.0, panel_size=120)
    for row, colors in (
        (TOP + 60, [(100,) * 3, palette(2)[0], palette(2)[1]]),
        (TOP + 120 + GAP + 30, [(50,) * 3, (50,) * 3, palette(2)[1]]),
    ):
        for column, color in enumerate(colors):
            assert sheet[row, MARGIN + column * (120 + GAP) + 60].tolist() == list(color)
            assert not blank(sheet[MARGIN:TOP, MARGIN + column * (120 + GAP) :][:, :120])


def test_one_legend_names_the_classes_of_all_images():
    maps = [[labels(40, 40, 0)], [labels(40, 40, 2)]]
    sheet = contact_sheet([image(40, 40)] * 2, maps, NAMES, ["image", "truth"], 1.0, 100)
    legend = sheet[:, MARGIN + 200 + GAP :]  # beside the portrait sheet
    assert [shows(legend, color) for color in palette(4)] == [True, False, True, False]
    below = contact_sheet([image(40, 40)], maps[:1], NAMES, ["image", "truth"], 1.0, 100)
    assert shows(below[TOP + 100 :], palette(4)[0])  # below a landscape one


def test_a_legend_for_each_image():
    maps = [[labels(40, 40, 0)], [labels(40, 40, 2)]]
    sheet = contact_sheet(
        [image(40, 40)] * 2, maps, NAMES, alpha=1.0, panel_size=100, legend_per_image=True
    )
    legends = sheet[:, MARGIN + 200 + 2 * GAP :]
    first, second = legends[: MARGIN + 100], legends[MARGIN + 100 + GAP :]
    assert [shows(first, color) for color in palette(4)] == [True, False, False, False]
    assert [shows(second, color) for color in palette(4)] == [False, False, True, False]


def test_the_legend_of_an_image_has_the_shares_of_a_picture_alone():
    half = labels(400, 400, 0)
    half[:100] = 255  # 75% are sky
    sheet = contact_sheet([image(400, 400)], [[half]], NAMES, panel_size=400, legend_per_image=True)
    whole = contact_sheet(
        [image(400, 400)], [[labels(400, 400, 0)]], NAMES, panel_size=400, legend_per_image=True
    )
    alone = draw_overlay(image(400, 400), half, NAMES)[400:]  # in the same font size
    chip = np.argwhere((alone == palette(1)[0]).all(axis=-1)).min(axis=0)
    legend = sheet[:, MARGIN + 800 + 2 * GAP :]
    at = np.argwhere((legend == palette(1)[0]).all(axis=-1)).min(axis=0)
    line = np.s_[at[0] - 3 : at[0] + 15, at[1] : at[1] + 90]
    expected = alone[chip[0] - 3 : chip[0] + 15, chip[1] : chip[1] + 90]
    np.testing.assert_array_equal(legend[line], expected)
    assert not np.array_equal(whole[:, MARGIN + 800 + 2 * GAP :][line], expected)  # 100%


@pytest.mark.parametrize("size", [(300, 400), (30, 40), (90, 40), (30, 400), (700, 700), (1, 1)])
def test_every_panel_holds_its_whole_picture_in_shape(size):
    shapes = [(50, 50), size]
    sheet = contact_sheet(
        [image(*shape) for shape in shapes],
        [[labels(*shape)] for shape in shapes],
        NAMES,
        ["image", "truth"],
        alpha=1.0,
        panel_size=200,
    )
    height, width = (max(1, round(200 * side / max(size))) for side in size)
    top = TOP + 200 + GAP
    for color, left in ((np.full(3, GRAY), MARGIN), (palette(4)[1], MARGIN + 200 + GAP)):
        box = sheet[top : top + height, left : left + 200]
        shown = (box == color).all(axis=-1)
        assert shown[:, (200 - width) // 2 :][:, :width].all()
        assert (box[~shown] == PANEL_BACKGROUND).all()
        assert shown.sum() == height * width


def test_labels_lie_over_their_images():
    label = np.zeros((300, 400), dtype=int)
    label[:, 200:] = 2
    label[:100, :] = -1
    label[:100, 200:] = 7
    photo = np.random.default_rng(0).integers(0, 256, (*label.shape, 3), dtype=np.uint8)
    sheet = contact_sheet([photo], [[label]], NAMES, alpha=0.5, panel_size=400)
    left, right = (sheet[MARGIN : MARGIN + 300, x : x + 400] for x in (MARGIN, MARGIN + 400 + GAP))
    np.testing.assert_array_equal(left, photo)
    np.testing.assert_array_equal(right[:100], draw_overlay(photo, label, NAMES, 0.5)[:100])
    np.testing.assert_array_equal(right[:100, :199], photo[:100, :199])  # ignored: bare


@pytest.mark.parametrize(
    ("settings", "added"),
    [
        ({}, 0),
        ({"titles": ["image", "truth"]}, TITLES),
        ({"captions": ["a.jpg"]}, 2 * CAPTION_FONT),
        ({"heading": "a heading"}, 2 * HEADING_FONT),
        ({"remark": "a remark"}, 2 * CAPTION_FONT + 2 * GAP),
    ],
)
def test_a_line_of_text_for_each_kind_that_is_given(settings, added):
    bare, sheet = one(), one(**settings)
    assert sheet.shape == (bare.shape[0] + added, *bare.shape[1:])
    np.testing.assert_array_equal(sheet[MARGIN + added :], bare[MARGIN:])
    assert blank(sheet[:MARGIN])
    if added:
        assert not blank(sheet[MARGIN : MARGIN + added])
        (key, text) = next(iter(settings.items()))
        other = ["x"] * len(text) if isinstance(text, list) else "x"
        assert not np.array_equal(one(**{key: other}), sheet)


@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(1, 1, (1, 1)), (2, 2, (1, 2)), (3, 2, (2, 2)), (8, 2, (4, 2))]
)
def test_the_grid(count, columns, shape):
    images, maps = [image(40, 40)] * count, [[labels(40, 40)]] * count
    settings = {"panel_size": 100, "legend_per_image": True}
    sheet = contact_sheet(images, maps, NAMES, columns=columns, **settings)
    single = contact_sheet(images[:1], maps[:1], NAMES, **settings)
    height, width = (side - 2 * MARGIN for side in single.shape[:2])
    rows, across = shape
    assert sheet.shape[:2] == (
        2 * MARGIN + rows * (height + GAP) - GAP,
        MARGIN + across * (width + MARGIN),
    )
    for index in range(count):
        row, column = divmod(index, columns)
        top, left = MARGIN + row * (height + GAP), MARGIN + column * (width + MARGIN)
        cell = sheet[top : top + height, left : left + width]
        np.testing.assert_array_equal(cell, single[MARGIN:-MARGIN, MARGIN:-MARGIN])


def test_many_classes_and_long_texts_stay_in_their_place():
    names = [f"a very long name of a class that is number {index}" for index in range(300)]
    label = np.arange(300).repeat(12).reshape(60, 60)
    rest = {"panel_size": 100, "columns": 2, "legend_per_image": True}
    sheet, short = (
        contact_sheet(
            [image(60, 60)] * 3,
            [[label]] * 3,
            names,
            titles=["t" * length] * 2,
            heading="h" * length,
            remark="r" * length,
            captions=["c" * length] * 3,
            **rest,
        )
        for length in (500, 1)
    )
    assert sheet.shape == short.shape
    for edge in (sheet[:MARGIN], sheet[-MARGIN:], sheet[:, :MARGIN], sheet[:, -MARGIN:]):
        assert blank(edge)
    middle = sheet.shape[1] // 2
    cells = MARGIN + 2 * HEADING_FONT + 2 * CAPTION_FONT + 2 * GAP
    assert blank(sheet[cells:, middle - MARGIN // 2 : middle + MARGIN // 2])


@pytest.mark.parametrize(
    ("images", "maps", "settings"),
    [
        (1, 1, {"titles": ["image", "ground truth", "prediction"]}),
        (2, 1, {"titles": ["image", "prediction"]}),
        (2, 2, {"captions": ["a.jpg"]}),
        (2, 2, {"captions": ["a.jpg", "b.jpg", "c.jpg"]}),
        (2, 2, {"captions": ["a.jpg"], "columns": 2}),
    ],
)
def test_numbers_that_differ_are_refused(images, maps, settings):
    with pytest.raises(ValueError):
        contact_sheet([image(9, 9)] * images, [[labels(9, 9)]] * maps, NAMES, **settings)
