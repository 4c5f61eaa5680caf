"""Distances of class names to those of training, by the CLIP before fine-tuning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.colors import to_hex

from cat_seg.analysis.text_distance import (
    SEEN_COLOR,
    UNSEEN_COLOR,
    ClassDistance,
    before_training,
    class_distances,
    draw_distances,
    rank_correlation,
)
from cat_seg.errors import UserError
from tests.tiny import CLASSES, open_clip_model, share_tokenizers, tiny_cfg, tiny_model

FINE_TUNE = "MODEL.SEM_SEG_HEAD.CLIP_FINETUNE"
IOU = {"dog": 50.0, "sky": 90.0, "tree": 20.0, "red car, auto": 40.0}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    share_tokenizers(monkeypatch)


def test_an_adapter_is_taken_off(tmp_path):
    model = tiny_model(FINE_TUNE, "oft_both").eval()
    trained = model.sem_seg_head.clip
    with torch.no_grad():
        before = trained.encode_text(CLASSES)
        with before_training(tiny_cfg(tmp_path, FINE_TUNE, "oft_both"), model) as source:
            plain = model.sem_seg_head.encoder.encode_text(CLASSES)
            frozen = trained.text.transformer.attention_weights()
            expected = trained.text(trained.prompts.arranged(CLASSES), frozen)
    assert "without its adapter" in source
    torch.testing.assert_close(plain[:, 0], F.normalize(expected, dim=-1))
    assert not torch.allclose(plain, before, atol=1e-3)
    assert model.sem_seg_head.clip is trained
    assert torch.equal(trained.encode_text(CLASSES), before)


def test_trained_towers_come_from_clip_weights(tmp_path):
    file = tmp_path / "start.pt"
    cfg = tiny_cfg(tmp_path, FINE_TUNE, "attention", "MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS", str(file))
    start = open_clip_model(Path(cfg.MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED)).state_dict()
    torch.save(start, file)
    model = tiny_model(FINE_TUNE, "attention").eval()
    trained = model.sem_seg_head.clip
    with before_training(cfg, model) as source:
        found = model.sem_seg_head.clip
        assert torch.equal(found.text.text_projection, start["text_projection"])
    assert source == f"CLIP_WEIGHTS {file}" and model.sem_seg_head.clip is trained
    assert not torch.equal(trained.text.text_projection, start["text_projection"])
    assert cfg.MODEL.SEM_SEG_HEAD.CLIP_FINETUNE == "attention"


def test_an_unknown_start_is_refused(tmp_path):
    cfg = tiny_cfg(tmp_path, FINE_TUNE, "full")
    model = tiny_model(FINE_TUNE, "full").eval()
    with pytest.raises(UserError, match="'random'"), before_training(cfg, model):
        pass
    cfg.MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS = "nowhere.pt"
    with pytest.raises(UserError, match=r"nowhere\.pt"), before_training(cfg, model):
        pass


def test_distances_to_the_nearest_training_name():
    encoder = tiny_model().eval().sem_seg_head.encoder
    found = class_distances(encoder, CLASSES, IOU)
    assert [one.distance for one in found] == sorted(one.distance for one in found)
    by_name = {one.name: one for one in found}
    assert by_name.keys() == IOU.keys()
    # "dog" is the first synonym of "dog, hound", so the prompts are the same.
    assert by_name["dog"].seen and by_name["sky"].seen
    assert by_name["dog"].nearest == "dog, hound"
    assert by_name["dog"].distance == pytest.approx(0, abs=1e-6)
    assert not by_name["tree"].seen and not by_name["red car, auto"].seen
    with torch.no_grad():
        text = encoder.encode_text(["tree", *CLASSES])[:, 0]
    cosine = text[0] @ text[1:].T
    assert by_name["tree"].distance == pytest.approx(1 - cosine.max().item(), abs=1e-5)
    assert by_name["tree"].nearest == CLASSES[cosine.argmax()]
    assert by_name["tree"].iou == 20


def classes(*values):
    return [
        ClassDistance(f"class {index}", distance == 0, distance, "x", iou)
        for index, (distance, iou) in enumerate(values)
    ]


def test_rank_correlation():
    assert rank_correlation(classes((0, 9), (0.1, 5), (0.5, 4))) == pytest.approx(-1)
    assert rank_correlation(classes((0, 9), (0.1, 5), (0.5, 7))) == pytest.approx(-0.5)
    for undefined in (classes((0, 1), (1, 2)), classes((0, 1), (0, 2), (0, 3))):
        assert rank_correlation(undefined) is None


def test_the_picture_has_every_class_and_names_that_do_not_overlap():
    crowded = classes(*((0.0, 50 + index / 10) for index in range(40)), (0.3, 20), (0.4, 80))
    crowded.append(ClassDistance("a $ b", False, 0.41, "x", 10))
    figure = draw_distances(crowded, "ade$")
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "ade$"
    dots = {to_hex(c.get_facecolor()[0]): c.get_offsets().tolist() for c in axes.collections}
    assert len(dots[SEEN_COLOR]) == 40
    assert dots[UNSEEN_COLOR] == [[0.3, 20], [0.4, 80], [0.41, 10]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "seen (40)",
        "unseen (3)",
    ]
    names = [text.get_text() for text in axes.texts]
    assert {"class 40", "class 41", "a $ b"} <= set(names) and 4 <= len(names) < 20
    figure.canvas.draw()
    boxes = np.array([text.get_window_extent().extents for text in axes.texts])
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        others = np.delete(boxes, index, axis=0)
        apart = (
            (others[:, 0] > x1) | (others[:, 2] < x0) | (others[:, 1] > y1) | (others[:, 3] < y0)
        )
        assert apart.all()
