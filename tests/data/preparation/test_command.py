"""What all preparation scripts do: resuming, naming bad files, stopping, saying what came out."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from cat_seg.utils.files import exclusive_lock
from cat_seg.utils.paths import REPO_ROOT
from tests.data.preparation import miniatures as mini

ADE_150 = "ADE_val_00000001"
SCENE = f"{mini.FULL}/images/ADE/validation/kind_0/scene"
MAT = "VOCdevkit/VOC2010/trainval/2008_000001.mat"
LABELS = "coco-stuff/annotations_detectron2/val2017"


def label(number: int) -> str:
    return f"{LABELS}/{number:012d}.png"


def raw(root: Path, number: int) -> Path:
    return root / f"coco-stuff/annotations/val2017/{number:012d}.png"


def times(root: Path, expected: mini.Expected) -> dict[str, int]:
    return {name: (root / name).stat().st_mtime_ns for name in expected}


def assert_equal(root: Path, expected: mini.Expected) -> None:
    for name, wanted in expected.items():
        with Image.open(root / name) as file:
            np.testing.assert_array_equal(np.asarray(file), wanted)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


def empty(path: Path) -> None:
    path.write_bytes(b"")
    later = time.time() + 1  # clocks of file systems are coarse
    os.utime(path, (later, later))


def web_page(path: Path) -> None:
    path.write_text("<html><body>404: not found</body></html>")


def wrong_size(path: Path) -> None:
    mini.save(path, np.zeros((3, 3), np.uint8))


def wrong_type(path: Path) -> None:
    mini.save(path, np.zeros((8, 32), np.uint16))


def wrong_value(path: Path) -> None:
    mini.save(path, np.full((8, 32), 171, np.uint8))


def flipped_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def older_than_source(path: Path) -> None:
    mini.save(path, np.zeros((8, 32), np.uint8))
    os.utime(path, (0, 0))


@pytest.mark.parametrize(
    "damage",
    [cut, empty, wrong_size, wrong_type, wrong_value, flipped_bit, older_than_source, os.unlink],
)
def test_a_second_run_makes_only_what_is_missing_or_damaged(root, prepare, capsys, damage):
    expected = mini.write_coco(root)
    assert prepare("coco_stuff") == 0
    assert "(3 converted)" in capsys.readouterr().out
    before = times(root, expected)
    damage(root / label(4))
    left_over = root / LABELS / "000000000005.png.partial"
    left_over.write_bytes(b"half")
    assert prepare("coco_stuff") == 0
    printed = capsys.readouterr().out
    assert "(3 up to date)" in printed and "(1 converted, 2 up to date)" in printed
    after = times(root, expected)
    assert {name for name in expected if before[name] != after[name]} == {label(4)}
    assert not left_over.exists()
    assert_equal(root, expected)


def test_damaged_images_of_ade20k_full_are_made_anew(root, prepare):
    [(name, wanted)] = mini.write_ade_full(root).items()
    prepare("ade20k_full")
    made = root / mini.FULL / "images_detectron2/validation" / f"{Path(name).stem}.jpg"
    for damaged in (made, root / name):
        content = damaged.read_bytes()
        damaged.write_bytes(content[: len(content) // 2])
        assert prepare("ade20k_full") == 0
        assert damaged.read_bytes() == content
    assert_equal(root, {name: wanted})


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_corrupt_file_is_named_and_the_rest_is_done(root, prepare, capsys, jobs):
    expected = mini.write_coco(root)
    cut(raw(root, 4))
    assert prepare("coco_stuff", jobs=jobs) == 2
    printed = capsys.readouterr()
    assert "2 labels in" in printed.out and "(2 converted, 1 failed)" in printed.out
    named = [line for line in printed.err.splitlines() if str(raw(root, 4)) in line]
    assert len(named) == 1
    assert printed.err.splitlines()[-1].startswith("error: 1 file failed")
    assert "Traceback" not in printed.err
    del expected[label(4)]
    assert not (root / label(4)).exists()
    assert_equal(root, expected)


def test_only_the_first_of_many_bad_files_are_named(root, prepare, capsys):
    mini.write_coco(root, images=12)
    for number in range(12, 24):
        raw(root, number).write_bytes(b"no image")
    assert prepare("coco_stuff") == 2
    lines = capsys.readouterr().err.splitlines()
    named = [line for line in lines if "cannot convert" in line]
    for number, line in zip(range(12, 22), named, strict=True):
        assert str(raw(root, number)) in line
    assert "... and 2 more" in lines
    assert lines[-1].startswith("error: 12 files failed")


@pytest.mark.parametrize(
    ("script", "write", "bad"),
    [
        ("ade20k_150", mini.write_ade150, f"{mini.ADE}/annotations/validation/{ADE_150}.png"),
        ("voc", mini.write_voc, f"{mini.VOC}/SegmentationClassAug/2007_000001.png"),
        ("pascal_context_59", mini.write_context_59, "VOCdevkit/VOC2010/trainval_merged.json"),
        ("pascal_context_459", mini.write_context_459, MAT),
        ("ade20k_full", mini.write_ade_full, f"{SCENE}/ADE_val_00000000.jpg"),
        ("ade20k_full", mini.write_ade_full, f"{SCENE}/ADE_val_00000000_seg.png"),
    ],
)
@pytest.mark.parametrize("damage", [cut, empty, web_page])
def test_every_script_names_a_corrupt_file(root, prepare, capsys, script, write, bad, damage):
    write(root)
    damage(root / bad)
    assert prepare(script) == 2
    error = capsys.readouterr().err
    assert str(root / bad) in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("script", "write", "bad"),
    [
        ("voc", mini.write_voc, f"{mini.VOC}/ImageSets/Segmentation/val.txt"),
        ("pascal_context_459", mini.write_context_459, mini.CONTEXT_LIST),
    ],
)
@pytest.mark.parametrize("content", [b"", b"<html><body>404</body></html>", b"2007_\xff\n"])
def test_a_broken_list_of_names_is_one_line(root, prepare, capsys, script, write, bad, content):
    write(root)
    (root / bad).write_bytes(content)
    assert prepare(script) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(root / bad) in line and line.endswith("replace it")


def bad_name(folder: Path, suffix: str) -> Path:
    """A file name that is not UTF-8, as from an old archive."""
    return Path(os.fsdecode(os.fsencode(folder) + b"/bad_\xff" + suffix.encode()))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_name_that_is_not_utf_8_is_converted_like_any_other(root, prepare, capsys, jobs):
    expected = mini.write_coco(root)
    images = root / "coco-stuff/images/val2017"
    odd = bad_name(root / LABELS, ".png")
    raw(root, 3).rename(bad_name(raw(root, 3).parent, ".png"))
    (images / "000000000003.jpg").rename(bad_name(images, ".jpg"))
    assert prepare("coco_stuff", jobs=jobs) == 0
    expected[str(odd.relative_to(root))] = expected.pop(label(3))
    assert_equal(root, expected)
    found = DatasetCatalog.get("coco_2017_test_stuff_all_sem_seg")
    assert str(odd) in {record["sem_seg_file_name"] for record in found}
    empty(bad_name(raw(root, 3).parent, ".png"))
    assert prepare("coco_stuff", jobs=jobs) == 2
    assert "bad_\\udcff.png" in capsys.readouterr().err


def test_a_root_that_is_not_utf_8(tmp_path):
    root = bad_name(tmp_path, "")
    root.mkdir()
    expected = mini.write_voc(root)
    done = subprocess.run(
        [sys.executable, REPO_ROOT / "datasets/prepare_voc.py", "--root", root, "--jobs", "1"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert b"bad_" in done.stdout
    assert_equal(root, expected)


def test_images_are_compared_where_there_are_any(root, prepare, capsys):
    mini.write_coco(root)
    images = root / "coco-stuff/images/val2017"
    mini.save_image(images / "000000000003.jpg", 9, 32)
    (images / "000000000004.jpg").unlink()
    assert prepare("coco_stuff") == 2
    error = capsys.readouterr().err
    assert "is 32x9" in error and "000000000004.jpg" in error
    assert os.listdir(root / LABELS) == ["000000000005.png"]
    for path in images.iterdir():
        path.unlink()
    assert prepare("coco_stuff") == 0
    assert f"no images in {images} yet" in capsys.readouterr().err
    assert len(os.listdir(root / LABELS)) == 3


def test_many_processes_give_the_same_files_as_one(root, prepare):
    expected = mini.write_coco(root, images=40)
    assert prepare("coco_stuff", jobs=3) == 0
    assert_equal(root, expected)


def test_a_folder_that_cannot_be_written_is_one_line(root, prepare, capsys):
    mini.write_coco(root)
    (root / "coco-stuff/annotations_detectron2").write_text("in the way")
    assert prepare("coco_stuff") == 2
    lines = capsys.readouterr().err.splitlines()
    assert "annotations_detectron2" in lines[-1] and lines[-1].startswith("error: ")


def test_a_concurrent_run_is_refused(root, prepare, capsys):
    expected = mini.write_coco(root)
    for split in ("train2017", "val2017"):
        (root / f"coco-stuff/annotations_detectron2/{split}").mkdir(parents=True)
    (root / f"{label(3)}.partial").write_bytes(b"half")
    with exclusive_lock(root / LABELS):
        assert prepare("coco_stuff") == 2
        assert os.listdir(root / LABELS) == [Path(label(3)).name + ".partial"]
    assert f"another process is writing to {root / LABELS}" in capsys.readouterr().err
    assert prepare("coco_stuff") == 0
    assert_equal(root, expected)


def test_hidden_files_are_not_counted(root, prepare, capsys):
    mini.write_voc(root)
    prepare("voc")
    (root / mini.VOC / "annotations_detectron2_bg/val/._2007_000001.png").touch()
    capsys.readouterr()
    prepare("voc")
    assert "3 labels in" in capsys.readouterr().out


def test_jobs_must_be_positive(root, prepare, capsys):
    assert prepare("voc", jobs=0) == 2
    assert capsys.readouterr().err == "error: --jobs 0: give 1 or more\n"


def test_too_many_files_are_a_warning(root, prepare, capsys, monkeypatch):
    mini.write_voc(root)
    prepare("voc")
    for number in range(1450):
        (root / mini.VOC / f"annotations_detectron2_bg/val/{number}.png").touch()
    capsys.readouterr()
    prepare("voc")
    assert "1453 of 1449 expected labels: too many files" in capsys.readouterr().err


def test_as_a_user_runs_it(tmp_path):
    root = tmp_path / "my data"
    expected = mini.write_voc(root)
    done = subprocess.run(
        [sys.executable, REPO_ROOT / "datasets/prepare_voc.py", "--root", root, "--jobs", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("to use these datasets: export ")
    assert shlex.split(last)[-1] == f"DETECTRON2_DATASETS={root}"
    assert "voc_2012_test_sem_seg: 100%" in done.stderr
    assert_equal(root, expected)
