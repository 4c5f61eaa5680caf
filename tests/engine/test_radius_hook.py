"""The radius in the storage and in metrics.json, and a run that does not notice it."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.testing import assert_close

from cat_seg.analysis.radius import image_radius, mean_and_spread, read_trajectories, text_radius
from cat_seg.analysis.radius_hook import (
    IMAGES,
    RadiusLogger,
    fixed_images,
    radius_loggers,
    vocabularies,
)
from cat_seg.data import read_image
from cat_seg.engine import Trainer
from cat_seg.errors import UserError
from tests.engine.stand_in import CLASSES

STEPS = 5


@pytest.fixture
def tiny(tiny) -> CfgNode:
    """A tiny HyperCLIP that trains on the stand-in's images."""
    tiny.MODEL.SEM_SEG_HEAD.CLIP_FINETUNE = "hyperbolic"
    tiny.MODEL.HYPERBOLIC.RADIUS_PERIOD = 2
    tiny.SOLVER.MAX_ITER = STEPS
    return tiny


class Note(HookBase):
    """Keep what was recorded at every iteration; measure once more, independently."""

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.seen = {}
        self.modes = []

    def before_step(self):
        model, iteration = self.trainer.model, self.trainer.iter
        self.modes.append((model.training, model.sem_seg_head.clip.text.training))
        if iteration % 2 == 0:
            self.seen[iteration] = measured_anew(model)

    def after_step(self):
        if self.trainer.iter == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


def measured_anew(model):
    return {
        "text/classes": mean_and_spread(text_radius(model, CLASSES)),
        "image": mean_and_spread(image_radius(model, stand_in_images())),
    }


def stand_in_images():
    folder = Path(os.environ["DETECTRON2_DATASETS"], "stand_in", "images")
    pictures = [read_image(str(path), "RGB") for path in sorted(folder.iterdir())]
    return [torch.tensor(picture).permute(2, 0, 1) for picture in pictures]


def train(cfg, output, *, resume=False, stop_at=None):
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(output)
    output.mkdir(exist_ok=True)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    note = Note(stop_at)
    trainer.register_hooks([note])
    trainer._hooks.insert(0, trainer._hooks.pop())
    if stop_at is None:
        trainer.train()
    else:
        with pytest.raises(SystemExit):
            trainer.train()
    return trainer, note


def final_model(output):
    return torch.load(output / "model_final.pth", weights_only=True)


def test_measured_before_training_periodically_and_after_it(tiny, tmp_path):
    trainer, note = train(tiny, tmp_path / "out")
    assert set(note.modes) == {(True, True)}
    expected = note.seen | {STEPS: measured_anew(trainer.model)}
    assert list(expected) == [0, 2, 4, STEPS]
    for name in ("text/classes", "image"):
        history = {
            key: dict((i, v) for v, i in trainer.storage.history(f"radius/{name}/{key}").values())
            for key in ("mean", "std")
        }
        assert list(history["mean"]) == list(history["std"]) == list(expected)
        for iteration, radii in expected.items():
            found = (history["mean"][iteration], history["std"][iteration])
            assert found == pytest.approx(radii[name], rel=1e-6)
    assert expected[0] != expected[STEPS]  # the radius moves

    # The writers take the newest of every 20 iterations.
    for trajectory in read_trajectories(tmp_path / "out/metrics.json").values():
        assert trajectory.iteration == [4, STEPS]
    events = EventAccumulator(str(tmp_path / "out"))
    events.Reload()
    (last,) = events.Scalars("radius/text/classes/mean")[-1:]
    assert last.step == STEPS
    assert last.value == pytest.approx(expected[STEPS]["text/classes"][0], rel=1e-6)


def test_the_run_is_the_same_with_it_without_it_and_resumed(tiny, tmp_path):
    train(tiny, tmp_path / "with")
    train(tiny, tmp_path / "parts", stop_at=2)
    for draw in (random.random, np.random.rand, lambda: torch.rand(1)):
        draw()
    train(tiny, tmp_path / "parts", resume=True)
    tiny.MODEL.HYPERBOLIC.RADIUS_PERIOD = 0
    train(tiny, tmp_path / "without")
    whole = final_model(tmp_path / "with")
    for other in ("parts", "without"):
        found = final_model(tmp_path / other)
        for name, tensor in whole["model"].items():
            assert torch.equal(found["model"][name], tensor), (other, name)
        assert torch.equal(found["rng"][0]["torch"], whole["rng"][0]["torch"])
        assert found["rng"][0]["python"] == whole["rng"][0]["python"]
    trajectories = [read_trajectories(tmp_path / n / "metrics.json") for n in ("with", "parts")]
    for measured, whole_run in trajectories[0].items():
        parts = trajectories[1][measured]
        assert parts.iteration == [2, 4, STEPS]
        assert parts.mean[1:] == whole_run.mean and parts.std[1:] == whole_run.std
    assert "radius" not in (tmp_path / "without/metrics.json").read_text()
    evaluated = [
        json.loads((tmp_path / name / "inference/stand_in/results.json").read_text())["sem_seg"]
        for name in ("with", "parts", "without")
    ]
    assert evaluated[0] == evaluated[1] == evaluated[2]


def test_after_an_early_end_nothing_is_measured(tiny, tmp_path):
    trainer, _ = train(tiny, tmp_path / "out", stop_at=0)
    history = trainer.storage.history("radius/image/mean").values()
    assert [iteration for _, iteration in history] == [0]


def test_a_run_stopped_in_its_last_iteration_gets_its_last_point(tiny, tmp_path):
    train(tiny, tmp_path / "out", stop_at=STEPS - 1)
    train(tiny, tmp_path / "out", resume=True)
    assert read_trajectories(tmp_path / "out/metrics.json")["image"].iteration == [4, STEPS]


@pytest.mark.parametrize("period", [0, -1])
def test_off_without_a_period(tiny, period):
    tiny.MODEL.HYPERBOLIC.RADIUS_PERIOD = period
    tiny.DATASETS.TEST = ("stand_in_missing",)  # nothing is read
    assert radius_loggers(tiny, torch.nn.Identity()) == []


def test_on_the_wrapped_model(tiny):
    class Wrapper:
        module = torch.nn.Identity()

    (hook,) = radius_loggers(tiny, Wrapper())
    assert isinstance(hook, RadiusLogger)
    assert hook._model is Wrapper.module


def test_each_vocabulary_once_under_its_own_name(tiny, tmp_path):
    seen = tmp_path / "seen.json"
    seen.write_text('["cat", "dog"]')
    own = list(CLASSES)
    tiny.DATASETS.TEST = ("stand_in", "stand_in_again")
    assert vocabularies(tiny) == {"classes": own}
    tiny.MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON = str(seen)
    assert vocabularies(tiny) == {"seen": ["cat", "dog"], "classes": own}
    other = tmp_path / "classes.json"
    other.write_text('["cat"]')
    tiny.MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON = str(other)
    assert vocabularies(tiny) == {"classes": ["cat"], "stand_in": own, "stand_in_again": own}
    tiny.DATASETS.TEST = ()
    assert vocabularies(tiny) == {"classes": ["cat"]}


def test_test_class_json_takes_the_place_of_the_datasets_lists(tiny, tmp_path):
    (tmp_path / "renamed.json").write_text('["kitten", "puppy", "lawn"]')
    tiny.MODEL.SEM_SEG_HEAD.TEST_CLASS_JSON = str(tmp_path / "renamed.json")
    tiny.DATASETS.TEST = ("stand_in", "stand_in_again")
    found = vocabularies(tiny)
    assert list(found) == ["classes", "renamed"]
    assert found["renamed"] == ["kitten", "puppy", "lawn"]


def test_images_come_from_all_over_the_first_dataset(tiny, monkeypatch):
    files = stand_in_images()
    for found, expected in zip(fixed_images(tiny), files, strict=True):
        assert torch.equal(found, expected)
    many = {"stand_in_again": [{"file_name": f"{index}.png"} for index in range(99)]}
    monkeypatch.setattr("cat_seg.analysis.radius_hook.DatasetCatalog.get", many.get)
    tiny.DATASETS.TEST = ("stand_in_again", "stand_in")
    read = []

    def note(path, image_format, ignore_orientation):
        read.append(int(path.removesuffix(".png")))
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr("cat_seg.analysis.radius_hook.read_image", note)
    assert len(fixed_images(tiny)) == IMAGES
    assert read[0] == 0 and read[-1] == 98 and sorted(set(read)) == read


def test_images_of_the_training_set_without_a_test_set(tiny):
    tiny.DATASETS.TEST = ()
    tiny.DATASETS.TRAIN = ("stand_in_again",)
    assert_close(torch.stack(fixed_images(tiny)), torch.stack(stand_in_images()))


def test_an_unreadable_image_is_named_before_training(tiny, monkeypatch, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    monkeypatch.setattr(
        "cat_seg.analysis.radius_hook.DatasetCatalog.get", lambda name: [{"file_name": str(bad)}]
    )
    with pytest.raises(UserError, match=r"bad\.png"):
        radius_loggers(tiny, torch.nn.Identity())
