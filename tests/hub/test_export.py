"""Folders to share of finished trainings, by the function and by the command."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from torch import nn

from cat_seg.cli.export_hub import main
from cat_seg.errors import UserError
from cat_seg.hub import locate
from cat_seg.hub.export import export_run
from tests.hub.test_pretrained import IMAGE, loaded, model_and_cfg
from tests.published import HEAD, MODELS
from tests.tiny import answer


def finished_run(folder: Path, *overrides: Any) -> tuple[nn.Module, Path]:
    """OUTPUT_DIR of a training of 10 iterations, and its model."""
    folder.mkdir()
    model, cfg = model_and_cfg(folder, "SOLVER.MAX_ITER", 10, *overrides)
    run = folder / "run"
    run.mkdir()
    (run / "config.yaml").write_text(cfg.dump())
    torch.save({"model": model.state_dict(), "iteration": 9}, run / "model_final.pth")
    (run / "last_checkpoint").write_text("model_final.pth")
    return model, run


def write_results(folder: Path, dataset: str, miou: float, sha256: str | None) -> None:
    file = folder / "inference" / dataset / "results.json"
    file.parent.mkdir(parents=True)
    weights = None if sha256 is None else {"file": "model_final.pth", "sha256": sha256}
    content = {
        "dataset": dataset,
        "sem_seg": {"mIoU": miou},
        "counts": {"images": 3, "skipped": 0},
        "weights": weights,
    }
    file.write_text(json.dumps(content))


def test_the_command_shares_a_finished_training(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model, run = finished_run(tmp_path / "own", *MODELS["H-CLIP"])
    assert main([str(run), str(tmp_path / "shared"), "--license", "mit"]) == 0
    assert f"wrote {tmp_path / 'shared'} (" in capsys.readouterr().out
    assert torch.equal(
        answer(loaded(locate(tmp_path / "shared")), IMAGE)[0], answer(model, IMAGE)[0]
    )
    assert main([str(run), str(tmp_path / "small"), "--no-clip", "--name", "mine"]) == 0
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("small", "shared")]
    assert sizes[0] < sizes[1] / 2
    assert ModelCard.load(tmp_path / "small" / "README.md").data.model_name == "mine"


def test_the_results_are_those_of_the_final_weights(tmp_path: Path) -> None:
    _, run = finished_run(tmp_path / "own")
    digest = hashlib.sha256((run / "model_final.pth").read_bytes()).hexdigest()
    write_results(run, "a", 1.0, None)
    write_results(run / "eval", "a", 2.0, digest)
    write_results(run, "b", 3.0, None)
    write_results(run / "eval", "c", 4.0, "0" * 64)
    folder = export_run(run, tmp_path / "shared")
    results = ModelCard.load(folder / "README.md").data.eval_results
    assert {one.dataset_name: one.metric_value for one in results} == {"a": 2.0, "b": 3.0}


def test_an_unfinished_training_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _, run = finished_run(tmp_path / "own")
    (run / "model_final.pth").rename(run / "model_0000004.pth")
    (run / "last_checkpoint").write_text("model_0000004.pth")
    with pytest.raises(SystemExit) as stop:
        main([str(run), str(tmp_path / "shared")])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "is no finished training: it has no model_final.pth; finish it with --resume" in message
    assert not (tmp_path / "shared").exists()
    with pytest.raises(UserError, match=r"it has no config.yaml$"):
        export_run(tmp_path, tmp_path / "shared")


@pytest.mark.parametrize(("iterations", "last"), [(20, "model_final"), (10, "model_0000014")])
def test_a_continued_training_is_not_finished(iterations: int, last: str, tmp_path: Path) -> None:
    _, run = finished_run(tmp_path / "own")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("MAX_ITER: 10", f"MAX_ITER: {iterations}"))
    (run / f"{last}.pth").touch()
    (run / "last_checkpoint").write_text(f"{last}.pth")
    with pytest.raises(UserError, match=r"it was continued after model_final.pth"):
        export_run(run, tmp_path / "shared")


def test_weights_that_diverged_or_are_not_ours_are_refused(tmp_path: Path) -> None:
    model, run = finished_run(tmp_path / "own", f"{HEAD}CLIP_FINETUNE", "frozen")
    state = model.state_dict()
    name = next(name for name in state if ".aggregator." in name)
    state[name] = state[name] * float("nan")
    torch.save({"model": state, "iteration": 9}, run / "model_final.pth")
    with pytest.raises(UserError, match="NaN"):
        export_run(run, tmp_path / "shared")
    torch.save({"model": {"a": torch.ones(1)}, "iteration": 9}, run / "model_final.pth")
    with pytest.raises(UserError, match="not written by a training of this project"):
        export_run(run, tmp_path / "shared")
