"""The whole quickstart, with stand-ins for what takes long."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cat_seg.analysis.calibration import Calibration
from cat_seg.utils.files import exclusive_lock
from tools.quickstart import __main__ as command
from tools.quickstart import pipeline
from tools.quickstart.classes import Classes, load_classes
from tools.quickstart.dataset import DatasetSettings
from tools.quickstart.pipeline import Settings
from tools.quickstart.training import System, Workplace

CLASSES = load_classes()
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SETTINGS = Settings(DatasetSettings(train_scenes=2, val_scenes=3, size=48))


TRAINED = ["untrained", "frozen", "h_clip", "full"]  # any of them may start first


def in_order(calls: list[str]) -> list[str]:
    """Sort the trainings, which run at the same time, between the stages around them."""
    parts: list[str] = []
    for name in calls:
        parts.append(name)
        if name == "demo":
            trained = parts[-5:-1]
            assert set(trained) == set(TRAINED)
            parts[-5:-1] = TRAINED
    return parts


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces all that runs a model; lists which of pre-training, training and demo ran."""
    ran = []

    def pretrain(config: Path, weights: Path, *_: object) -> dict[str, float]:
        assert config.is_file()
        ran.append("clip")
        weights.touch()
        return {"loss": 0.5, "seen": 0.9, "unseen": 0.8}

    def train(place: Workplace, system: System, steps: int, follow: Callable[[int], None]) -> None:
        ran.append(system.name)
        follow(steps)
        iou = {"untrained": 2.0, "frozen": 50.0, "h_clip": 79.0}.get(system.name, 80.0)
        for dataset in ("quickstart_val_seen", "quickstart_val_unseen"):
            file = place.results(system, dataset)
            file.parent.mkdir(parents=True)
            values = {f"IoU-{name}": iou for name in CLASSES.names}
            file.write_text(json.dumps({"sem_seg": values}))
        metrics = {"iteration": steps - 1, "total_loss": 0.1}
        (place.folder / system.name / "metrics.json").write_text(json.dumps(metrics) + "\n")

    def demo(place: Workplace, system: System, images: list[Path], output: Path) -> None:
        ran.append("demo")
        assert system.name.startswith("full")
        output.mkdir()
        for file in images:
            label = Image.fromarray(np.zeros((48, 48), np.uint8))
            label.save(output / f"{file.stem}_mask.png")

    def calibrate(place: Workplace, system: System, classes: Classes, device: str) -> None:
        assert system.name.startswith("full") and ran[-1] == "demo"
        pixels = np.full((2, 2), 0.75, np.float32), np.array([[0, 0], [0, 1]]), np.zeros((2, 2))
        measured = Calibration()
        measured.update(*pixels)
        content = {"seen": measured.to_dict(), "unseen": measured.to_dict()}
        (place.folder / "calibration.json").write_text(json.dumps(content))
        (place.folder / "calibration.png").touch()

    monkeypatch.setattr(pipeline, "pretrain", pretrain)
    monkeypatch.setattr(pipeline, "train_and_evaluate", train)
    monkeypatch.setattr(pipeline, "draw_demo", demo)
    monkeypatch.setattr(pipeline, "write_calibration", calibrate)
    return ran


def test_it_prints_the_table_and_where_everything_is(
    calls: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main(["--output", str(tmp_path), "--seed", "1"], SETTINGS)

    assert in_order(calls) == ["clip", *TRAINED, "demo"]
    printed = capsys.readouterr().out
    for row in ("frozen CLIP, trained head |     0.500 |", "H-CLIP: OFT", "|     0.800 |"):
        assert row in printed
    assert "calibration error of the confidence: 0.000 on the seen split" in printed
    assert "keeps 100.0% of the pixels of the seen split (75.0% of them right)" in printed
    for name in ("samples.png", "curves.png", "calibration.png", "overlays", "table.md"):
        assert str(tmp_path / name) in printed
        assert (tmp_path / name).exists()
    assert len(list((tmp_path / "overlays").iterdir())) == 6
    assert json.loads((tmp_path / "table.json").read_text())["seed"] == 1


def test_a_second_run_reports_without_working(calls: list[str], tmp_path: Path) -> None:
    texts = [pipeline.run_quickstart(tmp_path, 0, SETTINGS) for _ in range(2)]
    assert texts[0] == texts[1]
    assert in_order(calls) == ["clip", *TRAINED, "demo"]


def test_another_seed_does_everything_again(calls: list[str], tmp_path: Path) -> None:
    scene = tmp_path / "datasets/quickstart/images/train/train_00000.png"
    scenes = []
    for seed in (0, 1):
        pipeline.run_quickstart(tmp_path, seed, SETTINGS)
        scenes.append(scene.read_bytes())
    assert scenes[0] != scenes[1]
    assert in_order(calls) == 2 * ["clip", *TRAINED, "demo"]


def test_other_training_options_keep_the_data_and_clip(calls: list[str], tmp_path: Path) -> None:
    pipeline.run_quickstart(tmp_path, 0, SETTINGS)
    changed = Settings(SETTINGS.dataset, options=("SOLVER.MAX_ITER", "3"))
    pipeline.run_quickstart(tmp_path, 0, changed)
    assert in_order(calls)[6:] == [*TRAINED, "demo"]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Puts back what signals did; until the command says otherwise they do nothing but Ctrl-C."""
    before = {ending: signal.signal(ending, lambda *_: None) for ending in ENDINGS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for ending, handler in before.items():
        signal.signal(ending, handler)


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interrupt_ends_with_one_line_and_status_130(
    ending: signal.Signals,
    calls: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(place: Workplace, *_: object) -> None:
        os.kill(os.getpid(), ending)
        place.scripts.run(["-c", "import time; time.sleep(60)"], tmp_path / "log", lambda: None)

    monkeypatch.setattr(pipeline, "train_and_evaluate", interrupted)
    with pytest.raises(SystemExit) as stopped:
        command.main(["--output", str(tmp_path)], SETTINGS)
    assert stopped.value.code == 130
    assert "run the same command again" in capsys.readouterr().err


def test_a_run_under_nohup_outlives_its_terminal(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr(pipeline, "draw_demo", _after(signal.SIGHUP, pipeline.draw_demo))
    command.main(["--output", str(tmp_path)], SETTINGS)
    assert calls[-1] == "demo"


def test_a_second_one_in_the_same_folder_is_refused(
    calls: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with exclusive_lock(tmp_path), pytest.raises(SystemExit) as stopped:
        command.main(["--output", str(tmp_path)], SETTINGS)
    assert stopped.value.code == 2
    assert f"another process is writing to {tmp_path}" in capsys.readouterr().err
    assert not calls


def _after(sent: signal.Signals, then: Callable[..., None]) -> Callable[..., None]:
    def both(*arguments: object) -> None:
        signal.raise_signal(sent)
        then(*arguments)

    return both


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--output", "FILE"]])
def test_bad_arguments_give_one_line(
    arguments: list[str], calls: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    arguments = [str(file / "below") if a == "FILE" else a for a in arguments]
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments, SETTINGS)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --") and error.count("\n") == 1
    assert not calls


def test_the_adapter_chooses_the_full_model(
    calls: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main(["--output", str(tmp_path), "--adapter", "hyperbolic"], SETTINGS)
    command.main(["--output", str(tmp_path)], SETTINGS)

    first, second = calls[: calls.index("demo")], calls[calls.index("demo") + 1 :]
    assert set(first) == {"clip", "untrained", "frozen", "hyper_clip", "full_hyperbolic"}
    assert set(second) == {"h_clip", "full", "demo"}
    assert "HyperCLIP" in capsys.readouterr().out
