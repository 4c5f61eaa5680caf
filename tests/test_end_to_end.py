"""The commands as a user runs them: train, resume, evaluate and draw, on generated data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cat_seg.utils.metrics_file import read_metrics
from cat_seg.utils.paths import REPO_ROOT
from tools.quickstart.classes import load_classes
from tools.quickstart.dataset import DatasetSettings, write_dataset

STEPS = 4
DATASET = "output/quickstart/datasets/quickstart"
CONFIG = ("--config-file", "configs/quickstart.yaml")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scenes drawn where the config looks for them."""
    folder = tmp_path_factory.mktemp("root")
    settings = DatasetSettings(train_scenes=8, val_scenes=2)
    write_dataset(folder / DATASET, load_classes(), settings, seed=0)
    return folder


def run(
    root: Path, *command: str, starter: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a script of the repository from another folder."""
    script, *arguments = command
    return subprocess.run(
        [sys.executable, *starter, str(REPO_ROOT / script), *arguments],
        cwd=root,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def options(output: Path) -> list[str]:
    return [
        *("OUTPUT_DIR", str(output), "SEED", "3", "MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS", "random"),
        *("SOLVER.MAX_ITER", str(STEPS), "SOLVER.CHECKPOINT_PERIOD", str(STEPS // 2)),
        *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "0"),
    ]


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training run."""
    output = tmp_path_factory.mktemp("trained")
    result = run(root, "train_net.py", *CONFIG, *options(output))
    assert result.returncode == 0, result.stderr
    assert "parameters are trainable" in result.stdout
    return output


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def test_training_ends_with_weights_and_metrics_of_both_splits(trained: Path) -> None:
    for split in ("val_seen", "val_unseen"):
        file = trained / "inference" / f"quickstart_{split}" / "results.json"
        assert 0 <= json.loads(file.read_text())["sem_seg"]["mIoU"] <= 100
    metrics = read_metrics(trained / "metrics.json")[STEPS - 1]
    assert {"loss_sem_seg", "loss_hpa", "loss_afr"} <= metrics.keys()


def test_a_resumed_run_is_the_run_that_never_stopped(
    root: Path, trained: Path, tmp_path: Path
) -> None:
    half = f"model_{STEPS // 2 - 1:07d}.pth"
    shutil.copy(trained / half, tmp_path / half)
    (tmp_path / "last_checkpoint").write_text(half)
    elsewhere = ["MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS", "no/such/file.pt", "DATASETS.TEST", "()"]
    result = run(root, "train_net.py", *CONFIG, "--resume", *options(tmp_path), *elsewhere)
    assert result.returncode == 0, result.stderr
    assert f"Starting training from iteration {STEPS // 2}" in result.stdout
    resumed = weights(tmp_path)
    for name, tensor in weights(trained).items():
        assert torch.equal(tensor, resumed[name]), name


def test_evaluation_alone_gives_the_metrics_of_the_run(
    root: Path, trained: Path, tmp_path: Path
) -> None:
    final = ["MODEL.WEIGHTS", str(trained / "model_final.pth")]
    result = run(root, "train_net.py", *CONFIG, "--eval-only", *options(tmp_path), *final)
    assert result.returncode == 0, result.stderr
    for split in ("val_seen", "val_unseen"):
        file = Path("inference", f"quickstart_{split}", "results.json")
        alone, of_the_run = (
            json.loads((folder / file).read_text())["sem_seg"] for folder in (tmp_path, trained)
        )
        assert alone == of_the_run


def test_torchrun_trains_and_evaluates_as_one_process_does(
    root: Path, trained: Path, tmp_path: Path
) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    on_cpu = ("MODEL.DEVICE", "cpu")
    given = [*options(tmp_path), *on_cpu]
    result = run(root, "train_net.py", *CONFIG, *given, "DATASETS.TEST", "()", starter=torchrun)
    assert result.returncode == 0, result.stderr
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert len(final["rng"]) == 2
    together, alone = (
        read_metrics(folder / "metrics.json")[STEPS - 1] for folder in (tmp_path, trained)
    )
    for name in ("loss_sem_seg", "loss_hpa", "loss_afr"):
        assert together[name] == pytest.approx(alone[name], rel=1e-3), name
    given += ["MODEL.WEIGHTS", str(trained / "model_final.pth")]
    result = run(root, "train_net.py", *CONFIG, "--eval-only", *given, starter=torchrun)
    assert result.returncode == 0, result.stderr
    for split in ("val_seen", "val_unseen"):
        file = Path("inference", f"quickstart_{split}", "results.json")
        together, alone = (
            json.loads((folder / file).read_text())["sem_seg"] for folder in (tmp_path, trained)
        )
        assert together == alone


def test_the_demo_draws_the_classes_asked_for(root: Path, trained: Path, tmp_path: Path) -> None:
    images = root / DATASET / "images" / "val_seen"
    arguments = ["--input", str(images), "--output", str(tmp_path), "--save-masks"]
    final = ["--opts", "MODEL.WEIGHTS", str(trained / "model_final.pth")]
    result = run(root, "demo/demo.py", *CONFIG, *arguments, "--vocabulary", "grass, sand", *final)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "classes.json").read_text()) == ["grass", "sand"]
    for image in images.iterdir():
        assert (tmp_path / image.name).exists()
        mask = np.asarray(Image.open(tmp_path / f"{image.stem}_mask.png"))
        assert mask.shape == (128, 128)
        assert set(np.unique(mask)) <= {0, 1}


def test_weights_of_another_model_are_one_line(root: Path, trained: Path, tmp_path: Path) -> None:
    final = ["MODEL.WEIGHTS", str(trained / "model_final.pth"), "MODEL.META_ARCHITECTURE", "CATSeg"]
    result = run(root, "train_net.py", *CONFIG, "--eval-only", *options(tmp_path), *final)
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert "model_final.pth" in line and "HPS-Seg" in line and "H-CLIP" in line
    assert "Traceback" not in result.stderr
