from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cat_seg.visualization import sample_sheet as contact_sheet
from cat_seg.visualization.overlay import blend
from cat_seg.visualization.palette import palette
from cat_seg.visualization.sample_sheet import (
    CAPTION,
    CELL_HEIGHT,
    CELL_WIDTH,
    GAP,
    HEADING,
    MARGIN,
    PANEL_BACKGROUND,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    Sample,
    draw_sheet,
)

NAMES = ["sky, heaven", "grass", "road"]


def sample(height: int, width: int, value: int = 1) -> Sample:
    image = np.full((height, width, 3), 60, dtype=np.uint8)
    return Sample("a.jpg", image, np.full((height, width), value))


def panels(sheet: Image.Image, index: int) -> list[np.ndarray]:
    """The image and the label of a sample, each (PANEL_HEIGHT, PANEL_WIDTH, 3)."""
    row, column = divmod(index, 2)
    left = MARGIN + column * (CELL_WIDTH + MARGIN)
    top = MARGIN + HEADING + row * (CELL_HEIGHT + MARGIN) + CAPTION
    lefts = (left, left + PANEL_WIDTH + GAP)
    return [np.asarray(sheet.crop((x, top, x + PANEL_WIDTH, top + PANEL_HEIGHT))) for x in lefts]


@pytest.mark.parametrize("size", [(300, 400), (30, 40), (90, 40), (30, 400), (700, 700), (1, 1)])
def test_every_panel_holds_its_whole_picture_in_shape(size):
    sheet = draw_sheet("title", "remark", [sample(*size)] * 5, NAMES)
    scale = min(PANEL_HEIGHT / size[0], PANEL_WIDTH / size[1])
    color = blend(*sample(2, 2)[1:], palette(3), contact_sheet.LABEL_OPACITY)[0, 0]
    for index in range(5):
        for panel, expected in zip(panels(sheet, index), ((60, 60, 60), color), strict=True):
            shown = (panel == expected).all(axis=-1)
            rest = (panel == PANEL_BACKGROUND).all(axis=-1)
            assert (shown | rest).all()
            height, width = shown.any(axis=1).sum(), shown.any(axis=0).sum()
            assert shown.sum() == height * width
            assert abs(height - size[0] * scale) <= 1 and abs(width - size[1] * scale) <= 1


def test_labels_lie_over_their_images_in_the_colors_of_all_pictures():
    label = np.zeros((PANEL_HEIGHT, PANEL_WIDTH), dtype=int)
    label[:, 200:] = 2
    label[:100, :] = -1
    label[:100, 200:] = 7
    image = np.random.default_rng(0).integers(0, 256, (*label.shape, 3), dtype=np.uint8)
    drawn = panels(draw_sheet("t", "r", [Sample("a", image, label)], NAMES), 0)
    np.testing.assert_array_equal(drawn[0], image)
    expected = blend(image, label, palette(3), contact_sheet.LABEL_OPACITY)
    np.testing.assert_array_equal(drawn[1], expected)
    np.testing.assert_array_equal(drawn[1][:100, :199], image[:100, :199])  # ignored: bare


@pytest.fixture
def texts(monkeypatch) -> list[str]:
    written = []
    shorten = contact_sheet.shorten
    monkeypatch.setattr(
        contact_sheet, "shorten", lambda text, *rest: written.append(text) or shorten(text, *rest)
    )
    return written


def test_what_is_written(texts, monkeypatch):
    legends = []
    draw = contact_sheet.draw_legend
    monkeypatch.setattr(
        contact_sheet, "draw_legend", lambda e, *a, **k: legends.append(e) or draw(e, *a, **k)
    )
    one = sample(30, 40)
    one.label[:15] = 0
    one.label[:3] = 255
    draw_sheet("the title", "the remark", [one], NAMES)
    assert texts == ["the title", "the remark", "a.jpg  ·  40 x 30  ·  10% ignored"]
    ((grass, sky),) = legends
    assert (grass.name, grass.share) == ("grass", "50%")
    assert (sky.name, sky.share) == ("sky", "40%")
    assert sky.color == tuple(palette(3)[0])


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (8, 2, 4)])
def test_the_grid(count, columns, rows):
    sheet = draw_sheet("title", "remark", [sample(30, 40)] * count, NAMES)
    assert sheet.size == (
        MARGIN + columns * (CELL_WIDTH + MARGIN),
        MARGIN + HEADING + rows * (CELL_HEIGHT + MARGIN),
    )


def test_many_classes_and_long_texts_stay_in_their_cell():
    names = [f"a very long name of a class that is number {index}" for index in range(300)]
    label = np.arange(300).repeat(12).reshape(60, 60)
    long = Sample("x" * 500, np.zeros((60, 60, 3), dtype=np.uint8), label)
    sheet = np.asarray(draw_sheet("t" * 500, "r" * 500, [long, long, long], names))
    assert (sheet[:, :MARGIN] == 255).all() and (sheet[:, -MARGIN:] == 255).all()
    between = MARGIN + CELL_WIDTH
    assert (sheet[MARGIN + HEADING :, between : between + MARGIN] == 255).all()
    assert (sheet[-MARGIN:] == 255).all()
    second = MARGIN + HEADING + CELL_HEIGHT
    assert (sheet[second : second + MARGIN] == 255).all()
