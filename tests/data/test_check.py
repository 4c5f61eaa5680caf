from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cat_seg.data import check
from cat_seg.data.registration import register, unregister
from cat_seg.data.specs import DatasetSpec, Layout
from cat_seg.data.vocabularies import load_vocabulary
from cat_seg.utils.paths import REPO_ROOT
from cat_seg.visualization import contact_sheet

HEIGHT, WIDTH = 6, 8
COLUMNS = ["Dataset", "Benchmark", "Images", "Expected", "Classes", "Result"]


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    """The datasets root, undone also where the command changes it."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "root"))
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def add(root):
    """Register the dataset "sample" with some images; labels are 0 to 19."""

    def add(count=4, **settings) -> tuple[Path, Path]:
        layout = Layout("images", "labels")
        settings = {"expected": count, "made_by": "run `make sample`"} | settings
        register(DatasetSpec("sample", "datasets/voc20.json", (layout,), **settings))
        return fill(root / "images", root / "labels", count, settings.get("label_suffix", ".png"))

    yield add
    unregister("sample")


def fill(images: Path, labels: Path, count: int, suffix: str = ".png") -> tuple[Path, Path]:
    for folder in (images, labels):
        folder.mkdir(parents=True)
    for index in range(count):
        write_image(images / f"{index}.jpg")
        write_label(labels / f"{index}{suffix}", index)
    return images, labels


def write_image(path: Path, height: int = HEIGHT, width: int = WIDTH) -> None:
    Image.fromarray(np.full((height, width, 3), 99, dtype=np.uint8)).save(path)


def write_label(path: Path, value: int, dtype=np.uint8) -> None:
    label = np.full((HEIGHT, WIDTH), value, dtype=dtype)
    label[0, 0] = np.iinfo(dtype).max
    Image.fromarray(label).save(path)


def run(tmp_path: Path, *arguments: str) -> int:
    return check.main(["--output", str(tmp_path / "out"), "--jobs", "1", *arguments])


def rows(output: str) -> dict[str, list[str]]:
    """The cells of the table by the first of their line."""
    lines = [line for line in output.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == COLUMNS
    return {first: rest for first, *rest in cells[2:]}


def test_a_sound_dataset(add, tmp_path, capsys):
    add(count=4)
    assert run(tmp_path, "--datasets", "sample") == 0
    captured = capsys.readouterr()
    assert rows(captured.out) == {"sample": ["-", "4", "4", "4 of 20", "ok"]}
    assert "4/4" in captured.err  # the progress bar
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sample.png"]


def test_many_processes_find_the_same_problems_as_one(add, tmp_path, capsys):
    _, labels = add(count=12)
    for index in (2, 9):
        write_label(labels / f"{index}.png", 20 + index)
    assert run(tmp_path, "--datasets", "sample") == 1
    alone = capsys.readouterr().out, (tmp_path / "out/sample.problems.txt").read_text()
    assert run(tmp_path, "--datasets", "sample", "--jobs", "3") == 1
    assert alone == (
        capsys.readouterr().out,
        (tmp_path / "out/sample.problems.txt").read_text(),
    )


def test_every_problem_is_named_and_the_rest_is_checked(add, tmp_path, capsys):
    images, labels = add(count=7)
    write_label(labels / "0.png", 20)
    write_image(images / "1.jpg", HEIGHT, WIDTH + 1)
    (labels / "2.png").write_bytes((labels / "2.png").read_bytes()[:-30])
    (images / "3.jpg").write_bytes(b"no image")
    (labels / "4.png").unlink()
    (images / "5.jpg").unlink()
    assert run(tmp_path, "--datasets", "sample", "--samples", "0") == 1
    captured = capsys.readouterr()
    assert rows(captured.out)["sample"] == ["-", "5", "7", "3 of 20", "7 problems"]
    wanted = (
        f"label {labels / '5.png'} has no image of the same name",
        f"image {images / '4.jpg'} has no label of the same name",
        "5 labeled images instead of 7; run `make sample`",
        f"label {labels / '0.png'} has the value 20",
        f"label {labels / '1.png'} is 8x6 pixels, but its image {images / '1.jpg'} is 9x6",
        f"cannot read label {labels / '2.png'}",
        f"cannot read image {images / '3.jpg'}",
    )
    listed = (tmp_path / "out/sample.problems.txt").read_text().splitlines()
    for line, start in zip(listed, wanted, strict=True):
        assert line.startswith(start)
        assert f"sample: {line}\n" in captured.err


def test_the_first_problems_are_shown_and_all_are_listed(add, tmp_path, capsys):
    _, labels = add(count=15)
    for index in range(15):
        write_label(labels / f"{index}.png", 21)
    run(tmp_path, "--datasets", "sample")
    file = tmp_path / "out/sample.problems.txt"
    assert len(file.read_text().splitlines()) == 15
    shown = capsys.readouterr().err
    assert shown.count("has the value 21") == 10
    assert str(file) in shown
    for index in range(15):
        write_label(labels / f"{index}.png", 3)
    assert run(tmp_path, "--datasets", "sample") == 0
    assert not file.exists()


def test_an_image_damaged_behind_its_header_shows_in_the_samples(add, tmp_path, capsys):
    images, _ = add(count=3)
    Image.effect_noise((WIDTH, HEIGHT), 90).save(images / "1.jpg", quality=100)
    (images / "1.jpg").write_bytes((images / "1.jpg").read_bytes()[:-40])
    assert run(tmp_path, "--datasets", "sample", "--samples", "1") == 0
    assert run(tmp_path, "--datasets", "sample") == 1
    assert f"cannot read image {images / '1.jpg'}" in capsys.readouterr().err
    assert (tmp_path / "out/sample.png").exists()


def test_the_picture_shows_evenly_spread_samples(add, tmp_path):
    add(count=9, ignore_label=0)
    for value in range(9):
        label = np.full((HEIGHT, WIDTH), value, dtype=np.uint8)
        label[0] = 0  # ignored
        Image.fromarray(label).save(tmp_path / f"root/labels/{value}.png")
    run(tmp_path, "--datasets", "sample", "--samples", "3")
    shown = [np.full((HEIGHT, WIDTH), value) for value in (-1, 4, 8)]
    for label in shown:
        label[0] = -1
    expected = contact_sheet(
        [np.full((HEIGHT, WIDTH, 3), 99, dtype=np.uint8)] * 3,
        [[label] for label in shown],
        load_vocabulary("datasets/voc20.json"),
        alpha=check.LABEL_OPACITY,
        panel_size=check.PANEL,
        heading="sample",
        remark="9 of 9 labeled images  ·  8 of 20 classes occur  ·  ignore label 0",
        captions=[
            f"{index}.jpg  ·  {WIDTH} x {HEIGHT}  ·  {share} ignored"
            for index, share in ((0, "100%"), (4, "17%"), (8, "17%"))
        ],
        columns=2,
        legend_per_image=True,
    )
    picture = np.asarray(Image.open(tmp_path / "out/sample.png"))
    np.testing.assert_array_equal(picture, expected)


def test_an_old_picture_is_removed(add, tmp_path):
    images, _ = add(count=1)
    run(tmp_path, "--datasets", "sample")
    (images / "0.jpg").write_bytes(b"no image")
    run(tmp_path, "--datasets", "sample")
    assert not (tmp_path / "out/sample.png").exists()


@pytest.mark.parametrize(
    ("drops", "expected", "status", "bound"),
    [
        (False, 21, 1, "21"),
        (False, 19, 1, "19"),
        (True, 21, 0, "at most 21"),
        (True, 22, 1, "at most 22"),  # a conversion that was stopped
        (True, 19, 1, "at most 19"),
        (False, None, 0, "-"),
    ],
)
def test_counts(add, tmp_path, capsys, drops, expected, status, bound):
    add(count=20, expected=expected, drops_unlabeled=drops)
    assert run(tmp_path, "--datasets", "sample", "--samples", "0") == status
    found = capsys.readouterr()
    assert rows(found.out)["sample"][1:3] == ["20", bound]
    assert ("instead of" in found.err) == bool(status)


def test_file_names_may_contain_any_bytes(add, tmp_path, capsys, mine):
    images, labels = add(count=3)
    name = os.fsdecode(b"bad_\xff\nbyte")
    os.rename(images / "0.jpg", images / f"{name}.jpg")
    os.rename(labels / "0.png", labels / f"{name}.png")
    datasets = ("--config-file", config(tmp_path), "--datasets", "sample", "check_mine")
    assert run(tmp_path, *datasets) == 0
    capsys.readouterr()
    write_label(labels / f"{name}.png", 20)
    os.rename(images / "1.jpg", images / f"{name}_2.jpg")
    (images / "2.jpg").write_bytes(b"no image")
    assert run(tmp_path, *datasets) == 1
    captured = capsys.readouterr()
    assert rows(captured.out)["check_mine"][-1] == "ok"
    listed = (tmp_path / "out/sample.problems.txt").read_text(encoding="utf-8")
    assert r"bad_\udcff\nbyte_2.jpg has no label" in listed
    assert r"bad_\udcff\nbyte.png has the value 20" in listed
    for stream in captured:
        stream.encode()


def test_lossy_labels_are_not_sound(add, tmp_path, capsys):
    _, labels = add(count=2)
    Image.fromarray(np.full((HEIGHT, WIDTH), 3, np.uint8)).save(labels / "1.png", format="JPEG")
    assert run(tmp_path, "--datasets", "sample") == 1
    assert f"label {labels / '1.png'} is a JPEG file" in capsys.readouterr().err


def test_damaged_and_dark_images_are_not_sound(tmp_path, mine, capsys):
    images = tmp_path / "mine/images"
    for index in (0, 1):
        (images / f"{index}.jpg").unlink()
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    Image.fromarray(noise).save(images / "0.png")
    content = bytearray((images / "0.png").read_bytes())
    content[-30] ^= 16
    (images / "0.png").write_bytes(content)
    Image.fromarray(noise.astype(np.uint16)).save(images / "1.tif")
    arguments = ("--config-file", config(tmp_path), "--datasets", "check_mine", "--samples", "0")
    assert run(tmp_path, *arguments) == 1
    error = capsys.readouterr().err
    assert f"cannot read image {images / '0.png'}" in error
    assert f"image {images / '1.tif'} is nearly black" in error


def test_labels_that_are_all_ignored_are_not_sound(add, tmp_path, capsys):
    add(count=2)
    for index in (0, 1):
        write_label(tmp_path / f"root/labels/{index}.png", 255)
    assert run(tmp_path, "--datasets", "sample") == 1
    captured = capsys.readouterr()
    assert rows(captured.out)["sample"][3:] == ["0 of 20", "1 problem"]
    assert "sample: no label map has a labeled pixel: all values are 255" in captured.err


def test_some_labels_that_are_all_ignored_are_a_warning(add, tmp_path, capsys):
    _, labels = add(count=4)
    for index in (1, 2):
        write_label(labels / f"{index}.png", 255)
    assert run(tmp_path, "--datasets", "sample") == 0
    captured = capsys.readouterr()
    assert rows(captured.out)["sample"][-1] == "ok, 1 warning"
    expected = f"warning: 2 of 4 label maps have no labeled pixels (first: {labels / '1.png'}):"
    assert f"sample: {expected}" in captured.err


def test_masks_of_0_and_255_are_a_warning(add, tmp_path, capsys):
    _, labels = add(count=2)
    for index in (0, 1):
        write_label(labels / f"{index}.png", 0)
    assert run(tmp_path, "--datasets", "sample") == 0
    captured = capsys.readouterr()
    assert rows(captured.out)["sample"][3:] == ["1 of 20", "ok, 1 warning"]
    assert "sample: warning: only class 0 (" in captured.err
    assert "if these are binary masks, convert them" in captured.err
    write_label(labels / "1.png", 20)
    assert run(tmp_path, "--datasets", "sample") == 1
    assert rows(capsys.readouterr().out)["sample"][-1] == "1 problem, 1 warning"


@pytest.mark.parametrize(("size", "value"), [((1, 3000), 1), ((3000, 1), 2)])
def test_long_thin_images_are_sound_and_drawn(add, tmp_path, size, value):
    images, labels = add(count=2)
    write_image(images / "1.jpg", *size)
    Image.fromarray(np.full(size, value, np.uint8)).save(labels / "1.png")
    assert run(tmp_path, "--datasets", "sample") == 0
    assert (tmp_path / "out/sample.png").exists()


def test_the_config_may_ignore_the_exif_orientation(mine, tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "mine/images/0.jpg", exif=exif)
    file = config(tmp_path)
    assert run(tmp_path, "--config-file", file, "--datasets", "check_mine") == 1
    assert "is 8x6 pixels, but its image" in capsys.readouterr().err
    with open(file, "a") as stream:
        stream.write("INPUT:\n  IGNORE_EXIF_ORIENTATION: true\n")
    assert run(tmp_path, "--config-file", file, "--datasets", "check_mine") == 0
    assert (tmp_path / "out/check_mine.png").exists()


def test_sixteen_bit_labels(add, tmp_path, capsys):
    _, labels = add(count=2, label_suffix=".tif", ignore_label=65535)
    for value in (0, 1):
        write_label(labels / f"{value}.tif", value, np.uint16)
    assert run(tmp_path, "--datasets", "sample") == 0
    write_label(labels / "1.tif", 255, np.uint16)
    assert run(tmp_path, "--datasets", "sample") == 1
    assert "has the value 255" in capsys.readouterr().err


def test_background_is_one_label_value(add, tmp_path, capsys):
    _, labels = add(count=1, background_from=15)
    write_label(labels / "0.png", 15)
    assert run(tmp_path, "--datasets", "sample") == 0
    assert rows(capsys.readouterr().out)["sample"][3] == "1 of 16"
    write_label(labels / "0.png", 16)
    assert run(tmp_path, "--datasets", "sample") == 1


def test_an_ignored_class_is_not_seen(add, tmp_path, capsys):
    add(count=3, ignore_label=0)
    write_label(tmp_path / "root/labels/1.png", 1)
    assert run(tmp_path, "--datasets", "sample") == 1  # 255 is not a class here
    for value in range(3):
        pixels = np.full((HEIGHT, WIDTH), value, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"root/labels/{value}.png")
    capsys.readouterr()
    assert run(tmp_path, "--datasets", "sample") == 0
    assert rows(capsys.readouterr().out)["sample"][3] == "2 of 20"


def test_where_nothing_is_every_benchmark_names_its_command(tmp_path, capsys, root):
    assert run(tmp_path) == 0
    captured = capsys.readouterr()
    table = rows(captured.out)
    assert [(name, cells[0]) for name, cells in table.items()] == [
        ("coco_2017_train_stuff_all_sem_seg", "-"),
        ("coco_2017_test_stuff_all_sem_seg", "-"),
        ("ade20k_150_train_sem_seg", "-"),
        ("ade20k_150_test_sem_seg", "A-150"),
        ("ade20k_full_sem_seg_freq_val_all", "A-847"),
        ("voc_2012_test_sem_seg", "PAS-20"),
        ("voc_2012_test_background_sem_seg", "PAS-20b"),
        ("context_59_test_sem_seg", "PC-59"),
        ("context_459_test_sem_seg", "PC-459"),
    ]
    assert {cells[-1] for cells in table.values()} == {"not found"}
    assert f"no datasets found in {root}" in captured.out
    for script in ("coco_stuff", "ade20k_150", "ade20k_full", "voc", "pascal_context_459"):
        assert f"run `python datasets/prepare_{script}.py`" in captured.out


def test_columns_of_the_results_table_name_datasets(tmp_path, capsys, monkeypatch):
    other = tmp_path / "other"
    folder = "ADEChallengeData2016/{}/validation"
    fill(other / folder.format("images"), other / folder.format("annotations_detectron2"), 2)
    assert run(tmp_path, "--root", str(other), "--datasets", "A-150", "PC-59") == 1
    captured = capsys.readouterr()
    assert rows(captured.out) == {
        "ade20k_150_test_sem_seg": ["A-150", "2", "2000", "2 of 150", "1 problem"],
        "context_59_test_sem_seg": ["PC-59", "-", "5104", "-", "not found"],
    }
    assert "2 labeled images instead of 2000: the download is incomplete" in captured.err


def config(tmp_path: Path, **changes: str) -> str:
    node = {
        "IMAGES": str(tmp_path / "mine/images"),
        "LABELS": str(tmp_path / "mine/labels"),
        "CLASSES": "datasets/voc20.json",
    } | changes
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"VERSION": 2, "DATASETS": {"CUSTOM": {"check_mine": node}}}))
    return str(path)


@pytest.fixture
def mine(tmp_path):
    fill(tmp_path / "mine/images", tmp_path / "mine/labels", 2)
    yield
    unregister("check_mine")


def test_the_datasets_of_a_config_come_on_top(mine, tmp_path, capsys):
    assert run(tmp_path, "--config-file", config(tmp_path)) == 0
    table = rows(capsys.readouterr().out)
    assert len(table) == 10
    assert table["check_mine"] == ["-", "2", "-", "2 of 20", "ok"]


@pytest.mark.parametrize("key", ["IMAGES", "CLASSES"])
def test_a_dataset_of_a_config_that_is_not_there_is_a_problem(mine, tmp_path, capsys, key):
    file = config(tmp_path, **{key: "no/such.json"})
    assert run(tmp_path, "--config-file", file, "--datasets", "check_mine") == 1
    captured = capsys.readouterr()
    assert rows(captured.out)["check_mine"][-1] == "1 problem"
    assert f"DATASETS.CUSTOM.check_mine.{key}" in captured.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--jobs", "0"], "--jobs 0"),
        (["--samples", "-1"], "--samples -1"),
        (["--root", "no/such/folder"], "--root no/such/folder"),
        (["--datasets", "A-151"], "unknown dataset 'A-151'"),
        (["--config-file", "no.yaml"], "no.yaml"),
        (["--output", __file__], "test_check.py"),
    ],
)
def test_a_bad_argument_is_one_line(tmp_path, capsys, arguments, named):
    with pytest.raises(SystemExit) as status:
        run(tmp_path, *arguments)
    assert status.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and named in line


def test_ctrl_c(add, tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    add()
    monkeypatch.setattr(check, "check_dataset", interrupted)
    assert run(tmp_path, "--datasets", "sample") == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_module_runs_from_any_folder(tmp_path, root):
    arguments = ["--root", str(root), "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "cat_seg.data.check", *arguments, "--datasets", "no_such"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPO_ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: unknown dataset 'no_such'; choose from ")
