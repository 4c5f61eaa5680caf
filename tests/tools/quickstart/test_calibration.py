"""The confidence of a trained model is compared with the label maps of both splits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cat_seg.errors import UserError
from tests.color_model import write_config, write_weights
from tools.quickstart.calibration import summarize, write_calibration
from tools.quickstart.classes import Classes
from tools.quickstart.training import System, Workplace

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
CLASSES = Classes(("red", "lime", "blue"), (), (0, 1), (2,))
SYSTEM = System("full", "Nearest color")


def write_scene(
    place: Workplace, split: str, name: str, drawn: list[int], truth: list[int]
) -> None:
    """Write a scene with one pixel for each class index in `drawn`."""
    for kind, pixels in (("images", [COLORS[i] for i in drawn]), ("annotations", truth)):
        folder = place.dataset / kind / split
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array([pixels], np.uint8)).save(folder / f"{name}.png")


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """A trained stand-in, which is sure of its answer for these scenes."""
    place = Workplace(tmp_path, seed=0)
    trained = tmp_path / SYSTEM.name
    trained.mkdir()
    write_config(trained)
    Path(write_weights(trained)).rename(place.checkpoint(SYSTEM))
    for index in range(9):  # more than a batch
        write_scene(place, "val_seen", f"seen_{index}", [index % 3, 1], [index % 3, 1])
    write_scene(place, "val_unseen", "a", [0, 1, 2, 2, 2], [0, 1, 2, 2, 255])
    write_scene(place, "val_unseen", "b", [0, 1, 2, 2], [1, 1, 2, 0])
    return place


def test_each_split_is_compared_with_its_label_maps(place: Workplace) -> None:
    write_calibration(place, SYSTEM, CLASSES, "cpu")

    content = json.loads((place.folder / "calibration.json").read_text())
    seen, unseen = content["seen"], content["unseen"]
    assert (seen["pixels"], unseen["pixels"]) == (18, 8)
    assert seen["expected_calibration_error"] == pytest.approx(0, abs=1e-6)
    assert unseen["expected_calibration_error"] == pytest.approx(2 / 8)
    with Image.open(place.folder / "calibration.png") as picture:
        assert picture.width > 900
    assert summarize(place.folder / "calibration.json") == (
        "Expected calibration error of the confidence: 0.000 on the seen split, "
        "0.250 on the unseen split.\n"
        "A threshold of 0.5 keeps 100.0% of the pixels of the seen split (100.0% of them right), "
        "100.0% of the pixels of the unseen split (75.0% of them right).\n"
    )


def test_a_threshold_that_keeps_nothing_is_said(tmp_path: Path) -> None:
    one = {
        "expected_calibration_error": 0.1,
        "thresholds": [{"threshold": 0.5, "kept": 0.0, "accuracy": None}],
    }
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps({"seen": one}))
    assert summarize(file).endswith("A threshold of 0.5 keeps no pixels of the seen split.\n")


def test_an_unreadable_scene_ends_it(place: Workplace) -> None:
    (place.dataset / "images" / "val_seen" / "seen_4.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"seen_4\.png"):
        write_calibration(place, SYSTEM, CLASSES, "cpu")
    assert not (place.folder / "calibration.json").exists()
