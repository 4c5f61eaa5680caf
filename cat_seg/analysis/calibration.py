"""Calibration of the confidence: how often pixels of a given confidence are right.

Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), applied to the pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BINS = 15  # as in Guo et al.
THRESHOLDS = np.arange(21) / 20


class Calibration:
    """Counts of pixels by confidence, accumulated image by image.

    Its size depends on the number of bins and thresholds, not on the number of pixels.

    Attributes:
        edges: (bins + 1,) float64, edges of equal bins over 0..1. A bin contains its lower edge;
            the last one also contains 1.
        thresholds: (21,) float64, 0 to 1 in steps of 0.05.
    """

    def __init__(self, bins: int = BINS) -> None:
        """Start with no pixels.

        Raises:
            ValueError: `bins` is less than 1.
        """
        if bins < 1:
            raise ValueError(f"bins is {bins}; give 1 or more")
        self.edges = np.arange(bins + 1) / bins
        self.thresholds = THRESHOLDS
        self._count = np.zeros(bins)
        self._correct = np.zeros(bins)
        self._confidence = np.zeros(bins)
        # Pixels from each threshold up to the next one.
        self._step_count = np.zeros(len(THRESHOLDS))
        self._step_correct = np.zeros(len(THRESHOLDS))

    def update(
        self, confidence: np.ndarray, winner: np.ndarray, truth: np.ndarray, ignore: int = 255
    ) -> None:
        """Add the pixels of an image.

        Args:
            confidence: (H, W) float, 0..1, probability of the winning class.
            winner: (H, W) integer, index of the winning class.
            truth: (H, W) integer, index of the true class.
            ignore: value of `truth` at pixels that are not counted.

        Raises:
            ValueError: the shapes differ, or a counted confidence is not in 0..1.
        """
        if not confidence.shape == winner.shape == truth.shape:
            raise ValueError(
                f"confidence, winner and truth have shapes {confidence.shape}, {winner.shape} and "
                f"{truth.shape}; they must be equal"
            )
        counted = truth != ignore
        values = confidence[counted]
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError("confidence must be from 0 to 1")
        correct = winner[counted] == truth[counted]
        bins = np.minimum(_interval(values, self.edges), len(self._count) - 1)
        steps = _interval(values, self.thresholds)
        self._count += np.bincount(bins, minlength=len(self._count))
        self._correct += np.bincount(bins, correct, len(self._count))
        self._confidence += np.bincount(bins, values, len(self._count))
        self._step_count += np.bincount(steps, minlength=len(self._step_count))
        self._step_correct += np.bincount(steps, correct, len(self._step_count))

    @property
    def pixels(self) -> int:
        """Number of pixels counted."""
        return int(self._count.sum())

    @property
    def share(self) -> np.ndarray:
        """(bins,) share of the pixels in each bin, 0..1; NaN if there are no pixels."""
        return _ratio(self._count, self._count.sum())

    @property
    def accuracy(self) -> np.ndarray:
        """(bins,) share of the pixels of each bin whose winner is the true class; NaN if empty."""
        return _ratio(self._correct, self._count)

    @property
    def confidence(self) -> np.ndarray:
        """(bins,) mean confidence of the pixels of each bin; NaN if empty."""
        return _ratio(self._confidence, self._count)

    @property
    def error(self) -> float:
        """Expected calibration error, 0..1; NaN if there are no pixels.

        The mean of |accuracy - confidence| over the bins, weighted by their pixels. It is
        torchmetrics' `BinaryCalibrationError` of the confidence against "the winner is right",
        which has one more bin for a confidence of exactly 1.
        """
        gaps = np.abs(self._correct - self._confidence).sum()
        return float(_ratio(gaps, self._count.sum()))

    @property
    def kept(self) -> np.ndarray:
        """(21,) share of the pixels that each threshold keeps, 0..1; NaN if there are no pixels.

        As in `Result.labels`, a pixel is kept if its confidence is not below the threshold.
        """
        return _ratio(_from_here_on(self._step_count), self._count.sum())

    @property
    def kept_accuracy(self) -> np.ndarray:
        """(21,) share of the kept pixels whose winner is the true class; NaN if none is kept."""
        return _ratio(_from_here_on(self._step_correct), _from_here_on(self._step_count))

    def at(self, threshold: float) -> tuple[float, float]:
        """Return `kept` and `kept_accuracy` at one of `thresholds`.

        Raises:
            ValueError: it is not one of them.
        """
        [index] = np.nonzero(np.isclose(self.thresholds, threshold))
        if not len(index):
            raise ValueError(f"threshold is {threshold}; give a multiple of 0.05 from 0 to 1")
        return float(self.kept[index[0]]), float(self.kept_accuracy[index[0]])

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values; what is NaN is None."""
        return {
            "pixels": self.pixels,
            "expected_calibration_error": _json([self.error])[0],
            "bins": [
                {"from": low, "to": high, "share": share, "confidence": mean, "accuracy": accuracy}
                for low, high, share, mean, accuracy in zip(
                    *map(_json, (self.edges[:-1], self.edges[1:])),
                    *map(_json, (self.share, self.confidence, self.accuracy)),
                    strict=True,
                )
            ],
            "thresholds": [
                {"threshold": threshold, "kept": kept, "accuracy": accuracy}
                for threshold, kept, accuracy in zip(
                    *map(_json, (self.thresholds, self.kept, self.kept_accuracy)), strict=True
                )
            ],
        }


def _interval(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the index of the last of `starts` that is not above each value.

    Compared in the values' precision, as `Result` compares confidence and threshold.
    """
    return np.searchsorted(starts.astype(values.dtype), values, side="right") - 1


def _from_here_on(steps: np.ndarray) -> np.ndarray:
    return np.cumsum(steps[::-1])[::-1]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return part / whole


def _json(values: Any) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
