from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.engine import HookBase

from cat_seg.engine import Trainer, evaluate
from cat_seg.errors import UserError

TIMES = {"time", "data_time", "rank_data_time", "eta_seconds"}


class At(HookBase):
    """Call something after one iteration."""

    def __init__(self, iteration, action):
        self.iteration, self.action = iteration, action

    def after_step(self):
        if self.trainer.iter == self.iteration:
            self.action()


def train(cfg, output: Path, *, resume=False, stop_at=None):
    """Train into `output`; with stop_at, send this process SIGTERM in that iteration."""
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(output)
    output.mkdir(exist_ok=True)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    if stop_at is not None:
        stop = At(stop_at, lambda: os.kill(os.getpid(), signal.SIGTERM))
        trainer.register_hooks([stop])
        trainer._hooks.insert(0, trainer._hooks.pop())
    if stop_at is None:
        trainer.train()
    else:
        with pytest.raises(SystemExit) as stopped:
            trainer.train()
        assert stopped.value.code == 128 + signal.SIGTERM
    return trainer


def metrics(output: Path) -> dict[int, dict[str, float]]:
    """All that was written for each iteration, but times."""
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    merged: dict[int, dict[str, float]] = {}
    for line in lines:
        kept = {key: value for key, value in line.items() if key not in TIMES}
        merged.setdefault(line["iteration"], {}).update(kept)
    return merged


def final(output: Path) -> dict:
    return torch.load(output / "model_final.pth", weights_only=True)


def assert_same(one, other):
    """Compare two nested structures of plain types and tensors bit by bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


@pytest.mark.parametrize(
    ("stop_at", "workers", "amp", "steps"),
    [(12, 0, False, 1), (9, 0, False, 1), (12, 2, True, 1), (12, 0, False, 2)],
    ids=["plain", "before evaluation", "workers and AMP", "accumulation"],
)
def test_a_stopped_run_goes_on_bit_by_bit(cfg, tmp_path, stop_at, workers, amp, steps):
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.SOLVER.ACCUMULATION_STEPS = steps
    cfg.SOLVER.AMP.ENABLED = amp
    if workers:  # evaluation would start workers each time
        cfg.DATASETS.TEST = ()
    train(cfg, tmp_path / "whole")
    train(cfg, tmp_path / "parts", stop_at=stop_at)
    assert (tmp_path / "parts/last_checkpoint").read_text() == f"model_{stop_at:07d}.pth"
    assert not (tmp_path / "parts/model_final.pth").exists()
    for draw in (random.random, np.random.rand, lambda: torch.rand(1)):
        draw()
    train(cfg, tmp_path / "parts", resume=True)
    assert_same(final(tmp_path / "parts"), final(tmp_path / "whole"))
    whole, parts = metrics(tmp_path / "whole"), metrics(tmp_path / "parts")
    for iteration in (19, 29):
        assert whole[iteration]["loss_half"] > 0
        assert parts[iteration] == whole[iteration]
    # The evaluation after training counts as the next iteration.
    assert parts.get(30) == whole.get(30)


def test_a_resumed_run_writes_on_after_the_last_whole_line(cfg, tmp_path):
    """As a full disk leaves it."""
    cfg.DATASETS.TEST = ()
    train(cfg, tmp_path / "whole")
    train(cfg, tmp_path / "parts", stop_at=24)
    with open(tmp_path / "parts/metrics.json", "a") as file:
        file.write('{"iteration": 24, "loss_')
    train(cfg, tmp_path / "parts", resume=True)
    assert metrics(tmp_path / "parts")[29] == metrics(tmp_path / "whole")[29]


def test_another_seed_gives_another_run(cfg, tmp_path):
    cfg.SOLVER.MAX_ITER = 3
    cfg.DATASETS.TEST = ()
    train(cfg, tmp_path / "one")
    cfg.SEED = 2
    train(cfg, tmp_path / "two")
    weights = [final(tmp_path / name)["model"]["head.weight"] for name in ("one", "two")]
    assert not torch.equal(*weights)


def test_a_drawn_seed_is_logged_and_kept(cfg, tmp_path, log):
    cfg.SEED = -1
    cfg.DATASETS.TEST = ()
    whole = train(cfg, tmp_path / "out", stop_at=3)
    assert f"drew {whole.seed}" in log.text
    resumed = train(cfg, tmp_path / "out", resume=True)
    assert resumed.seed == whole.seed
    assert final(tmp_path / "out")["trainer"]["seed"] == whole.seed


def test_stopping_in_the_last_iteration_does_not_evaluate(cfg, tmp_path):
    cfg.SOLVER.MAX_ITER = 3
    cfg.TEST.EVAL_PERIOD = 0
    train(cfg, tmp_path / "out", stop_at=2)
    assert (tmp_path / "out/last_checkpoint").read_text() == "model_final.pth"
    assert not (tmp_path / "out/inference").exists()
    train(cfg, tmp_path / "out", resume=True)
    assert (tmp_path / "out/inference/stand_in/results.json").exists()
    assert sorted(p.name for p in (tmp_path / "out").glob("*.pth")) == ["model_final.pth"]


def test_stopping_an_evaluation_ends_at_once_with_everything_saved(cfg, monkeypatch):
    trainer = Trainer(cfg)
    images = []

    def interrupt(item):
        images.append(item)
        os.kill(os.getpid(), signal.SIGINT)
        return scores(item)

    scores = trainer.model.scores
    monkeypatch.setattr(
        trainer.model, "scores", lambda i: scores(i) if trainer.model.training else interrupt(i)
    )
    with pytest.raises(SystemExit) as stopped:
        trainer.train()
    assert stopped.value.code == 128 + signal.SIGINT
    assert len(images) == 1
    assert Path(cfg.OUTPUT_DIR, "last_checkpoint").read_text() == "model_0000009.pth"


def test_a_second_ctrl_c_kills_and_handlers_are_put_back(cfg):
    before = signal.getsignal(signal.SIGINT)
    trainer = Trainer(cfg)
    seen = []

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        seen.append(signal.getsignal(signal.SIGINT))

    trainer.register_hooks([At(2, interrupt)])
    with pytest.raises(SystemExit):
        trainer.train()
    assert seen == [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGINT) is before


def test_without_resume_a_run_starts_anew_from_weights(cfg, tmp_path):
    train(cfg, tmp_path / "first", stop_at=4)
    cfg.MODEL.WEIGHTS = str(tmp_path / "first/model_0000004.pth")
    cfg.OUTPUT_DIR = str(tmp_path / "first")
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    assert trainer.start_iter == 0
    saved = torch.load(cfg.MODEL.WEIGHTS, weights_only=True)["model"]
    assert_same(dict(trainer.model.state_dict()), dict(saved))


def test_resuming_with_another_number_of_processes_says_so(cfg, tmp_path, log):
    train(cfg, tmp_path / "out", stop_at=1)
    file = tmp_path / "out/model_0000001.pth"
    content = torch.load(file, weights_only=True)
    torch.save(content | {"rng": content["rng"] * 2}, file)
    train(cfg, tmp_path / "out", resume=True)
    assert "with 2 processes, but this run has 1" in log.text


def test_a_changed_seed_is_ignored_on_resume(cfg, tmp_path, log):
    train(cfg, tmp_path / "out", stop_at=1)
    cfg.SEED = 5
    assert train(cfg, tmp_path / "out", resume=True).seed == 1
    assert "Ignoring SEED 5: the run started with SEED" in log.text


@pytest.mark.parametrize("max_iter", [6, 4])
def test_a_run_killed_before_its_last_file_gets_it(cfg, tmp_path, log, max_iter):
    cfg.SOLVER.MAX_ITER = 6
    cfg.SOLVER.CHECKPOINT_PERIOD = 3
    cfg.DATASETS.TEST = ()
    train(cfg, tmp_path / "out")
    before = final(tmp_path / "out")
    (tmp_path / "out/model_final.pth").unlink()
    (tmp_path / "out/last_checkpoint").write_text("model_0000005.pth")
    cfg.SOLVER.MAX_ITER = max_iter
    train(cfg, tmp_path / "out", resume=True)
    assert_same(final(tmp_path / "out"), before)
    assert (tmp_path / "out/last_checkpoint").read_text() == "model_final.pth"
    assert f"has 6 iterations, and SOLVER.MAX_ITER is {max_iter}" in log.text


def test_less_iterations_than_there_are_replace_no_final_weights(cfg, tmp_path):
    cfg.SOLVER.MAX_ITER = 6
    cfg.SOLVER.CHECKPOINT_PERIOD = 3
    cfg.DATASETS.TEST = ()
    train(cfg, tmp_path / "out")
    before = (tmp_path / "out/model_final.pth").read_bytes()
    (tmp_path / "out/last_checkpoint").write_text("model_0000002.pth")
    cfg.SOLVER.MAX_ITER = 2
    train(cfg, tmp_path / "out", resume=True)
    assert (tmp_path / "out/model_final.pth").read_bytes() == before


def test_a_finished_run_is_only_evaluated_again(cfg, tmp_path):
    train(cfg, tmp_path / "out")
    before, written = final(tmp_path / "out"), (tmp_path / "out/metrics.json").read_bytes()
    shutil.rmtree(tmp_path / "out/inference")
    train(cfg, tmp_path / "out", resume=True)
    assert (tmp_path / "out/metrics.json").read_bytes() == written
    assert (tmp_path / "out/inference/stand_in/results.json").exists()
    assert_same(final(tmp_path / "out"), before)


def test_processes_do_not_warn_of_what_older_pytorch_needs(cfg, monkeypatch):
    def wrap(model, broadcast_buffers, gradient_as_bucket_view, device_ids):
        assert gradient_as_bucket_view  # no second copy of all gradients
        message = "`broadcast_buffers` is deprecated. Use `forward_sync_buffers` instead."
        warnings.warn(message, FutureWarning, stacklevel=2)
        return model

    monkeypatch.setattr("cat_seg.engine.trainer.create_ddp_model", wrap)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Trainer(cfg)


def test_start_up_says_how_much_of_clip_trains(cfg, log):
    Trainer(cfg)
    assert "CLIP (attention): 20 of 24 parameters are trainable (83.33%)" in log.text


def test_a_corrupt_image_ends_training_without_a_traceback(cfg, tmp_path, log, monkeypatch):
    shutil.copytree(Path(os.environ["DETECTRON2_DATASETS"]), tmp_path / "data")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    (tmp_path / "data/stand_in/images/3.png").write_bytes(b"no image")
    trainer = Trainer(cfg)
    with pytest.raises(UserError, match=r"images/3\.png"):
        trainer.train()
    assert "Traceback" not in log.text


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_bit_by_bit_once_a_bad_image_is_repaired(cfg, tmp_path, monkeypatch, workers):
    shutil.copytree(Path(os.environ["DETECTRON2_DATASETS"]), tmp_path / "data")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    cfg.DATASETS.TEST = ()
    cfg.SOLVER.MAX_ITER = 12
    cfg.DATALOADER.NUM_WORKERS = workers
    train(cfg, tmp_path / "whole")
    image = tmp_path / "data/stand_in/images/3.png"
    content = image.read_bytes()
    begun = cfg.clone()
    begun.OUTPUT_DIR = str(tmp_path / "parts")
    (tmp_path / "parts").mkdir()
    trainer = Trainer(begun)
    trainer.register_hooks([At(4, lambda: image.write_bytes(b"no image"))])
    with pytest.raises(
        UserError, match=r"images/3\.png: .*--resume to continue from .*model_0"
    ) as error:
        trainer.train()
    [saved] = (tmp_path / "parts").glob("*.pth")
    assert str(saved) in str(error.value)
    assert torch.load(saved, weights_only=True)["iteration"] >= 4
    image.write_bytes(content)
    train(cfg, tmp_path / "parts", resume=True)
    assert_same(final(tmp_path / "parts"), final(tmp_path / "whole"))


def test_a_bad_image_in_the_first_batch_leaves_no_checkpoint(cfg, tmp_path, monkeypatch):
    shutil.copytree(Path(os.environ["DETECTRON2_DATASETS"]), tmp_path / "data")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    for image in (tmp_path / "data/stand_in/images").iterdir():
        image.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"images/.*there is no checkpoint yet"):
        Trainer(cfg).train()
    assert not list(Path(cfg.OUTPUT_DIR).glob("*.pth"))


@pytest.mark.parametrize("amp", [False, True])
def test_diverging_is_one_line_and_saves_nothing(cfg, log, monkeypatch, amp):
    cfg.SOLVER.AMP.ENABLED = amp
    cfg.SOLVER.CHECKPOINT_PERIOD = 2
    trainer = Trainer(cfg)
    forward = trainer.model.forward
    monkeypatch.setattr(
        trainer.model,
        "forward",
        lambda batch: {
            name: loss * (float("nan") if name == "loss_half" and trainer.iter == 3 else 1)
            for name, loss in forward(batch).items()
        },
    )
    advice = ", or set SOLVER.AMP.ENABLED False" if amp else ""
    message = (
        "training diverged in iteration 3 at learning rate 0.00976: loss_half is nan; lower "
        f"SOLVER.BASE_LR or SOLVER.CLIP_GRADIENTS.CLIP_VALUE{advice}; rerun with --resume "
    )
    with pytest.raises(UserError, match=re.escape(message)):
        trainer.train()
    assert "Traceback" not in log.text
    assert [path.name for path in Path(cfg.OUTPUT_DIR).glob("*.pth")] == ["model_0000001.pth"]
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_gradients_that_are_not_finite_do_not_reach_the_weights(cfg):
    """The square root's slope at 0 is infinite, times 0 not a number."""
    cfg.SOLVER.CHECKPOINT_PERIOD = 2
    trainer = Trainer(cfg)
    trainer.model.head.register_forward_hook(
        lambda head, _, output: (
            output + (head.weight * 0).sum().sqrt() * 0 if trainer.iter == 3 else output
        )
    )
    with pytest.raises(UserError, match=r"in iteration 3 .* a gradient is not finite; lower"):
        trainer.train()
    assert all(p.isfinite().all() for p in trainer.model.parameters())
    assert [path.name for path in Path(cfg.OUTPUT_DIR).glob("*.pth")] == ["model_0000001.pth"]


def test_an_error_in_the_last_step_is_not_evaluated_first(cfg, monkeypatch):
    cfg.SOLVER.MAX_ITER = 2
    trainer = Trainer(cfg)
    monkeypatch.setattr(trainer, "test", lambda *_: pytest.fail("evaluated"))
    trainer.register_hooks([At(1, lambda: 1 / 0)])
    trainer._hooks.insert(0, trainer._hooks.pop())
    with pytest.raises(ZeroDivisionError):
        trainer.train()


def test_other_errors_are_logged_with_their_traceback(cfg, log, monkeypatch):
    trainer = Trainer(cfg)
    monkeypatch.setattr(trainer._trainer, "run_step", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert "Traceback" in log.text


@pytest.mark.parametrize("name", ["stand_in_missing", "no_such_dataset"])
def test_a_missing_test_dataset_is_found_before_the_model_is_built(cfg, monkeypatch, name):
    monkeypatch.setattr(Trainer, "build_model", lambda *_: pytest.fail("built a model"))
    cfg.DATASETS.TEST = ("stand_in", name)
    for start in (Trainer, evaluate):
        with pytest.raises(UserError, match=name):
            start(cfg)


def test_training_runs_without_the_test_dataset_once_it_is_left_out(cfg):
    cfg.DATASETS.TEST = ("coco_2017_test_stuff_all_sem_seg",)
    with pytest.raises(
        UserError, match=r"prepare_coco_stuff\.py.*DATASETS\.TEST \"\(\)\"$"
    ) as caught:
        Trainer(cfg)
    assert "\n" not in str(caught.value)
    cfg.merge_from_list(["DATASETS.TEST", "()"])  # as typed on the command line
    Trainer(cfg).train()
    assert Path(cfg.OUTPUT_DIR, "model_final.pth").exists()


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("MODEL.META_ARCHITECTURE", "CATSeg or EnhancedCATSeg"),
        ("MODEL.SEM_SEG_HEAD.NAME", "CATSegHead"),
        ("SOLVER.LR_SCHEDULER_NAME", "one of WarmupCosineLR, "),
    ],
)
def test_an_unknown_name_is_one_line(cfg, key, known):
    cfg.merge_from_list([key, "Foo"])
    with pytest.raises(UserError, match=f"{key} is 'Foo'; set it to {known}"):
        Trainer(cfg)


def test_test_asks_for_the_classes_of_the_dataset_and_puts_back_the_old_ones(cfg):
    model = Trainer.build_model(cfg)
    model.set_vocabulary(["something", "else"])
    results = Trainer.test(cfg, model)
    assert set(results["sem_seg"]) > {"mIoU", "pACC", "IoU-cat"}
    assert model.asked == ("cat", "dog", "grass")
    assert model.training
    assert model.eval().vocabulary == ("something", "else")


def test_test_asks_for_the_given_classes_and_names_several_datasets(cfg, tmp_path):
    (tmp_path / "other.json").write_text('["kitten", "puppy", "lawn"]')
    cfg.MODEL.SEM_SEG_HEAD.TEST_CLASS_JSON = str(tmp_path / "other.json")
    cfg.DATASETS.TEST = ("stand_in", "stand_in_again")
    model = Trainer.build_model(cfg)
    results = Trainer.test(cfg, model)
    assert list(results) == ["stand_in", "stand_in_again"]
    assert model.asked == ("kitten", "puppy", "lawn")
