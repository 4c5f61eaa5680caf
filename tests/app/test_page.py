"""The page in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from cat_seg.app.server import Server
from cat_seg.inference import Segmenter
from tests.app.conftest import LIMITS, mask_of

NAMES = ["cat", "grass", "sky"]
PATIENCE = 30_000  # milliseconds; the machine may be busy


def upload(page: Page, photo: Path) -> None:
    page.set_input_files("#picture input[type=file]", photo)
    expect(page.locator("#picture img")).to_be_visible(timeout=PATIENCE)


def segment(page: Page, photo: Path, names: str) -> None:
    upload(page, photo)
    page.fill("#names textarea", names)
    page.click("#segment")


def expect_status(page: Page, text: str | re.Pattern[str]) -> None:
    expect(page.locator("#status")).to_contain_text(text, timeout=PATIENCE)


def legend(page: Page, index: int = 0) -> dict[str, str]:
    """Class names and shares as the page shows them."""
    rows = page.locator(f"#legend-{index} tbody tr")
    expect(rows.first).to_be_visible(timeout=PATIENCE)
    cells = [row.locator("td").all_inner_texts() for row in rows.all()]
    return {name.strip(): share.strip() for name, share, _ in cells}


def download(page: Page, title: str, folder: Path) -> Path:
    with page.expect_download() as pending:
        page.locator("#links-0").get_by_text(title, exact=True).click()
    path = folder / pending.value.suggested_filename
    pending.value.save_as(path)
    return path


def test_answer_is_that_of_the_python_interface(
    page: Page, photo: Path, models: list[Segmenter], tmp_path: Path
) -> None:
    segment(page, photo, "cat, grass\nsky")
    expect_status(page, "Done: 3 classes")
    expect(page.locator("#overlay-0 img")).to_be_visible()
    expected = models[0].segment(photo, NAMES)
    areas = {name: area for name, area in expected.areas().items() if area}
    shown = legend(page)
    assert list(shown) == sorted(areas, key=lambda name: -areas[name])
    for name, area in areas.items():
        assert float(shown[name].strip("<%")) == pytest.approx(100 * area, abs=0.51)
    np.testing.assert_array_equal(mask_of(download(page, "Mask", tmp_path)), expected.labels)
    assert json.loads(download(page, "Class list", tmp_path).read_text()) == NAMES
    with Image.open(download(page, "Overlay", tmp_path)) as overlay:
        np.testing.assert_array_equal(np.asarray(overlay), np.asarray(expected.overlay()))


def test_threshold_makes_unknown_pixels_without_a_second_pass(
    page: Page, photo: Path, models: list[Segmenter], server: Server, tmp_path: Path
) -> None:
    segment(page, photo, "cat, grass, sky")
    expect_status(page, "Done")
    before = models[0].segment(photo, NAMES)
    threshold = round(float(np.median(before.confidence)), 2)
    # While another user computes, the threshold still answers at once.
    with server.worker.job("another"):
        field = page.locator("#threshold input[type=number]")
        field.fill(str(threshold))
        field.press("Tab")
        expect(page.locator("#legend-0")).to_contain_text("unknown", timeout=PATIENCE)
    expected = before.with_threshold(threshold)
    assert 0 < expected.areas()["unknown"] < 1
    np.testing.assert_array_equal(mask_of(download(page, "Mask", tmp_path)), expected.labels)


def test_click_reads_class_and_confidence(page: Page, photo: Path, models: list[Segmenter]) -> None:
    segment(page, photo, "cat, grass, sky")
    expect_status(page, "Done")
    image = page.locator("#overlay-0 img")
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.25 * box["height"])
    pixel = page.locator("#pixel-0")
    expect(pixel).to_contain_text("at x", timeout=PATIENCE)
    [[column, row]] = re.findall(r"x (\d+), y (\d+)", pixel.inner_text())
    column, row = int(column), int(row)
    assert abs(column - 90) <= 3 and abs(row - 22) <= 3
    expected = models[0].segment(photo, NAMES)
    assert NAMES[expected.labels[row, column]] in pixel.inner_text()
    assert f"confidence {expected.confidence[row, column]:.0%}" in pixel.inner_text()


def test_shipped_list_and_the_other_views(page: Page, photo: Path) -> None:
    upload(page, photo)
    page.click("#list input")
    page.get_by_role("option", name="voc20", exact=True).click()
    expect(page.locator("#names")).to_be_hidden(timeout=PATIENCE)
    page.click("#segment")
    expect_status(page, "Done: 20 classes")
    page.get_by_role("tab", name="Compare").click()
    expect(page.locator("#compare-0 img").first).to_be_visible(timeout=PATIENCE)
    page.get_by_role("tab", name="Confidence").click()
    expect(page.locator("#confidence-0 img")).to_be_visible(timeout=PATIENCE)


def test_example_is_taken(page: Page) -> None:
    page.locator("table, .gallery").locator("img").first.click()
    expect(page.locator("#picture img")).to_be_visible(timeout=PATIENCE)
    page.click("#segment")
    expect_status(page, "Done")


def test_300_names(page: Page, photo: Path, models: list[Segmenter], tmp_path: Path) -> None:
    names = [f"thing {index}" for index in range(300)]
    segment(page, photo, ", ".join(names))
    expect_status(page, "Done: 300 classes")
    mask = mask_of(download(page, "Mask", tmp_path))
    np.testing.assert_array_equal(mask, models[0].segment(photo, names).labels)


def write_bad_files(folder: Path, photo: Path) -> dict[str, tuple[Path, str]]:
    (folder / "text.png").write_text("not an image")
    (folder / "cut.png").write_bytes(photo.read_bytes()[:-2000])
    Image.new("RGB", (1200, 1000)).save(folder / "large.png")
    return {
        "text": (folder / "text.png", "text.png: it is not an image"),
        "cut": (folder / "cut.png", "cannot read image cut.png"),
        "large": (folder / "large.png", "1200x1000 pixels, more than the limit of 1 million"),
    }


def test_bad_input_gets_one_line_and_the_page_lives_on(
    page: Page, photo: Path, tmp_path: Path
) -> None:
    page.click("#segment")
    expect_status(page, "no picture: upload one")
    for path, message in write_bad_files(tmp_path, photo).values():
        page.set_input_files("#picture input[type=file]", path)
        expect(page.locator("#picture img")).to_have_count(1, timeout=PATIENCE)
        page.wait_for_function("document.querySelector('#picture img')?.src.includes('file=')")
        page.click("#segment")
        expect_status(page, message)
        assert "\n" not in page.locator("#status").inner_text().strip()
        assert str(tmp_path) not in page.locator("#status").inner_text()
        page.goto(page.url)
    for names, message in {
        " , ": "no class names",
        "cat, cat": "both 'cat'",
        ",".join(map(str, range(401))): "more than the limit of 400",
        "/etc/passwd.txt, ../x.json": "Done: 2 classes",  # names, not files
    }.items():
        segment(page, photo, names)
        expect_status(page, message)
        page.goto(page.url)


def test_file_of_another_kind_or_too_large_is_refused(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.pdf").write_text("not an image")
    page.set_input_files("#picture input[type=file]", tmp_path / "notes.pdf")
    expect(page.get_by_text("Invalid file type")).to_be_visible(timeout=PATIENCE)
    (tmp_path / "heavy.png").write_bytes(bytes((LIMITS.megabytes + 1) * 2**20))
    page.set_input_files("#picture input[type=file]", tmp_path / "heavy.png")
    expect(page.get_by_text(re.compile("exceed", re.I)).first).to_be_visible(timeout=PATIENCE)


def test_two_tabs_at_once(browser: Browser, server: Server, photo: Path) -> None:
    tabs = [browser.new_page(), browser.new_page()]
    with server.worker.job("another"):  # both wait
        for tab, names in zip(tabs, ("cat, grass", "sky, road, sea"), strict=True):
            tab.goto(server.url)
            segment(tab, photo, names)
    for tab, count in zip(tabs, (2, 3), strict=True):
        expect_status(tab, f"Done: {count} classes")
    assert set(legend(tabs[0])) <= {"cat", "grass"}
    assert set(legend(tabs[1])) <= {"sky", "road", "sea"}
    for tab in tabs:
        tab.close()


def test_cancel(page: Page, server: Server, photo: Path) -> None:
    with server.worker.job("another"):
        segment(page, photo, "cat, grass")
        expect_status(page, "Waiting")
        page.click("#cancel")
        expect_status(page, "Canceled")
    expect(page.locator("#cancel")).to_be_disabled(timeout=PATIENCE)
    page.click("#segment")
    expect_status(page, "Done")


def test_cancel_while_another_user_is_first(browser: Browser, server: Server, photo: Path) -> None:
    tabs = [browser.new_page(), browser.new_page()]
    with server.worker.job("another"):
        tabs[0].goto(server.url)
        segment(tabs[0], photo, "cat, grass")
        expect_status(tabs[0], "Waiting")
        tabs[1].goto(server.url)
        segment(tabs[1], photo, "sky, road, sea")
        expect(tabs[1].locator("#cancel")).to_be_enabled(timeout=PATIENCE)
        tabs[1].click("#cancel")
        expect_status(tabs[1], "Canceled")
    expect_status(tabs[0], "Done: 2 classes")
    expect(tabs[1].locator("#status")).to_have_text(re.compile("Canceled"))
    for tab in tabs:
        tab.close()


def test_page_asks_no_other_host(browser: Browser, server: Server, photo: Path) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.url)
    segment(page, photo, "cat, grass")
    expect_status(page, "Done")
    page.wait_for_timeout(1000)
    foreign = [url for url in asked if not url.startswith((server.url, "data:", "blob:"))]
    assert foreign == []
    assert len(asked) > 5
    page.close()


def test_phone(browser: Browser, server: Server, photo: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(server.url)
    segment(page, photo, "cat, grass, a class with quite a long name that must wrap somewhere")
    expect_status(page, "Done")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()


def test_two_models_side_by_side(browser: Browser, models: list[Segmenter], photo: Path) -> None:
    with Server(models, port=0, limits=LIMITS) as server:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(server.url)
        segment(page, photo, "cat, grass")
        expect_status(page, "Done")
        boxes = [page.locator(f"#overlay-{index} img").bounding_box() for index in (0, 1)]
        assert boxes[0] and boxes[1]
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
        assert legend(page, 0) == legend(page, 1)
        page.close()
