"""Starting and stopping the page."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cat_seg.app.server import Server
from cat_seg.errors import UserError
from cat_seg.inference import Segmenter
from cat_seg.utils.paths import REPO_ROOT
from tests.app.conftest import write_model


def test_taken_port_and_foreign_address_are_refused(models: list[Segmenter]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1 port {port}: .* --port"):
            Server(models, port=port)
    with pytest.raises(UserError, match=r"cannot listen on 192\.0\.2\.1"):
        Server(models, host="192.0.2.1", port=0)
    with pytest.raises(UserError, match=r"cannot listen on .* port 99999"):
        Server(models, port=99999)


def test_closed_server_is_gone(models: list[Segmenter]) -> None:
    with Server(models, port=0) as server:
        assert httpx.get(server.url).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url)


def test_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    command = [sys.executable, "-m", "cat_seg.cli.main", "demo", "--model", str(model)]
    process = subprocess.Popen(
        [*command, "--device", "cpu", "--port", "0"],
        cwd=REPO_ROOT,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = next(line for line in process.stdout if line.startswith("The page is at "))
    assert httpx.get(line.split()[4]).status_code == 200
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
