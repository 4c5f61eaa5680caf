"""Evaluation in batches and in two processes is that of one process, one image at a time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image, ImageColor

from cat_seg.data import DatasetSpec, Layout, build_test_loader, register
from cat_seg.engine import load_config
from cat_seg.errors import UserError
from cat_seg.evaluation import (
    ProcessOnly,
    build_evaluator,
    raise_on_every_rank,
    results_file,
    run_on_dataset,
)
from cat_seg.evaluation.image_counts import ImageCounts, read_image_counts
from tests.color_model import NearestColor, write_config

RANKS, IMAGES = 2, 5
NAMES = ["red", "lime", "blue", "black", "white"]
# The second asks for two backgrounds, as PAS-20b does; the others have a broken file of rank 1.
DATASETS = {"colors": None, "colors_background": 3, "bad_label": None, "bad_image": None}


def register_colors(root: Path) -> None:
    for name, background in DATASETS.items():
        layouts = (Layout(f"{name}/images", f"{name}/labels"),)
        register(DatasetSpec(name, str(root / "names.json"), layouts, background_from=background))


def write_colors(root: Path) -> None:
    """Noisy areas of color, images of several sizes, some pixels ignored."""
    (root / "names.json").write_text(json.dumps(NAMES))
    palette = np.array([ImageColor.getrgb(name) for name in NAMES], dtype=np.uint8)
    for name, background in DATASETS.items():
        generator = np.random.default_rng(0)
        for folder in ("images", "labels"):
            (root / name / folder).mkdir(parents=True)
        for index in range(IMAGES):
            size = (6 + index, 9 - index)
            label = generator.integers(0, len(NAMES), size)
            seen = np.where(generator.random(size) < 0.7, label, generator.integers(0, 5, size))
            Image.fromarray(palette[seen]).save(root / name / f"images/{index}.png")
            label = label if background is None else np.minimum(label, background)
            label[generator.random(size) < 0.1] = 255
            if name == "bad_label" and index == 4:
                label[0, 0] = 77
            Image.fromarray(label.astype(np.uint8)).save(root / name / f"labels/{index}.png")
    (root / "bad_image/images/3.png").write_bytes(b"no image")


def config(root: Path, output: str, *changes: object) -> CfgNode:
    cfg = load_config(str(root / "config.yaml"), ["DATALOADER.NUM_WORKERS", "0", *changes])
    cfg.MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON = str(root / "names.json")
    cfg.OUTPUT_DIR = str(root / output)
    return cfg


def evaluate(cfg: CfgNode, name: str) -> NearestColor:
    """Evaluate in all processes as the benchmark tool does; returns the model."""
    model = NearestColor(cfg)
    torch.nn.init.constant_(model.sharpness, 10.0)
    evaluator = build_evaluator(cfg, name, None)
    loader = build_test_loader(cfg, name)
    raise_on_every_rank(lambda: run_on_dataset(cfg, model, name, loader, ProcessOnly(evaluator)))
    evaluator.evaluate()
    return model


def results(cfg: CfgNode, name: str) -> tuple[dict, dict]:
    """Metrics and counts that were written."""
    content = json.loads(Path(cfg.OUTPUT_DIR, "inference", name, "results.json").read_text())
    return content["sem_seg"], content["counts"]


def image_counts(cfg: CfgNode, name: str) -> ImageCounts:
    """Counts of every image that were written."""
    return read_image_counts(results_file(cfg.OUTPUT_DIR, name))


def run_rank(rank: int, root: Path) -> None:
    """What each process does: evaluate all datasets; write what it saw and the errors it met."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{root}/meeting", rank=rank, world_size=RANKS
    )
    register_colors(root)
    told: dict[str, object] = {}
    for name in DATASETS:
        cfg = config(root, "ranks", "TEST.IMS_PER_BATCH", "2", "TEST.SAVE_PREDICTIONS", "True")
        told[name] = [Path(seen["file_name"]).stem for seen in evaluate(cfg, name).seen]

    def work() -> None:
        if rank == 1:
            raise RuntimeError("out\nof memory")

    try:
        raise_on_every_rank(work)
    except UserError as error:
        told["error"] = str(error)
    (root / f"rank{rank}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of the datasets, registered here."""
    folder = tmp_path_factory.mktemp("colors")
    write_config(folder)  # once, here: the processes read it side by side
    write_colors(folder)
    register_colors(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(folder))  # processes inherit it
        yield folder
    for name in DATASETS:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture(scope="module")
def told(root):
    """What both ranks wrote."""
    mp.spawn(run_rank, (root,), nprocs=RANKS)
    return [json.loads((root / f"rank{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize("name", ["colors", "colors_background"])
def test_batches_and_processes_give_the_same_counts(root, told, name):
    """Five images of five sizes: batches of 2 and 1 in one process, of 2, 1 and 2 in two."""
    alone = config(root, "alone")
    evaluate(alone, name)
    metrics, counts = results(alone, name)
    assert counts["images"] == IMAGES
    assert counts["classes"] == (5 if name == "colors" else 4)
    assert 20 < metrics["mIoU"] < 80
    batched = config(root, "batched", "TEST.IMS_PER_BATCH", "2")
    assert [len(batch) for batch in build_test_loader(batched, name)] == [2, 2, 1]
    evaluate(batched, name)
    assert results(batched, name) == (metrics, counts)
    assert [rank[name] for rank in told] == [["0", "1", "2"], ["3", "4"]]
    assert results(config(root, "ranks"), name) == (metrics, counts)
    each = image_counts(alone, name)
    assert each.images == [f"{index}.png" for index in range(IMAGES)]
    for other in (batched, config(root, "ranks")):
        for value, expected in zip(image_counts(other, name), each, strict=True):
            assert np.array_equal(value, expected)


def test_the_predictions_of_all_processes_are_saved(root, told):
    file = root / "ranks/inference/colors_background/sem_seg_predictions.json"
    saved = json.loads(file.read_text())
    assert [*dict.fromkeys(Path(entry["file_name"]).stem for entry in saved)] == list("01234")
    assert {entry["category_id"] for entry in saved} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("name", "problem"), [("bad_label", "4.png has the value 77"), ("bad_image", "images/3.png")]
)
def test_a_bad_file_costs_itself_alone_in_any_number_of_processes(root, told, name, problem):
    """The label is found after the model has seen the image."""
    seen = [["0", "1", "2"], ["3", "4"] if name == "bad_label" else ["4"]]
    assert [rank[name] for rank in told] == seen
    alone = config(root, "alone", "TEST.IMS_PER_BATCH", "2")
    evaluate(alone, name)
    metrics, counts = results(alone, name)
    assert (counts["images"], counts["skipped"]) == (IMAGES - 1, 1)
    assert 20 < metrics["mIoU"] < 80
    assert results(config(root, "ranks"), name) == (metrics, counts)
    for output in ("alone", "ranks"):
        content = json.loads((root / output / f"inference/{name}/results.json").read_text())
        [skipped] = content["skipped"]
        assert problem in skipped


def test_an_error_in_one_process_is_met_by_all(told):
    """Also one that nobody expected: nothing waits for what will never come."""
    assert [rank["error"] for rank in told] == 2 * ["RuntimeError: out of memory"]


def test_augmentation_is_used_on_request(root):
    changes = ("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(0,)")
    cfg, plain = config(root, "augmented", *changes), config(root, "alone")
    assert len(evaluate(cfg, "colors").seen) == 2 * IMAGES
    assert len(evaluate(plain, "colors").seen) == IMAGES
    assert results(cfg, "colors") == results(plain, "colors")


@pytest.mark.parametrize("turned_labels", [False, True])
def test_images_and_labels_can_be_taken_as_they_are_stored(root, turned_labels):
    plain, turned = config(root, "alone"), config(root, "turned")
    exif = Image.Exif()
    exif[0x0112] = 6
    changed = [*(root / "colors/images").iterdir()]
    if turned_labels:
        changed += (root / "colors/labels").iterdir()
    before = {path: path.read_bytes() for path in changed}
    evaluate(plain, "colors")
    try:
        for path in changed:
            Image.open(path).save(path, exif=exif)
        if turned_labels:  # as the images: nothing changes
            evaluate(turned, "colors")
            assert results(turned, "colors") == results(plain, "colors")
        turned.INPUT.IGNORE_EXIF_ORIENTATION = True
        evaluate(turned, "colors")
        assert results(turned, "colors") == results(plain, "colors")
    finally:
        for path, content in before.items():
            path.write_bytes(content)
