"""Diagnostics of training: what is measured, and a run that does not notice it."""

from __future__ import annotations

import os
import random
import signal
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from detectron2.engine import HookBase
from torch import nn

from cat_seg.analysis.diagnostics_hook import diagnostics_loggers, unchanged
from cat_seg.analysis.gradients import ALL, measure_gradients, trained_parts
from cat_seg.analysis.hyperspherical import prototype_angles
from cat_seg.data import training_samples
from cat_seg.engine import Trainer, builders, load_config
from cat_seg.engine.compiling import compile_aggregator
from cat_seg.errors import UserError
from cat_seg.utils.metrics_file import read_metrics
from tests.engine.stand_in import CLASSES

STEPS, PERIOD = 5, 2
MEASURED = [0, 2, 4, STEPS]
PREFIXES = ("gradient/", "update/", "afr/", "hpa/")


@pytest.fixture
def tiny(tiny):
    """A tiny HPS-Seg with diagnostics."""
    tiny.MODEL.META_ARCHITECTURE = "EnhancedCATSeg"
    tiny.MODEL.SEM_SEG_HEAD.CLIP_FINETUNE = "oft_both"
    tiny.MODEL.HYPERSPHERICAL.AFR_REDUCTION = 4
    tiny.INPUT.MIN_SIZE_TRAIN = (64,)  # at 8 pixels, no patch has a label
    tiny.SOLVER.DIAGNOSTICS_PERIOD = PERIOD
    return tiny


class Note(HookBase):
    """Keep the gradient norms, weights and prototypes that training itself has."""

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.norms, self.weights, self.angles = [], [], []

    def before_step(self):
        self.weights.append(weights(self.trainer.model))
        if hpa := getattr(self.trainer.model, "hpa", None):
            self.angles.append(prototype_angles(hpa)[0])

    def after_step(self):  # the gradients are still there, and not clipped
        trained = [p for p in self.trainer.model.parameters() if p.requires_grad]
        self.norms.append(nn.utils.get_total_norm([p.grad for p in trained]).item())
        if self.trainer.iter == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


def weights(model):
    return torch.cat([p.detach().double().flatten() for p in model.parameters() if p.requires_grad])


def train(cfg, output, *, resume=False, stop_at=None):
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(output)
    output.mkdir(exist_ok=True)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    note = Note(stop_at)
    trainer.register_hooks([note])
    if stop_at is None:
        trainer.train()
    else:
        with pytest.raises(SystemExit):
            trainer.train()
    return trainer, note


def recorded(trainer):
    """Metric -> {iteration: value} of the diagnostics."""
    return {
        name: {int(iteration): value for value, iteration in history.values()}
        for name, history in trainer.storage.histories().items()
        if name.startswith(PREFIXES)
    }


def test_what_is_measured_and_when(tiny, tmp_path):
    trainer, note = train(tiny, tmp_path / "out")
    found = recorded(trainer)
    gradients = [name for name in found if name.startswith(("gradient/", "afr/"))]
    assert len(gradients) > 20
    assert all(list(found[name]) == MEASURED for name in gradients)

    # Before the first iteration, the losses are those of the first batch that trains.
    losses = ("sem_seg", "afr", "hpa")
    first = {loss: found[f"gradient/{loss}/{ALL}/norm"][0] for loss in losses}
    with_seg = [
        2 * first[x] * first["sem_seg"] * found[f"gradient/{x}/all/cosine"][0] for x in losses[1:]
    ]
    between = note.norms[0] ** 2 - sum(norm**2 for norm in first.values()) - sum(with_seg)
    assert abs(between) <= 2 * first["afr"] * first["hpa"] * (1 + 1e-3) + 1e-4 * note.norms[0] ** 2

    # Prototypes exist after the first iteration.
    assert list(found["hpa/angle/mean"]) == list(found["hpa/cosine/mean"]) == MEASURED[1:]
    for iteration in MEASURED[1:-1]:
        angles = note.angles[iteration]
        mean = angles.sum() / (len(angles) * (len(angles) - 1))
        assert found["hpa/angle/mean"][iteration] == pytest.approx(mean.item(), rel=1e-6)
    classes = {name for name in found if name.startswith("hpa/cosine/class/")}
    assert classes == {f"hpa/cosine/class/{name}" for name in CLASSES}

    # Updates are those of the iteration that follows.
    for iteration in (0, 2):
        before, after = note.weights[iteration : iteration + 2]
        expected = ((after - before).norm() / before.norm()).item()
        assert found["update/all"][iteration] == pytest.approx(expected, rel=1e-4)
    assert set(found["update/all"]) == {0, 2, 4}
    assert {"update/adapter", "update/aggregator", "update/afr", "update/hpa"} <= found.keys()

    # The writers take the newest of every 20 iterations.
    written = read_metrics(tmp_path / "out/metrics.json")
    assert [i for i, metrics in written.items() if "afr/mix/mean" in metrics] == [4, STEPS]
    assert written[STEPS]["afr/mix/mean"] == found["afr/mix/mean"][STEPS]


def test_the_weights_are_the_same_with_it_without_it_and_resumed(tiny, tmp_path):
    tiny.MODEL.SEM_SEG_HEAD.CLIP_FINETUNE = "lora"
    tiny.MODEL.ADAPTER.LORA.DROPOUT = 0.5  # draws random numbers
    train(tiny, tmp_path / "with")
    train(tiny, tmp_path / "parts", stop_at=2)
    for draw in (random.random, np.random.rand, lambda: torch.rand(1)):
        draw()
    train(tiny, tmp_path / "parts", resume=True)
    tiny.SOLVER.DIAGNOSTICS_PERIOD = 0
    train(tiny, tmp_path / "without")
    assert not any(
        name.startswith(PREFIXES)
        for metrics in read_metrics(tmp_path / "without/metrics.json").values()
        for name in metrics
    )
    whole, *others = (
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)
        for name in ("with", "parts", "without")
    )
    for other in others:
        for name, tensor in whole["model"].items():
            assert torch.equal(other["model"][name], tensor), name
        assert torch.equal(other["rng"][0]["torch"], whole["rng"][0]["torch"])
        assert other["rng"][0]["python"] == whole["rng"][0]["python"]
        assert torch.equal(other["rng"][0]["numpy"][0], whole["rng"][0]["numpy"][0])
    for iteration in (4, STEPS):
        one, two = (
            read_metrics(tmp_path / n / "metrics.json")[iteration] for n in ("with", "parts")
        )
        names = [name for name in one if name.startswith(PREFIXES)]
        assert names and all(one[name] == two[name] for name in names)


def test_dropout_and_a_foreign_model_are_left_alone(config_file, tmp_path):
    """The stand-in draws random numbers, and has a buffer that follows the images."""
    found = []
    for period in (0, 1):
        keys = ("SOLVER.MAX_ITER", "3", "SOLVER.DIAGNOSTICS_PERIOD", str(period))
        cfg = load_config(str(config_file), [*keys, "DATASETS.TEST", "()"])
        trainer, _ = train(cfg, tmp_path / str(period))
        found.append((trainer.model.state_dict(), recorded(trainer)))
    (plain, nothing), (measured, metrics) = found
    assert all(torch.equal(plain[name], measured[name]) for name in plain)
    assert not nothing
    assert list(metrics["gradient/half/all/cosine"]) == [0, 1, 2, 3]
    assert metrics["gradient/sem_seg/other/norm"].keys() == {0, 1, 2, 3}
    assert {name.split("/")[0] for name in metrics} == {"gradient", "update"}


def test_gradients_of_micro_batches(tiny):
    tiny.SOLVER.IMS_PER_BATCH, tiny.SOLVER.ACCUMULATION_STEPS = 4, 2
    (hook,) = hooks_of(tiny, nn.Identity())
    hook.before_train()
    samples = training_samples(tiny, 1, 4)
    assert {len(batch) for batch in hook._batches} == {2}
    for found, sample in zip((*hook._batches[0], *hook._batches[1]), samples, strict=True):
        assert torch.equal(found["image"], sample["image"])


def test_a_compiled_aggregator_is_measured_uncompiled(tiny, tmp_path, monkeypatch):
    """Graphs that inductor compiled refuse a second backward pass."""
    calls = []

    def backend(graph, inputs):
        def run(*arguments):
            calls.append(graph)
            return graph(*arguments)

        return run

    monkeypatch.setattr(builders, "compile_aggregator", lambda m: compile_aggregator(m, backend))
    tiny.MODEL.COMPILE, tiny.SOLVER.MAX_ITER, tiny.DATASETS.TEST = True, 1, ()
    trainer, _ = train(tiny, tmp_path / "out")
    assert recorded(trainer)["gradient/sem_seg/aggregator/norm"].keys() == {0, 1}
    assert len(calls) == 1  # the training step
    torch._dynamo.reset()


def test_no_measurement_after_an_early_end(tiny, tmp_path):
    trainer, _ = train(tiny, tmp_path / "out", stop_at=0)
    assert list(recorded(trainer)["afr/mix/mean"]) == [0]


@pytest.mark.parametrize("period", [0, -1])
def test_off_without_a_period(tiny, period):
    tiny.SOLVER.DIAGNOSTICS_PERIOD = period
    assert hooks_of(tiny, nn.Identity()) == []


def test_an_unreadable_image_is_named_before_training(tiny, tmp_path, monkeypatch):
    bad = {"file_name": str(tmp_path / "bad.png"), "sem_seg_file_name": str(tmp_path / "bad.png")}
    monkeypatch.setattr("cat_seg.data.build.agreed_records", lambda names: [bad])
    (hook,) = hooks_of(tiny, nn.Identity())
    with pytest.raises(UserError, match=r"bad\.png"):
        hook.before_train()


def test_a_measurement_leaves_buffers_and_random_numbers(tiny):
    model = Trainer.build_model(tiny)
    samples = training_samples(tiny, 1, 2)
    torch.manual_seed(3)
    state, buffers = torch.get_rng_state(), {n: b.clone() for n, b in model.named_buffers()}
    found = []
    for _ in range(2):
        with unchanged(model):
            found.append(
                (measure_gradients(model, samples), torch.rand(1), model.hpa.prototypes.sum())
            )
    assert found[0] == found[1]
    assert found[0][2] != 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(b, buffers[n]) for n, b in model.named_buffers())
    assert not model.hpa.prototype_initialized.any()
    assert len(trained_parts(model)) == 4


def hooks_of(cfg, model):
    hooks = diagnostics_loggers(cfg, model, nullcontext(), torch.amp.GradScaler(enabled=False))
    for hook in hooks:
        hook.trainer = type("T", (), {"seed": 1})
    return hooks
