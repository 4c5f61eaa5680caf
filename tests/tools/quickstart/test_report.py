"""The table, from results files as evaluation writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.quickstart.classes import load_classes
from tools.quickstart.report import Row, markdown_table, mean_iou, read_row, write_report
from tools.quickstart.training import SYSTEMS, Workplace

CLASSES = load_classes()


def write_results(path: Path, seen: float, unseen: float | None) -> None:
    values = {f"IoU-{name}": seen for name in CLASSES.seen}
    values |= {f"IoU-{name}": unseen for name in CLASSES.unseen}
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"dataset": path.parent.name, "sem_seg": values | {"mIoU": 1.0}}))


def test_a_row_takes_seen_and_unseen_classes_from_their_splits(tmp_path: Path) -> None:
    place = Workplace(tmp_path, seed=0)
    system = SYSTEMS[-1]
    write_results(place.results(system, "quickstart_val_seen"), seen=80.0, unseen=None)
    write_results(place.results(system, "quickstart_val_unseen"), seen=10.0, unseen=65.0)

    row = read_row(place, system, CLASSES)
    assert row.title == system.title
    assert (row.seen, row.unseen) == pytest.approx((0.80, 0.65))


def test_classes_without_labels_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"sem_seg": {"IoU-a": 40.0, "IoU-b": None, "IoU-c": 60.0}}))
    assert mean_iou(file, ["a", "b", "c"]) == pytest.approx(0.5)
    with pytest.raises(KeyError):
        mean_iou(file, ["a", "d"])


def test_the_table_is_markdown() -> None:
    table = markdown_table([Row("short", 0.5, 0.25), Row("a longer title", 1.0, 0.0)])
    assert table.splitlines() == [
        "|                | mIoU seen | mIoU unseen |",
        "| -------------- | --------: | ----------: |",
        "| short          |     0.500 |       0.250 |",
        "| a longer title |     1.000 |       0.000 |",
    ]


def test_the_report_is_written_as_text_and_as_data(tmp_path: Path) -> None:
    rows = [Row("full", 0.8, 0.7)]
    seconds = {"dataset": 12.5, "full": 120.0}
    clip = {"seen": 0.99, "unseen": 0.5, "loss": 0.4}
    text = write_report(tmp_path, rows, clip, "Well calibrated.\n", seconds, 3)

    assert (tmp_path / "table.md").read_text() == text
    assert markdown_table(rows) in text
    assert "\n\nWell calibrated.\n\n" in text
    assert "Seed 3" in text and "99.0%" in text and "2 min 12 s" in text
    assert json.loads((tmp_path / "table.json").read_text()) == {
        "seed": 3,
        "rows": [{"title": "full", "seen": 0.8, "unseen": 0.7}],
        "clip": {"seen": 0.99, "unseen": 0.5, "loss": 0.4},
        "seconds": seconds,
    }
