"""The command on results whose counts are of our choice."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cat_seg.cli import compare
from cat_seg.evaluation.confusion import semantic_metrics
from cat_seg.evaluation.image_counts import counts_of_image, image_counts_file, write_image_counts
from tests.run_folders import write_result

CLASSES = ["cat", "dog", "grass\x1b"]
IMAGES = 40


def write(place, quality, label="A-150", images=IMAGES, seed=0, **more):
    """Write the results of a model that answers a share of the pixels right."""
    labels, answers = np.random.default_rng(5), np.random.default_rng(seed)
    entries, total = [], 0
    for index in range(images):
        truth = labels.integers(0, 3, 300)
        predicted = np.where(answers.random(300) < quality, truth, answers.integers(0, 3, 300))
        confusion = np.bincount(predicted * 4 + truth, minlength=12).reshape(3, 4)
        entries.append((f"{index}.jpg", counts_of_image(confusion)))
        total = total + confusion
    metrics = semantic_metrics(total, CLASSES)
    file = write_result(place, label, None, sem_seg=metrics, **more)
    write_image_counts(file, entries, CLASSES)
    return file


def run(capsys, *arguments):
    status = compare.main([str(argument) for argument in arguments])
    return status, capsys.readouterr().out


def failure(capsys, *arguments):
    with pytest.raises(SystemExit) as status:
        compare.main([str(argument) for argument in arguments])
    assert status.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def test_two_runs_are_compared_on_what_both_were_evaluated_on(tmp_path, capsys):
    write(tmp_path / "a/eval", 0.7)
    write(tmp_path / "b/eval", 0.8, seed=1, overrides=("SOLVER.MAX_ITER", "7"))
    write(tmp_path / "a/eval", 0.7, "PC-59")
    status, text = run(capsys, tmp_path / "a", tmp_path / "b")
    assert status == 0
    assert text.startswith("## A-150\n")
    assert "| setting | SOLVER.MAX_ITER | 80000 " in text
    assert "B is better; the difference is larger than chance over images." in text
    assert "95 % interval +" in text
    assert "Only in one of the two: context_59_test_sem_seg" in text
    assert "grass\\x1b" in text and "\x1b" not in text


def test_a_difference_that_chance_explains_is_called_so(tmp_path, capsys):
    first = write(tmp_path / "a", 0.7)
    second = write(tmp_path / "b", 0.7, seed=1, weights={"sha256": str(tmp_path / "a")})
    status, text = run(capsys, first, second.parent)
    assert status == 0
    assert "Settings, code, environment, weights and data are the same." in text
    assert "The difference is within chance over images." in text
    assert "A and B are equal." in run(capsys, first, first)[1]


def test_json_holds_the_numbers(tmp_path, capsys):
    first, second = write(tmp_path / "a", 0.7), write(tmp_path / "b", 0.8, seed=1)
    arguments = (first, second, "--json", "--classes", 1, "--resamples", 300)
    status, text = run(capsys, *arguments)
    assert status == 0
    assert run(capsys, *arguments)[1] == text  # the seed is fixed
    content = json.loads(text)
    assert content["resamples"] == 300
    (found,) = content["comparisons"]
    a, b = (json.loads(file.read_text())["sem_seg"]["mIoU"] for file in (first, second))
    assert found["mIoU"] == [a, b]
    assert found["difference"] == pytest.approx(b - a)
    assert found["interval"][0] < b - a < found["interval"][1]
    assert found["larger_than_chance"] is True
    (row,) = found["classes"]
    assert row["class"] in CLASSES and row["images"] == IMAGES
    assert row["difference"] == pytest.approx(row["second"] - row["first"])


def test_other_images_are_refused_but_settings_are_shown(tmp_path, capsys):
    first = write(tmp_path / "a", 0.7, commit="abc")
    second = write(tmp_path / "b", 0.7, images=IMAGES - 1, commit="def")
    status, text = run(capsys, first, second)
    assert status == 1
    assert "| code | commit | abc " in " ".join(text.split())
    assert "No paired test: their images differ (40 and 39, 39 in both)." in text
    (found,) = json.loads(run(capsys, first, second, "--json")[1])["comparisons"]
    assert found["refused"].startswith("their images differ")


def test_counts_that_are_missing_or_of_another_evaluation_are_refused(tmp_path, capsys):
    first, second = write(tmp_path / "a", 0.7), write(tmp_path / "b", 0.8)
    image_counts_file(second).replace(image_counts_file(first))
    status, text = run(capsys, first, second)
    assert status == 1
    assert f"{image_counts_file(first)} does not belong to {first}" in text
    image_counts_file(first).unlink()
    status, text = run(capsys, first, second)
    assert status == 1
    assert "has no image_counts.npz" in text


def test_results_of_different_benchmarks_are_shown_side_by_side(tmp_path, capsys):
    first, second = write(tmp_path / "a", 0.7), write(tmp_path / "b", 0.7, "PC-59", IMAGES + 1)
    status, text = run(capsys, first, second)
    assert status == 1
    assert text.startswith("## A-150 and PC-59\n")


def test_bad_input_is_one_line(tmp_path, capsys):
    first = write(tmp_path / "a", 0.7)
    write(tmp_path / "b", 0.7, "PC-59")
    write(tmp_path / "b", 0.7, "PC-459")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.json").write_text("[]")
    for arguments, problem in (
        ((first, tmp_path / "nowhere"), "nowhere has no results"),
        ((first, tmp_path / "empty"), "empty has no results"),
        ((first, tmp_path / "list.json"), "list.json is not a results file"),
        ((first, tmp_path / "b"), "have no dataset in common"),
        ((first, first, "--resamples", 5), "--resamples 5"),
        ((first, first, "--classes", -1), "--classes -1"),
    ):
        assert problem in failure(capsys, *arguments)
