"""CATSeg in evaluation: whole images, the sliding window, vocabularies."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from detectron2.modeling.postprocessing import sem_seg_postprocess

from cat_seg.errors import UserError
from cat_seg.modeling.processing import sliding_window
from tests.tiny import (
    CLASSES,
    MANY_CLASSES,
    PAD_LEN,
    answer,
    assert_same,
    batch,
    image,
    tiny_cfg,
    tiny_model,
)

HEAD = "MODEL.SEM_SEG_HEAD."


@pytest.fixture(scope="module")
def model():
    """For tests that change nothing in it but the vocabulary."""
    return tiny_model()


@pytest.fixture(autouse=True)
def same_vocabulary(model):
    model.set_vocabulary(CLASSES)


@pytest.mark.parametrize(
    "size",
    [(64, 64), (20, 30), (1, 1), (33, 200), (301, 470), (1, 2560), (2560, 1)],
    ids=lambda size: f"{size}",
)
def test_the_answer_has_the_images_size(model, size):
    (found,) = answer(model, {"image": image(*size)})
    assert found.shape == (len(CLASSES), *size)
    assert found.min() >= 0 and found.max() <= 1
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("output", [(64, 64), (50, 71), (300, 200)])
def test_the_answer_has_the_size_asked_for(model, output):
    (found,) = answer(model, {"image": image(64, 48), "height": output[0], "width": output[1]})
    assert found.shape == (len(CLASSES), *output)


@pytest.mark.parametrize("sliding", [False, True])
def test_a_batch_answers_as_its_images_one_by_one(sliding):
    model = tiny_model("TEST.SLIDING_WINDOW", sliding)
    inputs = [
        {"image": image(64, 64, 0)},
        {"image": image(20, 30, 1)},
        {"image": image(97, 45, 2), "height": 50, "width": 60},
    ]
    together = answer(model, *inputs)
    assert_same(together, [answer(model, entry)[0] for entry in inputs])
    assert (together[0][:, :20, :30] - together[1]).abs().max() > 1e-4


def test_whole_image_inference(model):
    """An image that needs no padding: resize, logits, sigmoid, detectron2's postprocessing."""
    entry = {"image": image(96, 64), "height": 50, "width": 77}
    normal = (entry["image"].float() - model.pixel_mean) / model.pixel_std
    model.eval()
    with torch.no_grad():
        head, clip = model.sem_seg_head, model.sem_seg_head.clip
        resized = F.interpolate(normal[None], (64, 64), mode="bilinear", align_corners=False)
        features = clip.encode_image(resized)
        text = clip.encode_text(CLASSES)
        logits = head(features.dense_map(), text, head.guidance(features))
    expected = sem_seg_postprocess(logits[0].sigmoid(), (16, 16), 50, 77)
    assert_same(answer(model, entry), [expected])


def test_the_image_is_padded_with_the_mean_color(model):
    small = image(70, 50)
    padded = model.pixel_mean.expand(3, 96, 64).clone()
    padded[:, :70, :50] = small
    (expected,) = answer(model, {"image": padded})
    assert_same(answer(model, {"image": small}), [expected[:, :70, :50]])


@pytest.mark.parametrize("size", [(64, 96), (70, 100), (33, 64)])
def test_padding_does_not_move_the_content(model, monkeypatch, size):
    """With logits that show the image itself, the answer lies over the image, padded or not."""
    model.eval()

    def show(images):
        gray = F.interpolate(images, (16, 16), mode="bilinear", align_corners=False)
        return 4 * gray.mean(dim=1, keepdim=True).expand(-1, len(CLASSES), -1, -1), None, {}

    monkeypatch.setattr(model, "_logits", show)
    share = torch.linspace(-1, 1, size[1]).expand(3, *size)  # brightness grows to the right
    (found,) = answer(model, {"image": share * model.pixel_std + model.pixel_mean})
    expected = (4 * share[0]).sigmoid()
    inner = (slice(4, -8), slice(8, -8))
    assert (found[0][inner] - expected[inner]).abs().max() < 0.02


def test_evaluation_changes_nothing_and_repeats(model):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    entry = {"image": image(64, 64)}
    first = answer(model, entry)
    assert_same(answer(model, entry), first, tolerance=0)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


# Sliding window


@pytest.mark.parametrize("size", [(64, 64), (20, 30), (300, 200)])
def test_sliding_window_inference(size):
    model = tiny_model("TEST.SLIDING_WINDOW", True)
    entry = {"image": image(*size), "height": 48, "width": 80}
    (found,) = answer(model, entry)
    normal = (entry["image"].float() - model.pixel_mean) / model.pixel_std  # and no padding
    head, clip = model.sem_seg_head, model.sem_seg_head.clip

    def predict(windows):
        resized = F.interpolate(windows, (64, 64), mode="bilinear", align_corners=False)
        features = clip.encode_image(resized)
        text = clip.encode_text(CLASSES)
        return head(features.dense_map(), text, head.guidance(features))

    with torch.no_grad():
        probabilities = sliding_window(normal, predict)
    expected = F.interpolate(probabilities[None], (48, 80), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, expected[0], atol=1e-5, rtol=0)
    assert found.min() >= 0 and found.max() <= 1


def test_vocabulary_follows_the_mode(model):
    model.set_vocabulary(["tree", "road"])
    assert model.eval().vocabulary == ("tree", "road")
    assert model.train().vocabulary == tuple(CLASSES)
    assert answer(model, {"image": image(64, 64)})[0].shape == (2, 64, 64)


def test_training_keeps_its_classes_whatever_is_tested(model):
    expected = model.train()(batch())
    model.set_vocabulary(["tree"])
    answer(model, {"image": image(64, 64)})
    torch.testing.assert_close(model.train()(batch()), expected)


def test_test_class_json(tmp_path):
    (tmp_path / "test.json").write_text(json.dumps(["tree", "road", "sea"]))
    path = str(tmp_path / "test.json")
    model = build_model(tiny_cfg(tmp_path, f"{HEAD}TEST_CLASS_JSON", path))
    assert model.eval().vocabulary == ("tree", "road", "sea")
    assert model.train().vocabulary == tuple(CLASSES)


def test_without_test_classes_those_of_training_are_answered(model):
    assert tiny_model().eval().vocabulary == tuple(CLASSES)


@pytest.mark.parametrize("names", [["tree"], CLASSES[:2], MANY_CLASSES])
def test_any_number_of_classes(model, names):
    model.set_vocabulary(names)
    (found,) = answer(model, {"image": image(64, 64)})
    assert found.shape == (len(names), 64, 64)


def test_no_class_is_refused(model):
    with pytest.raises(UserError, match="vocabulary"):
        model.set_vocabulary([])
    assert model.eval().vocabulary == tuple(CLASSES)


def test_of_many_classes_only_some_go_on_in_each_image(model):
    assert len(MANY_CLASSES) > PAD_LEN
    model.set_vocabulary(MANY_CLASSES)
    inputs = [{"image": image(64, 64, seed)} for seed in range(3)]
    chosen = [
        (found.amax(dim=(1, 2)) > 1e-20).nonzero().flatten().tolist()
        for found in answer(model, *inputs)
    ]
    assert all(len(classes) == PAD_LEN for classes in chosen)
    # What was chosen is answered as if it were the whole vocabulary.
    for entry, classes in zip(inputs, chosen, strict=True):
        model.set_vocabulary(MANY_CLASSES)
        (found,) = answer(model, entry)
        model.set_vocabulary([MANY_CLASSES[index] for index in classes])
        assert_same([found[classes]], answer(model, entry))


def test_synonyms_prompt_the_first(model):
    entry = {"image": image(64, 64)}
    model.set_vocabulary(["cat, kitten", "sky"])
    first = answer(model, entry)
    model.set_vocabulary(["cat", "sky"])
    assert_same(answer(model, entry), first)
