"""Calibration agrees with torchmetrics, and its thresholds with results."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from torchmetrics.classification import BinaryCalibrationError

from cat_seg.analysis.calibration import Calibration
from cat_seg.inference import Result


def random_image(seed: int, shape: tuple[int, int] = (31, 17)) -> tuple[np.ndarray, ...]:
    """Confidence, winner and truth of 4 classes; a tenth of the truth is 255."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(2, 1, shape).astype(np.float32)
    winner = rng.integers(0, 4, shape)
    truth = np.where(rng.random(shape) < confidence**2, winner, (winner + 1) % 4)
    return confidence, winner, np.where(rng.random(shape) < 0.1, 255, truth).astype(np.uint8)


def counted(*pixels: tuple[float, bool], bins: int = 15) -> Calibration:
    """Calibration of pixels that have a confidence and are right or wrong."""
    calibration = Calibration(bins)
    confidence, right = zip(*pixels, strict=True)
    winner = np.zeros((1, len(pixels)), int)
    calibration.update(np.array([confidence], np.float32), winner, 1 - np.array([right]))
    return calibration


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_error_is_that_of_torchmetrics(bins: int) -> None:
    images = [random_image(seed) for seed in range(5)]
    calibration, expected = Calibration(bins), BinaryCalibrationError(n_bins=bins, norm="l1")
    for confidence, winner, truth in images:
        calibration.update(confidence, winner, truth)
        known = truth != 255
        right = torch.from_numpy((winner == truth)[known]).int()
        expected.update(torch.from_numpy(confidence[known]), right)
    assert calibration.error == pytest.approx(expected.compute().item(), abs=1e-6)
    assert calibration.error > 0.1


def test_the_error_by_hand() -> None:
    calibration = counted((0.5, True), (0.7, True), (0.7, False), (0.9, False), bins=5)
    np.testing.assert_allclose(calibration.share, [0, 0, 0.25, 0.5, 0.25])
    np.testing.assert_allclose(calibration.accuracy, [np.nan, np.nan, 1, 0.5, 0])
    np.testing.assert_allclose(calibration.confidence, [np.nan, np.nan, 0.5, 0.7, 0.9])
    assert calibration.error == pytest.approx((0.5 + 2 * 0.2 + 0.9) / 4)


def test_a_bin_has_its_lower_edge_and_the_last_one_also_1() -> None:
    calibration = counted((0.0, True), (0.25, True), (0.5, True), (1.0, True), bins=4)
    assert calibration.share.tolist() == [0.25, 0.25, 0.25, 0.25]


def test_ignored_pixels_are_not_counted() -> None:
    confidence = np.array([[0.5, np.nan, 2.0]], np.float32)
    winner = np.zeros((1, 3), int)
    calibration = Calibration()
    calibration.update(confidence, winner, np.array([[0, 9, 9]]), ignore=9)
    assert calibration.pixels == 1 and calibration.at(0) == (1, 1)


def test_thresholds_keep_the_pixels_that_results_keep() -> None:
    confidence, winner, truth = random_image(0)
    calibration = Calibration()
    confidence[0, :] = (np.arange(17) + 2) / 20  # equal to thresholds, as float32
    calibration.update(confidence, winner, truth)
    known = truth != 255
    result = Result(
        winner=winner,
        names=("a", "b", "c", "d"),
        confidence=confidence,
        margin=confidence,
        entropy=confidence,
        image=np.zeros((*winner.shape, 3), np.uint8),
    )
    for threshold in (0, 0.05, 0.1, 0.15, 0.35, 0.5, 0.55, 0.7, 0.95):
        labels = result.with_threshold(threshold).labels
        kept = known & (labels != result.unknown)
        expected = kept.sum() / known.sum(), (labels == truth)[kept].mean()
        assert calibration.at(threshold) == pytest.approx(expected), threshold


def test_images_add_up_in_a_fixed_size() -> None:
    calibration, together = Calibration(), Calibration()
    images = [random_image(seed) for seed in range(4)]
    calibration.update(*images[0])
    size = len(pickle.dumps(calibration))
    for image in images[1:]:
        calibration.update(*image)
    together.update(*(np.stack(maps) for maps in zip(*images, strict=True)))
    assert calibration.pixels == sum((truth != 255).sum() for _, _, truth in images)
    np.testing.assert_allclose(calibration.accuracy, together.accuracy)
    np.testing.assert_allclose(calibration.kept_accuracy, together.kept_accuracy)
    assert calibration.error == pytest.approx(together.error)
    assert len(pickle.dumps(calibration)) == size


def test_all_of_it_as_json() -> None:
    content = counted((0.25, False), (0.75, True), bins=2).to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["pixels"] == 2 and content["expected_calibration_error"] == 0.25
    low = {"from": 0, "to": 0.5, "share": 0.5, "confidence": 0.25, "accuracy": 0}
    assert content["bins"][0] == low
    assert content["thresholds"][10] == {"threshold": 0.5, "kept": 0.5, "accuracy": 1}
    assert content["thresholds"][-1] == {"threshold": 1, "kept": 0, "accuracy": None}


def test_no_pixels_have_no_error() -> None:
    calibration = Calibration()
    calibration.update(np.ones((2, 2)), np.zeros((2, 2), int), np.full((2, 2), 255))
    assert calibration.pixels == 0
    assert np.isnan(calibration.error) and np.isnan(calibration.kept).all()
    assert calibration.to_dict()["expected_calibration_error"] is None


@pytest.mark.parametrize("wrong", [-0.1, 1.1, np.nan])
def test_a_confidence_outside_0_to_1_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="confidence must be from 0 to 1"):
        counted((0.5, True), (wrong, True))


def test_other_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\), \(2, 2\) and \(2, 3\)"):
        Calibration().update(np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="bins is 0"):
        Calibration(0)
    with pytest.raises(ValueError, match=r"threshold is 0\.33"):
        Calibration().at(0.33)
