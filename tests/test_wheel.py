"""The wheel works on its own: outside the repository, with every shipped file."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cat_seg.utils.paths import REPO_ROOT

SOURCES = (
    *("cat_seg", "configs", "datasets", "pyproject.toml", "setup.py", "MANIFEST.in"),
    *("LICENSE", "NOTICE", "README.md", "requirements.txt", "tests/requirements.txt"),
)
SCRIPT = """
from pathlib import Path
import cat_seg
from cat_seg.data import datasets_root, parse_vocabulary
from cat_seg.data.registration import load_raw_ids
from cat_seg.engine import load_config

assert Path(cat_seg.__file__).is_relative_to(Path({site!r})), cat_seg.__file__
print(len(parse_vocabulary("ade150")), len(parse_vocabulary("datasets/coco.json")))
print(load_config("configs/vitb_384_enhanced.yaml").MODEL.META_ARCHITECTURE)
print(len(load_raw_ids("pc59")), datasets_root())
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder that holds what the wheel installs."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    source = folder / "source"  # setuptools writes beside what it builds
    listing = ["git", "-C", str(REPO_ROOT), "ls-files", "-z", *SOURCES]
    tracked = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((REPO_ROOT / name).read_bytes())
    subprocess.run([*build, "--wheel-dir", str(folder), str(source)], check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_shipped_files_are_found_outside_the_repository(site, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(site=str(site))],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "DETECTRON2_DATASETS"}
        | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["150", "171", "EnhancedCATSeg", "59", "datasets"]


def test_every_config_and_class_list_is_in_the_wheel(site):
    folders = ("raw_ids", "mess", "mess/classes")
    lists = [f"datasets/{folder}/*.json" for folder in folders]
    for pattern in ("configs/*", "datasets/*.json", *lists):
        for file in REPO_ROOT.glob(pattern):
            shipped = site / "cat_seg" / "shipped" / file.relative_to(REPO_ROOT)
            assert shipped.read_bytes() == file.read_bytes()
    assert (site / "cat_seg" / "py.typed").exists()
