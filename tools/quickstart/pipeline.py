"""The stages of the quickstart, from drawing the dataset to the final figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from cat_seg.engine import load_config
from cat_seg.utils.files import atomic_write
from cat_seg.utils.parallel import cores
from cat_seg.utils.paths import REPO_ROOT
from cat_seg.utils.progress import bar, move
from tools.quickstart.calibration import summarize, write_calibration
from tools.quickstart.classes import Classes, load_classes
from tools.quickstart.dataset import SPLITS, DatasetSettings, write_dataset
from tools.quickstart.pictures import write_curves, write_sheet
from tools.quickstart.pretrain import PretrainSettings, pretrain
from tools.quickstart.report import read_row, write_report
from tools.quickstart.scripts import Scripts
from tools.quickstart.stages import Stage, StageRunner
from tools.quickstart.training import (
    BASELINES,
    CONFIG,
    FULL,
    PLAIN,
    System,
    Workplace,
    draw_demo,
    steps_done,
    train_and_evaluate,
)

HERE = Path(__file__).parent
DRAWING = (
    HERE / "drawing.py",
    HERE / "classes.py",
    *sorted((REPO_ROOT / "datasets").glob("quickstart*.json")),
)
MODEL = (
    REPO_ROOT / "cat_seg",
    REPO_ROOT / "train_net.py",
    CONFIG.with_name("config.yaml"),
    *sorted(CONFIG.parent.glob("quickstart*.yaml")),
)
DRAWN = 3  # validation images per split that are shown


@dataclass(frozen=True)
class Settings:
    """Settings of the whole quickstart.

    Attributes:
        dataset: settings of the drawn dataset.
        pretrain: settings of CLIP's pretraining.
        options: KEY VALUE pairs that override the config, for all systems.
        config: the config file.
        vocabulary: name of the class lists; see `load_classes`.
    """

    dataset: DatasetSettings = field(default_factory=DatasetSettings)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    options: tuple[str, ...] = ()
    config: Path = CONFIG
    vocabulary: str = "quickstart"

    def place(self, folder: Path, seed: int, scripts: Scripts) -> Workplace:
        """Return what all processes of a seed share."""
        return Workplace(folder, seed, self.options, self.config, self.dataset.splits, scripts)


def run_quickstart(folder: Path, seed: int, settings: Settings, adapter: str = "oft") -> str:
    """Run every stage that is not yet finished in `folder`, and write the report.

    Args:
        folder: the output folder.
        seed: seed of all stages.
        settings: settings of the stages.
        adapter: a key of FULL; the adapter that fine-tunes CLIP in the full model.

    Returns:
        The text of table.md: the results table and CLIP's accuracy.

    Raises:
        UserError: the folder cannot be used, or a process failed.
    """
    folder = folder.resolve()
    best = FULL[adapter]
    systems = (*BASELINES, PLAIN[adapter], best)
    trained = [system for system in systems if system.trained]
    jobs = min(cores(), len(trained))
    # Small layers gain little from a second thread, so the systems share the cores.
    place = settings.place(folder, seed, Scripts(threads=max(1, cores() // jobs)))
    cfg = load_config(str(settings.config), settings.options)
    classes = load_classes(settings.vocabulary)
    clip_config = REPO_ROOT / cfg.MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED
    clip_report = folder / "clip.json"
    runner = StageRunner(folder / "stages")

    def train_clip() -> None:
        measured = pretrain(clip_config, place.clip_weights, classes, settings.pretrain, seed)
        with atomic_write(clip_report, "w") as file:
            json.dump(measured, file)

    runner.run(
        Stage(
            "dataset",
            partial(write_dataset, place.dataset, classes, settings.dataset, seed),
            outputs=(place.dataset,),
            settings={"seed": seed, **asdict(settings.dataset)},
            sources=(*DRAWING, HERE / "dataset.py"),
        )
    )
    runner.run(
        Stage(
            "clip",
            train_clip,
            outputs=(place.clip_weights, clip_report),
            settings={"seed": seed, **asdict(settings.pretrain)},
            sources=(*DRAWING, HERE / "pretrain.py", clip_config),
        )
    )
    runner.run_all(
        [
            system_stage(place, system, partial(_train, place, system, cfg.SOLVER.MAX_ITER, row))
            for row, system in reversed([*enumerate(systems)])  # the longest first
        ],
        jobs,
        place.scripts.stop,
    )
    runner.run(
        Stage(
            "pictures",
            partial(_draw, place, systems, classes),
            outputs=(folder / "overlays", folder / "samples.png", folder / "curves.png"),
            settings={"images": DRAWN},
            sources=(HERE / "pictures.py", REPO_ROOT / "demo"),
            after=tuple(system.name for system in systems),
        )
    )
    calibration = folder / "calibration.json"
    runner.run(
        Stage(
            "calibration",
            partial(write_calibration, place, best, classes, cfg.MODEL.DEVICE),
            outputs=(calibration, folder / "calibration.png"),
            settings={},
            sources=(HERE / "calibration.py",),
            after=(best.name,),
        )
    )
    return write_report(
        folder,
        [read_row(place, system, classes) for system in systems],
        json.loads(clip_report.read_text()),
        summarize(calibration),
        runner.seconds(),
        seed,
    )


def system_stage(
    place: Workplace,
    system: System,
    work: Callable[[], None],
    name: str | None = None,
    after: tuple[str, ...] = ("dataset", "clip"),
) -> Stage:
    """Return the stage that trains and evaluates a system by calling `work`.

    Args:
        place: inputs that all processes share.
        system: the system.
        work: see `train_and_evaluate`.
        name: name of the stage; None for the system's.
        after: names of the stages that draw the data and pre-train CLIP.
    """
    return Stage(
        name or system.name,
        work,
        outputs=(place.folder / system.name,),
        settings={"seed": place.seed, "options": [*place.options, *system.options]},
        sources=MODEL,
        after=after,
        resumes=True,
    )


def _train(place: Workplace, system: System, steps: int, row: int) -> None:
    """Train and evaluate a system, with a progress bar in a row of the terminal."""
    total = steps if system.trained else 0
    # Without training steps, there is no fraction to show.
    layout = {} if total else {"bar_format": "{desc}: {elapsed}{postfix}"}
    start = steps_done(place.folder / system.name / "metrics.json", total)
    with bar(
        total=total, initial=start, desc=system.title, unit="step", position=row, **layout
    ) as progress:

        def follow(done: int) -> None:
            move(progress, done, "training" if done < total else "evaluating")

        train_and_evaluate(place, system, steps, follow)


def _draw(place: Workplace, systems: Sequence[System], classes: Classes) -> None:
    """Write overlays of both validation splits, their contact sheet, and the loss curves."""
    images, truths = [], []
    for split in SPLITS[1:]:
        chosen = sorted((place.dataset / "images" / split).iterdir())[:DRAWN]
        images += chosen
        truths += [place.dataset / "annotations" / split / file.name for file in chosen]
    overlays = place.folder / "overlays"
    draw_demo(place, systems[-1], images, overlays)
    masks = [overlays / f"{file.stem}_mask.png" for file in images]
    marked = [f"{n} (unseen)" if n in classes.unseen else n for n in classes.names]
    write_sheet(place.folder / "samples.png", images, truths, masks, marked)
    write_curves(
        place.folder / "curves.png",
        {s.title: place.folder / s.name / "metrics.json" for s in systems if s.trained},
    )
