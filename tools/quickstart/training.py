"""Runs train_net.py and demo.py in processes of their own, and shows how far they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cat_seg.errors import UserError
from cat_seg.utils.metrics_file import read_metrics
from cat_seg.utils.paths import REPO_ROOT
from cat_seg.utils.progress import bar, move

CONFIG = REPO_ROOT / "configs" / "quickstart.yaml"
POLL = 0.5  # seconds between two looks at a process
FROZEN = ("MODEL.META_ARCHITECTURE", "CATSeg", "MODEL.SEM_SEG_HEAD.CLIP_FINETUNE", "frozen")


@dataclass(frozen=True)
class System:
    """One line of the table.

    Attributes:
        name: of its folder and its stage.
        title: in tables and pictures.
        options: KEY VALUE pairs over configs/quickstart.yaml.
        trained: False evaluates the start weights.
    """

    name: str
    title: str
    options: tuple[str, ...] = ()
    trained: bool = True


BASELINES = (
    System("untrained", "CLIP, untrained head", FROZEN, trained=False),
    System("frozen", "frozen CLIP, trained head", FROZEN),
)
# The full model by the adapter that fine-tunes CLIP in it.
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
    """Where processes find their data: the output folder of the quickstart and the seed."""

    folder: Path
    seed: int
    options: tuple[str, ...] = ()

    @property
    def datasets(self) -> Path:
        """What DETECTRON2_DATASETS points to."""
        return self.folder / "datasets"

    @property
    def clip_weights(self) -> Path:
        """The pre-trained CLIP."""
        return self.folder / "clip.pt"

    def checkpoint(self, system: System) -> Path:
        """Where training leaves the final weights of a system."""
        return self.folder / system.name / "model_final.pth"

    def results(self, system: System, dataset: str) -> Path:
        """Where evaluation leaves its metrics."""
        return self.folder / system.name / "inference" / dataset / "results.json"


def train_and_evaluate(place: Workplace, system: System, steps: int) -> None:
    """Run train_net.py on a system; goes on where an earlier run was stopped.

    Args:
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
        *place.options,
        *system.options,
    ]
    metrics_file = output / "metrics.json"
    total = steps if system.trained else 0
    # Without steps there is no share to show.
    layout = {} if total else {"bar_format": "{desc}: {elapsed}{postfix}"}
    start = _steps_done(metrics_file, total)
    with bar(total=total, initial=start, desc=system.title, unit="step", **layout) as progress:

        def look() -> None:
            done = _steps_done(metrics_file, total)
            move(progress, done, "training" if done < total else "evaluating")

        _run(command, place, output / "console.txt", look)


def draw_demo(place: Workplace, system: System, images: Sequence[Path], output: Path) -> None:
    """Draw images with demo/demo.py: overlays and label maps in `output`."""
    command = [
        str(REPO_ROOT / "demo" / "demo.py"),
        *("--config-file", str(CONFIG), "--vocabulary", "quickstart", "--save-masks"),
        *("--input", *map(str, images), "--output", str(output)),
        *("--opts", "MODEL.WEIGHTS", str(place.checkpoint(system))),
        *place.options,
        *system.options,
    ]
    _run(command, place, output.with_suffix(".txt"), lambda: None)


def _steps_done(path: Path, total: int) -> int:
    """Training iterations done; the line of the final evaluation counts as one more."""
    metrics = read_metrics(path) if path.exists() else {}
    return min(max(metrics) + 1, total) if metrics else 0


def _run(command: Sequence[str], place: Workplace, log: Path, look: Callable[[], None]) -> None:
    """Run a Python script to its end, its output in `log`; stop it where this process stops.

    Raises:
        UserError: it failed; names the log and its last line.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"DETECTRON2_DATASETS": str(place.datasets)}
    with open(log, "w") as file:
        # A session of its own: Ctrl-C comes here alone, and is passed on once.
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        while True:
            look()
            try:
                status = process.wait(POLL)
                break
            except subprocess.TimeoutExpired:
                continue
        look()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if status:
        lines = log.read_text().splitlines() or ["no output"]
        raise UserError(
            f"{Path(command[0]).name} ended with status {status}: {lines[-1]} (see {log})"
        )
