"""Train and evaluate every method with every seed, several at a time, keeping what is finished."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from cat_seg.engine import load_config
from cat_seg.utils.parallel import cores
from cat_seg.utils.paths import REPO_ROOT
from cat_seg.utils.progress import bar, move
from tools.quickstart.classes import load_classes
from tools.quickstart.dataset import OTHER, DatasetSettings
from tools.quickstart.pipeline import DRAWING, HERE, Settings, system_stage
from tools.quickstart.prepare import command
from tools.quickstart.report import SPLIT_SEEN, SPLIT_UNSEEN, mean_iou
from tools.quickstart.scripts import Scripts
from tools.quickstart.stages import Stage, StageRunner
from tools.quickstart.training import (
    CONFIG,
    System,
    Workplace,
    steps_done,
    train_and_evaluate,
)

HARD = Settings(
    dataset=DatasetSettings(shapes=(4, 7), radius=(0.08, 0.24), apart=0.45, other_domain=True),
    config=CONFIG.with_name("quickstart_hard.yaml"),
    vocabulary="quickstart_hard",
)


@dataclass(frozen=True)
class Scores:
    """mIoU (0 to 1) of one method.

    Attributes:
        title: title of the method.
        values: measure -> one value per seed. "seen": over the classes trained on, on scenes with
            them alone; "unseen": over the classes not trained on, on scenes that have them; "other
            domain": over all classes, on scenes in another style.
    """

    title: str
    values: Mapping[str, tuple[float, ...]]


def run_ablation(
    folder: Path, seeds: Sequence[int], methods: Sequence[System], jobs: int, settings: Settings
) -> list[Scores]:
    """Run what is not yet finished in `folder`.

    A seed draws the data, the pre-trained CLIP and the initial weights anew. All methods of a seed
    share its data and its CLIP.

    Args:
        folder: the output folder.
        seeds: the seeds.
        methods: the systems to compare.
        jobs: number of trainings at a time; they share the cores.
        settings: data, pre-training and config options.

    Raises:
        UserError: the folder cannot be used, or a process failed.
    """
    folder = folder.resolve()
    scripts = Scripts(threads=max(1, cores() // jobs))
    places = [settings.place(folder / f"seed_{seed}", seed, scripts) for seed in seeds]
    cfg = load_config(str(settings.config), settings.options)
    clip_config = REPO_ROOT / cfg.MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED
    steps = cfg.SOLVER.MAX_ITER
    with Progress(places, methods, steps) as progress:
        stages = []
        for place in places:
            start = _start_stage(place, clip_config, settings)
            stages.append(start)
            for method in methods:
                follow = partial(progress.follow, place, method)
                work = partial(train_and_evaluate, place, method, steps, follow)
                name = f"{start.name}_{method.name}"
                stages.append(system_stage(place, method, work, name, (start.name,)))
        StageRunner(folder / "stages").run_all(stages, jobs, scripts.stop)
    measures = _measures(settings)
    return [
        Scores(
            method.title,
            {
                measure: tuple(mean_iou(place.results(method, dataset), names) for place in places)
                for measure, (dataset, names) in measures.items()
            },
        )
        for method in methods
    ]


def _measures(settings: Settings) -> dict[str, tuple[str, Sequence[str]]]:
    """Return the dataset of each measure, and the classes it is the mean of."""
    classes = load_classes(settings.vocabulary)
    found: dict[str, tuple[str, Sequence[str]]] = {
        "seen": (SPLIT_SEEN, classes.seen),
        "unseen": (SPLIT_UNSEEN, classes.unseen),
    }
    if settings.dataset.other_domain:
        found["other domain"] = (f"quickstart_{OTHER}", classes.names)
    return found


class Progress:
    """One progress bar over the training iterations of all runs."""

    def __init__(self, places: Sequence[Workplace], methods: Sequence[System], steps: int) -> None:
        """Count the iterations that earlier runs of the command have done."""
        self._done = {
            (place.seed, method.name): steps_done(
                place.folder / method.name / "metrics.json", steps
            )
            for place in places
            for method in methods
        }
        self._lock = threading.Lock()
        total = steps * len(self._done)
        start = sum(self._done.values())
        self._bar = bar(total=total, initial=start, desc="ablation", unit="step")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def follow(self, place: Workplace, method: System, done: int) -> None:
        """Set the number of iterations that one run has done."""
        with self._lock:
            self._done[place.seed, method.name] = done
            move(self._bar, sum(self._done.values()), f"seed {place.seed}, {method.title}")


def _start_stage(place: Workplace, clip_config: Path, settings: Settings) -> Stage:
    """Return the stage that draws the data and pre-trains CLIP."""
    data, clip = settings.dataset, settings.pretrain
    arguments = command(place, clip_config, settings.vocabulary, data, clip)
    look: Callable[[], None] = lambda: None  # noqa: E731
    return Stage(
        f"seed_{place.seed}",
        partial(place.scripts.run, arguments, place.folder / "prepare.txt", look),
        outputs=(place.dataset, place.clip_weights, place.folder / "clip.json"),
        settings={
            "seed": place.seed,
            "vocabulary": settings.vocabulary,
            "dataset": asdict(data),
            "pretrain": asdict(clip),
        },
        sources=(*DRAWING, HERE / "dataset.py", HERE / "pretrain.py", clip_config),
    )
