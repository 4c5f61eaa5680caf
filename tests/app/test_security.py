"""What a client that is not the page can make the server do."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from cat_seg.app import picture
from cat_seg.app.server import Server
from tests.app.conftest import LIMITS

SECRET = "root:"
FILE = {"_type": "gradio.FileData"}


def trigger(server: Server, inputs: int) -> dict[str, Any]:
    """The first event of the page with this many inputs."""
    config = httpx.get(server.url + "config").json()
    return next(d for d in config["dependencies"] if len(d["inputs"]) == inputs)


def call(server: Server, event: dict[str, Any], data: list[Any], session: str = "") -> str:
    """Run an event of the page and return all that the server says."""
    session = session or secrets.token_hex(8)
    body = {"data": data, "fn_index": event["id"], "session_hash": session, "event_data": None}
    joined = httpx.post(server.url + "gradio_api/queue/join", json=body, timeout=60)
    if joined.status_code != 200:
        return joined.text
    said = ""
    address = f"{server.url}gradio_api/queue/data?session_hash={session}"
    with httpx.stream("GET", address, timeout=60) as stream:
        for line in stream.iter_lines():
            said += line + "\n"
            if "process_completed" in line or "close_stream" in line:
                break
    return said


@pytest.fixture
def other_host() -> Iterator[tuple[str, list[str]]]:
    """An HTTP server and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

    other = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{other.server_port}", asked
    other.shutdown()


@pytest.mark.parametrize("meta", [{"meta": FILE}, {}])
@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../etc/passwd", "file:///etc/passwd"])
def test_path_of_a_client_is_not_opened(server: Server, path: str, meta: dict[str, Any]) -> None:
    payload = {"path": path, "url": None, "orig_name": "a.png", **meta}
    said = call(server, trigger(server, 5), [payload, "my own names", "cat", 0, 0.5])
    assert '"success":false' in said.replace(" ", "")
    assert SECRET not in said


def test_file_of_the_server_is_not_served(server: Server, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text(SECRET)
    for path in ("/etc/passwd", str(own), str(Path(picture.__file__))):
        answer = httpx.get(f"{server.url}gradio_api/file={path}")
        assert answer.status_code in (403, 404), path
        assert SECRET not in answer.text


def test_url_of_a_client_is_not_asked(server: Server, other_host: tuple[str, list[str]]) -> None:
    address, asked = other_host
    session = secrets.token_hex(8)
    # The same before and after an example was taken, which makes gradio renew the component.
    for _ in range(2):
        for url in (f"{address}/a.png", "http://example.com/a.png"):
            payload = {"path": url, "url": url, "orig_name": "a.png", "meta": FILE}
            event = trigger(server, 5)
            said = call(server, event, [payload, "my own names", "cat", 0, 0.5], session)
            assert "URLs are not opened" in said
        call(server, trigger(server, 1), [0], session)
    assert asked == []


def test_names_are_never_taken_for_files(server: Server, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps(["cat"]))
    with photo.open("rb") as file:
        answer = httpx.post(
            server.url + "segment",
            files={"image": file},
            data={"classes": str(tmp_path / "list.json")},
            timeout=60,
        )
    assert [c["name"] for c in answer.json()["classes"]] == [str(tmp_path / "list.json")]


def test_large_and_endless_requests_are_refused(server: Server) -> None:
    large = bytes(LIMITS.megabytes * 2**20 + 2**20 + 1)
    for route in ("segment", "gradio_api/upload", "gradio_api/queue/join"):
        assert httpx.post(server.url + route, content=large).status_code == 413

    def endless() -> Iterator[bytes]:
        yield b"x"

    assert httpx.post(server.url + "segment", content=endless()).status_code == 413


def test_pages_may_load_from_this_server_alone(server: Server) -> None:
    policy = httpx.get(server.url).headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_picture_leaves_no_file_beside_its_module() -> None:
    assert not Path(picture.__file__).with_suffix(".pyi").exists()


def test_listens_on_this_machine_alone(server: Server) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    assert server.share_url is None
