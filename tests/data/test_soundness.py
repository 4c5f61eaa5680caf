from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cat_seg.data.registration import register, spec_of, unregister
from cat_seg.data.soundness import DatasetReport, check_dataset, check_pair
from cat_seg.data.specs import DatasetSpec, Layout

HEIGHT, WIDTH = 6, 8


def pair(folder: Path, name: str, label: object, width: int = WIDTH) -> dict[str, str]:
    """Write an image, and the label map that `label` fills."""
    image_path, label_path = folder / "images" / f"{name}.jpg", folder / "labels" / f"{name}.png"
    for path in (image_path, label_path):
        path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((HEIGHT, width, 3), 99, dtype=np.uint8)).save(image_path)
    pixels = np.empty((HEIGHT, WIDTH), dtype=np.uint8)
    pixels[:] = label
    Image.fromarray(pixels).save(label_path)
    return {"file_name": str(image_path), "sem_seg_file_name": str(label_path)}


def test_the_classes_of_a_label(tmp_path):
    record = pair(tmp_path, "a", [7, 3, 255, 3, 255, 0, 7, 7])
    assert check_pair(8, 255, record) == ([0, 3, 7], [])


def test_a_label_without_labeled_pixels_is_noticed(tmp_path):
    assert check_pair(8, 255, pair(tmp_path, "a", 255)).is_unlabeled
    assert not check_pair(8, 255, pair(tmp_path, "b", [7, 3, 255, 3, 255, 0, 7, 7])).is_unlabeled
    assert not check_pair(8, 255, pair(tmp_path, "c", 9)).is_unlabeled  # it is wrong instead


def test_a_wrong_value_hides_no_right_one(tmp_path):
    values, (problem,) = check_pair(8, 255, pair(tmp_path, "a", [7, 3, 9, 3, 255, 0, 8, 7]))
    assert values == [0, 3, 7]
    assert "a.png has the value 8" in problem


def test_image_and_label_may_both_be_wrong(tmp_path):
    record = pair(tmp_path, "a", 9)
    Path(record["file_name"]).unlink()
    label, image = check_pair(8, 255, record).problems
    assert "has the value 9" in label
    assert "cannot read image" in image


def test_sizes(tmp_path):
    (problem,) = check_pair(8, 255, pair(tmp_path, "a", 1, width=WIDTH - 1)).problems
    assert "a.png is 8x6 pixels, but its image" in problem and "is 7x6" in problem


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    layout = Layout("images", "labels")
    register(DatasetSpec("sound", "datasets/voc20.json", (layout,), expected=3))
    yield spec_of("sound")
    unregister("sound")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_dataset(spec, tmp_path, jobs):
    for index, name in enumerate("abc"):
        pair(tmp_path, name, [index, 19, 255, 0, 0, 0, 0, 0])
    report = check_dataset(spec, jobs)
    assert (len(report.names), len(report.records), report.seen) == (20, 3, 4)
    assert not report.problems and not report.missing


@pytest.mark.parametrize("jobs", [1, 2])
def test_problems_come_in_the_order_of_the_files(spec, tmp_path, jobs):
    names = [f"{index:02d}" for index in range(40)]
    for name in names:
        pair(tmp_path, name, 20)
    count, *values = check_dataset(spec, jobs).problems
    assert count.startswith("40 labeled images instead of 3; ")
    assert [Path(problem.split()[1]).stem for problem in values] == names


def test_a_dataset_that_cannot_be_listed(spec, tmp_path):
    pair(tmp_path, "a", 0)
    (tmp_path / "images/a.png").touch()
    report = check_dataset(spec, 1)
    (problem,) = report.problems
    assert "differ only in the suffix" in problem
    assert not report.missing


def test_nothing_was_found_of_a_dataset_that_nobody_checked(spec):
    assert DatasetReport(spec).missing
