from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm

from cat_seg.engine import Trainer, argument_parser, evaluate, launch
from cat_seg.engine.launch import _reported_once, _signals_to_children
from cat_seg.errors import UserError
from tests.engine import stand_in


def arguments(*given):
    return argument_parser().parse_args(list(given))


class SignalParent(HookBase):
    """Rank 0 sends SIGTERM to the process that launched it, in iteration 4."""

    def after_step(self):
        if self.trainer.iter == 4 and comm.is_main_process():
            os.kill(os.getppid(), signal.SIGTERM)


def train(cfg, folder, *, stop=False, resume=False):
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = f"{cfg.OUTPUT_DIR}/{folder}"
    Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    if stop:
        trainer.register_hooks([SignalParent()])
    trainer.train()


def train_whole_and_in_parts(cfg, args):
    """In each of two ranks: train; train and be stopped; go on; report the stop by the status."""
    assert stand_in.StandIn(cfg).training  # registered by the import
    train(cfg, "whole")
    with pytest.raises(SystemExit) as stopped:
        train(cfg.clone(), "parts", stop=True)
    comm.synchronize()
    Path(cfg.OUTPUT_DIR, f"rank{comm.get_rank()}").touch()
    train(cfg, "parts", resume=True)
    raise SystemExit(stopped.value.code)


def test_two_ranks_stop_together_and_go_on_bit_by_bit(cfg):
    """Over gloo, on a dataset of DATASETS.CUSTOM; SIGTERM to the launching process reaches both."""
    root = os.environ["DETECTRON2_DATASETS"]
    folders = {"IMAGES": f"{root}/stand_in/images", "LABELS": f"{root}/stand_in/labels"}
    cfg.DATASETS.CUSTOM.stand_in = CfgNode({**folders, "CLASSES": f"{root}/classes.json"})
    cfg.TEST.EVAL_PERIOD = 0
    cfg.SOLVER.MAX_ITER = 40
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as status:
        launch(train_whole_and_in_parts, cfg, arguments("--num-gpus", "2"))
    assert status.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert not multiprocessing.active_children()
    out = Path(cfg.OUTPUT_DIR)
    assert (out / "rank0").exists() and (out / "rank1").exists()
    [stopped] = (out / "parts").glob("model_00*.pth")
    assert torch.load(stopped, weights_only=True)["iteration"] >= 4
    whole, parts = (
        torch.load(out / name / "model_final.pth", weights_only=True) for name in ("whole", "parts")
    )
    assert len(whole["rng"]) == 2
    assert not torch.equal(whole["rng"][0]["torch"], whole["rng"][1]["torch"])
    for name, value in whole["model"].items():
        assert torch.equal(parts["model"][name], value), name
    for one, other in zip(whole["rng"], parts["rng"], strict=True):
        assert torch.equal(one["torch"], other["torch"])
    results = json.loads((out / "whole/inference/stand_in/results.json").read_text())
    cfg.MODEL.WEIGHTS = str(out / "whole/model_final.pth")
    # The file has one figure more: mIoU_present_or_predicted.
    assert evaluate(cfg)["sem_seg"].items() <= results["sem_seg"].items()


@pytest.mark.parametrize(("rank", "waited"), [(0, []), (1, [5.0])])
def test_the_first_rank_has_the_first_word(monkeypatch, capsys, rank, waited):
    """The launching process ends the others when it is out."""
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(SystemExit) as status, _reported_once(rank):
        raise UserError("what all ranks find wrong")
    assert status.value.code == 2
    assert slept == waited
    assert capsys.readouterr().err == "error: what all ranks find wrong\n"


def test_one_process_runs_here_without_gpus(cfg, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    seen = []
    launch(lambda cfg, args: seen.append(os.environ["CUDA_VISIBLE_DEVICES"]), cfg, arguments())
    assert seen == [""]


def test_ctrl_c_ends_one_process_without_a_traceback(cfg):
    def interrupted(cfg, args):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as status:
        launch(interrupted, cfg, arguments())
    assert status.value.code == 128 + signal.SIGINT


def test_a_second_ctrl_c_kills_the_children(monkeypatch):
    done = []

    class Child:
        def terminate(self):
            done.append("terminated")

        def kill(self):
            done.append("killed")

    monkeypatch.setattr(multiprocessing, "active_children", lambda: [Child()])
    with _signals_to_children() as received:
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            os.kill(os.getpid(), signum)
    assert done == ["terminated", "terminated", "killed"]
    assert received == [signal.SIGTERM, signal.SIGINT, signal.SIGINT]


def test_a_machine_that_cannot_is_refused_before_anything_runs(cfg):
    with pytest.raises(UserError, match="--num-gpus"):
        launch(lambda *_: pytest.fail("ran"), cfg, arguments("--num-gpus", "0"))
