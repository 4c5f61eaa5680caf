"""Curves and contact sheet are drawn from what training and demo left."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from tools.quickstart.pictures import LOSSES, draw_losses, write_curves, write_sheet


def write_metrics(path: Path, iterations: list[int], **losses: float) -> None:
    lines = [json.dumps({"iteration": i, **losses}) + "\n" for i in iterations]
    lines.append(json.dumps({"iteration": 99, "quickstart_val_seen/sem_seg/mIoU": 1.0}) + "\n")
    path.write_text("".join(lines))


def test_a_line_for_every_loss_in_the_file(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.json"
    write_metrics(metrics, [39, 19, 39], total_loss=0.6, loss_sem_seg=0.5, loss_hpa=0.1)
    axes = Figure().subplots()
    draw_losses(axes, metrics)

    lines = {line.get_label(): line for line in axes.get_lines()}
    assert set(lines) == {LOSSES["loss_sem_seg"], LOSSES["loss_hpa"]}
    assert lines[LOSSES["loss_sem_seg"]].get_xdata().tolist() == [19, 39]
    assert lines[LOSSES["loss_sem_seg"]].get_ydata().tolist() == [0.5, 0.5]


def test_a_loss_alone_is_written_as_the_total(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.json"
    write_metrics(metrics, [19, 39], total_loss=0.5)
    axes = Figure().subplots()
    draw_losses(axes, metrics)
    (line,) = axes.get_lines()
    assert line.get_label() == LOSSES["loss_sem_seg"]
    assert line.get_ydata().tolist() == [0.5, 0.5]


def test_curves_are_a_picture(tmp_path: Path) -> None:
    runs = {}
    for title in ("frozen", "full"):
        runs[title] = tmp_path / f"{title}.json"
        write_metrics(runs[title], [19, 39], total_loss=0.5)
    write_curves(tmp_path / "curves.png", runs)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 600


def test_the_sheet_shows_image_truth_and_prediction(tmp_path: Path) -> None:
    def save(name: str, pixels: np.ndarray) -> Path:
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
        return tmp_path / name

    image = save("image.png", np.full((32, 32, 3), 200))
    truth = save("truth.png", np.zeros((32, 32)))
    right = save("right.png", np.zeros((32, 32)))
    wrong = save("wrong.png", np.ones((32, 32)))

    def sheet(prediction: Path) -> np.ndarray:
        write_sheet(tmp_path / "sheet.png", [image], [truth], [prediction], ["cat", "dog"])
        return np.asarray(Image.open(tmp_path / "sheet.png"))

    good, bad = sheet(right), sheet(wrong)
    row, third = good.shape[1] // 6, good.shape[1] // 3
    middle = [slice(row, row + 20), slice(None)]
    assert np.array_equal(good[middle[0], : 2 * third - 20], bad[middle[0], : 2 * third - 20])
    assert not np.array_equal(good[middle[0], 2 * third :], bad[middle[0], 2 * third :])
    assert np.array_equal(
        good[row, third + third // 2], good[row, 2 * third + third // 2]
    )  # truth = prediction


def test_a_loss_that_is_the_only_one_is_drawn(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.json", [19, 39], total_loss=0.5)
    axes = Figure().subplots()
    draw_losses(axes, tmp_path / "metrics.json")
    (line,) = axes.lines
    assert line.get_label() == LOSSES["loss_sem_seg"]
    assert line.get_ydata().tolist() == [0.5, 0.5]
