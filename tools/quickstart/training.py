"""Run train_net.py and demo.py in separate processes, and show their progress."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cat_seg.errors import UserError
from cat_seg.utils.metrics_file import read_metrics
from cat_seg.utils.paths import REPO_ROOT
from cat_seg.utils.progress import bar, move
from tools.quickstart.dataset import SPLITS

CONFIG = REPO_ROOT / "configs" / "quickstart.yaml"
POLL = 0.5  # seconds between checks of a process
FROZEN = ("MODEL.META_ARCHITECTURE", "CATSeg", "MODEL.SEM_SEG_HEAD.CLIP_FINETUNE", "frozen")


@dataclass(frozen=True)
class System:
    """One system to compare, a row of the table.

    Attributes:
        name: name of its folder and its stage.
        title: title in tables and figures.
        options: KEY VALUE pairs that override configs/quickstart.yaml.
        trained: whether to train it; if False, the initial weights are evaluated.
    """

    name: str
    title: str
    options: tuple[str, ...] = ()
    trained: bool = True


BASELINES = (
    System("untrained", "CLIP, untrained head", FROZEN, trained=False),
    System("frozen", "frozen CLIP, trained head", FROZEN),
)
# The full model, by the adapter that fine-tunes its CLIP.
FULL = {
    "oft": System("full", "HPS-Seg: OFT + HPA + AFR"),
    "hyperbolic": System(
        "full_hyperbolic",
        "HyperCLIP + HPA + AFR",
        ("MODEL.SEM_SEG_HEAD.CLIP_FINETUNE", "hyperbolic"),
    ),
}
SYSTEMS = (*BASELINES, *FULL.values())


@dataclass(frozen=True)
class Workplace:
    """Inputs that all processes share: the quickstart's output folder, seed and config options."""

    folder: Path
    seed: int
    options: tuple[str, ...] = ()

    @property
    def dataset(self) -> Path:
        """Folder of the drawn scenes."""
        return self.folder / "datasets" / "quickstart"

    @property
    def dataset_options(self) -> tuple[str, ...]:
        """KEY VALUE pairs that point the config's datasets at the drawn scenes."""
        return tuple(
            part
            for split in SPLITS
            for key, kind in (("IMAGES", "images"), ("LABELS", "annotations"))
            for part in (
                f"DATASETS.CUSTOM.quickstart_{split}.{key}",
                str(self.dataset / kind / split),
            )
        )

    @property
    def clip_weights(self) -> Path:
        """File of the pretrained CLIP."""
        return self.folder / "clip.pt"

    def checkpoint(self, system: System) -> Path:
        """Return the file of a system's final weights."""
        return self.folder / system.name / "model_final.pth"

    def results(self, system: System, dataset: str) -> Path:
        """Return the file of a system's metrics on a dataset."""
        return self.folder / system.name / "inference" / dataset / "results.json"


def train_and_evaluate(place: Workplace, system: System, steps: int) -> None:
    """Run train_net.py on a system, resuming an interrupted run.

    Args:
        place: inputs that all processes share.
        system: the system to train and evaluate.
        steps: training iterations, for the progress bar.
    """
    output = place.folder / system.name
    command = [
        str(REPO_ROOT / "train_net.py"),
        *("--config-file", str(CONFIG)),
        "--resume" if system.trained else "--eval-only",
        *("OUTPUT_DIR", str(output), "SEED", str(place.seed)),
        *("TEST.ALLOW_UNTRAINED", str(not system.trained)),
        *("MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS", str(place.clip_weights)),
        *place.dataset_options,
        *place.options,
        *system.options,
    ]
    metrics_file = output / "metrics.json"
    total = steps if system.trained else 0
    # Without training steps, there is no fraction to show.
    layout = {} if total else {"bar_format": "{desc}: {elapsed}{postfix}"}
    start = _steps_done(metrics_file, total)
    with bar(total=total, initial=start, desc=system.title, unit="step", **layout) as progress:

        def look() -> None:
            done = _steps_done(metrics_file, total)
            move(progress, done, "training" if done < total else "evaluating")

        _run(command, output / "console.txt", look)


def draw_demo(place: Workplace, system: System, images: Sequence[Path], output: Path) -> None:
    """Segment images with demo/demo.py, which writes overlays and label maps to `output`."""
    command = [
        str(REPO_ROOT / "demo" / "demo.py"),
        *("--config-file", str(CONFIG), "--vocabulary", "quickstart", "--save-masks"),
        *("--input", *map(str, images), "--output", str(output)),
        *("--opts", "MODEL.WEIGHTS", str(place.checkpoint(system))),
        *place.options,
        *system.options,
    ]
    _run(command, output.with_suffix(".txt"), lambda: None)


def _steps_done(path: Path, total: int) -> int:
    """Return the training iterations done, at most `total`: the final evaluation adds a line."""
    metrics = read_metrics(path) if path.exists() else {}
    return min(max(metrics) + 1, total) if metrics else 0


def _run(command: Sequence[str], log: Path, look: Callable[[], None]) -> None:
    """Run a Python script with its output in `log`; terminate it if this process is interrupted.

    Raises:
        UserError: the script failed; the message has the log's path and last line.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        # A separate session: Ctrl-C reaches only this process, which then terminates the script.
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while (status := process.poll()) is None:
            look()
            time.sleep(POLL)
        look()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if status:
        lines = log.read_text(encoding="utf-8").splitlines() or ["no output"]
        raise UserError(
            f"{Path(command[0]).name} failed with exit status {status}: {lines[-1]} (see {log})"
        )
