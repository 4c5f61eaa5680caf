"""Mixed precision in evaluation and prediction: TEST.AMP."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import get_cfg

import cat_seg
from cat_seg.evaluation import SemanticSegmentorWithTTA
from tests.tiny import batch, image, tiny_cfg, tiny_model

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def model_in(name, *overrides):
    return tiny_model("TEST.AMP.ENABLED", True, "TEST.AMP.DTYPE", name, *overrides).eval()


@torch.no_grad()
def answer(model):
    return model([{"image": image(70, 50)}])[0]["sem_seg"]


@pytest.mark.parametrize("sliding", [False, True])
@pytest.mark.parametrize("name", DTYPES)
def test_the_network_is_mixed_and_the_probabilities_are_float32(name, sliding):
    expected = answer(tiny_model("TEST.SLIDING_WINDOW", sliding).eval())
    model = model_in(name, "TEST.SLIDING_WINDOW", sliding)
    seen = []
    for module in (model.sem_seg_head.clip.image, model.sem_seg_head.aggregator.decoder2):
        module.register_forward_hook(lambda m, x, out: seen.append(getattr(out, "dense", out)))
    found = answer(model)
    assert [out.dtype for out in seen] == 2 * [DTYPES[name]]
    assert found.dtype == torch.float32
    # Sums and resizing are not rounded to the narrow type.
    assert not torch.equal(found, found.to(DTYPES[name]).float())
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_it_is_off_by_default_and_leaves_the_precision_to_the_context():
    model = tiny_model().eval()
    assert model.inference_dtype is None
    plain = answer(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = answer(model)
    assert torch.equal(mixed, answer(model_in("bfloat16")))
    assert not torch.equal(mixed, plain)


def test_training_stays_in_full_precision():
    losses = [m.train()(batch()) for m in (tiny_model(), model_in("bfloat16"))]
    assert losses[0] == losses[1]


def test_augmented_copies_are_averaged_in_float32():
    cfg = cat_seg.add_cat_seg_config(get_cfg())
    cfg.TEST.AUG.MIN_SIZES = [0, 80]
    augmented = SemanticSegmentorWithTTA(cfg, model_in("bfloat16"))
    with torch.no_grad():
        [found] = augmented.segment([{"image": image(70, 50), "height": 70, "width": 50}])
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.bfloat16().float())


def test_a_model_is_loaded_with_the_precision_of_its_config(tmp_path):
    cfg = tiny_cfg(tmp_path, "TEST.AMP.ENABLED", True)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    torch.save({"model": tiny_model().state_dict()}, tmp_path / "model_final.pth")
    model = cat_seg.from_pretrained(tmp_path, device="cpu")
    assert model._predictor.model.inference_dtype == torch.bfloat16
    found = model.segment(image(40, 30))
    assert found.confidence.dtype == "float32"
    plain = cat_seg.from_pretrained(tmp_path, device="cpu", opts=["TEST.AMP.ENABLED", "False"])
    difference = abs(plain.segment(image(40, 30)).confidence - found.confidence).max()
    assert 0 < difference < 0.02
