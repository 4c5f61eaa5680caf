from __future__ import annotations

import logging
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

import train_net
from cat_seg.cli import evaluate as evaluate_benchmarks
from cat_seg.config import add_cat_seg_config
from cat_seg.data import check, is_on_disk
from cat_seg.data.custom import CustomSpec
from cat_seg.data.registration import unregister
from cat_seg.engine import Trainer, load_config
from cat_seg.errors import UserError
from cat_seg.utils.paths import REPO_ROOT
from tests.tiny import share_tokenizers, tiny_cfg

NAMES = ["wheat, wheat field", "grass", "road"]
DOCUMENT = REPO_ROOT / "docs/custom_datasets.md"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Datasets registered by a test are gone after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "elsewhere"))
    yield
    for name in [name for name in DatasetCatalog if isinstance(spec(name), CustomSpec)]:
        unregister(name)


def spec(name: str) -> object:
    return MetadataCatalog.get(name).get("spec")


def fill(folder: Path, split: str, count: int, suffix: str = ".png") -> None:
    for kind in ("images", "labels"):
        (folder / kind / split).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{split}/{index:04d}.jpg")
        label = rng.integers(0, len(NAMES), (8, 10)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
        label[:4] = 255
        Image.fromarray(label).save(folder / f"labels/{split}/{index:04d}{suffix}")


def node(**changes: object) -> dict[str, object]:
    values = {"IMAGES": "images/a", "LABELS": "labels/a", "CLASSES": "classes.txt"} | changes
    return {key: value for key, value in values.items() if value is not None}


def load(datasets: dict, **rest: object):
    """A config of these datasets, from a file."""
    content = {"VERSION": 2, "DATASETS": {"CUSTOM": datasets, **rest}}
    Path("my.yaml").write_text(yaml.safe_dump(content))
    return load_config("my.yaml")


@pytest.fixture
def data(tmp_path) -> Path:
    fill(tmp_path, "a", 2)
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    return tmp_path


def test_a_section_of_the_config_is_a_dataset(data):
    load({"mine": node()})
    assert is_on_disk("mine")
    assert DatasetCatalog.get("mine") == [
        {
            "file_name": str(data / f"images/a/{index:04d}.jpg"),
            "sem_seg_file_name": str(data / f"labels/a/{index:04d}.png"),
        }
        for index in range(2)
    ]
    metadata = MetadataCatalog.get("mine")
    assert metadata.stuff_classes == NAMES
    assert (metadata.ignore_label, metadata.background_from) == (255, None)
    assert metadata.evaluator_type == "sem_seg"


def test_the_optional_keys(data):
    fill(data, "b", 3, ".tif")
    (data / "classes.json").write_text('["road", "sky", "hill"]')
    files = {"IMAGES": "images/b", "LABELS": "labels/b", "CLASSES": "classes.json"}
    load({"mine": node(**files, LABEL_SUFFIX=".TIF", IGNORE_LABEL=65535, BACKGROUND_FROM=2)})
    assert len(DatasetCatalog.get("mine")) == 3
    metadata = MetadataCatalog.get("mine")
    assert metadata.stuff_classes == ["road", "sky", "hill"]
    assert (metadata.ignore_label, metadata.background_from) == (65535, 2)


def test_folders_are_found_again_from_elsewhere(data, monkeypatch):
    load({"mine": node()})
    monkeypatch.chdir("/")
    assert len(DatasetCatalog.get("mine")) == 2


def test_the_last_config_counts(data):
    for _ in range(2):
        load({"mine": node()})
    assert len(DatasetCatalog.get("mine")) == 2
    fill(data, "b", 3)
    load({"mine": node(IMAGES="images/b", LABELS="labels/b")})
    assert len(DatasetCatalog.get("mine")) == 3


@pytest.mark.parametrize(
    "overrides",
    [
        ["DATASETS.CUSTOM", "{mine: {IMAGES: images/a, LABELS: labels/a, CLASSES: classes.txt}}"],
        ["DATASETS.CUSTOM", str({"mine": node()})],
        ["DATASETS.CUSTOM.mine", str(node())],
        [
            "DATASETS.CUSTOM",
            str({"mine": node(IMAGES="no")}),
            "DATASETS.CUSTOM.mine.IMAGES",
            "images/a",
        ],
    ],
)
def test_datasets_from_the_command_line(data, overrides):
    cfg = load_config("", overrides)
    assert cfg.DATASETS.CUSTOM.mine == node()
    assert len(DatasetCatalog.get("mine")) == 2


def test_the_command_line_adds_to_the_file(data):
    load({"mine": node()})
    cfg = load_config("my.yaml", ["DATASETS.CUSTOM", str({"yours": node()})])
    assert set(cfg.DATASETS.CUSTOM) == {"mine", "yours"}


def test_a_saved_config_has_them_too(data):
    Path("saved.yaml").write_text(load({"mine": node(IGNORE_LABEL=9)}).dump())
    unregister("mine")
    load_config("saved.yaml")
    assert MetadataCatalog.get("mine").ignore_label == 9


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("mine", node(IMAGE="a"), "DATASETS.CUSTOM.mine.IMAGE is unknown; choose from IMAGES, "),
        ("mine", node(LABELS=None), "DATASETS.CUSTOM.mine.LABELS is missing"),
        ("mine", node(IMAGES=""), "DATASETS.CUSTOM.mine.IMAGES is ''"),
        ("mine", node(CLASSES=["cat"]), "DATASETS.CUSTOM.mine.CLASSES is ['cat']"),
        ("mine", node(IGNORE_LABEL="x"), "DATASETS.CUSTOM.mine.IGNORE_LABEL is 'x'"),
        ("mine", node(IGNORE_LABEL=-1), "DATASETS.CUSTOM.mine.IGNORE_LABEL is -1"),
        ("mine", node(BACKGROUND_FROM=0), "DATASETS.CUSTOM.mine.BACKGROUND_FROM is 0"),
        ("mine", node(BACKGROUND_FROM=True), "DATASETS.CUSTOM.mine.BACKGROUND_FROM is True"),
        ("mine", node(LABEL_SUFFIX="png"), "DATASETS.CUSTOM.mine.LABEL_SUFFIX is 'png'"),
        ("mine", "images/a", "DATASETS.CUSTOM.mine is 'images/a'; set it to a section"),
        ("mine/all", node(), "DATASETS.CUSTOM: 'mine/all' is not a valid name"),
        ("voc_2012_test_sem_seg", node(), "DATASETS.CUSTOM.voc_2012_test_sem_seg: a built-in"),
        ("coco_2017_val", node(), "DATASETS.CUSTOM.coco_2017_val: a built-in"),
    ],
)
def test_a_bad_section_is_one_line_with_its_key(name, content, named):
    with pytest.raises(UserError) as caught:
        load({name: content})
    assert str(caught.value).startswith(named)
    assert "\n" not in str(caught.value)
    assert "mine" not in DatasetCatalog
    assert not isinstance(spec("voc_2012_test_sem_seg"), CustomSpec)


@pytest.mark.parametrize("section", ["3", "[a]"])
def test_something_else_than_sections(section):
    with pytest.raises(UserError, match=r"DATASETS\.CUSTOM"):
        load_config("", ["DATASETS.CUSTOM", section])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"IMAGES": "no/images"}, "DATASETS.CUSTOM.mine.IMAGES: {}/no/images is not a folder with"),
        ({"IMAGES": "labels"}, "DATASETS.CUSTOM.mine.IMAGES: {}/labels is not a folder with"),
        ({"LABELS": "no/labels"}, "DATASETS.CUSTOM.mine.LABELS: {}/no/labels is not a folder with"),
        ({"LABEL_SUFFIX": ".tif"}, "DATASETS.CUSTOM.mine.LABELS: {}/labels/a is not a folder with"),
    ],
)
def test_a_folder_without_files_is_named_when_it_is_used(data, changes, named):
    load({"mine": node(**changes), "made": node(**changes, MADE_BY="run `make data`")})
    for name, advice in (("mine", "; set it to the folder of"), ("made", "; run `make data`")):
        assert not is_on_disk(name)
        with pytest.raises(UserError) as caught:
            DatasetCatalog.get(name)
        assert str(caught.value).startswith(named.format(data).replace("mine", name))
        assert advice in str(caught.value) or "set SUBFOLDERS to True" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"CLASSES": "no.txt"}, r"CUSTOM\.mine\.CLASSES: cannot read the class list no\.txt"),
        ({"CLASSES": "bad.json"}, r"CUSTOM\.mine\.CLASSES: bad\.json is not valid JSON"),
        ({"BACKGROUND_FROM": 3}, r"CUSTOM\.mine\.BACKGROUND_FROM is 3, but classes\.txt has 3"),
    ],
)
def test_a_bad_class_list_is_named_when_it_is_used(data, changes, named):
    (data / "bad.json").write_text("wheat")
    load({"mine": node(**changes)})
    with pytest.raises(UserError, match=named):
        _ = MetadataCatalog.get("mine").stuff_classes


@pytest.mark.parametrize(
    ("count", "changes", "refused"),
    [
        (255, {}, False),
        (256, {}, True),
        (256, {"IGNORE_LABEL": 65535}, False),
        (256, {"IGNORE_LABEL": 0}, False),
        (256, {"BACKGROUND_FROM": 254}, False),
        (256, {"BACKGROUND_FROM": 255}, True),
    ],
)
def test_a_class_is_not_ignored_by_default(count, changes, refused):
    Path("many.txt").write_text("\n".join(f"class {index}" for index in range(count)))
    load({"mine": node(CLASSES="many.txt", **changes)})
    metadata = MetadataCatalog.get("mine")
    if refused:
        with pytest.raises(UserError, match=r"CUSTOM\.mine\.IGNORE_LABEL is 255, .*many\.txt"):
            _ = metadata.stuff_classes
    else:
        assert len(metadata.stuff_classes) == count


# The example of the document.


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


def commands() -> list[list[str]]:
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


@pytest.fixture
def fields(tmp_path, monkeypatch) -> Path:
    """The files of the example, miniature; what the commands leave in this process is undone."""
    fill(tmp_path / "data/fields", "train", 3)
    fill(tmp_path / "data/fields", "val", 2)
    (tmp_path / "data/fields/classes.txt").write_text("\n".join(NAMES))
    shutil.copytree(REPO_ROOT / "configs", tmp_path / "configs")
    (tmp_path / "configs/fields.yaml").write_text(blocks("yaml")[0])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    share_tokenizers(monkeypatch)
    yield tmp_path
    for name in ("cat_seg", "detectron2", "fvcore"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def tiny_options(folder: Path) -> list[str]:
    """KEY VALUE pairs that make a model tiny and its training short."""
    head, usual = (
        cfg.MODEL.SEM_SEG_HEAD for cfg in (tiny_cfg(folder), add_cat_seg_config(get_cfg()))
    )
    changed = {key for key in head if head[key] != usual[key]} - {"TRAIN_CLASS_JSON"}
    options = {f"MODEL.SEM_SEG_HEAD.{key}": head[key] for key in changed} | {
        "MODEL.DEVICE": "cpu",
        "MODEL.SEM_SEG_HEAD.POOLING_SIZES": [1, 1],
        "DATALOADER.NUM_WORKERS": 0,
        "SOLVER.MAX_ITER": 2,
        "SOLVER.IMS_PER_BATCH": 2,
        "INPUT.CROP.SIZE": [64, 64],
        "INPUT.MIN_SIZE_TRAIN": (64,),
        "INPUT.MIN_SIZE_TEST": 64,
        "INPUT.SIZE_DIVISIBILITY": 64,
    }
    return [str(part) for pair in options.items() for part in pair]


def test_the_documented_example_runs(fields, monkeypatch, capsys):
    options = tiny_options(fields)
    mains = {
        "train_net.py": train_net.main,
        "tools/evaluate_benchmarks.py": evaluate_benchmarks.main,
    }
    called = []
    for python, script, *arguments in commands():
        assert python == "python"
        called.append(script)
        if script == "-m":
            assert arguments.pop(0) == "cat_seg.data.check"
            assert check.main([*arguments, "--jobs", "1", "--output", "checked"]) == 0
            continue
        monkeypatch.setattr(sys, "argv", [script, *arguments, *options])
        mains[script]()
    assert called == ["-m", "train_net.py", "tools/evaluate_benchmarks.py", "train_net.py"]
    for name in ("fields_train", "fields_val"):
        assert (fields / "checked" / f"{name}.png").exists()
    assert "fields_val" in capsys.readouterr().out
    for folder in ("fields/inference/fields_val", "fields_eval/inference/fields_val"):
        assert (fields / "output" / folder / "results.json").exists()
    assert (fields / "output/fields_again/inference/meadows/results.json").exists()


def test_every_key_is_documented():
    with pytest.raises(UserError) as caught:
        load({"mine": node(X=1)})
    known = str(caught.value).split("choose from ")[1].split(", ")
    assert re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE) == known


def test_a_class_list_of_another_length_is_refused_for_training(fields):
    (fields / "other.txt").write_text("wheat\n")
    changes = [*tiny_options(fields), "MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON", "other.txt"]
    cfg = load_config("configs/fields.yaml", changes)
    with pytest.raises(UserError, match=r"other\.txt\) lists 1 .*fields_train has 3;"):
        Trainer(cfg)
