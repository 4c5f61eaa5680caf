"""The quickstart's results table, read from the evaluation files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from cat_seg.utils.files import atomic_write
from tools.quickstart.classes import Classes
from tools.quickstart.training import System, Workplace

SPLIT_SEEN, SPLIT_UNSEEN = "quickstart_val_seen", "quickstart_val_unseen"


@dataclass(frozen=True)
class Row:
    """mIoU (0 to 1) of one system, with all class names as vocabulary.

    Attributes:
        title: title of the system.
        seen: mean over the classes trained on, on quickstart_val_seen.
        unseen: mean over the classes not trained on, on quickstart_val_unseen.
    """

    title: str
    seen: float
    unseen: float


def read_row(place: Workplace, system: System, classes: Classes) -> Row:
    """Read the results of one system."""
    return Row(
        system.title,
        mean_iou(place.results(system, SPLIT_SEEN), classes.seen),
        mean_iou(place.results(system, SPLIT_UNSEEN), classes.unseen),
    )


def mean_iou(results: Path, names: Sequence[str]) -> float:
    """Return the mean IoU (0 to 1) of some classes in a results.json.

    Classes that occur in no label map are left out.

    Raises:
        KeyError: a class was not evaluated.
    """
    metrics = json.loads(results.read_text(encoding="utf-8"))["sem_seg"]
    values = [metrics[f"IoU-{name}"] for name in names]
    return fmean(value for value in values if value is not None) / 100


def markdown_table(rows: Sequence[Row]) -> str:
    """Format the rows as a Markdown table that also reads well in a terminal."""
    width = max(len(row.title) for row in rows)
    lines = [
        f"| {'':{width}} | mIoU seen | mIoU unseen |",
        f"| {'-' * width} | --------: | ----------: |",
    ]
    lines += [f"| {row.title:{width}} | {row.seen:9.3f} | {row.unseen:11.3f} |" for row in rows]
    return "\n".join(lines)


def write_report(
    folder: Path,
    rows: Sequence[Row],
    clip: Mapping[str, float],
    calibration: str,
    seconds: Mapping[str, float],
    seed: int,
) -> str:
    """Write FOLDER/table.md and FOLDER/table.json.

    Args:
        folder: the folder to write to.
        rows: results, one row per system.
        clip: the result of `tools.quickstart.pretrain.pretrain`.
        calibration: what `tools.quickstart.calibration.summarize` says of the full model.
        seconds: duration of each stage.
        seed: seed of the run.

    Returns:
        The text of table.md.
    """
    text = (
        f"{markdown_table(rows)}\n\n{calibration}\n"
        f"Seed {seed}. CLIP alone classifies {clip['seen']:.1%} of the crops of seen and "
        f"{clip['unseen']:.1%} of unseen classes correctly. The stages took "
        f"{_minutes(sum(seconds.values()))} in all; trainings run side by side.\n"
    )
    content = {
        "seed": seed,
        "rows": [asdict(row) for row in rows],
        "clip": dict(clip),
        "seconds": dict(seconds),
    }
    with atomic_write(folder / "table.md", "w") as file:
        file.write(text)
    with atomic_write(folder / "table.json", "w") as file:
        json.dump(content, file, indent=2)
    return text


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
