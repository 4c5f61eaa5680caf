from __future__ import annotations

import errno
import json
import os
import re
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
from cat_seg.cli.segmenting import pictures
from cat_seg.cli.segmenting.inputs import find_images, picture_names
from cat_seg.errors import UserError
from cat_seg.inference import result
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
    original = result.draw_overlay
    monkeypatch.setattr(
        result, "draw_overlay", lambda *args: (shown.append(args[2]), original(*args))[1]
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
        monkeypatch.setattr(result, "draw_overlay", limited(result.draw_overlay))
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
    names = picture_names([Path("a/Cat.png"), Path("b/cat.png"), Path("c/cat_2.png")])
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
    atomic_write = pictures.atomic_write

    @contextmanager
    def interrupted(path):
        with atomic_write(path) as file:
            yield file
            if path.name == "two.png":
                raise interrupt()

    monkeypatch.setattr(pictures, "atomic_write", interrupted)
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
    found = find_images(inputs, photos / "out")
    assert [path.name for path in found] == ["two.JPG", "one.png"]
    with pytest.raises(UserError):
        find_images([str(photos), "nowhere"], photos / "out")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder such as a training leaves behind."""
    folder = tmp_path / "model"
    folder.mkdir()
    write_config(folder)
    Path(write_weights(folder)).rename(folder / "model_final.pth")
    return folder


def main(*words: object) -> int:
    try:
        return demo.main([*map(str, words)])
    except SystemExit as error:
        return error.code


def test_a_model_comes_with_its_config(photos, tmp_path, run, model):
    assert main(photos, "--model", model, "-o", tmp_path / "out", "--opts", "MODEL.TF32", "0") == 2
    words = (photos, "--model", model, "-o", tmp_path / "out", "--save-masks")
    assert main(*words) == 0
    with Image.open(tmp_path / "out" / "two_mask.png") as mask:
        assert mask.getpixel((0, 0)) == 2
    file = (model / "model_final.pth").rename(tmp_path / "weights.pth")
    words = (photos, "--model", file, "--config-file", model / "config.yaml")
    assert main(*words, "-o", tmp_path / "again") == 0


def test_a_model_or_a_config_is_needed(photos, tmp_path, capsys):
    assert main(photos, "-o", tmp_path / "out") == 2
    assert "name the model with --model" in capsys.readouterr().err


def test_pixels_below_the_confidence_are_unknown(photos, tmp_path, run):
    save(photos / "gray.png", (128, 128, 128))
    words = ("--input", photos, "--output", tmp_path / "out", "--save-masks", "--save-json")
    assert run(*words, "--confidence", "0.5") == 0
    for name, label in (("gray", 255), ("one", 0), ("two", 2)):
        with Image.open(tmp_path / "out" / f"{name}_mask.png") as mask:
            assert mask.getpixel((0, 0)) == label
    record = json.loads((tmp_path / "out" / "gray_result.json").read_text())
    assert record["unknown"] == 1 and record["classes"] == [] and record["threshold"] == 0.5


def test_records_of_areas_and_confidences(photos, tmp_path, run):
    save(photos / "classes.png", RED)
    assert run("--input", photos, "--output", tmp_path / "out", "--save-json") == 0
    assert [name for name in files(tmp_path / "out") if name.endswith(".json")] == [
        f"{name}_result.json" for name in ("classes", "one", "two")
    ]
    record = json.loads((tmp_path / "out" / "two_result.json").read_text())
    assert record["source"] == str(photos / "two.JPG")
    (only,) = record["classes"]
    assert (only["name"], only["index"], only["area"]) == ("blue", 2, 1)
    assert only["confidence"] == pytest.approx(1)


def test_batches_give_the_same_files(photos, tmp_path, run):
    (photos / "broken.jpg").write_bytes(b"no image")
    for size in (1, 2, 10):
        words = ("--batch-size", size, "--save-masks", "--save-json")
        assert run("--input", photos, "--output", tmp_path / f"{size}", *words) == 1
    for name in files(tmp_path / "1"):
        contents = {(tmp_path / size / name).read_bytes() for size in ("1", "2", "10")}
        assert len(contents) == 1
    assert files(tmp_path / "2") == files(tmp_path / "10") == files(tmp_path / "1")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--confidence", "2"), "error: --confidence: threshold is 2.0; give a number from 0 to 1"),
        (("--batch-size", "0"), "error: --batch-size 0: give 1 or more"),
        (("--devices", "tpu", "cpu"), "error: --devices tpu: MODEL.DEVICE is 'tpu'; set it to"),
    ],
)
def test_wrong_values_are_one_line(photos, tmp_path, run, capsys, words, told):
    assert run("--input", photos, "--output", tmp_path / "out", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(told)


def test_sliding_windows_are_those_of_the_benchmarks(photos, tmp_path, run, monkeypatch):
    seen = []
    monkeypatch.setattr(demo, "Segmenter", lambda cfg, names: seen.append(cfg) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("--input", photos, "--output", tmp_path / "out", "--sliding-window")
    assert seen[0].TEST.SLIDING_WINDOW is True
    assert seen[0].MODEL.SEM_SEG_HEAD.POOLING_SIZES == [1, 1]


def test_the_speed_is_told(photos, tmp_path, run, capsys):
    assert run("--input", photos, "--output", tmp_path / "out") == 0
    assert re.search(
        r"wrote 2 of 2 images to .* \([\d.e+]+ images a second\)", capsys.readouterr().out
    )
