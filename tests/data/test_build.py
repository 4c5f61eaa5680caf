from __future__ import annotations

import json
import random
from itertools import chain, islice

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from PIL import Image
from torch.utils.data import DataLoader

from cat_seg.config import add_cat_seg_config
from cat_seg.data import DatasetSpec, Layout, build_test_loader, build_train_loader, register
from cat_seg.data.build import EndlessShuffle, fixed_randomness
from cat_seg.errors import UserError

IMAGES, CLASSES, BATCH = 5, 3, 4


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """A config for small random images of the datasets "mini" and "extra", made for the test."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    names = tmp_path / "names.json"
    names.write_text(json.dumps(["a", "b", "c"]))
    rng = np.random.default_rng(0)
    for dataset in ("mini", "extra"):
        register(
            DatasetSpec(dataset, str(names), (Layout(f"{dataset}/images", f"{dataset}/labels"),))
        )
        for folder, shape, high in (("images", (20, 24, 3), 256), ("labels", (20, 24), CLASSES)):
            (tmp_path / dataset / folder).mkdir(parents=True)
            for index in range(IMAGES):
                pixels = rng.integers(0, high, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / dataset / folder / f"{index}.png")
    yield _config(str(names))
    for dataset in ("mini", "extra"):
        DatasetCatalog.remove(dataset)
        MetadataCatalog.remove(dataset)


def _config(names: str) -> CfgNode:
    cfg = add_cat_seg_config(get_cfg())
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON = names
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("mini",), ("mini",)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = BATCH
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TRAIN = (16, 20, 24)
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", [16, 16]
    cfg.INPUT.COLOR_AUG_SSD = True
    cfg.INPUT.MIN_SIZE_TEST = 0
    return cfg


def draw(cfg: CfgNode, batches: int, seed: int = 7, start: int = 0) -> list[list[dict]]:
    return list(islice(build_train_loader(cfg, seed, start), batches))


def as_rank(monkeypatch, rank: int, world_size: int) -> None:
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    monkeypatch.setattr(comm, "get_world_size", lambda: world_size)
    monkeypatch.setattr(comm, "all_gather", lambda found: [found] * world_size)


def assert_same(left: list[list[dict]], right: list[list[dict]]) -> None:
    assert [len(batch) for batch in left] == [len(batch) for batch in right]
    for a, b in zip(chain(*left), chain(*right), strict=True):
        assert a.keys() == b.keys()
        assert a["file_name"] == b["file_name"]
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["sem_seg"], b["sem_seg"])


def global_states() -> tuple:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_stream_is_the_same_for_any_number_of_workers(cfg, workers):
    reference = draw(cfg, 4)
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    cfg.DATALOADER.NUM_WORKERS = workers
    assert_same(draw(cfg, 4), reference)


@pytest.mark.parametrize("start", [1, 3])
def test_the_stream_goes_on_at_start(cfg, start):
    assert_same(draw(cfg, 2, start=start), draw(cfg, start + 2)[start:])


def test_ranks_together_draw_the_batches_of_one_process(cfg, monkeypatch):
    reference = draw(cfg, 3, start=1)
    ranks = []
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        ranks.append(draw(cfg, 3, start=1))
    assert all(len(batch) == BATCH // 2 for batches in ranks for batch in batches)
    assert_same([first + second for first, second in zip(*ranks, strict=True)], reference)


def test_the_seed_decides_the_order(cfg):
    orders = [[s["file_name"] for s in chain(*draw(cfg, 3, seed=seed))] for seed in (7, 8)]
    assert orders[0] != orders[1]


def test_the_seed_decides_the_augmentation(cfg, tmp_path):
    for folder in ("images", "labels"):
        for index in range(1, IMAGES):
            (tmp_path / "mini" / folder / f"{index}.png").unlink()
    first, second = (chain(*draw(cfg, 1, seed=seed)) for seed in (7, 8))
    assert any(not torch.equal(a["image"], b["image"]) for a, b in zip(first, second, strict=True))


def test_an_image_is_augmented_anew_at_every_position(cfg):
    by_file: dict[str, list[dict]] = {}
    for sample in chain(*draw(cfg, 5)):
        by_file.setdefault(sample["file_name"], []).append(sample)
    assert len(by_file) == IMAGES
    for samples in by_file.values():
        assert len(samples) == 4
        assert len({sample["image"].numpy().tobytes() for sample in samples}) > 1


def test_a_loader_can_be_iterated_again(cfg):
    loader = build_train_loader(cfg, seed=7)
    assert_same(list(islice(loader, 2)), list(islice(loader, 2)))


@pytest.mark.parametrize("workers", [0, 1])
def test_drawing_leaves_the_global_generators_alone(cfg, workers):
    cfg.DATALOADER.NUM_WORKERS = workers
    before = global_states()
    draw(cfg, 2)
    list(build_test_loader(cfg, "mini"))
    assert global_states() == before


def test_fixed_randomness_depends_on_seed_and_position_alone():
    def numbers(seed: int, position: int) -> tuple:
        with fixed_randomness(seed, position):
            return random.random(), np.random.rand(), torch.rand(()).item()

    first = numbers(3, 5)
    random.random(), np.random.rand(), torch.rand(())
    assert numbers(3, 5) == first
    for other in (numbers(3, 6), numbers(4, 5)):
        assert all(a != b for a, b in zip(first, other, strict=True))


def test_every_pass_is_a_new_permutation():
    order = EndlessShuffle(50, seed=1)
    passes = [[order[p] for p in range(50 * i, 50 * (i + 1))] for i in range(3)]
    assert all(sorted(indices) == list(range(50)) for indices in passes)
    assert passes[0] != passes[1] != passes[2]
    assert EndlessShuffle(50, seed=1)[120] == passes[2][20]
    assert [EndlessShuffle(50, seed=2)[p] for p in range(50)] != passes[0]


def test_several_train_datasets_are_concatenated(cfg):
    cfg.DATASETS.TRAIN = ("mini", "extra")
    cfg.SOLVER.IMS_PER_BATCH = 2 * IMAGES
    (batch,) = draw(cfg, 1)
    expected = DatasetCatalog.get("mini") + DatasetCatalog.get("extra")
    assert {s["file_name"] for s in batch} == {record["file_name"] for record in expected}


def test_the_published_name_of_the_mapper_is_known(cfg):
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantic"
    assert len(draw(cfg, 1)[0]) == BATCH


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True), ("cuda:1", True)])
def test_memory_is_pinned_for_gpus(cfg, device, pinned):
    cfg.MODEL.DEVICE = device
    assert build_train_loader(cfg, seed=0).pin_memory is pinned
    assert build_test_loader(cfg, "mini").pin_memory is pinned


@pytest.mark.parametrize("training", [True, False])
def test_workers_inherit_one_thread(cfg, training):
    cfg.DATALOADER.NUM_WORKERS = 2
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        build_train_loader(cfg, seed=0) if training else build_test_loader(cfg, "mini")
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_test_loader_gives_every_image_once_in_order(cfg, workers):
    cfg.DATALOADER.NUM_WORKERS = workers
    loader = build_test_loader(cfg, "mini")
    assert isinstance(loader, DataLoader)
    batches = list(loader)
    assert len(loader) == len(batches) == IMAGES
    assert all(len(batch) == 1 for batch in batches)
    records = DatasetCatalog.get("mini")
    assert [batch[0]["file_name"] for batch in batches] == [r["file_name"] for r in records]
    for (sample,), record in zip(batches, records, strict=True):
        assert sample["sem_seg_file_name"] == record["sem_seg_file_name"]
        pixels = np.asarray(Image.open(record["file_name"]))
        np.testing.assert_array_equal(sample["image"].permute(1, 2, 0), pixels)


def test_ranks_share_a_test_dataset(cfg, monkeypatch):
    names = []
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        names.append([batch[0]["file_name"] for batch in build_test_loader(cfg, "mini")])
    assert [len(part) for part in names] == [3, 2]
    assert list(chain(*names)) == [record["file_name"] for record in DatasetCatalog.get("mini")]


@pytest.mark.parametrize(("batch", "sizes"), [(2, [[2, 1], [2]]), (3, [[3], [2]]), (9, [[3], [2]])])
def test_test_batches_stay_in_a_ranks_share(cfg, monkeypatch, batch, sizes):
    cfg.TEST.IMS_PER_BATCH = batch
    names = []
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        loader = build_test_loader(cfg, "mini")
        assert len(loader) == len(sizes[rank])
        batches = list(loader)
        assert [len(batch) for batch in batches] == sizes[rank]
        names += [sample["file_name"] for sample in chain(*batches)]
    assert names == [record["file_name"] for record in DatasetCatalog.get("mini")]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("TEST.IMS_PER_BATCH", 0, r"TEST\.IMS_PER_BATCH is 0; set it to 1 or more"),
        ("INPUT.MIN_SIZE_TEST", -1, r"INPUT\.MIN_SIZE_TEST is -1 and .* set MIN_SIZE_TEST to 0 "),
        ("INPUT.MAX_SIZE_TEST", 0, r"INPUT\.MAX_SIZE_TEST is 0; .*MAX_SIZE_TEST to 1 or more"),
    ],
)
def test_a_test_batch_holds_an_image_of_some_size(cfg, key, value, message):
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=message):
        build_test_loader(cfg, "mini")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("training", [True, False])
def test_a_broken_image_reaches_the_main_process_as_one_line(cfg, tmp_path, workers, training):
    """It ends training; evaluation gets the reason, and all other images."""
    path = tmp_path / "mini" / "images" / "3.png"
    path.write_bytes(path.read_bytes()[:200])
    cfg.DATALOADER.NUM_WORKERS = workers
    if training:
        with pytest.raises(UserError) as caught:
            list(islice(build_train_loader(cfg, 0), 10))
        message = str(caught.value)
    else:
        samples = [sample for batch in build_test_loader(cfg, "mini") for sample in batch]
        assert ["unreadable" in sample for sample in samples].index(True) == 3
        assert sum("image" in sample for sample in samples) == len(samples) - 1
        message = samples[3]["unreadable"]
    assert message.startswith(f"cannot read image {path}: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["SOLVER.IMS_PER_BATCH", 5],
            r"IMS_PER_BATCH is 5; set it to a multiple of 2, the number of processes \(2\)",
        ),
        (
            ["SOLVER.IMS_PER_BATCH", 6, "SOLVER.ACCUMULATION_STEPS", 2],
            r"IMS_PER_BATCH is 6; .* multiple of 4, .*\(2\) times SOLVER\.ACCUMULATION_STEPS \(2\)",
        ),
        (["SOLVER.ACCUMULATION_STEPS", 0], r"SOLVER\.ACCUMULATION_STEPS is 0; set it to 1 or more"),
        (["SOLVER.IMS_PER_BATCH", 0], "IMS_PER_BATCH is 0"),
        (["DATALOADER.NUM_WORKERS", -1], r"DATALOADER\.NUM_WORKERS is -1; set it to 0 or more"),
        (["INPUT.DATASET_MAPPER_NAME", "instances"], "DATASET_MAPPER_NAME is 'instances'"),
        (["DATASETS.TRAIN", ()], "DATASETS.TRAIN is empty"),
        (["DATASETS.TRAIN", ("minor",)], "unknown dataset 'minor' in DATASETS.TRAIN; .* mini,"),
        (
            ["DATASETS.TRAIN", ("mini", "voc_2012_test_sem_seg")],
            r"TRAIN_CLASS_JSON \(.*names\.json\) lists 3 .*voc_2012_test_sem_seg has 20; use the",
        ),
        (
            [
                *("DATASETS.TRAIN", ("coco_2017_train_stuff_all_sem_seg",)),
                *("MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON", "datasets/coco.json"),
            ],
            "coco_2017_train_stuff_all_sem_seg not found in",
        ),
        (
            ["DATASETS.TRAIN", ("coco_2014_train",)],
            "dataset coco_2014_train has 0;",
        ),
        (
            ["MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 65535],
            "dataset mini has the ignore label 255, .*IGNORE_VALUE is 65535",
        ),
    ],
)
def test_bad_settings_are_one_line(cfg, monkeypatch, settings, message):
    as_rank(monkeypatch, 0, 2)
    cfg.merge_from_list(settings)
    with pytest.raises(UserError, match=message) as caught:
        build_train_loader(cfg, seed=0)
    assert "\n" not in str(caught.value)


def test_the_classes_in_another_order_are_refused(cfg, tmp_path):
    other = tmp_path / "other.json"
    cfg.MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON = str(other)
    other.write_text('["alpha", "b", "c"]')
    build_train_loader(cfg, seed=0)  # other words for the same classes
    other.write_text('["a", "c", "b"]')
    told = (
        r"other\.json\) .*dataset mini in a different order: class 1 is 'c' instead of 'b'; use the"
    )
    with pytest.raises(UserError, match=told):
        build_train_loader(cfg, seed=0)


def test_an_unknown_test_dataset_is_one_line(cfg):
    with pytest.raises(UserError, match=r"unknown dataset 'minor' in DATASETS\.TEST; choose from"):
        build_test_loader(cfg, "minor")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "ade20k_sem_seg_val",
            r"cannot be loaded from .*images/validation.*; ",
        ),
        ("coco_2017_val_panoptic_stuffonly", "cannot be loaded from "),
        (
            "cityscapes_fine_sem_seg_val",
            "cannot be loaded from .*leftImg8bit",
        ),
        ("voc_2012_val", "in DATASETS.TEST is not for semantic segmentation; choose from ade20k"),
        ("coco_2017_val", "in DATASETS.TEST is not for semantic segmentation; choose from "),
    ],
)
def test_detectron2s_own_datasets_without_data_are_one_line(cfg, name, problem):
    with pytest.raises(UserError, match=f"dataset '?{name}'? {problem}") as caught:
        build_test_loader(cfg, name)
    assert "\n" not in str(caught.value)
