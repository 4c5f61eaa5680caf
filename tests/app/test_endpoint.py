"""POST /segment, as curl sends it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from cat_seg.app.server import Server
from cat_seg.inference import Segmenter
from tests.app.conftest import LIMITS, mask_of

NAMES = ["cat", "grass", "sky"]


def post(server: Server, path: Path | None, **fields: str) -> httpx.Response:
    files: dict[str, Any] = {"image": (path.name, path.read_bytes())} if path else {"x": b""}
    return httpx.post(server.url + "segment", files=files, data=fields, timeout=60)


def error_of(answer: httpx.Response) -> str:
    assert answer.status_code == 400
    line = answer.json()["error"]
    assert "\n" not in line
    return line


def test_areas_and_pictures(server: Server, photo: Path, models: list[Segmenter]) -> None:
    expected = models[0].segment(photo, NAMES)
    answer = post(server, photo, classes="cat, grass, sky")
    assert answer.status_code == 200
    content = answer.json()
    assert content.pop("model").endswith("first")
    assert content.pop("source") == photo.name
    wanted = expected.with_threshold(0).to_dict()
    wanted.pop("source")
    assert content == wanted
    mask = post(server, photo, classes="cat, grass, sky", format="mask")
    assert mask.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(mask_of(mask.content), expected.labels)
    overlay = mask_of(
        post(server, photo, classes="cat, grass, sky", format="overlay", opacity="0.3").content
    )
    np.testing.assert_array_equal(overlay, np.asarray(expected.overlay(0.3)))


def test_threshold(server: Server, photo: Path, models: list[Segmenter]) -> None:
    before = models[0].segment(photo, NAMES)
    threshold = float(np.median(before.confidence))
    fields = {"classes": "cat, grass, sky", "threshold": str(threshold)}
    mask = mask_of(post(server, photo, format="mask", **fields).content)
    np.testing.assert_array_equal(mask, before.with_threshold(threshold).labels)
    assert post(server, photo, **fields).json()["unknown"] == pytest.approx(0.5, abs=0.01)


def test_shipped_list(server: Server, photo: Path, models: list[Segmenter]) -> None:
    mask = mask_of(post(server, photo, list="voc20", format="mask").content)
    np.testing.assert_array_equal(mask, models[0].segment(photo, "voc20").labels)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "no class names"),
        ({"classes": "cat, cat"}, "both 'cat'"),
        ({"classes": ",".join(map(str, range(LIMITS.classes + 1)))}, "more than the limit of 400"),
        ({"list": "no-such"}, "there is no class list 'no-such'"),
        ({"classes": "cat", "threshold": "2"}, "threshold is '2'; give a number from 0 to 1"),
        ({"classes": "cat", "opacity": "nan"}, "opacity is 'nan'"),
        ({"classes": "cat", "format": "gif"}, "format is 'gif'; choose json, mask, overlay"),
        ({"classes": "cat", "model": "third"}, "there is no model 'third'"),
        ({"class": "cat"}, "there is no field 'class'"),
    ],
)
def test_bad_field_is_refused(
    server: Server, photo: Path, fields: dict[str, str], message: str
) -> None:
    assert message in error_of(post(server, photo, **fields))


def test_bad_image_is_refused(server: Server, photo: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("not an image")
    cut = tmp_path / "cut.png"
    cut.write_bytes(photo.read_bytes()[:-2000])
    large = tmp_path / "large.png"
    Image.new("RGB", (1200, 1000)).save(large)
    for path, message in (
        (text, "cannot read image notes.png: it is not an image"),
        (cut, "cannot read image cut.png"),
        (large, "large.png has 1200x1000 pixels, more than the limit of 1 million"),
    ):
        assert message in error_of(post(server, path, classes="cat"))
    assert "there is no field 'x'" in error_of(post(server, None, classes="cat"))
    assert "no image" in error_of(httpx.post(server.url + "segment", data={"classes": "cat"}))
    assert post(server, photo, classes="cat").status_code == 200


def test_broken_form_is_refused(server: Server) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = httpx.post(server.url + "segment", content=b"nonsense", headers=headers)
    assert answer.status_code == 400


def test_full_waiting_room_is_refused(server: Server, photo: Path) -> None:
    with ThreadPoolExecutor(LIMITS.waiting + 1) as pool:
        with server.worker.job("another"):
            waiting = [
                pool.submit(post, server, photo, classes="cat") for _ in range(LIMITS.waiting + 1)
            ]
            refused = next(as_completed(waiting, timeout=60)).result()
        answers = [future.result() for future in waiting]
    assert refused.status_code == 503
    assert refused.json()["error"] == "the server is busy; try again in a minute"
    assert sorted(answer.status_code for answer in answers) == [200] * LIMITS.waiting + [503]


def test_unknown_file_of_an_answer_is_refused(server: Server) -> None:
    assert "no longer kept" in error_of(httpx.get(server.url + "files/nothing/mask.png"))
