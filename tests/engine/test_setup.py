from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch

import train_net
from cat_seg.engine import argument_parser, load_config, setup
from cat_seg.engine.setup import check_machine
from cat_seg.errors import UserError


def arguments(*given):
    return argument_parser().parse_args(list(given))


def test_cuda_without_a_gpu(cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg.MODEL.DEVICE = "cuda"
    with pytest.raises(UserError, match=r"add MODEL\.DEVICE cpu"):
        check_machine(cfg, arguments())


def test_more_gpus_than_there_are(cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cfg.MODEL.DEVICE = "cuda"
    check_machine(cfg, arguments("--num-gpus", "2"))
    with pytest.raises(UserError, match="--num-gpus 4: this machine has 2"):
        check_machine(cfg, arguments("--num-gpus", "4"))


@pytest.mark.parametrize(
    ("given", "changes", "named"),
    [
        (["--num-gpus", "0"], {}, "1 or more"),
        (["--num-machines", "2"], {}, "needs --dist-url"),
        (["--num-gpus", "3"], {}, r"IMS_PER_BATCH is 2; set it to a multiple of 3"),
        ([], {"MODEL.DEVICE": "gpu"}, "MODEL.DEVICE is 'gpu'"),
        ([], {"MODEL.DEVICE": "mps"}, "MODEL.DEVICE is 'mps'; set it to cuda or cpu"),
        ([], {"SOLVER.MAX_ITER": 0}, "MAX_ITER is 0; set it to 1 or more"),
        ([], {"SOLVER.CHECKPOINT_PERIOD": 0}, "CHECKPOINT_PERIOD is 0"),
    ],
)
def test_what_cannot_run_is_refused(cfg, given, changes, named):
    for key, value in changes.items():
        cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=named):
        check_machine(cfg, arguments(*given))


def test_evaluation_needs_no_divisible_batch(cfg):
    check_machine(cfg, arguments("--num-gpus", "3", "--eval-only"))


def test_setup_writes_config_and_log(cfg, config_file, log):
    out = Path(cfg.OUTPUT_DIR)
    result = setup(cfg, arguments("--config-file", str(config_file)))
    assert result.is_frozen()
    assert load_config(str(out / "config.yaml")).SOLVER == cfg.SOLVER
    assert "Command line arguments" in (out / "log.txt").read_text()


def test_resuming_takes_the_last_checkpoint_as_weights(cfg):
    """The model then finds CLIP's weights in it and downloads nothing."""
    out = Path(cfg.OUTPUT_DIR)
    assert setup(cfg, arguments("--resume")).MODEL.WEIGHTS == ""
    last = out / "model_0000003.pth"
    (out / "last_checkpoint").write_text(last.name)
    last.touch()
    resumed = setup(cfg, arguments("--resume"))
    assert Path(resumed.MODEL.WEIGHTS) == last
    assert setup(cfg, arguments()).MODEL.WEIGHTS == ""
    assert load_config(str(out / "config.yaml")).MODEL.WEIGHTS == ""


def test_an_output_folder_that_cannot_be_written(cfg, tmp_path):
    (tmp_path / "file").touch()
    cfg.OUTPUT_DIR = str(tmp_path / "file/out")
    with pytest.raises(UserError, match=r"OUTPUT_DIR .*file/out cannot be written"):
        setup(cfg, arguments())


def run_train_net(monkeypatch, config_file, *given):
    monkeypatch.setattr(sys, "argv", ["train_net.py", "--config-file", str(config_file), *given])
    train_net.main()


def test_train_net_trains_resumes_and_evaluates(config_file, tmp_path, monkeypatch):
    out = tmp_path / "out"
    changes = ("SOLVER.MAX_ITER", "4", "OUTPUT_DIR", str(out), "TEST.EVAL_PERIOD", "0")
    run_train_net(monkeypatch, config_file, *changes)
    assert (out / "model_final.pth").exists()
    assert list(out.glob("events.out.tfevents.*"))
    results = out / "inference/stand_in/results.json"
    trained = json.loads(results.read_text())
    results.unlink()
    run_train_net(monkeypatch, config_file, "--resume", *changes)
    assert json.loads(results.read_text())["sem_seg"] == trained["sem_seg"]
    results.unlink()
    final = out / "model_final.pth"
    weights = ("MODEL.WEIGHTS", str(final))
    run_train_net(monkeypatch, config_file, "--eval-only", *changes, *weights)
    evaluated = json.loads(results.read_text())
    assert evaluated["sem_seg"] == trained["sem_seg"]
    assert trained["weights"] is None  # of a training run they are in no file yet
    digest = hashlib.sha256(final.read_bytes()).hexdigest()
    assert evaluated["weights"] == {"file": str(final), "sha256": digest}


def content_but_the_log(folder):
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.name != "log.txt"}


@pytest.mark.parametrize("problem", ["another model", "damaged", "gone"])
def test_a_run_that_cannot_be_resumed_stays_as_it_was(
    config_file, tmp_path, monkeypatch, capsys, problem
):
    out = tmp_path / "out"
    changes = ("SOLVER.MAX_ITER", "1", "DATASETS.TEST", "()", "OUTPUT_DIR", str(out))
    run_train_net(monkeypatch, config_file, *changes)
    final = out / "model_final.pth"
    if problem == "another model":
        content = torch.load(final, weights_only=True)
        content["trainer"]["_trainer"]["optimizer"]["param_groups"].pop()
        torch.save(content, final)
    if problem == "damaged":
        final.write_bytes(final.read_bytes()[:-200])
    if problem == "gone":
        final.unlink()
    before = content_but_the_log(out)
    capsys.readouterr()
    with pytest.raises(SystemExit) as status:
        run_train_net(monkeypatch, config_file, "--resume", *changes, "SOLVER.WARMUP_FACTOR", "0.5")
    assert status.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "model_final.pth" in line
    assert ("use another OUTPUT_DIR" in line) == (problem != "gone")
    assert content_but_the_log(out) == before


@pytest.mark.parametrize(
    "given",
    [
        ("SOLVER.MAX_ITERS", "7"),
        ("MODEL.WEIGHTS", "nowhere.pth"),
        ("DATASETS.TRAIN", "('nothing',)"),
        ("--eval-only", "DATASETS.TEST", "()"),
    ],
)
def test_train_net_ends_bad_input_with_one_line(config_file, tmp_path, monkeypatch, capsys, given):
    with pytest.raises(SystemExit) as status:
        run_train_net(monkeypatch, config_file, *given, "OUTPUT_DIR", str(tmp_path / "out"))
    assert status.value.code == 2
    # PyTorch logs this itself, once a process, on machines with CUDA and no GPU.
    [line] = (
        line for line in capsys.readouterr().err.splitlines() if "No CUDA runtime" not in line
    )
    assert line.startswith("error: ")
