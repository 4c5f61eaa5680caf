"""The whole ablation, with stand-ins for what takes long."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from cat_seg.data.vocabularies import load_vocabulary
from cat_seg.engine import load_config
from tools.ablation import __main__ as command
from tools.ablation import pipeline
from tools.ablation.figure import draw_ablation
from tools.ablation.methods import BASE, METHODS, SWEEP
from tools.ablation.pipeline import HARD, Scores
from tools.quickstart.classes import load_classes
from tools.quickstart.pipeline import Settings
from tools.quickstart.scripts import Scripts
from tools.quickstart.training import CONFIG, System, Workplace

CLASSES = {3: load_classes(), 4: load_classes("quickstart_hard")}  # by number of splits
LOCK = threading.Lock()


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces what trains; lists what ran as "SEED METHOD" or "SEED prepare"."""
    done: list[str] = []

    def prepare(scripts: Scripts, arguments: Sequence[str], log: Path, look: object) -> None:
        assert arguments[:2] == ["-m", "tools.quickstart.prepare"]
        folder = Path(arguments[2])
        with LOCK:
            done.append(f"{arguments[3]} prepare")
        (folder / "datasets" / "quickstart").mkdir(parents=True)
        for name in ("clip.pt", "clip.json"):
            (folder / name).touch()

    def train(place: Workplace, system: System, steps: int, follow: Callable[[int], None]) -> None:
        assert place.clip_weights.exists()
        with LOCK:
            done.append(f"{place.seed} {system.name}")
        gain = {"h_clip": 0.0, "hpa": -2.0, "weight_1": 3.0}.get(system.name, 1.0 + place.seed)
        for split, iou in zip(place.splits[1:], (80.0, 60.0, 40.0), strict=False):
            dataset = f"quickstart_{split}"
            file = place.results(system, dataset)
            file.parent.mkdir(parents=True)
            names = CLASSES[len(place.splits)].names
            values = {f"IoU-{name}": iou + gain for name in names}
            file.write_text(json.dumps({"sem_seg": values}))
        follow(steps)

    monkeypatch.setattr(Scripts, "run", prepare)
    monkeypatch.setattr(pipeline, "train_and_evaluate", train)
    return done


def cells(text: str, title: str) -> list[str]:
    """Return the cells of a method's first row."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return next(row[1:] for row in rows if row and row[0] == title)


def test_each_method_is_compared_with_h_clip_seed_by_seed(
    ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main(["--output", str(tmp_path), "--seeds", "2", "--jobs", "2"])

    assert sorted(ran) == sorted(
        f"{seed} {name}" for seed in (0, 1) for name in ("prepare", *(m.name for m in METHODS))
    )
    printed = capsys.readouterr().out
    assert cells(printed, "H-CLIP + HPA") == ["78.0 ± 0.0", "-2.0", "-2.0 to -2.0", "0 / 2", "0.50"]
    assert cells(printed, "HPS-Seg (HPA + AFR)")[:3] == ["81.5 ± 0.7", "+1.5", "-4.9 to +7.9"]
    assert printed.startswith("\n" + (tmp_path / "ablation.md").read_text())
    content = json.loads((tmp_path / "ablation.json").read_text())
    assert content["seeds"] == [0, 1]
    afr = content["methods"][2]
    assert afr["mIoU"]["unseen"] == [0.61, 0.62]
    assert afr["difference"]["unseen"]["better"] == 2
    with Image.open(tmp_path / "ablation.png") as picture:
        assert picture.width > 900


def test_a_second_run_adds_the_new_seeds_alone(ran: list[str], tmp_path: Path) -> None:
    chosen = ["--output", str(tmp_path), "--methods", "enhanced", "--jobs", "1", "--seeds"]
    command.main([*chosen, "1"])
    assert ran == ["0 prepare", "0 h_clip", "0 enhanced"]
    command.main([*chosen, "2"])
    assert ran[3:] == ["1 prepare", "1 h_clip", "1 enhanced"]


def test_the_sweep_has_files_of_its_own(ran: list[str], tmp_path: Path) -> None:
    command.main(["--output", str(tmp_path), "--seeds", "1", "--sweep"])
    written = (tmp_path / "sweep.md").read_text()
    assert cells(written, "HPS-Seg, loss weight 1") == ["83.0", "+3.0", "", "1 / 0", "1.00"]
    assert f"0 {SWEEP[0].name}" in ran and "0 hyper_clip" not in ran
    assert not (tmp_path / "ablation.md").exists()


def test_harder_data_has_another_domain(ran: list[str], tmp_path: Path) -> None:
    command.main(["--output", str(tmp_path), "--seeds", "1", "--methods", "hpa", "--hard"])
    content = json.loads((tmp_path / "ablation.json").read_text())
    assert content["methods"][1]["mIoU"] == {
        "seen": [0.78],
        "unseen": [0.58],
        "other domain": [0.38],
    }


@pytest.mark.parametrize("settings", [Settings(), HARD])
def test_the_datasets_of_the_config_are_the_drawn_ones(settings: Settings, tmp_path: Path) -> None:
    place = settings.place(tmp_path, 0, Scripts())
    cfg = load_config(str(place.config), place.dataset_options)
    names = {f"quickstart_{split}" for split in place.splits}
    assert names == set(cfg.DATASETS.CUSTOM) == {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST}
    assert all(Path(one.IMAGES).is_relative_to(tmp_path) for one in cfg.DATASETS.CUSTOM.values())
    classes = load_classes(settings.vocabulary)
    assert len(classes.names) <= cfg.MODEL.SEM_SEG_HEAD.PAD_LEN
    assert tuple(load_vocabulary(cfg.MODEL.SEM_SEG_HEAD.TRAIN_CLASS_JSON)) == classes.seen


@pytest.mark.parametrize("method", [*METHODS, *SWEEP])
def test_every_method_is_a_config(method: System) -> None:
    cfg = load_config(str(CONFIG), method.options)
    plain = method is BASE or method.name in ("hyper_clip", "attention")
    assert (cfg.MODEL.META_ARCHITECTURE == "CATSeg") is plain


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--jobs", "0"]])
def test_bad_arguments_give_one_line(
    arguments: list[str], ran: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--output", str(tmp_path), *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {arguments[0]}") and error.count("\n") == 1
    assert not ran


def test_the_figure_has_every_seed_and_the_means() -> None:
    scores = [
        Scores("H-CLIP", {"seen": (0.8, 0.9), "unseen": (0.5, 0.7)}),
        Scores("HPA", {"seen": (0.7, 0.9), "unseen": (0.6, 0.6)}),
    ]
    seen, unseen = draw_ablation(scores, [0, 3]).axes
    first, second = (line for line in seen.get_lines() if line.get_marker() == "o")
    assert first.get_label() == "seed 0" and second.get_label() == "seed 3"
    assert list(first.get_ydata()) == pytest.approx([80, 70])
    assert list(second.get_ydata()) == pytest.approx([90, 90])
    assert [text.get_text() for text in unseen.texts] == ["60.0", "60.0"]
    assert [label.get_text() for label in seen.get_xticklabels()] == ["H-CLIP", "HPA"]
