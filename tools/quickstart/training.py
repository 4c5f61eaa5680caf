"""Run train_net.py and demo.py in child processes, and follow their progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cat_seg.utils.metrics_file import read_metrics
from cat_seg.utils.paths import REPO_ROOT
from tools.quickstart.dataset import SPLITS
from tools.quickstart.scripts import Scripts

CONFIG = REPO_ROOT / "configs" / "quickstart.yaml"
ARCHITECTURE, FINE_TUNING = "MODEL.META_ARCHITECTURE", "MODEL.SEM_SEG_HEAD.CLIP_FINETUNE"
FROZEN = (ARCHITECTURE, "CATSeg", FINE_TUNING, "frozen")


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
# The model without HPA and AFR, and the full one, by the adapter that fine-tunes their CLIP.
PLAIN = {
    "oft": System("h_clip", "H-CLIP: OFT", (ARCHITECTURE, "CATSeg")),
    "hyperbolic": System(
        "hyper_clip", "HyperCLIP", (ARCHITECTURE, "CATSeg", FINE_TUNING, "hyperbolic")
    ),
}
FULL = {
    "oft": System("full", "HPS-Seg: OFT + HPA + AFR"),
    "hyperbolic": System(
        "full_hyperbolic",
        "HyperCLIP + HPA + AFR",
        (FINE_TUNING, "hyperbolic"),
    ),
}
SYSTEMS = (*BASELINES, *PLAIN.values(), *FULL.values())


@dataclass(frozen=True)
class Workplace:
    """Inputs that all processes share.

    Attributes:
        folder: the output folder.
        seed: seed of data, CLIP and training.
        options: KEY VALUE pairs that override the config.
        config: the config file; it has a dataset quickstart_SPLIT for every split.
        splits: names of the dataset's splits.
        scripts: runs the processes.
    """

    folder: Path
    seed: int
    options: tuple[str, ...] = ()
    config: Path = CONFIG
    splits: tuple[str, ...] = SPLITS
    scripts: Scripts = field(default_factory=Scripts, compare=False)

    @property
    def dataset(self) -> Path:
        """Folder of the drawn scenes."""
        return self.folder / "datasets" / "quickstart"

    @property
    def dataset_options(self) -> tuple[str, ...]:
        """KEY VALUE pairs that point the config's datasets at the drawn scenes."""
        return tuple(
            part
            for split in self.splits
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


def train_and_evaluate(
    place: Workplace, system: System, steps: int, follow: Callable[[int], None]
) -> None:
    """Run train_net.py on a system, resuming an interrupted run.

    Args:
        place: inputs that all processes share.
        system: the system to train and evaluate.
        steps: training iterations.
        follow: called often with the number of iterations done, 0 for a system that is not trained.

    Raises:
        UserError: the script failed.
    """
    output = place.folder / system.name
    command = [
        str(REPO_ROOT / "train_net.py"),
        *("--config-file", str(place.config)),
        "--resume" if system.trained else "--eval-only",
        *("OUTPUT_DIR", str(output), "SEED", str(place.seed)),
        *("TEST.ALLOW_UNTRAINED", str(not system.trained)),
        *("MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS", str(place.clip_weights)),
        *place.dataset_options,
        *place.options,
        *system.options,
    ]

    def look() -> None:
        follow(steps_done(output / "metrics.json", steps if system.trained else 0))

    place.scripts.run(command, output / "console.txt", look)


def draw_demo(place: Workplace, system: System, images: Sequence[Path], output: Path) -> None:
    """Segment images with demo/demo.py, which writes overlays and label maps to `output`."""
    command = [
        str(REPO_ROOT / "demo" / "demo.py"),
        *("--config-file", str(place.config), "--vocabulary", "quickstart", "--save-masks"),
        *("--input", *map(str, images), "--output", str(output)),
        *("--opts", "MODEL.WEIGHTS", str(place.checkpoint(system))),
        *place.options,
        *system.options,
    ]
    place.scripts.run(command, output.with_suffix(".txt"), lambda: None)


def steps_done(path: Path, total: int) -> int:
    """Return the training iterations done, at most `total`: the final evaluation adds a line."""
    metrics = read_metrics(path) if path.exists() else {}
    return min(max(metrics) + 1, total) if metrics else 0
