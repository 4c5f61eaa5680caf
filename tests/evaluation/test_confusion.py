"""Two ways to average the IoU, on counts small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from cat_seg.evaluation.confusion import miou_present_or_predicted, semantic_metrics

# Rows are predictions, columns labels, the last one ignored pixels. Class 2 is predicted but never
# labeled, class 3 is nowhere but in ignored pixels.
COUNTS = np.array([[6, 0, 0, 0, 5], [2, 3, 0, 0, 0], [1, 4, 0, 0, 9], [0, 0, 0, 0, 2]])


def test_the_means_differ_in_the_classes_that_are_only_predicted():
    """IoU of class 0 is 6/9, of class 1 3/9, of class 2 0/5."""
    metrics = semantic_metrics(COUNTS, list("abcd"))
    assert metrics["mIoU"] == pytest.approx(100 * (6 / 9 + 3 / 9) / 2)
    assert miou_present_or_predicted(COUNTS) == pytest.approx(100 * (6 / 9 + 3 / 9) / 3)
    assert np.isnan([metrics["IoU-c"], metrics["ACC-c"], metrics["IoU-d"]]).all()
    assert metrics["fwIoU"] == pytest.approx(100 * (6 / 9 * 9 / 16 + 3 / 9 * 7 / 16))
    assert metrics["mACC"] == pytest.approx(100 * (6 / 9 + 3 / 7) / 2)
    assert metrics["pACC"] == pytest.approx(100 * 9 / 16)


def test_the_mean_over_present_or_predicted_is_scikit_learns():
    generator = np.random.default_rng(0)
    label, predicted = generator.integers(0, 300, 4000), generator.integers(200, 847, 4000)
    counts = np.zeros((847, 848), dtype=np.int64)
    np.add.at(counts, (predicted, label), 1)
    labels = np.union1d(label, predicted)
    expected = jaccard_score(label, predicted, labels=labels, average="macro")
    assert len(labels) < 847
    assert miou_present_or_predicted(counts) == pytest.approx(100 * expected)


def test_there_is_no_mean_of_nothing(recwarn):
    nothing = np.zeros((2, 3), dtype=np.int64)
    assert np.isnan(list(semantic_metrics(nothing, list("ab")).values())).all()
    assert np.isnan(miou_present_or_predicted(nothing))
    assert not recwarn.list
