"""A segmenter answers for one image or many, into the classes of each call."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cat_seg
from cat_seg.errors import UserError
from cat_seg.inference import Segmenter
from cat_seg.predictor import Predictor
from cat_seg.utils.paths import REPO_ROOT
from tests.color_model import write_config, write_weights
from tests.tiny import tiny_cfg, tiny_model

RED, LIME, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder such as a training leaves behind, of the stand-in model."""
    write_config(tmp_path)
    Path(write_weights(tmp_path)).rename(tmp_path / "model_final.pth")
    return tmp_path


@pytest.fixture
def model(folder: Path) -> Segmenter:
    return cat_seg.from_pretrained(folder, device="cpu")


def plain(color: tuple[int, int, int]) -> np.ndarray:
    return np.full((4, 6, 3), color, dtype=np.uint8)


def stripes() -> np.ndarray:
    return np.array([RED, LIME, BLUE], dtype=np.uint8)[np.tile(np.arange(6) // 2, (4, 1))]


def winners(results) -> list[str]:
    return [one.names[one.labels[0, 0]] for one in results]


def test_one_image_gives_one_result(model, folder):
    image = stripes()
    Image.fromarray(image).save(folder / "a.png")
    result = model.segment(folder / "a.png")
    np.testing.assert_array_equal(result.labels, np.tile(np.arange(6) // 2, (4, 1)))
    assert result.names == model.vocabulary == ("red", "lime", "blue")
    assert result.source == folder / "a.png" and result.index == 0
    np.testing.assert_array_equal(result.image, image)
    np.testing.assert_allclose(result.confidence, 1)
    assert result.margin.shape == result.entropy.shape == (4, 6)
    assert model.segment(image).source is None


def test_the_answer_is_the_predictors(folder):
    model = cat_seg.from_pretrained(folder, opts=["MODEL.DEVICE", "cpu", "INPUT.FORMAT", "BGR"])
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    expected = model._predictor(image, with_probabilities=True)
    found = model.segment(image)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.confidence, expected.probabilities.max(axis=0))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 10])
def test_many_images_keep_their_order(model, batch_size):
    colors = [RED, BLUE, LIME, BLUE, RED, RED, LIME]
    results = list(model.segment(map(plain, colors), batch_size=batch_size))
    assert winners(results) == ["red", "blue", "lime", "blue", "red", "red", "lime"]
    assert [one.index for one in results] == list(range(7))


def test_the_model_sees_whole_batches(model, monkeypatch):
    batches, segment = [], model._predictor.model.segment

    def counted(batch, reducer):
        batches.append(len(batch))
        return segment(batch, reducer)

    monkeypatch.setattr(model._predictor.model, "segment", counted)
    list(model.segment([plain(RED)] * 5, batch_size=2))
    assert batches == [2, 2, 1]


def test_images_are_read_as_results_are_taken(model):
    read = []

    def images():
        for index in range(100):
            read.append(index)
            yield plain(RED)

    results = model.segment(images(), batch_size=2)
    assert read == []
    next(results)
    assert read == [0, 1]


def test_unreadable_images_are_named_and_skipped(model, folder, caplog):
    (folder / "broken.jpg").write_bytes(b"no image")
    images = [plain(RED), folder / "broken.jpg", "http://example.org/a.png", 3, plain(BLUE)]
    with caplog.at_level(logging.WARNING):
        results = list(model.segment(images, batch_size=2))
    assert [one.index for one in results] == [0, 4]
    assert winners(results) == ["red", "blue"]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    for record, told in zip(caplog.records, ("broken.jpg", "is a URL", "image 3: "), strict=True):
        assert told in record.getMessage()


def test_errors_can_be_taken_instead_of_logged(model, caplog):
    errors = {}
    assert not list(model.segment(["missing.png"], on_error=errors.__setitem__))
    assert "missing.png" in str(errors[0]) and not caplog.records


def test_one_unreadable_image_is_an_error(model):
    with pytest.raises(UserError, match=r"missing\.png"):
        model.segment("missing.png")


def test_a_batch_too_large_for_memory_is_segmented_image_by_image(model, monkeypatch):
    scores = Predictor.scores

    def limited(predictor, images, groups):
        if sum(image.shape[1] for image in images) > 20:
            raise UserError("there is not enough memory")
        return scores(predictor, images, groups)

    monkeypatch.setattr(Predictor, "scores", limited)
    wide = np.zeros((4, 30, 3), dtype=np.uint8)
    errors = {}
    images = [plain(c) for c in (RED, BLUE, LIME, RED)]
    images.insert(2, wide)
    results = list(model.segment(images, batch_size=5, on_error=errors.__setitem__))
    assert [one.index for one in results] == [0, 1, 3, 4]
    assert list(errors) == [2] and "image 2: there is not enough memory" in str(errors[2])


@pytest.mark.parametrize("images", [3, None, b"abc"])
def test_what_is_no_image_and_no_iterable_is_refused(model, images):
    with pytest.raises(UserError, match=r"images cannot be .*; give a path"):
        model.segment(images)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, "2"])
def test_a_batch_size_is_a_whole_number(model, batch_size):
    with pytest.raises(UserError, match=r"batch_size is .*; give a whole number"):
        model.segment([], batch_size=batch_size)


@pytest.mark.parametrize("form", [list, tuple, iter, ", ".join])
def test_the_vocabulary_holds_for_one_call(model, form):
    result = model.segment(plain(BLUE), form(["yellow", "blue"]))
    assert result.names == ("yellow", "blue") and result.labels[0, 0] == 1
    assert model.vocabulary == ("red", "lime", "blue")
    assert model.segment(plain(BLUE)).labels[0, 0] == 2


def test_class_lists_by_name_and_by_path(model, folder):
    (folder / "mine.txt").write_text("blue\nred\n")
    assert model.segment(plain(RED), folder / "mine.txt").labels[0, 0] == 1
    assert model.segment(plain(RED), str(folder / "mine.txt")).names == ("blue", "red")


def test_calls_may_alternate_while_results_are_taken(model):
    first = model.segment([plain(RED)] * 2, ["blue", "red"])
    second = model.segment([plain(RED)] * 2, ["red", "yellow", "blue"])
    labels = [(next(first).labels[0, 0], next(second).labels[0, 0]) for _ in range(2)]
    assert labels == [(1, 0), (1, 0)]


def test_groups_of_names_are_one_class(model):
    groups = {"warm": ["red", "yellow"], "cold": "blue, lime"}
    results = list(model.segment([plain(c) for c in (RED, BLUE, LIME)], groups))
    assert winners(results) == ["warm", "cold", "cold"]
    assert results[0].names == ("warm", "cold")
    apart = model.segment(plain(RED), ["red", "yellow", "blue", "lime"])
    assert results[0].margin[0, 0] > apart.margin[0, 0]  # yellow is no rival


@pytest.mark.parametrize(
    ("vocabulary", "told"),
    [
        ([], "no class names"),
        (["red", "red"], "both 'red'"),
        ({}, "no class names"),
        ({"a": []}, "class 'a' has no class names"),
        ({"a": ["red"], "b": ["blue", "red"]}, "'b' has 'red', which another class has"),
        ({"a": 3}, "'a' must be a list of class names"),
        (3, "must be a list of class names"),
    ],
)
def test_a_bad_vocabulary_is_an_error_of_the_call(model, vocabulary, told):
    with pytest.raises(UserError, match=told):
        model.segment([plain(RED)], vocabulary)
    assert model.vocabulary == ("red", "lime", "blue")


def test_the_threshold_of_a_call(model):
    image = np.full((4, 6, 3), 128, dtype=np.uint8)
    (result,) = model.segment([image], threshold=0.9)
    assert (result.labels == result.unknown).all() and result.threshold == 0.9
    with pytest.raises(UserError, match="threshold is 2"):
        model.segment([image], threshold=2)


def test_a_segmenter_starts_with_the_classes_it_is_given(folder):
    cfg = cat_seg.load_config(
        str(folder / "config.yaml"), ["MODEL.WEIGHTS", str(folder / "model_final.pth")]
    )
    model = Segmenter(cfg, {"warm": ["red"], "cold": ["blue", "lime"]})
    assert model.vocabulary == ("warm", "cold")
    assert winners([model.segment(plain(LIME))]) == ["cold"]


def test_from_pretrained_takes_a_file_and_its_config(folder, tmp_path):
    elsewhere = tmp_path / "weights"
    elsewhere.mkdir()
    file = (folder / "model_final.pth").rename(elsewhere / "model.pth")
    with pytest.raises(UserError, match=r"has no config\.yaml"):
        cat_seg.from_pretrained(file)
    model = cat_seg.from_pretrained(file, config_file=folder / "config.yaml", device="cpu")
    assert winners([model.segment(plain(BLUE))]) == ["blue"]
    assert model.name == str(file) and model.device == torch.device("cpu")


def test_the_documented_examples_run(folder, monkeypatch, capsys):
    document = (REPO_ROOT / "docs" / "inference.md").read_text(encoding="utf-8")
    first, second, third = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    monkeypatch.chdir(folder)
    Image.fromarray(stripes()).save("street.jpg")
    (folder / "masks").mkdir()
    for documented, here in (
        ('"output/enhanced"', f'"{folder}"'),
        ('["road", "car", "sky"]', '["red", "lime"]'),
        ('"ade150"', '"red, lime"'),
    ):
        assert documented in first + second
        first, second = (text.replace(documented, here) for text in (first, second))
    masks = folder / "masks"
    found = {"folder": folder, "masks": masks}
    exec(first, found)
    exec(second, found)
    assert (folder / "out.png").exists() and (masks / "street.png").exists()
    # Measured against the model's own masks, all pixels are right.
    exec(third, found | {"images": folder, "labels": masks, "names": ["red", "lime"]})
    assert capsys.readouterr().out.endswith(", 1.0)\n")


def test_a_saved_model_answers_the_same(tmp_path):
    torch.save({"model": tiny_model().state_dict()}, tmp_path / "model_final.pth")
    (tmp_path / "config.yaml").write_text(tiny_cfg(tmp_path).dump())
    model = cat_seg.from_pretrained(tmp_path, device="cpu")
    model.save_pretrained(tmp_path / "saved")
    again = cat_seg.from_pretrained(tmp_path / "saved", device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    wording = {"synonyms": "average", "prompts": ["a photo of a {}"]}
    for options in ({}, wording):
        found = [one.segment(image, ["car, truck", "sky"], **options) for one in (model, again)]
        np.testing.assert_array_equal(found[0].confidence, found[1].confidence)
        np.testing.assert_array_equal(found[0].labels, found[1].labels)
    plain = model.segment(image, ["car, truck", "sky"])
    assert (plain.confidence != found[0].confidence).any()
    for name, value in (("synonyms", "all"), ("prompts", ["a"])):
        with pytest.raises(UserError, match=name):
            model.segment(image, **{name: value})


def test_the_device_is_the_best_there_is_unless_given(folder, monkeypatch):
    from cat_seg.inference.loading import default_device

    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=cuda: there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=mps: there)
        assert default_device() == expected
    with pytest.raises(UserError, match=r"MODEL\.DEVICE is mps, but PyTorch finds no Apple GPU"):
        cat_seg.from_pretrained(folder, device="mps")
    with pytest.raises(UserError, match="set it to cuda, mps or cpu"):
        cat_seg.from_pretrained(folder, device="tpu")
