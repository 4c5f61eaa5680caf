"""Own datasets whose file names and label values are others than the plain ones."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog
from PIL import Image

import train_net
from cat_seg.data import IMAGE_SUFFIXES, check, read_label
from cat_seg.engine import load_config
from cat_seg.errors import UserError
from cat_seg.utils.paths import REPO_ROOT
from tests.data.test_custom import (
    NAMES,
    blocks,
    data,
    fields,
    in_a_folder_of_its_own,
    load,
    node,
    tiny_options,
)

__all__ = ["data", "fields", "in_a_folder_of_its_own"]  # fixtures

IGNORED = 255
EXAMPLES = {
    name: section
    for block in blocks("yaml")[1:]
    for name, section in yaml.safe_load(block)["DATASETS"]["CUSTOM"].items()
}


def class_map(index: int) -> np.ndarray:
    """Three classes and ignored pixels, (64, 80)."""
    label = np.random.default_rng(index).integers(0, 3, (8, 10)).astype(np.uint8)
    label[0] = IGNORED
    return label.repeat(8, 0).repeat(8, 1)


def encode(label: np.ndarray, values: dict[int, object]) -> np.ndarray:
    first = np.asarray(values[0])
    coded = np.zeros((*label.shape, *first.shape), np.uint8)
    for value, code in values.items():
        coded[label == value] = code
    return coded


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


# How each example of the document names an image and its label, and encodes the classes.
WRITTEN = {
    "streets_train": (
        "leftImg8bit/train/city_{0}/{0}_leftImg8bit.png",
        "gtFine/train/city_{0}/{0}_gtFine_labelTrainIds.png",
        {0: 0, 1: 1, 2: 2, IGNORED: 255},
    ),
    "from_one": ("images/{}.jpg", "labels/{}.png", {0: 1, 1: 2, 2: 3, IGNORED: 0}),
    "ids": ("images/{}.webp", "labels/{}.png", {0: 7, 1: 9, 2: 23, IGNORED: 4}),
    "colors": (
        "{}.png",
        "{}_L.png",
        {0: [128, 64, 128], 1: [0, 64, 0], 2: [70, 130, 180], IGNORED: [1, 2, 3]},
    ),
}


def write_example(name: str, folder: Path, count: int = 2) -> None:
    image, label, values = WRITTEN[name]
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 10, 3), np.uint8)
        save(folder / image.format(index), pixels.repeat(8, 0).repeat(8, 1))
        save(folder / label.format(index), encode(class_map(index), values))
    (folder / "classes.txt").write_text("\n".join(NAMES))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_documented_examples_give_the_classes(tmp_path, name):
    folder = tmp_path / os.path.dirname(EXAMPLES[name]["CLASSES"])
    write_example(name, folder)
    load({name: EXAMPLES[name]})
    records = DatasetCatalog.get(name)
    image, label, _ = WRITTEN[name]
    for index, record in enumerate(records):
        assert record["file_name"] == str(folder / image.format(index))
        assert record["sem_seg_file_name"] == str(folder / label.format(index))
        np.testing.assert_array_equal(
            read_label(record["sem_seg_file_name"], dtype=None), class_map(index)
        )
    assert len(records) == 2


def test_every_kind_trains_and_evaluates_as_plain_labels_do(fields, monkeypatch, capsys):
    """Training, evaluation, predictions and the check, with workers that get pickled records."""
    assert set(EXAMPLES) == set(WRITTEN)
    sections = {}
    for name in EXAMPLES:
        write_example(name, fields / os.path.dirname(EXAMPLES[name]["CLASSES"]))
        sections[name] = EXAMPLES[name]
    # The images of "ids" are lossy, so plain labels are compared with those of the others.
    plain = fields / "data/plain"
    for index in range(2):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 10, 3), np.uint8)
        save(plain / f"images/{index}.png", pixels.repeat(8, 0).repeat(8, 1))
        save(plain / f"labels/{index}.png", class_map(index))
    sections["plain"] = {
        "IMAGES": str(plain / "images"),
        "LABELS": str(plain / "labels"),
        "CLASSES": "data/ids/classes.txt",
    }
    config = yaml.safe_load(Path("configs/fields.yaml").read_text())
    config["DATASETS"] = {
        "CUSTOM": sections,
        "TRAIN": ["streets_train", "from_one", "ids", "colors"],
        "TEST": list(sections),
    }
    config["MODEL"]["SEM_SEG_HEAD"]["TRAIN_CLASS_JSON"] = "data/ids/classes.txt"
    Path("configs/kinds.yaml").write_text(yaml.safe_dump(config))
    arguments = ["--config-file", "configs/kinds.yaml", *tiny_options(fields)]
    changes = ["OUTPUT_DIR", "output/kinds", "TEST.SAVE_PREDICTIONS", "True"]
    changes += ["SOLVER.IMS_PER_BATCH", "4", "DATALOADER.NUM_WORKERS", "1"]
    monkeypatch.setattr(sys, "argv", ["train_net.py", *arguments, *changes])
    train_net.main()

    results, predicted = {}, {}
    for name in sections:
        folder = fields / "output/kinds/inference" / name
        results[name] = json.loads((folder / "results.json").read_text())
        entries = json.loads((folder / "sem_seg_predictions.json").read_text())
        assert {entry["file_name"] for entry in entries} == {
            record["file_name"] for record in DatasetCatalog.get(name)
        }
        predicted[name] = [(entry["category_id"], entry["segmentation"]) for entry in entries]
    for name in ("streets_train", "colors"):
        assert results[name]["sem_seg"] == results["plain"]["sem_seg"]
        assert predicted[name] == predicted["plain"]
    for name in sections:
        assert results[name]["counts"] == results["plain"]["counts"]

    names = ["--datasets", *sections, "--config-file", "configs/kinds.yaml"]
    assert check.main([*names, "--jobs", "2", "--output", "checked"]) == 0
    table = capsys.readouterr().out
    assert table.count("3 of 3") == len(sections) == table.count(" ok ")


def error(datasets: dict) -> str:
    load(datasets)
    with pytest.raises(UserError) as caught:
        DatasetCatalog.get("mine")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"IMAGE_SUFFIX": "png"}, "IMAGE_SUFFIX is 'png'; set it to the filename ending"),
        ({"IMAGE_SUFFIX": "a/_x.png"}, "IMAGE_SUFFIX is 'a/_x.png'; set it to the filename ending"),
        ({"SUBFOLDERS": "yes"}, "SUBFOLDERS is 'yes'; set it to True to also read"),
        ({"SUBFOLDERS": 1}, "SUBFOLDERS is 1; set it to True to also read"),
        ({"LABEL_SHIFT": "one"}, "LABEL_SHIFT is 'one'; set it to an integer to add"),
        ({"LABEL_SHIFT": -1000000}, "LABEL_SHIFT is -1000000; set it to an integer to add"),
        ({"LABEL_IDS": []}, "LABEL_IDS is []; set it to a list with the id"),
        ({"LABEL_IDS": 7}, "LABEL_IDS is 7; set it to a list with the id"),
        (
            {"LABEL_IDS": [7, "8"]},
            "LABEL_IDS has the invalid entry '8'; set it to a list with the id",
        ),
        (
            {"LABEL_IDS": [7, -1]},
            "LABEL_IDS has the invalid entry -1; set it to a list with the id",
        ),
        (
            {"LABEL_IDS": [7, True]},
            "LABEL_IDS has the invalid entry True; set it to a list with the id",
        ),
        (
            {"LABEL_IDS": [7, []]},
            "LABEL_IDS has the invalid entry []; set it to a list with the id",
        ),
        ({"LABEL_IDS": [7, [8, 7]]}, "LABEL_IDS has [8, 7], or a part of it, more than once"),
        (
            {"LABEL_COLORS": [[0, 0]]},
            "LABEL_COLORS has the invalid entry [0, 0]; set it to a list with the",
        ),
        (
            {"LABEL_COLORS": [[0, 0, 256]]},
            "LABEL_COLORS has the invalid entry [0, 0, 256]; set it to",
        ),
        ({"LABEL_COLORS": [[1, 2, 3], [[1, 2, 3]]]}, "LABEL_COLORS has [[1, 2, 3]], or a part of"),
        ({"LABEL_OTHERS": "drop"}, 'LABEL_OTHERS is \'drop\'; set it to "error" or "ignore"'),
        ({"IGNORE_LABEL": 65536}, "IGNORE_LABEL is 65536; label maps have at most 16 bits"),
    ],
)
def test_a_wrong_value_is_named_at_the_start(changes, named):
    with pytest.raises(UserError) as caught:
        load({"mine": node(**changes)})
    assert str(caught.value).startswith(f"DATASETS.CUSTOM.mine.{named}")
    assert "\n" not in str(caught.value)


def test_two_tables_are_refused():
    with pytest.raises(
        UserError, match=r"CUSTOM\.mine has LABEL_SHIFT and LABEL_IDS, .*; keep one"
    ):
        load({"mine": node(LABEL_SHIFT=-1, LABEL_IDS=[1, 2, 3])})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"LABEL_IDS": [7, 8]}, "mine.LABEL_IDS has 2 entries, but classes.txt has 3 classes"),
        ({"LABEL_COLORS": [[0, 0, 0]]}, "mine.LABEL_COLORS has 1 entries, but classes.txt has 3"),
        (
            {"LABEL_IDS": [7, 8, 9], "BACKGROUND_FROM": 1},
            "mine.LABEL_IDS has 3 entries, but classes.txt has 2 classes",
        ),
        (
            {"LABEL_SHIFT": -1, "IGNORE_LABEL": 0},
            "mine.IGNORE_LABEL is 0, which is also a class index; with LABEL_SHIFT, remove it",
        ),
    ],
)
def test_a_table_that_does_not_fit_the_classes_is_named_before_any_work(data, changes, named):
    assert error({"mine": node(**changes)}).startswith(f"DATASETS.CUSTOM.{named}")


@pytest.mark.parametrize(
    ("changes", "raw", "wanted"),
    [
        ({"LABEL_SHIFT": -1}, [0, 1, 3, 255], [255, 0, 2, 255]),
        ({"LABEL_SHIFT": -2}, [0, 1, 2, 4], [255, 255, 0, 2]),
        ({"LABEL_SHIFT": 1}, [0, 1, 255], [1, 2, 255]),
        ({"LABEL_SHIFT": -1}, [1, 4], "value 4, which DATASETS.CUSTOM.mine.LABEL_SHIFT"),
        ({"LABEL_SHIFT": -1, "LABEL_OTHERS": "ignore"}, [1, 4], [0, 255]),
        ({"LABEL_OTHERS": "ignore"}, [0, 2, 3, 254], [0, 2, 255, 255]),
        ({"LABEL_OTHERS": "error"}, [0, 3], "value 3, which DATASETS.CUSTOM.mine.CLASSES"),
        ({"LABEL_IDS": [7, 8, 0], "IGNORE_LABEL": 65535}, [0, 7], [2, 0]),
        ({"LABEL_IDS": [7, 8, 255]}, [255, 7], [2, 0]),
        ({"LABEL_IDS": [7, 8, 9]}, [7, 10], "value 10, which DATASETS.CUSTOM.mine.LABEL_IDS"),
        ({"LABEL_IDS": [7, 8], "BACKGROUND_FROM": 1}, [7, 8], [0, 1]),
    ],
)
def test_values_of_a_label_map(data, capsys, changes, raw, wanted):
    path = data / "labels/a/0000.png"
    Image.fromarray(np.resize(np.array(raw, np.uint8), (64, 80))).save(path)
    load({"mine": node(**changes)})
    label = DatasetCatalog.get("mine")[0]["sem_seg_file_name"]
    if isinstance(wanted, list):
        np.testing.assert_array_equal(read_label(label), np.resize(np.array(wanted), (64, 80)))
    else:
        with pytest.raises(UserError, match=wanted.replace(".", r"\.")) as caught:
            read_label(label)
        assert str(path) in str(caught.value)
        status = check.main(
            ["--config-file", "my.yaml", "--datasets", "mine", "--output", "out", "--jobs", "1"]
        )
        assert status == 1
        assert wanted in capsys.readouterr().err


def pairs(tmp_path: Path, files: dict[str, str]) -> None:
    for image, label in files.items():
        save(tmp_path / image, np.zeros((4, 4, 3), np.uint8))
        save(tmp_path / label, np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_the_kinds_of_images_are_those_of_the_demo(tmp_path, suffix):
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    (tmp_path / "images/a").mkdir(parents=True)
    (tmp_path / f"images/a/x{suffix}").touch()
    save(tmp_path / "labels/a/x.png", np.zeros((4, 4), np.uint8))
    load({"mine": node()})
    assert DatasetCatalog.get("mine")[0]["file_name"].endswith(suffix)
    assert suffix in (REPO_ROOT / "docs/custom_datasets.md").read_text()


def test_equal_names_in_two_subfolders_and_a_link_that_leads_back(data):
    pairs(data, {f"images/a/{city}/x.png": f"labels/a/{city}/x.png" for city in ("n", "m/k")})
    (data / "images/a/m/back").symlink_to(data / "images/a", target_is_directory=True)
    load({"mine": node()})
    assert len(DatasetCatalog.get("mine")) == 2  # as before, without the key
    load({"mine": node(SUBFOLDERS=True)})
    records = DatasetCatalog.get("mine")
    assert [os.path.relpath(record["file_name"], data / "images/a") for record in records] == [
        "0000.jpg",
        "0001.jpg",
        "m/k/x.png",
        "n/x.png",
    ]
    for record in records[2:]:
        assert record["sem_seg_file_name"] == record["file_name"].replace("images", "labels")


def test_a_label_in_another_subfolder_is_no_partner(data):
    pairs(data, {"images/a/n/x.png": "labels/a/m/x.png"})
    assert "labels/a/m/x.png has no image of the same name" in error(
        {"mine": node(SUBFOLDERS=True)}
    )


def test_files_in_subfolders_alone_are_hinted_at(tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    pairs(tmp_path, {"images/a/n/x.png": "labels/a/n/x.png"})
    assert error({"mine": node()}).endswith("its subfolders have some; set SUBFOLDERS to True")
    load({"mine": node(SUBFOLDERS=True)})
    assert len(DatasetCatalog.get("mine")) == 1


def test_other_endings_in_the_same_folders_are_passed_over(data):
    pairs(
        data, {"images/a/x_rgb.png": "labels/a/x_ids.png", "images/a/x_ir.png": "labels/a/x_c.png"}
    )
    load({"mine": node(IMAGE_SUFFIX="_RGB.png", LABEL_SUFFIX="_ids.PNG")})
    (record,) = DatasetCatalog.get("mine")
    assert os.path.basename(record["file_name"]) == "x_rgb.png"
    assert os.path.basename(record["sem_seg_file_name"]) == "x_ids.png"


def test_names_that_are_not_utf_8(data, capsys):
    for path, suffix in (("images/a/0000", ".jpg"), ("labels/a/0000", ".png")):
        folder = os.fsencode(data / path).rsplit(b"/", 1)[0]
        (data / f"{path}{suffix}").rename(os.fsdecode(folder + b"/bad_\xff" + suffix.encode()))
    load({"mine": node()})
    assert len(DatasetCatalog.get("mine")) == 2
    (data / "images/a/0001.jpg").unlink()
    os.unlink(os.fsencode(data) + b"/images/a/bad_\xff.jpg")
    save(data / "images/a/y.png", np.zeros((4, 4, 3), np.uint8))
    assert "has no image of the same name" in error({"mine": node()})


def test_a_config_with_tables_is_read_again(data):
    changes = {"LABEL_COLORS": [[0, 0, 0], [[1, 1, 1], [2, 2, 2]], [3, 3, 3]]}
    Path("saved.yaml").write_text(load({"mine": node(**changes)}).dump())
    saved = load_config("saved.yaml").DATASETS.CUSTOM.mine
    assert changes["LABEL_COLORS"] == saved.LABEL_COLORS
    cfg = load_config("my.yaml", ["DATASETS.CUSTOM.mine.LABEL_COLORS", "[[9,9,9],[8,8,8],[7,7,7]]"])
    assert cfg.DATASETS.CUSTOM.mine.LABEL_COLORS[0] == [9, 9, 9]
