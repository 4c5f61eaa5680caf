from __future__ import annotations

import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cat_seg.utils.paths import REPO_ROOT


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all datasets."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(folder))
    return folder


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Run datasets/prepare_NAME.py in this process; gives the exit status."""

    def run(name: str, *arguments: str, jobs: int = 1) -> int:
        script = REPO_ROOT / "datasets" / f"prepare_{name}.py"
        monkeypatch.setattr("sys.argv", [str(script), "--jobs", str(jobs), *arguments])
        monkeypatch.setattr("sys.path", list(sys.path))
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as done:
            return done.code
        return 0

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)
