"""Paired bootstrap over images: is a difference in mIoU larger than the choice of images explains?

B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile
interval).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from cat_seg.evaluation.image_counts import ImageCounts

CONFIDENCE = 0.95
RESAMPLES = 2000
SEED = 0
CHUNK = 100  # resamples at a time; with 5000 images and 847 classes, 25 MB


@dataclass(frozen=True)
class Comparison:
    """mIoU of two results on the same images, in percent, and their difference, B minus A.

    Attributes:
        miou: of A and of B.
        difference: that of B minus that of A.
        low: lower end of the 95 % interval of the difference over resampled images.
        high: its upper end.
        iou: (2, T) IoU of A and of B by class; NaN for a class without labeled pixels.
        images: (T,) number of images with a label of each class.
    """

    miou: tuple[float, float]
    difference: float
    low: float
    high: float
    iou: np.ndarray
    images: np.ndarray

    @property
    def larger_than_chance(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def mismatch(first: ImageCounts, second: ImageCounts) -> str | None:
    """Say why two results cannot be compared image by image, or return None if they can."""
    if first.classes != second.classes:
        return "their classes differ"
    if first.images != second.images:
        both = len({*first.images} & {*second.images})
        return f"their images differ ({len(first.images)} and {len(second.images)}, {both} in both)"
    if (_matrix(first, first.labeled) != _matrix(second, second.labeled)).nnz:
        return "the labels of their images differ"
    return None


def compare(
    first: ImageCounts, second: ImageCounts, resamples: int = RESAMPLES, seed: int = SEED
) -> Comparison:
    """Compare two results by resampling the images that both were evaluated on.

    Each resample draws as many images as there are, with replacement, and takes both mIoU from the
    pixels of the drawn images alone.

    Args:
        first: counts of A.
        second: counts of B, for which `mismatch` finds nothing.
        resamples: number of resamples.
        seed: seed of the draws.

    Raises:
        ValueError: resamples is less than 1, or no pixel is labeled.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1; it is {resamples}")
    labeled = _matrix(first, first.labeled)
    if not labeled.nnz:
        raise ValueError("first has no labeled pixel")
    pairs = [(_matrix(one, one.right), _matrix(one, one.predicted)) for one in (first, second)]
    ones = np.ones((1, len(first.images)))
    iou = np.concatenate([_iou(ones, labeled, *pair) for pair in pairs])
    miou = np.nanmean(iou, axis=1)
    drawn = np.concatenate(
        [
            np.nanmean(_iou(weights, labeled, *pairs[1]), axis=1)
            - np.nanmean(_iou(weights, labeled, *pairs[0]), axis=1)
            for weights in _draws(len(first.images), resamples, seed)
        ]
    )
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Comparison(
        (float(miou[0]), float(miou[1])),
        float(miou[1] - miou[0]),
        float(low),
        float(high),
        iou,
        np.asarray((labeled > 0).sum(axis=0)).ravel(),
    )


def _matrix(counts: ImageCounts, values: np.ndarray) -> csr_matrix:
    """Return a kind of counts as (N, T); sums over a dataset are exact in float64."""
    shape = (len(counts.images), len(counts.classes))
    matrix = csr_matrix((values.astype(np.float64), (counts.rows, counts.columns)), shape)
    matrix.eliminate_zeros()
    return matrix


def _iou(
    weights: np.ndarray, labeled: csr_matrix, right: csr_matrix, predicted: csr_matrix
) -> np.ndarray:
    """Return the IoU in percent, (R, T), of images that count (R, N) times."""
    label, union = weights @ labeled, weights @ (labeled + predicted - right)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(label > 0, 100 * (weights @ right) / union, np.nan)


def _draws(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each image is drawn, (R, N), a chunk of resamples at a time."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        count = min(CHUNK, resamples - start)
        chosen = generator.integers(images, size=(count, images))
        cells = (chosen + np.arange(count)[:, None] * images).ravel()
        yield np.bincount(cells, minlength=count * images).reshape(count, images).astype(float)
