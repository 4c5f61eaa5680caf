"""Metrics of semantic segmentation from a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def semantic_metrics(confusion: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Compute mIoU, fwIoU, IoU-<class>, mACC, pACC and ACC-<class>, in percent.

    Ignored pixels are excluded everywhere. The IoU of a class covers all other pixels, including
    images without that class. mIoU and mACC average over the classes with at least one labeled
    pixel; a class that is only predicted lowers the IoU of the classes it replaces. fwIoU weights
    each IoU by the class's share of the labeled pixels. pACC is the fraction of labeled pixels
    predicted correctly.

    Args:
        confusion: (T, T + 1) pixel counts by predicted class (rows) and label (columns); the last
            column counts the ignored pixels.
        names: the T class names.

    Returns:
        The metrics by name. Those of a class without labeled pixels are NaN; the means are NaN if
        no pixel is labeled.
    """
    right, labeled, predicted = pixel_counts(confusion)
    union = labeled + predicted - right
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is NaN, as it should be
        iou = np.where(labeled > 0, right / union, np.nan)
        accuracy = right / labeled
        overall = right.sum() / labeled.sum()
        shares = labeled / labeled.sum()
    present = labeled > 0
    weighted = np.sum(iou[present] * shares[present]) if present.any() else np.nan
    metrics = {"mIoU": _mean(iou), "fwIoU": weighted}
    metrics |= {f"IoU-{name}": value for name, value in zip(names, iou, strict=True)}
    metrics |= {"mACC": _mean(accuracy), "pACC": overall}
    metrics |= {f"ACC-{name}": value for name, value in zip(names, accuracy, strict=True)}
    return {name: 100 * float(value) for name, value in metrics.items()}


def miou_present_or_predicted(confusion: np.ndarray) -> float:
    """Compute the mean IoU over the classes that are labeled or predicted, in percent.

    A class that is predicted but never labeled contributes an IoU of 0.
    detectron2's SemSegEvaluator computed its mIoU this way in release 0.6 (November 2021).

    Args:
        confusion: as in `semantic_metrics`.

    Returns:
        The mean, NaN if no pixel is labeled.
    """
    right, labeled, predicted = pixel_counts(confusion)
    union = labeled + predicted - right
    counted = union > 0
    return 100 * _mean(right[counted] / union[counted])


def pixel_counts(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, for each class, the pixels that are correct, labeled and predicted.

    Args:
        confusion: as in `semantic_metrics`. Ignored pixels do not count.

    Returns:
        Three arrays (T,).
    """
    known = confusion[:, :-1]
    return np.diagonal(known), known.sum(axis=0), known.sum(axis=1)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
