"""A local HTTP server that plays the Hugging Face Hub, and its clients in other processes."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import multiprocessing
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import torch

import cat_seg.configuration  # noqa: F401 (so that no child has to import it)

_RESOLVE = re.compile(r"/(spaces/|datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_TYPES = {None: "model", "spaces/": "space", "datasets/": "dataset"}
_LARGE = (".pth", ".safetensors")  # stored in LFS: the Hub redirects to another address


class Request(NamedTuple):
    method: str
    path: str
    range: str | None
    token: str | None


class Hub:
    """Repositories, what goes wrong with them, and the requests that came."""

    def __init__(self) -> None:
        self.url = ""
        self.storage = ""  # where large files are; on another host, as the real one's
        self.requests: list[Request] = []
        self.revisions: dict[tuple[str, str], dict[str, str]] = {}  # (type, id) -> name -> commit
        self.commits: dict[str, dict[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.refused: dict[str, tuple[int, str]] = {}  # id -> status, X-Error-Code
        self.token: str | None = None  # who sends it is never refused
        self.cuts: list[int] = []  # bytes after which the next downloads break off
        self.claimed_size: int | None = None

    def add(
        self, repo: str, files: Mapping[str, bytes], kind: str = "model", revision: str = "main"
    ) -> str:
        """Commit files to a branch; returns the commit."""
        commit = hashlib.sha1(f"{repo}{revision}{sorted(files.items())}".encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.blobs |= {etag(name, content): content for name, content in files.items()}
        self.revisions.setdefault((kind, repo), {}).update({revision: commit, commit: commit})
        return commit

    def downloads(self) -> list[Request]:
        """The requests that fetched content."""
        return [one for one in self.requests if one.method == "GET"]


def etag(name: str, content: bytes) -> str:
    if name.endswith(_LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._resolve()

    def do_GET(self) -> None:
        self._resolve()

    def do_POST(self) -> None:
        hub = self._noted()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path
        if path == "/api/repos/create":
            if hub.token is not None and self.headers["Authorization"] != f"Bearer {hub.token}":
                return self._json({"error": "log in"}, 401)
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            hub.add(repo, {})
            return self._json({"url": f"{hub.url}/{repo}"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
            ]
            return self._json({"files": modes})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path)
        assert found is not None, path
        lines = [json.loads(line) for line in body.splitlines()]
        values = [line["value"] for line in lines if line["key"] == "file"]
        files = {value["path"]: base64.b64decode(value["content"]) for value in values}
        commit = hub.add(found[1], files, revision=found[2])
        url = f"{hub.url}/{found[1]}/commit/{commit}"
        return self._json({"commitUrl": url, "commitOid": commit})

    def _noted(self) -> Hub:
        hub = self.server.hub
        token = self.headers["Authorization"]
        hub.requests.append(Request(self.command, self.path, self.headers["Range"], token))
        return hub

    def _resolve(self) -> None:
        hub = self._noted()
        if self.path.startswith("/cdn/"):
            digest = self.path.removeprefix("/cdn/")
            return self._send(hub.blobs[digest], digest)
        found = _RESOLVE.fullmatch(unquote(self.path))
        if found is None:
            return self._json({}, 404)
        repo, name = (_TYPES[found[1]], found[2]), found[4]
        if found[2] in hub.refused and self.headers["Authorization"] != f"Bearer {hub.token}":
            return self._refuse(*hub.refused[found[2]])
        if repo not in hub.revisions:
            return self._refuse(401, "RepoNotFound")
        commit = hub.revisions[repo].get(found[3])
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        content = hub.commits[commit].get(name)
        if content is None:
            return self._refuse(404, "EntryNotFound", {"X-Repo-Commit": commit})
        digest, headers = etag(name, content), {"X-Repo-Commit": commit}
        if not name.endswith(_LARGE):
            return self._send(content, digest, headers)
        size = len(content) if hub.claimed_size is None else hub.claimed_size
        headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(size)}
        self._head(302, 0, headers | {"Location": f"{hub.storage}/cdn/{digest}"})

    def _send(self, content: bytes, digest: str, headers: Mapping[str, str] = {}) -> None:
        first, status, headers = 0, 200, {"ETag": f'"{digest}"', **headers}
        if asked := self.headers["Range"]:
            first, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self._head(status, len(content) - first, headers)
        if self.command == "HEAD":
            return
        cuts = self.server.hub.cuts
        if cuts and self.path.startswith("/cdn/"):
            self.wfile.write(content[first : first + cuts.pop(0)])
            self.close_connection = True
            return
        self.wfile.write(content[first:])

    def _head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _refuse(self, status: int, code: str, headers: Mapping[str, str] = {}) -> None:
        self._head(status, 0, {"X-Error-Code": code, "X-Error-Message": code, **headers})

    def _json(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self._head(status, len(body), {"Content-Type": "application/json"})
        self.wfile.write(body)


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Run a Hub while the context lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = Hub()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.storage = f"http://localhost:{server.server_port}"
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class Client:
    """Runs functions in forks of this process, where huggingface_hub sees another environment."""

    def __init__(self, url: str, home: Path) -> None:
        self.home = home
        self.environ = {
            "HF_ENDPOINT": url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    def __call__(self, function: Callable[..., Any], *arguments: Any, **environ: str) -> Any:
        """Return what the function returns, or the text of the error that it raises."""
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe(duplex=False)
        task = (theirs, function, arguments, self.environ | environ)
        child = context.Process(target=_in_child, args=task)
        child.start()
        theirs.close()
        answer = ours.recv()
        child.join()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def left_over(self) -> list[str]:
        """Names of unfinished downloads in the cache."""
        return [path.name for path in self.home.rglob("*.incomplete")]


def _in_child(
    answer: Any, function: Callable, arguments: tuple, environ: Mapping[str, str]
) -> None:
    for name in [*os.environ]:
        if name.startswith("HF_"):
            del os.environ[name]
    os.environ.update(environ)
    for name in [*sys.modules]:
        if name.partition(".")[0] == "huggingface_hub":
            del sys.modules[name]  # it reads the environment when it is imported
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
    try:
        result = function(*arguments)
    except Exception as error:
        result = error
    answer.send(result)
