from __future__ import annotations

import hashlib
import json
import re
import subprocess

import pytest
import torch
from detectron2.config import get_cfg

import cat_seg
from cat_seg.config import add_cat_seg_config
from cat_seg.data import load_vocabulary
from cat_seg.errors import UserError
from cat_seg.evaluation import (
    finished_results,
    record,
    results_file,
    run_record,
    source_commit,
    weights_record,
)
from cat_seg.evaluation.record import data_record, names_below_common_folder

PAS_20B = "voc_2012_test_background_sem_seg"
IMAGES = tuple(f"/data/images/{index}.jpg" for index in range(7))


@pytest.fixture
def cfg():
    return add_cat_seg_config(get_cfg())


@pytest.fixture
def weights(tmp_path):
    file = tmp_path / "model.pth"
    file.write_bytes(b"weights" * 1_000_000)
    return file


@pytest.fixture(autouse=True)
def fresh_commit():
    """Forget the commit that was looked up, before and after."""
    source_commit.cache_clear()
    yield
    source_commit.cache_clear()


def test_weights_are_known_by_their_hash(weights):
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert weights_record(str(weights)) == {"file": str(weights), "sha256": digest}
    assert weights_record("") is None
    with pytest.raises(UserError, match=r"nowhere\.pth"):
        weights_record("nowhere.pth")


def git(folder, *command):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", str(folder), *identity, *command], check=True, capture_output=True)


def test_the_commit_says_where_the_code_differs_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "REPO_ROOT", tmp_path)
    assert source_commit() is None
    source_commit.cache_clear()
    git(tmp_path, "init")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "one")
    git(tmp_path, "tag", "v1")
    commit = source_commit()
    assert re.fullmatch("[0-9a-f]{40}", commit)
    source_commit.cache_clear()
    (tmp_path / "file").write_text("two")
    assert source_commit() == f"{commit}-dirty"
    source_commit.cache_clear()
    (tmp_path / "copy").mkdir()  # code that lies in another repository, or no git at all
    monkeypatch.setattr(record, "REPO_ROOT", tmp_path / "copy")
    assert source_commit() is None
    source_commit.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert source_commit() is None


def test_a_record_says_what_was_evaluated(cfg):
    cfg.MODEL.DEVICE = "cpu"
    found = run_record(cfg, PAS_20B, None)
    assert found["benchmark"] == "PAS-20b"
    assert found["dataset"] == PAS_20B
    assert found["vocabulary"] == load_vocabulary("datasets/voc20b.json")
    assert found["backbone"] == "ViT-B/16"
    assert found["config"]["MODEL"]["CLIP_PIXEL_MEAN"] == cfg.MODEL.CLIP_PIXEL_MEAN
    assert found["config"]["OUTPUT_DIR"] == cfg.OUTPUT_DIR
    assert found["weights"] is None
    assert found["environment"]["torch"] == torch.__version__
    assert found["environment"]["version"] == cat_seg.__version__
    assert found["environment"]["processes"] == 1
    assert found["environment"]["precision"] == "float32"
    assert json.loads(json.dumps(found)) == found
    assert run_record(cfg, "coco_2017_test_stuff_all_sem_seg", None)["benchmark"] is None


def finished(cfg, weights, images=IMAGES):
    """What is kept of the results on disk for an evaluation with this config and weights."""
    new = run_record(cfg, PAS_20B, weights_record(str(weights)))
    return finished_results(results_file(cfg.OUTPUT_DIR, PAS_20B), new, images)


@pytest.fixture
def done(cfg, weights, tmp_path):
    """Write results of an evaluation; gives the file and its content."""
    cfg.OUTPUT_DIR = str(tmp_path / "out")
    file = results_file(cfg.OUTPUT_DIR, PAS_20B)
    file.parent.mkdir(parents=True)
    content = run_record(cfg, PAS_20B, weights_record(str(weights))) | {
        "sem_seg": {"mIoU": 1.0},
        "counts": {"images": len(IMAGES)},
    }
    content["data"] = data_record(IMAGES, content["vocabulary"])
    file.write_text(json.dumps(content))
    return file, content


def test_results_of_the_same_evaluation_are_kept(cfg, weights, tmp_path, done):
    assert finished(cfg, weights) == done[1]
    moved = weights.rename(tmp_path / "moved.pth")
    cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = str(moved), "cpu"
    cfg.TEST.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS = 4, 0
    cfg.TEST.EVAL_PERIOD, cfg.SOLVER.BASE_LR = 3, 1.0
    cfg.DATASETS.TEST = ("another",)
    assert finished(cfg, moved) == done[1]


@pytest.mark.parametrize(
    "change",
    [
        ("TEST.SLIDING_WINDOW", True),
        ("TEST.AUG.ENABLED", True),
        ("TEST.SAVE_PREDICTIONS", True),
        ("MODEL.SEM_SEG_HEAD.POOLING_SIZES", [1, 1]),
        ("INPUT.MIN_SIZE_TEST", 5),
        ("TEST.AMP.ENABLED", True),
        ("TEST.MOST_CLASSES", 5),
    ],
    ids=str,
)
def test_another_config_is_another_evaluation(cfg, weights, done, change):
    cfg.merge_from_list(change)
    assert finished(cfg, weights) is None


def test_images_are_known_by_their_names_wherever_they_lie(cfg, weights, done):
    moved = [image.replace("/data/", "/elsewhere/deep/") for image in IMAGES]
    assert finished(cfg, weights, images=moved) == done[1]
    assert names_below_common_folder(["/d/a/0.jpg", "/d/b/0.jpg"]) == ["a/0.jpg", "b/0.jpg"]
    assert names_below_common_folder(["0.jpg", "1.jpg"]) == ["0.jpg", "1.jpg"]
    assert names_below_common_folder([]) == []


def test_information_and_files_of_earlier_versions_do_not_force_another_evaluation(
    cfg, weights, done
):
    file, content = done
    other = content["environment"] | {"torch": "2.0", "device": "another", "processes": 8}
    for changed in ({"environment": other}, {"commit": "another"}):
        file.write_text(json.dumps(content | changed))
        assert finished(cfg, weights) is not None
    earlier = {k: v for k, v in content.items() if k not in ("environment", "data")}
    file.write_text(json.dumps(earlier))
    assert finished(cfg, weights) == earlier


def test_the_automatic_precision_of_another_device_is_another_evaluation(cfg, weights, done):
    file, content = done
    content["config"]["TEST"]["AMP"] = {"ENABLED": True, "DTYPE": "auto"}
    content["config"]["MODEL"]["DEVICE"] = "cuda"
    file.write_text(json.dumps(content))
    cfg.TEST.AMP.ENABLED = True
    for device, kept in (("cuda:1", True), ("cpu", False)):
        cfg.MODEL.DEVICE = device
        assert (finished(cfg, weights) is not None) == kept


def test_saved_predictions_do_no_harm(cfg, weights, done):
    file, content = done
    content["config"]["TEST"]["SAVE_PREDICTIONS"] = True
    file.write_text(json.dumps(content))
    assert finished(cfg, weights) == content


def test_other_weights_images_or_names_are_another_evaluation(cfg, weights, tmp_path, done):
    assert finished(cfg, weights, images=(*IMAGES, "/data/images/7.jpg")) is None
    assert finished(cfg, weights, images=(*IMAGES[:-1], "/data/images/x.jpg")) is None
    names = load_vocabulary("datasets/voc20b.json")
    classes = tmp_path / "names.json"
    file, content = done
    cfg.MODEL.SEM_SEG_HEAD.TEST_CLASS_JSON = str(classes)
    content["config"]["MODEL"]["SEM_SEG_HEAD"]["TEST_CLASS_JSON"] = str(classes)
    file.write_text(json.dumps(content))
    for changed, kept in ((names, True), ([*names[:-1], "something else"], False)):
        classes.write_text(json.dumps(changed))
        assert (finished(cfg, weights) is not None) == kept
    classes.write_text(json.dumps(names))
    weights.write_bytes(b"other")
    assert finished(cfg, weights) is None


def test_models_that_are_in_no_file_are_never_the_same(cfg, done):
    file, content = done
    file.write_text(json.dumps(content | {"weights": None}))
    assert finished_results(file, run_record(cfg, PAS_20B, None), IMAGES) is None


def test_a_custom_dataset_is_defined_by_the_config(cfg, weights, done):
    file, content = done
    content["config"]["DATASETS"]["CUSTOM"] = {PAS_20B: {"IMAGES": "elsewhere"}}
    file.write_text(json.dumps(content))
    assert finished(cfg, weights) is None
    content["config"]["DATASETS"]["CUSTOM"] = {"another": {"IMAGES": "elsewhere"}}
    file.write_text(json.dumps(content))
    assert finished(cfg, weights) is not None


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"sem_seg": {}}', '{"weights": null}'])
def test_a_missing_or_damaged_file_holds_nothing(cfg, weights, done, text):
    file, _ = done
    file.unlink()
    if text is not None:
        file.write_text(text)
    assert finished(cfg, weights) is None
