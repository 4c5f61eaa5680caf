"""Confusion matrices of an evaluation: rows in percent, and the most confused pairs."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from cat_seg.analysis.matrix_figure import Axis, draw_matrix
from cat_seg.evaluation.confusion_file import Confusion

TEXTS = Axis("label", "prediction", "share of the label's pixels")
PAIRS = 20


class Pair(NamedTuple):
    """Two classes that are confused.

    Attributes:
        label: true class.
        predicted: predicted class.
        share: share of the pixels of `label` that are predicted as `predicted`, 0..1.
        pixels: number of those pixels.
    """

    label: str
    predicted: str
    share: float
    pixels: int


def row_shares(confusion: Confusion) -> np.ndarray:
    """Return the share of the pixels of each label (rows) that get each prediction: (T, T).

    Rows without pixels are NaN.
    """
    pixels = confusion.counts[:, :-1].T.astype(float)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return pixels / pixels.sum(axis=1, keepdims=True)


def most_confused(confusion: Confusion, most: int = PAIRS) -> list[Pair]:
    """Return the pairs of different classes with the largest shares, by decreasing share."""
    shares = np.nan_to_num(row_shares(confusion))
    np.fill_diagonal(shares, 0)
    order = np.argsort(-shares, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, shares.shape), strict=True)
    names, counts = confusion.names, confusion.counts
    return [
        Pair(
            names[label],
            names[predicted],
            float(shares[label, predicted]),
            int(counts[predicted, label]),
        )
        for label, predicted in pairs
        if shares[label, predicted] > 0
    ]


def draw_confusion(confusion: Confusion, seen: Collection[str], title: str = "") -> Figure:
    """Draw the shares of `row_shares`, seen classes first, names of unseen classes in color.

    Classes that are neither labeled nor predicted are left out.

    Args:
        confusion: with at least one labeled pixel.
        seen: class names of training.
        title: title of the figure.
    """
    known = confusion.counts[:, :-1]
    occurring = np.flatnonzero(known.sum(axis=0) + known.sum(axis=1))
    order = sorted(occurring.tolist(), key=lambda index: confusion.names[index] not in seen)
    names = [confusion.names[index] for index in order]
    return draw_matrix(
        row_shares(confusion)[np.ix_(order, order)],
        names,
        TEXTS,
        title=title,
        norm=PowerNorm(0.5, 0, 1),  # small shares show
        emphasized=[index for index, name in enumerate(names) if name not in seen],
    )
