"""How well the confidence of the quickstart's model is calibrated on its validation splits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from cat_seg import from_pretrained
from cat_seg.analysis.calibration import Calibration
from cat_seg.analysis.calibration_figure import draw_calibration
from cat_seg.errors import UserError
from cat_seg.utils.files import atomic_write
from cat_seg.utils.progress import bar
from tools.quickstart.classes import Classes
from tools.quickstart.training import System, Workplace

SPLITS = {"seen": "val_seen", "unseen": "val_unseen"}
THRESHOLD = 0.5  # reported in table.md
BATCH_SIZE = 8


def write_calibration(place: Workplace, system: System, classes: Classes, device: str) -> None:
    """Segment the validation splits with a trained system; write calibration.json and .png.

    All pixels of a split are counted, with all class names as vocabulary.

    Raises:
        UserError: the model cannot be loaded, or a scene cannot be read.
    """
    model = from_pretrained(place.folder / system.name, device=device)
    measured = {}
    for title, split in SPLITS.items():
        images = sorted((place.dataset / "images" / split).iterdir())
        measured[title] = Calibration()
        results = model.segment(images, list(classes.names), batch_size=BATCH_SIZE, on_error=_stop)
        for result in bar(iterable=results, total=len(images), desc=f"calibration, {title}"):
            file = place.dataset / "annotations" / split / images[result.index].name
            with Image.open(file) as truth:
                measured[title].update(result.confidence, result.winner, np.asarray(truth))
    figure = draw_calibration(measured, system.title)
    with atomic_write(place.folder / "calibration.png") as png:
        figure.savefig(png, format="png")
    content = {title: one.to_dict() for title, one in measured.items()}
    with atomic_write(place.folder / "calibration.json", "w") as text:
        json.dump(content, text, indent=2)


def summarize(path: Path) -> str:
    """Return what a calibration.json says, in two lines for table.md."""
    content = json.loads(path.read_text())
    errors = [
        f"{one['expected_calibration_error']:.3f} on the {name} split"
        for name, one in content.items()
    ]
    kept = [_kept(one["thresholds"], name) for name, one in content.items()]
    return (
        f"Expected calibration error of the confidence: {', '.join(errors)}.\n"
        f"A threshold of {THRESHOLD} keeps {', '.join(kept)}.\n"
    )


def _kept(thresholds: list[dict[str, float]], name: str) -> str:
    [one] = [one for one in thresholds if one["threshold"] == THRESHOLD]
    if not one["kept"]:
        return f"no pixels of the {name} split"
    share, accuracy = one["kept"], one["accuracy"]
    return f"{share:.1%} of the pixels of the {name} split ({accuracy:.1%} of them right)"


def _stop(index: int, error: UserError) -> None:
    raise error
