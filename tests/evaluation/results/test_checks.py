"""What is doubtful about results is said."""

from __future__ import annotations

import pytest

from cat_seg.evaluation.results.checks import doubts
from cat_seg.evaluation.results.read import read_runs
from tests.run_folders import write_result, write_run

BOTH = {"A-150": 31.8, "PC-59": 57.5}


@pytest.fixture
def said(tmp_path):
    return lambda: list(doubts(read_runs([str(tmp_path)])))


def test_sound_results_give_no_doubt(tmp_path, said):
    write_run(tmp_path / "a", "vitb_384_oft", BOTH)
    elsewhere = ("SEED", "1", "OUTPUT_DIR", "elsewhere", "MODEL.WEIGHTS", "b.pth")
    write_run(tmp_path / "b", "vitb_384_oft", BOTH, elsewhere)
    write_run(tmp_path / "c", "vitb_384_enhanced", BOTH)
    write_run(tmp_path / "d")
    assert said() == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"weights": {"sha256": "other"}}, "weights"), ({"commit": "other"}, "commits")],
)
def test_results_of_different_weights_or_code_in_one_folder(tmp_path, said, changes, what):
    folder = write_run(tmp_path / "a", results={"A-150": 31.8})
    write_result(folder / "eval", "PC-59", 57.5, **changes)
    (line,) = said()
    assert line.startswith(f"{folder} mixes results from different {what}: ")
    assert "PC-59 from other" in line and "A-150 from" in line


def test_the_same_weights_in_two_runs(tmp_path, said):
    for name in "ab":
        write_run(tmp_path / name, results=BOTH, weights={"sha256": "same"})
    (line,) = said()
    assert str(tmp_path / "a") in line and str(tmp_path / "b") in line
    assert "same weights" in line


def test_runs_of_one_method_that_were_trained_differently(tmp_path, said):
    write_run(tmp_path / "a", results=BOTH)
    write_run(tmp_path / "b", results=BOTH, overrides=("SOLVER.MAX_ITER", "20"))
    write_run(tmp_path / "c", "vitb_384", BOTH, overrides=("SOLVER.MAX_ITER", "20"))
    assert said() == [
        "runs of H-CLIP with ViT-B/16 have different SOLVER.MAX_ITER: 80000 and 20",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [("TEST.SLIDING_WINDOW", "False"), ("TEST.AMP.ENABLED", "True"), ("TEST.MOST_CLASSES", "9")],
)
def test_results_that_are_not_by_the_protocol(tmp_path, said, key, value):
    write_run(tmp_path / "a", results={"A-150": 1.0}, overrides=(key, value))
    (line,) = said()
    assert f"A-150 evaluated with {key} {value}, but the published protocol uses" in line


def test_results_of_a_part_of_the_dataset(tmp_path, said):
    folder = write_run(tmp_path / "a", results={"PC-59": 57.5}, counts={"images": 5104})
    counts = {"images": 1990, "skipped": 3, "expected": 2000}
    write_result(folder / "eval", "A-150", 31.8, counts=counts)
    assert said() == [f"{folder} has A-150 evaluated on only 1990 of 2000 images, 3 skipped"]
