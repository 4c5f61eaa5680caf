from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageDraw

from cat_seg.legend import Entry, draw_legend, load_font, shorten

ENTRIES = [Entry(f"class {index}", "1.0%", (250, index, 0)) for index in range(40)]


@pytest.fixture
def drawn(monkeypatch) -> list[str]:
    """The texts drawn, in order."""
    texts = []
    original = ImageDraw.ImageDraw.text

    def text(self, xy, text, *args, **kwargs):
        texts.append(text)
        return original(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return texts


def chips(legend) -> set[int]:
    """Which of ENTRIES have their colour in the legend."""
    pixels = np.asarray(legend)
    return set(pixels[(pixels[..., 0] == 250) & (pixels[..., 2] == 0)][:, 1].tolist())


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("size", [13, 60])
@pytest.mark.parametrize("box", [(20, 60), (60, 20), (30, 30)], ids=str)
def test_a_legend_stays_in_its_box_and_counts_the_rest(drawn, flat, size, box):
    width, height = (side * size for side in box)
    legend = draw_legend(ENTRIES, size, width, height, flat)
    assert legend.width <= width
    assert legend.height <= height
    names = [text for text in drawn if text.startswith("class")]
    assert names == [entry.name for entry in ENTRIES[: len(names)]]
    assert chips(legend) == set(range(len(names)))
    rest = len(ENTRIES) - len(names)
    assert rest == 0 or f"and {rest} more" in drawn
    assert rest == 0 or 2 * (legend.width + legend.height) > width + height


def test_flat_legends_have_few_rows_and_others_few_columns():
    entries = ENTRIES[:4]
    flat = draw_legend(entries, 13, 600, 600, flat=True)
    tall = draw_legend(entries, 13, 600, 600, flat=False)
    assert flat.width > 2 * tall.width
    assert tall.height > 2 * flat.height


def test_long_names_are_cut(drawn):
    long = Entry("a name " * 50, "12%", (1, 2, 3))
    legend = draw_legend([long, ENTRIES[0]], 13, 400, 400, flat=True)
    assert legend.width <= 400
    assert drawn[0].startswith("a name a name") and drawn[0].endswith("…")
    assert drawn[1:] == ["12%", "class 0", "1.0%"]


def test_a_legend_has_a_line_even_without_room():
    assert draw_legend(ENTRIES[:1], 13, 100, 1, flat=True).height > 13


@pytest.mark.parametrize("width", [0, 20, 50, 1000])
def test_shorten(width):
    font = load_font(13)
    text = shorten("pommel horse", font, width)
    if width == 1000:
        assert text == "pommel horse"
    else:
        assert text.endswith("…")
        assert font.getlength(text) <= width or text == "…"
