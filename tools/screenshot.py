"""Take the README's picture of the page: python -m tools.screenshot (needs Debian's chromium)."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import sync_playwright

from cat_seg.app.server import Server
from cat_seg.cli.demo import QUICKSTART, default_model, find_examples
from cat_seg.errors import UserError, one_line_errors
from cat_seg.inference import Segmenter, from_pretrained

WIDTH, HEIGHT = 1280, 900
PATIENCE = 600_000  # milliseconds


def find_chromium() -> str | None:
    """Return the path of an installed Chromium or Chrome, None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@one_line_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Segment a picture on the page in a headless browser, and write what it shows."""
    parser = argparse.ArgumentParser(prog="python -m tools.screenshot", description=__doc__)
    parser.add_argument("--model", help="as of hps-seg demo (default: that of the quickstart)")
    parser.add_argument("--image", type=Path, help="default: the page's first example")
    parser.add_argument("--classes", help="names; default: those that the page suggests")
    parser.add_argument("--output", type=Path, default=Path("docs/images/page.png"))
    args = parser.parse_args(argv)
    chromium = find_chromium()
    if chromium is None:
        raise UserError("no chromium here: on Debian, run apt install chromium")
    examples = find_examples(None, is_quickstart=args.model is None)
    image = args.image or next(iter(examples), None)
    if image is None or not image.is_file():
        raise UserError("--image: name an image file")
    model = from_pretrained(args.model or default_model(QUICKSTART))
    _shoot(chromium, model, examples, image, args.classes, args.output)
    print(args.output)


def _shoot(
    chromium: str,
    model: Segmenter,
    examples: list[Path],
    image: Path,
    classes: str | None,
    output: Path,
) -> None:
    with Server([model], port=0, examples=examples) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(server.url)
        page.set_input_files("#picture input[type=file]", image)
        page.wait_for_selector("#picture img")
        if classes:
            page.fill("#names textarea", classes)
        page.click("#segment")
        page.wait_for_selector("#legend-0 table", timeout=PATIENCE)
        page.wait_for_timeout(1000)  # the pictures
        page.mouse.move(0, 0)
        page.screenshot(path=output, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
