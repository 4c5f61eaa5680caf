from __future__ import annotations

import weakref

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from torch import nn

from cat_seg.config import add_cat_seg_config
from cat_seg.errors import UserError
from cat_seg.evaluation import SemanticSegmentorWithTTA
from cat_seg.modeling.reduction import Probabilities, reduced
from tests.tiny import image

SIZE = (40, 60)


class Channels(nn.Module):
    """Answers with the channels of the image: mirrored and resized as the image is."""

    def __init__(self):
        super().__init__()
        self.vocabulary = ("red", "green", "blue")
        self.sizes = []

    def set_vocabulary(self, names):
        self.vocabulary = tuple(names)

    def scores(self, entry):
        size = (entry["height"], entry["width"])
        return F.interpolate(entry["image"][None] / 255, size, mode="bilinear")[0]

    def segment(self, batch, reducer=Probabilities):
        (entry,) = batch
        self.sizes.append(tuple(entry["image"].shape[-2:]))
        return [reduced(self.scores(entry), reducer)]


class Ramp(Channels):
    """Answers with its position from the left, from 0 to 1, whatever the image."""

    def scores(self, entry):
        return torch.linspace(0, 1, entry["width"]).expand(3, entry["height"], -1).clone()


class Size(Channels):
    """Answers with the height of the copy."""

    def scores(self, entry):
        return torch.full((3, entry["height"], entry["width"]), float(entry["image"].shape[1]))


def augmented(model, sizes, flip=True, largest=4000):
    cfg = add_cat_seg_config(get_cfg())
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.FLIP, cfg.TEST.AUG.MAX_SIZE = sizes, flip, largest
    return SemanticSegmentorWithTTA(cfg, model).eval()


def entry(seed=0, size=SIZE):
    return {"image": image(*size, seed), "height": size[0], "width": size[1]}


def test_flips_are_undone():
    model = Channels()
    [answer] = augmented(model, (0,))([entry()])
    assert len(model.sizes) == 2
    assert answer["sem_seg"].shape == (3, *SIZE)
    torch.testing.assert_close(answer["sem_seg"], entry()["image"] / 255)


def test_the_average_is_over_flipped_answers():
    """A ramp and its mirror image: one half everywhere."""
    ramp = torch.linspace(0, 1, SIZE[1]).expand(3, *SIZE)
    flipped, plain = (augmented(Ramp(), (0, 20), flip)([entry()])[0] for flip in (True, False))
    torch.testing.assert_close(flipped["sem_seg"], torch.full((3, *SIZE), 0.5))
    torch.testing.assert_close(plain["sem_seg"], ramp)


def test_the_scales_are_used_and_averaged():
    model = Size()
    [answer] = augmented(model, (20, 50, 0), largest=60)([entry()])
    assert model.sizes == [(20, 30)] * 2 + [(40, 60)] * 4  # 50 x 75 exceeds the largest
    torch.testing.assert_close(answer["sem_seg"], torch.full((3, *SIZE), (20 + 40 + 40) / 3))


def test_an_equivariant_model_answers_the_same_at_every_scale():
    [answer] = augmented(Channels(), (40, 80))([entry()])
    assert (answer["sem_seg"] - entry()["image"] / 255).abs().max() < 0.02


def test_every_image_of_a_batch_has_an_answer_of_its_own_size():
    entries = [entry(1), entry(2, (30, 20)) | {"height": 60, "width": 40}]
    answers = augmented(Channels(), (0,))(entries)
    assert [answer["sem_seg"].shape for answer in answers] == [(3, *SIZE), (3, 60, 40)]
    torch.testing.assert_close(answers[0]["sem_seg"], entries[0]["image"] / 255)
    assert entries[0].keys() == {"image", "height", "width"}


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (10000, 2), (31, 33)])
def test_long_thin_images_are_answered_in_their_size(size):
    [answer] = augmented(Channels(), (16, 32), largest=40)([entry(size=size)])
    assert answer["sem_seg"].shape == (3, *size)
    assert torch.isfinite(answer["sem_seg"]).all()


def test_no_answer_is_kept_but_the_sum(monkeypatch):
    model = Channels()
    alive, most = weakref.WeakSet(), []

    def scores(entry):
        most.append(len(alive))
        answer = Channels.scores(model, entry)
        alive.add(answer)
        return answer

    monkeypatch.setattr(model, "scores", scores)
    augmented(model, (0, 20, 30))([entry()])
    assert most == [0, 1, 1, 1, 1, 1]


def test_vocabulary_and_mode_are_the_models():
    model = Channels()
    wrapped = augmented(model, (0,))
    assert not model.training
    wrapped.set_vocabulary(["a", "b", "c"])
    assert wrapped.vocabulary == model.vocabulary == ("a", "b", "c")
    cfg = add_cat_seg_config(get_cfg())
    assert not SemanticSegmentorWithTTA(cfg, model.eval()).training
    assert SemanticSegmentorWithTTA(cfg, model.train()).training


@pytest.mark.parametrize(
    ("sizes", "largest", "problem"),
    [
        ((), 4000, "MIN_SIZES is empty"),
        ((64, -5), 4000, r"MIN_SIZES is \[64, -5\]; set it to integers"),
        (("wide",), 4000, "MIN_SIZES is .*; set it to integers"),
        ((64,), 0, "MAX_SIZE is 0; set it to 1 or more"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, largest, problem):
    with pytest.raises(UserError, match=rf"TEST\.AUG\.{problem}"):
        augmented(Channels(), sizes, largest=largest)
