from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageDraw

from cat_seg.visualization.legend import (
    BEFORE_SHARE,
    CHIP_AND_GAP,
    LONGEST_ENTRY,
    PADDING,
    Entry,
    draw_legend,
    load_font,
    shorten,
)

ENTRIES = [Entry(f"class {index}", "1.0%", (250, index, 0)) for index in range(40)]


@pytest.fixture
def drawn(monkeypatch) -> list[str]:
    """The texts drawn, in order."""
    return record_texts(monkeypatch)


def record_texts(monkeypatch) -> list[str]:
    texts = []
    original = ImageDraw.ImageDraw.text

    def text(self, xy, text, *args, **kwargs):
        texts.append(text)
        return original(self, xy, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return texts


def chips(legend) -> set[int]:
    """Which of ENTRIES have their color in the legend."""
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


@given(
    names=st.lists(st.text(st.sampled_from("ilmwMW tTVA.é"), min_size=1), min_size=1, max_size=9),
    share=st.sampled_from(["", "<0.1%", "12%"]),
    size=st.integers(5, 60),
    width=st.floats(0, 3000),
    flat=st.booleans(),
)
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
def test_names_are_cut_only_where_there_is_no_room(names, share, size, width, flat):
    entries = [Entry(name, share, (1, 2, 3)) for name in names]
    with pytest.MonkeyPatch.context() as patch:
        texts = record_texts(patch)
        draw_legend(entries, size, width, 10_000, flat)
    length = load_font(size).getlength
    room = min(width - 2 * PADDING * size, LONGEST_ENTRY * size) - CHIP_AND_GAP * size
    if share:
        room -= length(share) + BEFORE_SHARE * size
    named = [text for text in texts if text != share and not text.startswith("and ")]
    for entry, text in zip(entries, named, strict=False):
        if length(entry.name) < room - 1e-6:
            assert text == entry.name
        elif length(entry.name) > room + 1e-6:
            assert text.endswith("…")
            assert length(text) <= room + 1e-6 or text == "…"


def test_a_name_is_cut_at_the_last_character_that_fits():
    font, name = load_font(13), "pommelhorse"
    for width in range(10, 100, 3):
        text = shorten(name, font, width)
        assert text == name or font.getlength(name[: len(text)] + "…") > width


def test_an_endless_name_is_cut_at_once():
    assert shorten("wall " * 2_000, load_font(13), 100).startswith("wall")


@pytest.mark.parametrize("width", [0, 20, 50, 1000])
def test_shorten(width):
    font = load_font(13)
    text = shorten("pommel horse", font, width)
    if width == 1000:
        assert text == "pommel horse"
    else:
        assert text.endswith("…")
        assert font.getlength(text) <= width or text == "…"
