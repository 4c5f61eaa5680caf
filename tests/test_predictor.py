from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from PIL import Image

from cat_seg import predictor as predictor_module
from cat_seg.engine import load_config
from cat_seg.errors import UserError
from cat_seg.predictor import Predictor, read_rgb
from cat_seg.utils.paths import REPO_ROOT
from tests.color_model import write_config, write_weights

RED, LIME, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    return load_config(write_config(tmp_path), ["MODEL.WEIGHTS", write_weights(tmp_path)])


def stripes(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image of vertical stripes in red, lime, blue, and its labels."""
    labels = np.tile(np.arange(width) * 3 // width, (height, 1))
    return np.array([RED, LIME, BLUE], dtype=np.uint8)[labels], labels


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (37, 53)])
def test_labels_of_images_of_any_size(cfg, size):
    image, labels = stripes(*size)
    result = Predictor(cfg)(image)
    np.testing.assert_array_equal(result.labels, labels)
    assert np.issubdtype(result.labels.dtype, np.integer)
    assert result.vocabulary == ("red", "lime", "blue")
    assert result.probabilities is None


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (20000, 2), (5000, 200)])
def test_long_thin_images_have_labels_of_their_size(cfg, size):
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 640, 2560
    assert Predictor(cfg)(stripes(*size)[0]).labels.shape == size


@pytest.mark.parametrize("shortest", [0, 20])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (31, 33)])
def test_arrays_of_any_layout_are_read_and_left_alone(cfg, size, shortest):
    cfg.INPUT.MIN_SIZE_TEST = shortest
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    predictor = Predictor(cfg)
    expected = predictor(image.copy()).labels
    read_only = image.copy()
    read_only.setflags(write=False)
    wide = np.repeat(np.repeat(np.repeat(image, 2, 0), 2, 1), 2, 2)
    layouts = [
        read_only,
        image[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
        np.asfortranarray(image),
        wide[::2, ::2, ::2],
        np.ma.masked_array(image),
    ]
    for layout in layouts:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(predictor(layout).labels, expected)
        np.testing.assert_array_equal(layout, image)


def test_probabilities_that_are_not_numbers_are_an_error(cfg):
    predictor = Predictor(cfg)
    with torch.no_grad():
        predictor.model.sharpness.fill_(torch.nan)
    with pytest.raises(UserError, match=r"are NaN; MODEL\.WEIGHTS"):
        predictor(stripes(4, 6)[0])


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_an_image_that_does_not_fit_into_memory_is_an_error(cfg, monkeypatch, error):
    predictor = Predictor(cfg)

    def fail(*_):
        raise error

    monkeypatch.setattr(predictor.model, "segment", fail)
    with pytest.raises(UserError, match="not enough memory to segment 6x4 pixels into 3 classes"):
        predictor(stripes(4, 6)[0])


def test_other_errors_of_the_model_are_not_hidden(cfg, monkeypatch):
    predictor = Predictor(cfg)
    monkeypatch.setattr(predictor.model, "segment", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError):
        predictor(stripes(4, 6)[0])


def test_probabilities_on_request(cfg):
    image, labels = stripes(4, 6)
    result = Predictor(cfg)(image, with_probabilities=True)
    assert result.probabilities.shape == (3, 4, 6)
    assert result.probabilities.dtype == np.float32
    np.testing.assert_array_equal(result.probabilities.argmax(axis=0), labels)
    np.testing.assert_allclose(result.probabilities.max(axis=0), 1)


def test_test_classes_come_before_training_classes(cfg, tmp_path):
    names = tmp_path / "test.json"
    names.write_text('["blue", "red"]')
    cfg.MODEL.SEM_SEG_HEAD.TEST_CLASS_JSON = str(names)
    assert Predictor(cfg).vocabulary == ("blue", "red")


def test_a_vocabulary_given_to_the_predictor_comes_first(cfg):
    assert Predictor(cfg, ["lime", "Blue, azure"]).vocabulary == ("lime", "Blue, azure")


def test_labels_follow_the_vocabulary(cfg):
    image, labels = stripes(4, 6)
    predictor = Predictor(cfg)
    predictor.set_vocabulary(["blue", "lime", "red"])
    np.testing.assert_array_equal(predictor(image).labels, 2 - labels)
    predictor.set_vocabulary("blue, lime")
    assert predictor(image).vocabulary == ("blue", "lime")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "no class names"),
        (["red", " "], "class 1 has an empty name"),
        (["red", "red "], "both"),
    ],
)
def test_a_bad_list_of_classes_is_refused(cfg, names, told):
    predictor = Predictor(cfg)
    with pytest.raises(UserError, match=f"the vocabulary.*{told}"):
        predictor.set_vocabulary(names)
    assert len(predictor.vocabulary) == 3


@pytest.mark.parametrize(
    ("shortest", "longest", "expected"),
    [(0, 100, (30, 60)), (15, 100, (15, 30)), (15, 20, (10, 20))],
)
def test_images_are_resized_as_in_evaluation(cfg, shortest, longest, expected):
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = shortest, longest
    predictor = Predictor(cfg)
    assert predictor(stripes(30, 60)[0]).labels.shape == (30, 60)
    [seen] = predictor.model.seen
    assert tuple(seen["image"].shape) == (3, *expected)
    assert seen["image"].dtype == torch.uint8


def test_channels_come_in_the_order_of_the_config(cfg):
    cfg.INPUT.FORMAT = "BGR"
    image, labels = stripes(4, 6)
    np.testing.assert_array_equal(Predictor(cfg)(image).labels, 2 - labels)


def test_labels_are_the_argmax_of_the_probabilities(cfg):
    predictor = Predictor(cfg)
    image = np.random.default_rng(0).integers(0, 256, (41, 60, 3), dtype=np.uint8)
    whole = predictor(image, with_probabilities=True)
    assert whole.probabilities.shape == (3, 41, 60)
    np.testing.assert_array_equal(predictor(image).labels, whole.probabilities.argmax(axis=0))


def test_scores_of_a_batch_are_those_of_each_image(cfg):
    predictor = Predictor(cfg)
    images = [stripes(30, 60)[0], stripes(8, 9)[0]]
    for image, found in zip(images, predictor.scores(images), strict=True):
        probabilities = predictor(image, with_probabilities=True).probabilities
        np.testing.assert_array_equal(found.labels, probabilities.argmax(axis=0))
        np.testing.assert_array_equal(found.confidence, probabilities.max(axis=0))
        ordered = np.sort(probabilities, axis=0)
        np.testing.assert_array_equal(found.margin, ordered[-1] - ordered[-2])


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("MODEL.META_ARCHITECTURE", "Foo", "is 'Foo'; set it to CATSeg or EnhancedCATSeg"),
        ("MODEL.SEM_SEG_HEAD.NAME", "Foo", "is 'Foo'; set it to CATSegHead"),
        ("INPUT.MIN_SIZE_TEST", -1, "is -1 and .* set MIN_SIZE_TEST to 0"),
    ],
)
def test_what_cannot_be_built_is_named(cfg, key, value, told):
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=f"{key} {told}"):
        Predictor(cfg)


def test_no_weights_is_an_error(cfg):
    cfg.MODEL.WEIGHTS = ""
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS is empty; set it"):
        Predictor(cfg)


def test_missing_weights_are_named(cfg):
    cfg.MODEL.WEIGHTS = "nowhere/model.pth"
    with pytest.raises(UserError, match=r"nowhere/model\.pth"):
        Predictor(cfg)


def test_cuda_without_a_gpu_is_an_error(cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg.MODEL.DEVICE = "cuda"
    with pytest.raises(UserError, match=r"MODEL\.DEVICE cpu"):
        Predictor(cfg)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((4, 4, 3), dtype=np.float32),
        np.zeros((0, 4, 3), dtype=np.uint8),
    ],
    ids=["gray", "rgba", "float", "empty"],
)
def test_other_arrays_are_refused(cfg, image):
    with pytest.raises(UserError, match=r"must be \(height, width, 3\) uint8 RGB, not \("):
        Predictor(cfg)(image)


@pytest.mark.parametrize("names", [None, 3])
def test_a_vocabulary_is_names_or_a_text(cfg, names):
    with pytest.raises(
        UserError, match="the vocabulary must be a list of class names or a string, not"
    ):
        Predictor(cfg).set_vocabulary(names)


def test_the_documented_example_runs(tmp_path, monkeypatch):
    document = (REPO_ROOT / "docs" / "demo.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    image, labels = stripes(30, 60)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(image).save("cat.png")
    for documented, here in (
        ("configs/vitb_384_enhanced.yaml", write_config(tmp_path)),
        ("model_final.pth", write_weights(tmp_path)),
        ('["cat", "dog"]', '["lime", "red"]'),
        ("grass, sky, tree", "red, lime, blue"),
    ):
        assert documented in example
        example = example.replace(documented, here)
    found = {}
    exec(example, found)
    assert found["result"].vocabulary == ("lime", "red")
    assert found["result"].probabilities.shape == (2, 30, 60)
    np.testing.assert_array_equal(found["predictor"](image).labels, labels)
    assert found["picture"].shape[1] == 7 * 60  # enlarged to 384 pixels and more


@pytest.mark.parametrize("image", [Image.new("RGB", (4, 4)), torch.zeros(4, 4, 3).byte(), "a.png"])
def test_what_is_no_array_is_refused(cfg, image):
    with pytest.raises(UserError, match=r"must be a NumPy array, not .*see read_rgb"):
        Predictor(cfg)(image)


RAMP = np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6)
GRAY = np.repeat((RAMP >> 8).astype(np.uint8)[..., None], 3, axis=2)
COLOR = stripes(4, 6)[0]


@pytest.mark.parametrize(
    ("picture", "suffix", "expected"),
    [
        (Image.fromarray(COLOR), "png", COLOR),
        (Image.fromarray(COLOR).convert("RGBA"), "png", COLOR),
        (Image.fromarray(COLOR).convert("P"), "gif", COLOR),
        (Image.fromarray(GRAY[..., 0]), "png", GRAY),
        (Image.fromarray(GRAY[..., 0]).convert("LA"), "png", GRAY),
        (Image.fromarray(RAMP), "png", GRAY),
        (Image.fromarray(RAMP), "tif", GRAY),
        (Image.fromarray(RAMP.astype(np.int32)), "tif", GRAY),
        (Image.fromarray(GRAY[..., 0] > 127), "png", np.where(GRAY > 127, 255, 0)),
    ],
    ids=["rgb", "rgba", "palette", "gray", "gray-alpha", "16-bit", "16-bit-tif", "32-bit", "1-bit"],
)
def test_read_rgb_reads_every_kind_of_image(tmp_path, picture, suffix, expected):
    path = tmp_path / f"image.{suffix}"
    picture.save(path)
    image = read_rgb(str(path))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(("pixels", "expected"), [(COLOR, COLOR), (RAMP, GRAY)])
def test_read_rgb_turns_images_as_exif_says(tmp_path, pixels, expected):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn clockwise by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "image.png", exif=exif)
    image = read_rgb(str(tmp_path / "image.png"))
    np.testing.assert_array_equal(image, np.rot90(expected, k=-1))


def test_read_rgb_can_ignore_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOR).save(tmp_path / "image.png", exif=exif)
    image = read_rgb(str(tmp_path / "image.png"), ignore_orientation=True)
    np.testing.assert_array_equal(image, COLOR)


def test_read_rgb_names_an_unreadable_file(tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"image\.jpg"):
        read_rgb(str(path))


def test_read_rgb_refuses_floating_point_pixels(tmp_path):
    path = tmp_path / "image.tif"
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(path)
    with pytest.raises(UserError, match=r"image\.tif has floating-point pixels; save"):
        read_rgb(str(path))


def test_the_predictor_sets_the_precision_of_float32(cfg, monkeypatch):
    seen = []
    monkeypatch.setattr(predictor_module, "set_float32_precision", seen.append)
    Predictor(cfg)
    assert seen == [cfg]
