"""Confused classes: shares, pairs, and what the picture shows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_hex

from cat_seg.analysis.confusions import Pair, draw_confusion, most_confused, row_shares
from cat_seg.analysis.matrix_figure import MOST_NAMED, UNSEEN_COLOR
from cat_seg.evaluation.confusion_file import Confusion

# Rows are predictions, columns labels, the last one ignored pixels. Nothing is labeled "sky";
# "moon" does not occur.
COUNTS = np.array(
    [
        [60, 10, 0, 0, 0, 7],
        [30, 90, 0, 0, 0, 0],
        [10, 0, 5, 0, 0, 0],
        [0, 0, 5, 0, 0, 0],
        [0, 0, 0, 0, 0, 9],
    ]
)
CONFUSION = Confusion(COUNTS, ["cat", "dog, hound", "grass", "sky", "moon"])


def many(count):
    counts = np.ones((count, count + 1), dtype=int)
    return Confusion(counts, [f"class number {index}" for index in range(count)])


def test_shares_of_the_labels_pixels():
    shares = row_shares(CONFUSION)
    assert shares[0].tolist() == [0.6, 0.3, 0.1, 0, 0]
    assert shares[2].tolist() == [0, 0, 0.5, 0.5, 0]
    assert np.isnan(shares[3]).all()
    np.testing.assert_allclose(shares[:3].sum(axis=1), 1)


def test_the_most_confused_pairs_come_first():
    pairs = most_confused(CONFUSION)
    assert pairs == [
        Pair("grass", "sky", 0.5, 5),
        Pair("cat", "dog, hound", pytest.approx(0.3), 30),
        Pair("cat", "grass", pytest.approx(0.1), 10),
        Pair("dog, hound", "cat", pytest.approx(0.1), 10),
    ]
    assert most_confused(CONFUSION, 1) == pairs[:1]
    assert len(most_confused(many(30))) == 20


def test_the_picture_has_seen_classes_first_and_unseen_in_color():
    figure = draw_confusion(CONFUSION, {"dog, hound", "grass"}, "pets")
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["dog", "grass", "cat", "sky"]  # "moon" does not occur
    assert names == [label.get_text() for label in axes.get_xticklabels()]
    colors = [to_hex(label.get_color()) for label in axes.get_yticklabels()]
    assert [color == UNSEEN_COLOR for color in colors] == [False, False, True, True]
    shown = axes.images[0].get_array()
    assert shown[2].tolist() == pytest.approx([0.3, 0.1, 0.6, 0])
    assert shown.mask.all(axis=1).tolist() == [False, False, False, True]
    assert axes.get_ylabel() == "label" and axes.get_title(loc="left") == "pets"
    written = {text.get_text() for text in axes.texts}
    assert {"0.30", "0.60", "0.90"} <= written


@pytest.mark.parametrize("count", [28, 171])
def test_names_do_not_overlap(count):
    figure = draw_confusion(many(count), set())
    figure.draw_without_rendering()
    axes = figure.axes[0]
    for labels, low, high in (
        (axes.get_yticklabels(), "y0", "y1"),
        (axes.get_xticklabels(), "x0", "x1"),
    ):
        boxes = [label.get_window_extent() for label in labels]
        assert len(boxes) == count
        extents = sorted((getattr(box, low), getattr(box, high)) for box in boxes)
        assert all(first[1] <= second[0] + 1 for first, second in pairwise(extents))
    size = labels[0].get_fontsize()
    assert size >= 5.5


def test_more_classes_have_no_names():
    axes = draw_confusion(many(MOST_NAMED + 1), set()).axes[0]
    assert not len(axes.get_xticks()) and not axes.texts


def test_odd_names_are_drawn_as_they_are():
    odd = Confusion(COUNTS, ["a $ b $", "^_{", "x" * 99, "\\frac", "moon"])
    figure = draw_confusion(odd, set(), "$\\frac{$")
    figure.canvas.draw()
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[:2] == ["a $ b $", "^_{"] and len(names[2]) < 30
