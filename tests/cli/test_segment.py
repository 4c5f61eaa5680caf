from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cat_seg.cli import segment as demo
from cat_seg.errors import UserError
from cat_seg.predictor import Predictor
from cat_seg.utils import paths
from cat_seg.utils.paths import REPO_ROOT
from cat_seg.utils.processes import Stopped
from cat_seg.visualization.palette import palette
from tests.color_model import write_config, write_weights

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two images, a text file and a hidden file."""
    folder = tmp_path / "photos"
    folder.mkdir()
    save(folder / "one.png", RED)
    save(folder / "two.JPG", BLUE)
    (folder / "notes.txt").write_text("no image")
    save(folder / "._one.png", RED)
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch):
    """Run the demo on the stand-in model; gives the exit status."""
    # It would write to the first test's streams, and keep the log from the tests after it.
    monkeypatch.setattr(demo, "setup_logger", lambda **names: None)
    config, weights = write_config(tmp_path), write_weights(tmp_path)

    def run(*arguments: object, opts: tuple[str, ...] = ("MODEL.WEIGHTS", weights)) -> int:
        words = ["--config-file", config, *map(str, arguments), "--opts", *opts]
        try:
            return demo.main(words)
        except SystemExit as error:
            return error.code

    return run


def save(path: Path, color: tuple[int, int, int]) -> None:
    Image.new("RGB", (60, 40), color).save(path, format="PNG")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def class_at_center(picture: Path) -> int:
    """Which class's color the upper middle of an overlay has most of."""
    with Image.open(picture) as image:
        pixel = np.asarray(image)[100, 200].astype(float)
    seen = np.array([RED, (0, 255, 0), BLUE]) * 0.45 + palette(3) * 0.55
    return int(np.abs(seen - pixel).sum(axis=1).argmin())


def test_a_folder_gives_one_picture_per_image(photos, tmp_path, run, capsys):
    assert run("--input", photos, "--output", tmp_path / "new" / "out") == 0
    assert files(tmp_path / "new" / "out") == ["one.png", "two.png"]
    assert class_at_center(tmp_path / "new" / "out" / "one.png") == 0
    assert class_at_center(tmp_path / "new" / "out" / "two.png") == 2
    assert "wrote 2 of 2 images to " in capsys.readouterr().out


def test_files_folders_and_patterns_together(photos, tmp_path, run):
    more = tmp_path / "more" / "deep"
    more.mkdir(parents=True)
    save(more / "three.png", RED)
    save(tmp_path / "four.dat", RED)
    again = photos / ".." / "photos" / "one.png"
    inputs = ["--input", photos, again, tmp_path / "more" / "**", "--input", tmp_path / "four.dat"]
    assert run(*inputs, "--output", tmp_path / "out") == 0
    assert files(tmp_path / "out") == ["four.png", "one.png", "three.png", "two.png"]


def test_relative_inputs_also_start_at_the_repository(photos, tmp_path, run, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(paths, "SHIPPED_ROOT", tmp_path)
    assert run("--input", "photos", "--output", "out") == 0
    assert files(tmp_path / "elsewhere" / "out") == ["one.png", "two.png"]


def test_brackets_in_a_file_name_are_not_a_pattern(tmp_path, run):
    save(tmp_path / "a[1].png", RED)
    assert run("--input", tmp_path / "a[1].png", "--output", tmp_path / "out") == 0
    assert files(tmp_path / "out") == ["a[1].png"]


def test_masks_and_their_classes(photos, tmp_path, run):
    out = tmp_path / "out"
    classes = tmp_path / "mine.txt"
    classes.write_text("Blue\nlime\nRED, rød\n", encoding="utf-8")
    words = ("--vocabulary", classes, "--save-masks")
    assert run("--input", photos, "--output", out, *words) == 0
    expected = ["classes.json", "one.png", "one_mask.png", "two.png", "two_mask.png"]
    assert files(out) == expected
    content = (out / "classes.json").read_text(encoding="utf-8")
    assert json.loads(content) == ["Blue", "lime", "RED, rød"]
    assert "rød" in content
    for name, label in (("one", 2), ("two", 0)):
        with Image.open(out / f"{name}_mask.png") as mask:
            assert mask.mode == "P"
            np.testing.assert_array_equal(np.asarray(mask), np.full((40, 60), label))


def test_only_the_requested_classes_are_shown(photos, tmp_path, run, monkeypatch):
    shown = []
    original = demo.draw_overlay
    monkeypatch.setattr(
        demo, "draw_overlay", lambda *args: (shown.append(args[2]), original(*args))[1]
    )
    out = tmp_path / "out"
    assert run("--input", photos, "--output", out) == 0
    assert run("--input", photos, "--output", out, "--vocabulary", "Red, YELLOW") == 0
    assert shown == [("red", "lime", "blue")] * 2 + [("Red", "YELLOW")] * 2


def test_an_unreadable_image_is_named_and_skipped(photos, tmp_path, run, capsys):
    (photos / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "out"
    assert run("--input", photos, photos / "notes.txt", "--output", out) == 1
    assert files(out) == ["one.png", "two.png"]
    stderr = capsys.readouterr().err
    assert "broken.jpg" in stderr and "notes.txt" in stderr
    assert stderr.strip().splitlines()[-1] == "skipped 2 images; the reasons are listed above"


def test_long_thin_images_are_drawn(tmp_path, run):
    sizes = [(1, 1), (1, 6000), (3000, 1)]
    for height, width in sizes:
        Image.new("RGB", (width, height), RED).save(tmp_path / f"{height}x{width}.png")
    out, opts = tmp_path / "out", ("INPUT.MIN_SIZE_TEST", "640", "INPUT.MAX_SIZE_TEST", "2560")
    opts += ("MODEL.WEIGHTS", str(tmp_path / "model.pth"))
    assert run("--input", tmp_path, "--output", out, "--save-masks", opts=opts) == 0
    for height, width in sizes:
        with Image.open(out / f"{height}x{width}_mask.png") as mask:
            assert mask.size == (width, height)
        assert (out / f"{height}x{width}.png").exists()


@pytest.mark.parametrize("failing", ["predictor", "drawing"])
def test_a_failing_image_does_not_stop_the_others(
    photos, tmp_path, run, monkeypatch, capsys, failing
):
    Image.new("RGB", (77, 40), RED).save(photos / "first.png")

    def limited(original):
        def called(*args):
            image = args[0] if failing == "drawing" else args[1][0]
            if image.shape[1] == 77:
                raise MemoryError
            return original(*args)

        return called

    if failing == "predictor":
        monkeypatch.setattr(Predictor, "_segment", limited(Predictor._segment))
    else:
        monkeypatch.setattr(demo, "draw_overlay", limited(demo.draw_overlay))
    assert run("--input", photos, "--output", tmp_path / "out") == 1
    assert files(tmp_path / "out") == ["one.png", "two.png"]
    captured = capsys.readouterr()
    assert f"skipped: image {photos / 'first.png'}: " in captured.err
    assert "not enough memory to" in captured.err
    assert "wrote 2 of 3 images" in captured.out


def test_a_folder_of_odd_files(photos, tmp_path, run, capfd):
    os.mkfifo(photos / "pipe.png")
    (photos / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (photos / "circle.png").symlink_to(photos / "circle.png")
    (photos / "empty.png").touch()
    name = os.fsdecode(b"bad_\xff_byte")
    save(photos / f"{name}.png", BLUE)
    (photos / os.fsdecode(b"page_\xff.jpg")).write_bytes(b"<!DOCTYPE html>")
    palette_image = Image.new("P", (60, 40))
    palette_image.save(photos / "palette.png", transparency=bytes([0, 255]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run("--input", photos, "--output", tmp_path / "out", "--save-masks") == 1
    drawn = [name for name in files(tmp_path / "out") if name.endswith("_mask.png")]
    assert drawn == sorted(f"{stem}_mask.png" for stem in (name, "one", "two", "palette"))
    captured = capfd.readouterr()
    assert captured.err.count("skipped: cannot read image") == 5
    assert r"page_\udcff.jpg" in captured.err
    assert captured.err.strip().splitlines()[-1].startswith("skipped 5 images; ")


def test_the_exif_orientation_can_be_ignored(tmp_path, run):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40), RED).save(tmp_path / "lying.png", exif=exif)
    weights = ("MODEL.WEIGHTS", str(tmp_path / "model.pth"))
    arguments = ("--input", tmp_path / "lying.png", "--output", tmp_path / "out", "--save-masks")
    for opts, size in (((), (40, 60)), (("INPUT.IGNORE_EXIF_ORIENTATION", "True"), (60, 40))):
        assert run(*arguments, opts=weights + opts) == 0
        with Image.open(tmp_path / "out" / "lying_mask.png") as mask:
            assert mask.size == size


@pytest.mark.parametrize("text", ["~nobody-of-that-name/a.png", "n" * 300, "a" * 5000])
def test_an_impossible_input_is_one_line(tmp_path, run, capsys, text):
    assert run("--input", text, "--output", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --input ")


def test_equal_names_do_not_overwrite_each_other(photos, tmp_path, run):
    other = tmp_path / "other"
    other.mkdir()
    save(other / "one.png", BLUE)
    save(photos / "one.jpg", BLUE)
    save(photos / "one_mask.png", RED)
    out = tmp_path / "out"
    assert run("--input", photos, other, "--output", out, "--save-masks") == 0
    pictures = ["one", "one_2", "one_mask_2", "two", "one_3"]
    expected = [f"{name}{end}" for name in pictures for end in (".png", "_mask.png")]
    assert files(out) == sorted(["classes.json", *expected])
    assert class_at_center(out / "one_3.png") == 2


def test_names_differ_where_file_names_ignore_case():
    names = demo.picture_names([Path("a/Cat.png"), Path("b/cat.png"), Path("c/cat_2.png")])
    assert names == ["Cat", "cat_2", "cat_2_2"]


def test_long_names_are_cut_to_what_a_file_system_takes(photos, tmp_path, run):
    for stem in ("n" * 251, "猫" * 83):
        save(photos / f"{stem}.png", RED)
    assert run("--input", photos, "--output", tmp_path / "out", "--save-masks") == 0
    pictures = [name for name in files(tmp_path / "out") if name.endswith("_mask.png")]
    expected = ["n" * 200, "one", "two", "猫" * 66]
    assert pictures == [f"{stem}_mask.png" for stem in expected]


@pytest.mark.parametrize("pattern", ["", "**", "**/*.png"])
def test_pictures_are_never_read_as_images(photos, run, pattern):
    out = photos / "out"
    for _ in range(2):
        assert run("--input", photos / pattern, "--output", out) == 0
        assert "one.png" in files(out)
        assert not {"one_2.png", "one_3.png"} & set(files(out))


def test_the_output_folder_is_not_read(photos, run, capsys):
    before = (photos / "one.png").read_bytes()
    assert run("--input", photos, "--output", photos) == 2
    assert run("--input", photos / "one.png", "--output", photos) == 2
    assert (photos / "one.png").read_bytes() == before
    assert "no images found outside the output folder" in capsys.readouterr().err


def test_links_in_the_output_folder_are_not_read(photos, tmp_path, run):
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "one.png").symlink_to(photos / "one.png")
    assert run("--input", linked, "--output", linked) == 2
    assert (linked / "one.png").is_symlink()
    assert run("--input", linked, "--output", photos / "out") == 0


def test_the_output_may_lie_above_the_input(photos, tmp_path, run):
    assert run("--input", photos, "--output", tmp_path) == 0
    assert (tmp_path / "two.png").exists()


@pytest.mark.parametrize("missing", ["nowhere", "nowhere/*.jpg", "nothing.jpg"])
def test_an_input_without_images_is_an_error(photos, tmp_path, run, capsys, missing):
    assert run("--input", photos, tmp_path / missing, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: --input ") and missing in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_read_is_named(photos, tmp_path, run, monkeypatch, capsys):
    locked = photos / "locked"
    locked.mkdir()
    iterdir = Path.iterdir

    def refusing(folder):
        if folder == locked:
            raise PermissionError(errno.EACCES, "Permission denied")
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", refusing)
    assert run("--input", photos / "**", "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: --input ") and "\n" not in error
    assert f"cannot read {locked}: Permission denied" in error


def test_an_output_that_is_a_file_is_an_error(photos, tmp_path, run, capsys):
    (tmp_path / "out").write_text("mine")
    assert run("--input", photos, "--output", tmp_path / "out") == 2
    assert f"cannot write {tmp_path / 'out'}" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_a_picture_that_cannot_be_written_is_an_error(photos, tmp_path, run, capsys):
    (tmp_path / "out" / "one.png").mkdir(parents=True)
    assert run("--input", photos, "--output", tmp_path / "out") == 2
    assert "one.png: " in capsys.readouterr().err
    assert files(tmp_path / "out") == ["one.png"]


@pytest.mark.parametrize(
    ("words", "opts", "message"),
    [
        (("--vocabulary", ""), (), "no class names"),
        (("--vocabulary", "missing.json"), (), "missing.json"),
        ((), ("MODEL.WEIGHTS", "missing.pth"), "missing.pth"),
        ((), ("MODEL.WEIGHTS", ""), "MODEL.WEIGHTS is empty"),
        ((), ("MODEL.NO_SUCH_KEY", "1"), "MODEL.NO_SUCH_KEY"),
        ((), ("MODEL.DEVICE", "cuda"), "MODEL.DEVICE cpu"),
    ],
)
def test_bad_input_is_one_line(photos, tmp_path, run, monkeypatch, capsys, words, opts, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    weights = () if "MODEL.WEIGHTS" in opts else ("MODEL.WEIGHTS", str(tmp_path / "model.pth"))
    arguments = ("--input", photos, "--output", tmp_path / "out", *words)
    assert run(*arguments, opts=weights + opts) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


@pytest.mark.parametrize(
    ("interrupt", "status"), [(KeyboardInterrupt, 130), (partial(Stopped, signal.SIGTERM), 143)]
)
def test_a_signal_leaves_only_complete_files(
    photos, tmp_path, run, monkeypatch, capsys, interrupt, status
):
    atomic_write = demo.atomic_write

    @contextmanager
    def interrupted(path):
        with atomic_write(path) as file:
            yield file
            if path.name == "two.png":
                raise interrupt()

    monkeypatch.setattr(demo, "atomic_write", interrupted)
    assert run("--input", photos, "--output", tmp_path / "out") == status
    assert files(tmp_path / "out") == ["one.png"]
    with Image.open(tmp_path / "out" / "one.png") as image:
        image.load()
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("interrupted; ")


def test_the_script_runs_from_any_folder(tmp_path):
    words = ["--config-file", "configs/vitb_384.yaml", "--input", "none", "--output", "out"]
    done = subprocess.run(
        [sys.executable, REPO_ROOT / "demo" / "demo.py", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: --input none: no images")


def test_find_images_keeps_the_order_of_the_inputs(photos):
    inputs = [str(photos / "two.JPG"), str(photos)]
    found = demo.find_images(inputs, photos / "out")
    assert [path.name for path in found] == ["two.JPG", "one.png"]
    with pytest.raises(UserError):
        demo.find_images([str(photos), "nowhere"], photos / "out")
