"""Several processes share the images, and end with their command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cat_seg.utils.paths import REPO_ROOT
from tests.tiny import tiny_cfg, tiny_model

IMAGES = 12
NAMES = [f"p{number:02}" for number in range(IMAGES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, and images, one of them broken."""
    folder = tmp_path_factory.mktemp("devices")
    torch.save({"model": tiny_model().state_dict()}, folder / "model_final.pth")
    (folder / "config.yaml").write_text(tiny_cfg(folder).dump())
    (folder / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 6, 9, 3), dtype=np.uint8)
    for name, image in zip(NAMES, pixels, strict=True):
        large = Image.fromarray(image).resize((450, 300), Image.Resampling.NEAREST)
        large.save(folder / "photos" / f"{name}.png")
    (folder / "photos" / "broken.jpg").write_bytes(b"no image")
    return folder


@contextmanager
def started(folder: Path, output: Path, *words: str):
    command = [sys.executable, REPO_ROOT / "demo" / "demo.py", folder / "photos"]
    command += ["--model", folder, "-o", output, "--save-masks", *words]
    process = subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def children(process: subprocess.Popen) -> list[int]:
    """Ids of a process's workers, without multiprocessing's resource tracker."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = []
    for child in listed:
        if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
            workers.append(int(child))
    return workers


def wait_for(condition, seconds: float = 200.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def drawn(output: Path) -> list[Path]:
    return sorted(output.glob("p??.png"))


def gone(group: int) -> bool:
    """Whether no process of a process group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def assert_whole(output: Path) -> None:
    for path in output.iterdir():
        assert path.suffix in (".png", ".json"), path
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()


def test_two_processes_draw_what_one_does(folder, tmp_path):
    for output, words in (("one", ()), ("two", ("--devices", "cpu", "cpu"))):
        with started(folder, tmp_path / output, "--save-json", *words) as process:
            out, err = process.communicate(timeout=400)
        assert process.returncode == 1, err
        assert f"wrote {IMAGES} of {IMAGES + 1} images to" in out
        assert err.count("skipped: cannot read image") == 1 and "broken.jpg" in err
        assert "Traceback" not in err
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 3 * IMAGES + 1
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_killed_process_ends_the_command_with_one_line(folder, tmp_path):
    output = tmp_path / "out"
    with started(folder, output, "--devices", "cpu", "cpu") as process:
        victim = wait_for(lambda: children(process))[0]
        os.kill(victim, signal.SIGKILL)
        _, err = process.communicate(timeout=200)
        assert process.returncode == 2
        assert err.strip().splitlines()[-1] == (
            "error: the process on cpu was killed (signal 9), most likely because memory ran out; "
            "images written so far are complete"
        )
        assert "Traceback" not in err
        wait_for(lambda: gone(process.pid), 20)
    assert_whole(output)


def test_an_error_of_every_process_is_told_once(folder, tmp_path):
    words = ("--opts", "MODEL.WEIGHTS", str(tmp_path / "missing.pth"))
    with started(folder, tmp_path / "out", "--devices", "cpu", "cpu", *words) as process:
        _, err = process.communicate(timeout=200)
    assert process.returncode == 2
    assert err.count("error: ") == 1 and "missing.pth" in err and "Traceback" not in err


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_whole_files_and_no_process(folder, tmp_path, signum, status):
    output = tmp_path / "out"
    with started(folder, output, "--devices", "cpu", "cpu") as process:
        wait_for(lambda: drawn(output))
        os.killpg(process.pid, signum) if signum == signal.SIGINT else process.terminate()
        _, err = process.communicate(timeout=100)
        wait_for(lambda: gone(process.pid), 20)
        if process.returncode == 1:  # it was done before the signal came
            assert len(drawn(output)) == IMAGES
        else:
            assert process.returncode == status
            assert "interrupted; images written so far are complete" in err
        assert "Traceback" not in err
    assert_whole(output)


def test_workers_end_with_a_killed_parent(folder, tmp_path):
    with started(folder, tmp_path / "out", "--devices", "cpu", "cpu") as process:
        wait_for(lambda: len(children(process)) == 2)
        process.kill()
        process.wait()
        wait_for(lambda: gone(process.pid), 100)
