from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from cat_seg.evaluation.confusion import semantic_metrics
from cat_seg.evaluation.image_counts import ImageCounts, counts_of_image
from cat_seg.evaluation.results import bootstrap
from cat_seg.evaluation.results.bootstrap import compare, mismatch

CLASSES = list("abcde")


def confusions(quality: float, seed: int, images: int = 60) -> list[np.ndarray]:
    """Confusion matrices of images that have three of five classes, with the same labels."""
    labels, answers = np.random.default_rng(0), np.random.default_rng(seed)
    found = []
    for _ in range(images):
        label = labels.choice(labels.choice(5, 3, replace=False), 400)
        right = answers.random(400) < quality
        predicted = np.where(right, label, answers.integers(0, 5, 400))
        cells = np.bincount(predicted * 6 + label, minlength=30)
        found.append(cells.reshape(5, 6))
    return found


def counts(matrices: list[np.ndarray]) -> ImageCounts:
    parts = [counts_of_image(matrix).astype(np.int64) for matrix in matrices]
    rows = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    names = [f"{index}.jpg" for index in range(len(parts))]
    return ImageCounts(names, CLASSES, rows, *np.concatenate(parts).T)


def test_the_interval_is_that_of_resampled_confusion_matrices(monkeypatch):
    first, second = confusions(0.7, 1), confusions(0.72, 2)
    monkeypatch.setattr(bootstrap, "CHUNK", 30)  # 100 resamples are 30, 30, 30 and 10
    found = compare(counts(first), counts(second), resamples=100)

    def miou(matrices, weights):
        total = sum(w * m for w, m in zip(weights, matrices, strict=True))
        return semantic_metrics(total, CLASSES)["mIoU"]

    everything = np.ones(60)
    assert found.miou == pytest.approx((miou(first, everything), miou(second, everything)))
    draws = list(chain.from_iterable(bootstrap._draws(60, 100, 0)))
    assert len(draws) == 100
    assert {draw.sum() for draw in draws} == {60}
    differences = [miou(second, draw) - miou(first, draw) for draw in draws]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))
    for index, name in enumerate(CLASSES):
        known = semantic_metrics(sum(first), CLASSES)[f"IoU-{name}"]
        assert found.iou[0, index] == pytest.approx(known)
        assert found.images[index] == sum(matrix[:, index].any() for matrix in first)


def test_a_real_difference_is_told_from_chance():
    base = counts(confusions(0.7, 1))
    better = compare(base, counts(confusions(0.75, 2)))
    assert better.larger_than_chance and better.low > 0
    worse = compare(counts(confusions(0.75, 2)), base)
    assert worse.larger_than_chance
    assert (worse.low, worse.high) == pytest.approx((-better.high, -better.low))
    assert not compare(base, counts(confusions(0.7, 3))).larger_than_chance
    same = compare(base, base)
    assert same.difference == same.low == same.high == 0


def test_classes_without_a_label_do_not_count():
    """A class that is only predicted lowers the IoU of others; rare ones may be in no resample."""
    first, second = confusions(0.7, 1, 5), confusions(0.7, 2, 5)
    for matrix in (*first, *second):
        matrix[:, 4] = 0
    found = compare(counts(first), counts(second), resamples=100)
    assert np.isnan(found.iou[:, 4]).all()
    assert found.miou[0] == pytest.approx(semantic_metrics(sum(first), CLASSES)["mIoU"])
    assert np.isfinite([found.low, found.high]).all()


def test_other_images_classes_and_labels_are_a_mismatch():
    first = counts(confusions(0.7, 1))
    assert mismatch(first, counts(confusions(0.6, 2))) is None
    fewer = counts(confusions(0.7, 1)[:-1])
    assert mismatch(first, fewer) == "their images differ (60 and 59, 59 in both)"
    assert mismatch(first, first._replace(classes=list("abcdx"))) == "their classes differ"
    relabeled = first._replace(labeled=first.labeled + 1)
    assert mismatch(first, relabeled) == "the labels of their images differ"


def test_what_cannot_be_compared_is_refused():
    first = counts(confusions(0.7, 1))
    with pytest.raises(ValueError, match="resamples must be at least 1"):
        compare(first, first, resamples=0)
    nothing = first._replace(labeled=0 * first.labeled)
    with pytest.raises(ValueError, match="first has no labeled pixel"):
        compare(nothing, nothing)
