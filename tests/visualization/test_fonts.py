from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from fontTools.ttLib import TTFont
from matplotlib import font_manager
from PIL import Image, ImageDraw, features

from cat_seg.visualization import fonts
from cat_seg.visualization.fonts import Font, can_draw
from cat_seg.visualization.legend import Entry, draw_legend
from cat_seg.visualization.overlay import legend_entries

DEJAVU = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
CHINESE, JAPANESE, KOREAN, FARMER = "水", "みず", "물", "👩\u200d🌾\ufe0f"
EAST_ASIAN = CHINESE + JAPANESE + KOREAN


@pytest.fixture(autouse=True)
def fresh():
    """Fonts are searched anew in each test, and forgotten after it."""
    forget()
    yield
    forget()


def forget() -> None:
    for item in vars(fonts).values():
        if hasattr(item, "cache_clear"):
            item.cache_clear()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The folder of the system's fonts, empty at first."""
    monkeypatch.setattr(
        font_manager, "findSystemFonts", lambda: [str(file) for file in tmp_path.iterdir()]
    )
    return tmp_path


def write_font(path: Path, characters: str, shape: str = "A") -> None:
    """DejaVu Sans with nothing but `characters`, which all look like one letter."""
    font = TTFont(DEJAVU)
    glyph = font.getBestCmap()[ord(shape)]
    font["cmap"].tables = [table for table in font["cmap"].tables if table.format == 12]
    for table in font["cmap"].tables:
        table.cmap = {ord(character): glyph for character in characters}
    font.save(path)


def drawn(text: str, size: int = 20, anchor: str = "lm") -> np.ndarray:
    canvas = Image.new("L", (400, 60))
    Font(size).draw(ImageDraw.Draw(canvas), (200, 30), text, 255, anchor)
    return np.asarray(canvas)


def test_characters_come_from_a_font_that_has_them(folder, capsys):
    assert not can_draw(EAST_ASIAN)
    forget()
    capsys.readouterr()
    write_font(folder / "east.ttf", EAST_ASIAN)
    assert can_draw(EAST_ASIAN)
    np.testing.assert_array_equal(drawn(CHINESE + KOREAN), drawn("AA"))
    assert capsys.readouterr().err == ""


def test_parts_of_a_text_come_from_several_fonts(folder):
    write_font(folder / "chinese.ttf", CHINESE)
    write_font(folder / "japanese.ttf", JAPANESE, shape="O")
    font = Font(20)
    parts = ["tank ", CHINESE, " ", JAPANESE, "!"]
    assert font.getlength("".join(parts)) == pytest.approx(sum(map(font.getlength, parts)))
    assert font.getlength(CHINESE) == font.getlength("A")
    for anchor in ("lm", "rm", "mm", "la"):
        mixed, plain = drawn(f"{CHINESE}-{JAPANESE}", anchor=anchor), drawn("A-OO", anchor=anchor)
        assert np.abs(mixed.astype(int) - plain).mean() < 2
        rows = [np.flatnonzero(picture.any(axis=1))[[0, -1]] for picture in (mixed, plain)]
        np.testing.assert_array_equal(*rows)


def test_plain_styles_come_first_and_unusable_fonts_are_passed_over(folder):
    write_font(folder / "a-bold.ttf", CHINESE, shape="W")
    write_font(folder / "b-regular.ttf", CHINESE, shape="A")
    write_font(folder / "LastResort.ttf", CHINESE + KOREAN)
    write_font(folder / "0-blank.ttf", CHINESE + KOREAN, shape=" ")
    (folder / "0-broken.ttf").write_bytes(DEJAVU.read_bytes()[:5000])
    (folder / "0-text.ttf").write_text("no font")
    np.testing.assert_array_equal(drawn(CHINESE), drawn("A"))
    assert not can_draw(KOREAN)


def test_without_a_font_names_are_indices_and_stderr_says_so_once(folder, capsys):
    labels = np.array([[0, 1, 2, 2]])
    for _ in range(2):
        entries = legend_entries([labels], ["road", f"{CHINESE}, water", "été"], with_share=False)
        assert [entry.name for entry in entries] == ["été", "road", "class 1"]
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "fonts-noto-cjk" in told


def test_other_writings_name_other_packages(folder, capsys):
    assert not can_draw(FARMER + "क")
    assert "fonts-noto-core and fonts-symbola" in capsys.readouterr().err


def test_texts_without_a_font_are_escaped(folder):
    np.testing.assert_array_equal(drawn(CHINESE), drawn(r"\u6c34"))


def test_right_to_left_names_need_a_layout_engine(folder, monkeypatch, capsys):
    if features.check("raqm"):
        assert can_draw("שלום مرحبا")
        assert drawn("שלום").any()
    monkeypatch.setattr(features, "check", lambda name: False)
    forget()
    assert not can_draw("שלום")
    assert "libfribidi0" in capsys.readouterr().err


@pytest.mark.parametrize("name", [EAST_ASIAN, FARMER, "مرحبا", "e\u0301", "\u0915\u093f", "\ufe0f"])
@pytest.mark.parametrize("with_font", [True, False])
def test_no_name_ends_in_an_error(folder, name, with_font):
    if with_font:
        write_font(folder / "some.ttf", EAST_ASIAN + "👩🌾क")
    [entry] = legend_entries([np.zeros((2, 2), int)], [name], with_share=True)
    draw_legend([entry, Entry(name)], 13, 60, 60, flat=True)


def test_a_font_of_bitmaps_is_passed_over(folder, monkeypatch):
    write_font(folder / "east.ttf", CHINESE)
    bitmaps = SimpleNamespace(scalable=False, get_charmap=lambda: {ord(CHINESE): 1})
    monkeypatch.setattr(fonts, "FT2Font", lambda path: bitmaps)
    assert not can_draw(CHINESE)
