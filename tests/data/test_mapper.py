from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from PIL import Image

from cat_seg.config import add_cat_seg_config
from cat_seg.data.augmentation import CroppedResize
from cat_seg.data.build import fixed_randomness
from cat_seg.data.mapper import InferenceMapper, TrainMapper
from cat_seg.errors import UserError

CLASSES = 5


@pytest.fixture
def cfg(tmp_path) -> CfgNode:
    names = tmp_path / "names.json"
    names.write_text(json.dumps([f"class {i}" for i in range(CLASSES)]))
    cfg = add_cat_seg_config(get_cfg())
    cfg.MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON = str(names)
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TRAIN = (0,)
    cfg.INPUT.RANDOM_FLIP = "none"
    return cfg


def write_sample(folder, height: int, width: int, label: np.ndarray | None = None, suffix="png"):
    """Write a random image and a label map; return the record, the image and the labels."""
    rng = np.random.default_rng(height * width)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if label is None:
        label = rng.integers(0, CLASSES, (height, width), dtype=np.uint8)
        label[0, 0] = 255
    record = {
        "file_name": str(folder / "image.png"),
        "sem_seg_file_name": str(folder / f"label.{suffix}"),
    }
    Image.fromarray(image).save(record["file_name"])
    Image.fromarray(label).save(record["sem_seg_file_name"])
    return record, image, label


def as_hwc(sample: dict) -> np.ndarray:
    return sample["image"].permute(1, 2, 0).numpy()


def test_nothing_asked_for_changes_nothing(tmp_path, cfg):
    record, image, label = write_sample(tmp_path, 5, 7)
    before = dict(record)
    sample = TrainMapper(cfg)(record)
    np.testing.assert_array_equal(as_hwc(sample), image)
    np.testing.assert_array_equal(sample["sem_seg"], label)
    assert (sample["image"].dtype, sample["sem_seg"].dtype) == (torch.uint8, torch.uint8)
    assert (sample["height"], sample["width"]) == (5, 7)
    assert record == before
    assert {key: sample[key] for key in record} == record


def test_a_hand_made_expectation(tmp_path):
    record, image, label = write_sample(tmp_path, 6, 10)
    mapper = TrainMapper(
        augmentations=[T.CropTransform(2, 1, 7, 4), T.HFlipTransform(7)],
        image_format="BGR",
        num_classes=CLASSES,
        ignore_label=255,
        size_divisibility=8,
    )
    sample = mapper(record)
    expected = np.full((8, 8, 3), 128)
    expected[:4, :7] = image[1:5, 2:9][:, ::-1, ::-1]
    np.testing.assert_array_equal(as_hwc(sample), expected)
    labels = np.full((8, 8), 255)
    labels[:4, :7] = label[1:5, 2:9][:, ::-1]
    np.testing.assert_array_equal(sample["sem_seg"], labels)
    assert (sample["height"], sample["width"]) == (6, 10)


@pytest.mark.parametrize(("size", "padded"), [((8, 16), (8, 16)), ((9, 3), (16, 8))])
def test_padding_goes_to_the_next_multiple(tmp_path, cfg, size, padded):
    cfg.INPUT.SIZE_DIVISIBILITY = 8
    sample = TrainMapper(cfg)(write_sample(tmp_path, *size)[0])
    assert tuple(sample["sem_seg"].shape) == padded
    assert tuple(sample["image"].shape[1:]) == padded


def test_resizing_takes_bilinear_images_and_floor_nearest_labels(tmp_path, cfg):
    label = np.repeat(np.arange(5, dtype=np.uint8)[:, None], 5, axis=1)
    record, image, _ = write_sample(tmp_path, 5, 5, label)
    cfg.INPUT.MIN_SIZE_TRAIN = (3,)
    sample = TrainMapper(cfg)(record)
    # Floor of 0, 1, 2 times 5/3; nearest by pixel centers would give 0, 2, 4.
    assert sample["sem_seg"][:, 0].tolist() == [0, 1, 3]
    expected = Image.fromarray(image).resize((3, 3), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(as_hwc(sample), np.asarray(expected))


def test_sixteen_bit_labels_survive_resizing(tmp_path, cfg):
    values = np.array([[0, 300], [846, 65535]], dtype=np.uint16)
    record, _, _ = write_sample(tmp_path, 2, 2, values, suffix="tif")
    mapper = TrainMapper(
        augmentations=[CroppedResize((2, 2), (4, 4), T.CropTransform(0, 0, 4, 4))],
        image_format="RGB",
        num_classes=847,
        ignore_label=65535,
    )
    expected = values.astype(np.int64).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(mapper(record)["sem_seg"], expected)


@pytest.mark.parametrize("flip", ["horizontal", "vertical"])
@pytest.mark.parametrize("sampling", ["choice", "range"])
def test_the_published_recipe_in_its_order(tmp_path, cfg, flip, sampling):
    # One class nearly everywhere, so that the limit on its area makes crops be drawn again.
    label = np.zeros((60, 80), dtype=np.uint8)
    label[:, 60:] = 1
    record, image, label = write_sample(tmp_path, 60, 80, label)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (40, 90), 100
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = sampling
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", [32, 32]
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 0.6
    cfg.INPUT.COLOR_AUG_SSD = True
    cfg.INPUT.RANDOM_FLIP = flip
    recipe = T.AugmentationList(
        [
            T.ResizeShortestEdge((40, 90), 100, sampling),
            T.RandomCrop_CategoryAreaConstraint("absolute", [32, 32], 0.6, 255),
            ColorAugSSDTransform("RGB"),
            T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical"),
        ]
    )
    mapper = TrainMapper(cfg)
    for position in range(6):
        with fixed_randomness(1, position):
            sample = mapper(record)
        with fixed_randomness(1, position):
            expected = T.AugInput(image, sem_seg=label.astype(np.float64))
            recipe(expected)
        np.testing.assert_array_equal(as_hwc(sample), expected.image)
        np.testing.assert_array_equal(sample["sem_seg"], expected.sem_seg)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["FORMAT", "L"], "INPUT.FORMAT is 'L'; set it to one of RGB, BGR"),
        (["MIN_SIZE_TRAIN_SAMPLING", "all"], "INPUT.MIN_SIZE_TRAIN_SAMPLING is 'all'"),
        (["RANDOM_FLIP", "both"], "INPUT.RANDOM_FLIP is 'both'"),
        (["CROP.ENABLED", True, "INPUT.CROP.TYPE", "odd"], "INPUT.CROP.TYPE is 'odd'"),
        (["MIN_SIZE_TRAIN_SAMPLING", "range"], r"INPUT.MIN_SIZE_TRAIN is \(0,\); .* two sizes"),
        (["MIN_SIZE_TRAIN", ()], r"INPUT.MIN_SIZE_TRAIN is \(\); set it to one or more"),
        (["MIN_SIZE_TRAIN", (64, -1)], r"INPUT.MIN_SIZE_TRAIN is \(64, -1\)"),
        (["MAX_SIZE_TRAIN", 0], "INPUT.MAX_SIZE_TRAIN is 0; set it to 1 or more"),
    ],
)
def test_bad_config_values_name_their_key(cfg, settings, message):
    cfg.merge_from_list(["INPUT." + settings[0], *settings[1:]])
    with pytest.raises(UserError, match=message):
        TrainMapper(cfg)


def test_a_label_of_another_size_is_named(tmp_path, cfg):
    record, _, _ = write_sample(tmp_path, 4, 6, np.zeros((6, 4), dtype=np.uint8))
    with pytest.raises(UserError, match=r"label\.png is 4x6 .*image\.png is 6x4"):
        TrainMapper(cfg)(record)


def test_a_label_out_of_range_is_named(tmp_path, cfg):
    record, _, _ = write_sample(tmp_path, 2, 2, np.array([[0, 255], [CLASSES, 1]], np.uint8))
    with pytest.raises(UserError, match=r"label\.png has the value 5, .*\(0 to 4\)"):
        TrainMapper(cfg)(record)


THIN = [(1, 1), (2, 2), (1, 3000), (3000, 1), (10000, 2), (31, 33)]


@pytest.mark.parametrize("area", [1.0, 0.5])
@pytest.mark.parametrize("kind", [None, "absolute", "relative", "relative_range", "absolute_range"])
def test_something_is_left_of_long_thin_images(tmp_path, cfg, kind, area):
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (32,), 64
    cfg.INPUT.COLOR_AUG_SSD = True
    if kind is not None:
        cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE = True, kind
        cfg.INPUT.CROP.SIZE = [0.3, 0.3] if kind.startswith("relative") else [16, 24]
        cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = area
    mapper = TrainMapper(cfg)
    for size in THIN:
        record, _, _ = write_sample(tmp_path, *size)
        sample = mapper(record)
        assert sample["image"].shape[1:] == sample["sem_seg"].shape
        assert min(sample["sem_seg"].shape) >= 1
        assert (sample["height"], sample["width"]) == size


def test_something_is_left_of_long_thin_images_in_inference(tmp_path, cfg):
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 640, 2560
    expected = [(640, 640), (640, 640), (1, 2560), (2560, 1), (2560, 1), (640, 681)]
    for size, resized in zip(THIN, expected, strict=True):
        sample = InferenceMapper(cfg)(write_sample(tmp_path, *size)[0])
        assert tuple(sample["image"].shape[1:]) == resized
        assert (sample["height"], sample["width"]) == size


@pytest.mark.parametrize("mapper", [TrainMapper, InferenceMapper])
def test_the_exif_orientation_can_be_ignored(tmp_path, cfg, mapper):
    record, image, label = write_sample(tmp_path, 5, 7)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(image).save(record["file_name"], exif=exif)
    Image.fromarray(label).save(record["sem_seg_file_name"], exif=exif)
    cfg.INPUT.MIN_SIZE_TEST = 0
    for ignored, turn in ((False, -1), (True, 0)):
        cfg.INPUT.IGNORE_EXIF_ORIENTATION = ignored
        sample = mapper(cfg)(record)
        np.testing.assert_array_equal(as_hwc(sample), np.rot90(image, turn))
        if mapper is TrainMapper:
            np.testing.assert_array_equal(sample["sem_seg"], np.rot90(label, turn))


@pytest.mark.parametrize("key", ["file_name", "sem_seg_file_name"])
def test_an_unreadable_file_is_named(tmp_path, cfg, key):
    record, _, _ = write_sample(tmp_path, 20, 20)
    with open(record[key], "r+b") as file:
        file.truncate(60)
    with pytest.raises(UserError, match=record[key]):
        TrainMapper(cfg)(record)


@pytest.mark.parametrize(
    ("shortest", "longest", "expected"),
    [(20, 100, (20, 30)), (20, 24, (16, 24)), (0, 5, (10, 15))],
)
def test_inference_sizes(tmp_path, cfg, shortest, longest, expected):
    record, image, _ = write_sample(tmp_path, 10, 15)
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = shortest, longest
    sample = InferenceMapper(cfg)(record)
    resized = Image.fromarray(image).resize(expected[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(as_hwc(sample), np.asarray(resized))
    assert (sample["height"], sample["width"]) == (10, 15)
    assert {key: sample[key] for key in record} == record
    assert "sem_seg" not in sample


def test_inference_needs_no_label_file(tmp_path, cfg):
    record, _, _ = write_sample(tmp_path, 4, 4)
    sample = InferenceMapper(cfg)({"file_name": record["file_name"]})
    assert sample["image"].shape[0] == 3


def test_inference_names_an_unknown_format(cfg):
    cfg.INPUT.FORMAT = "L"
    with pytest.raises(UserError, match=r"INPUT\.FORMAT is 'L'"):
        InferenceMapper(cfg)


@pytest.mark.parametrize(
    ("kind", "size", "wanted"),
    [
        ("relative", [0.5, 1.5], "fractions of at most 1"),
        ("relative_range", [8, 8], "fractions of at most 1"),
        ("absolute", [8.5, 8], "integers"),
        ("absolute_range", [9, 8], "the smallest and the largest side"),
    ],
)
def test_a_crop_that_its_type_cannot_have_is_refused(cfg, kind, size, wanted):
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, kind, size
    with pytest.raises(UserError, match=rf"INPUT\.CROP\.SIZE is \[.*\]; set it to {wanted}"):
        TrainMapper(cfg)


@pytest.mark.parametrize("size", [[8], [8, 0], [8, 8, 8]])
def test_a_crop_has_a_height_and_a_width(cfg, size):
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.SIZE = True, size
    with pytest.raises(
        UserError, match=r"INPUT\.CROP\.SIZE is \[8.*\]; set it to a height and a width"
    ):
        TrainMapper(cfg)
