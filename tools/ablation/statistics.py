"""Paired comparison of methods over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Paired:
    """Differences of a method from the baseline, one pair per seed.

    Attributes:
        mean: mean difference.
        low: lower end of the 95 % confidence interval of the mean (Student's t), None for one seed.
        high: its upper end.
        better: number of seeds in which the method is better than the baseline.
        worse: number of seeds in which it is worse.
        p: p value of the two-sided sign test; ties do not count, and 1 if there are only ties.
    """

    mean: float
    low: float | None
    high: float | None
    better: int
    worse: int
    p: float


def compare(values: Sequence[float], baseline: Sequence[float]) -> Paired:
    """Compare the values of a method with those of the baseline, in the same order of seeds.

    Raises:
        ValueError: the lengths differ, or there are no values.
    """
    if len(values) != len(baseline) or not values:
        raise ValueError("values and baseline must have one entry per seed")
    differences = np.subtract(values, baseline)
    low = high = None
    if len(differences) > 1:
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1)
        half = float(quantile * stats.sem(differences))
        low, high = float(differences.mean()) - half, float(differences.mean()) + half
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    p = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    return Paired(float(differences.mean()), low, high, better, worse, float(p))
