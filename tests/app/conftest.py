"""A page with a tiny model, and a browser to look at it with."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from cat_seg.app.limits import Limits
from cat_seg.app.server import Server
from cat_seg.inference import Segmenter
from tests import tiny
from tools.screenshot import find_chromium

LIMITS = Limits(megabytes=1, megapixels=1, classes=400, waiting=3)


def write_model(folder: Path) -> Path:
    """Write a model that from_pretrained reads."""
    folder.mkdir()
    (folder / "config.yaml").write_text(tiny.tiny_cfg(folder).dump())
    torch.save({"model": tiny.tiny_model().state_dict()}, folder / "model_final.pth")
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Segmenter]:
    folder = tmp_path_factory.mktemp("models")
    return [
        Segmenter.from_pretrained(write_model(folder / name), device="cpu")
        for name in ("first", "second")
    ]


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    Image.fromarray(tiny.image(90, 120).permute(1, 2, 0).numpy()).save(path)
    return path


@pytest.fixture(scope="session")
def server(models: list[Segmenter], photo: Path) -> Iterator[Server]:
    with Server(models[:1], port=0, limits=LIMITS, examples=[photo]) as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no chromium here: on Debian, apt install chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(server.url)
    yield page
    page.close()


def mask_of(content: bytes | Path) -> np.ndarray:
    """Return the pixel values of a PNG file."""
    with Image.open(content if isinstance(content, Path) else BytesIO(content)) as image:
        return np.asarray(image).astype(np.int64)
