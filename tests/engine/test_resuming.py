"""Which keys a resumed run keeps, which it changes, and that config.yaml tells the truth."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

import train_net
from cat_seg.engine import Trainer
from cat_seg.engine.resuming import KEPT, resumed_config, run_config, saved_config


@pytest.fixture
def run(config_file, tmp_path, monkeypatch):
    """Run train_net.py into one folder; returns the folder."""
    out = tmp_path / "run"
    fixed = ("DATASETS.TEST", "()", "SOLVER.CHECKPOINT_PERIOD", "2", "OUTPUT_DIR", str(out))

    def start(*given: str) -> Path:
        options = [part for part in given if part.startswith("--")]
        changes = [part for part in given if not part.startswith("--")]
        command = ["train_net.py", "--config-file", str(config_file), *options, *fixed, *changes]
        monkeypatch.setattr(sys, "argv", command)
        train_net.main()
        return out

    return start


def saved_yaml(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text())


def final_optimizer(folder: Path) -> dict:
    content = torch.load(folder / "model_final.pth", weights_only=True)
    return content["trainer"]["_trainer"]["optimizer"]["param_groups"]


def test_kept_and_changed_keys_take_effect_and_are_logged(run, log):
    run("SOLVER.MAX_ITER", "2")
    log.clear()
    changes = ("SOLVER.MAX_ITER", "4", "SOLVER.BASE_LR", "9.0", "SOLVER.WEIGHT_DECAY", "0.5")
    out = run("--resume", *changes, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "0.02")
    [kept] = [r.getMessage() for r in log.records if "keeps its original values" in r.getMessage()]
    assert "SOLVER.BASE_LR 0.01 (not 9.0)" in kept
    assert "SOLVER.WEIGHT_DECAY 0.0001 (not 0.5)" in kept
    [new] = [r.getMessage() for r in log.records if "uses new values" in r.getMessage()]
    assert "SOLVER.MAX_ITER 4 (was 2)" in new
    assert "SOLVER.CLIP_GRADIENTS.CLIP_VALUE 0.02 (was 0.01)" in new
    assert "BASE_LR" not in new
    solver = saved_yaml(out)["SOLVER"]
    assert (solver["MAX_ITER"], solver["BASE_LR"], solver["WEIGHT_DECAY"]) == (4, 0.01, 0.0001)
    assert solver["CLIP_GRADIENTS"]["CLIP_VALUE"] == 0.02
    assert {group["initial_lr"] for group in final_optimizer(out)} == {0.01, 0.0001}
    assert {group["weight_decay"] for group in final_optimizer(out)} == {0.0001, 0.0}
    assert saved_config(out / "model_final.pth")["SOLVER.BASE_LR"] == 0.01
    metrics = (out / "metrics.json").read_text().splitlines()
    assert json.loads(metrics[-1])["iteration"] == 3


def test_the_same_config_says_nothing(run, log):
    run("SOLVER.MAX_ITER", "2")
    log.clear()
    run("--resume", "SOLVER.MAX_ITER", "2")
    assert "The resumed run" not in log.text


def test_a_changed_schedule_takes_effect(cfg):
    """The rate after the resume is the new schedule's, of the base that the run began with."""
    cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.MAX_ITER, cfg.DATASETS.TEST = 2, 2, ()
    Trainer(cfg).train()
    cfg.merge_from_list(["SOLVER.MAX_ITER", 4, "SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR"])
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    [rate] = {g["lr"] for g in trainer.optimizer.param_groups if g["initial_lr"] == 0.01}
    assert rate == 0  # (1 - 4 / 4) ** 0.9
    trainer.scheduler.last_epoch = 2
    trainer.scheduler.step()
    rates = [base * 0.25**0.9 for base in (0.01, 1e-4)]
    assert sorted(set(trainer.scheduler.get_last_lr()), reverse=True) == pytest.approx(rates)


def test_a_trainer_without_setup_keeps_the_same_keys(cfg, log):
    cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.MAX_ITER, cfg.DATASETS.TEST = 2, 2, ()
    Trainer(cfg).train()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER = 9.0, 4
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    assert "keeps its original values: SOLVER.BASE_LR 0.01 (not 9.0)" in log.text
    trainer.train()
    assert saved_config(Path(cfg.OUTPUT_DIR, "model_final.pth"))["SOLVER.BASE_LR"] == 0.01


def test_all_that_is_kept_is_a_key_and_places_are_no_part_of_a_run(cfg):
    saved = run_config(cfg)
    assert set(KEPT) <= saved.keys()
    other = cfg.clone()
    other.OUTPUT_DIR, other.MODEL.WEIGHTS = "elsewhere", "other.pth"
    assert run_config(other) == saved
    assert not resumed_config(other, saved).kept
    for key in KEPT:
        resumed = resumed_config(cfg, saved | {key: 0.125})
        assert run_config(resumed.cfg)[key] == 0.125
        assert resumed.kept
        assert not resumed.new


def test_a_checkpoint_without_a_config_changes_nothing(tmp_path, cfg):
    torch.save({"model": {}, "trainer": {}}, tmp_path / "old.pth")
    torch.save({"model": {}}, tmp_path / "weights.pth")
    for name in ("old.pth", "weights.pth"):
        assert saved_config(tmp_path / name) == {}
    assert resumed_config(cfg, {}).cfg == cfg
