"""What the picture of the calibration shows, and where."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from cat_seg.analysis.calibration import Calibration
from cat_seg.analysis.calibration_figure import draw_calibration
from cat_seg.visualization.palette import LINE_COLORS


def measured(confidence: list[float], right: list[bool]) -> Calibration:
    calibration = Calibration(bins=5)
    truth = np.where(right, 0, 1)
    calibration.update(np.array(confidence, np.float32), np.zeros(len(right), int), truth)
    return calibration


SEEN = measured([0.7, 0.7, 0.9, 0.9], [True, False, True, True])
# One pixel of 2000 in the first bin.
UNSEEN = measured([0.1] + [0.5] * 1999, [True] + [False] * 1999)


@pytest.fixture
def figure() -> Figure:
    return draw_calibration({"seen": SEEN, "unseen": UNSEEN}, "a title")


def test_accuracy_over_confidence_beside_the_diagonal(figure: Figure) -> None:
    diagonal, seen, unseen = figure.axes[0].lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    np.testing.assert_allclose(seen.get_xydata(), [[0.7, 0.5], [0.9, 1.0]], rtol=1e-6)
    assert seen.get_label() == f"seen: ECE {SEEN.error:.3f}" == "seen: ECE 0.150"
    assert unseen.get_xydata().tolist() == [[0.5, 0]]  # without the bin of few pixels
    assert figure.get_suptitle() == "a title"


def test_the_share_of_pixels_by_bin(figure: Figure) -> None:
    filled, outline, *_ = (patch.get_data() for patch in figure.axes[2].patches)
    for data in (filled, outline):
        np.testing.assert_allclose(data.values, [0, 0, 0, 0.5, 0.5])
        np.testing.assert_allclose(data.edges, [0, 0.2, 0.4, 0.6, 0.8, 1])


def test_thresholds_have_their_accuracy_and_share(figure: Figure) -> None:
    accuracy, kept = figure.axes[1].lines[0], figure.axes[3].lines[0]
    assert accuracy.get_label() == "seen"
    np.testing.assert_array_equal(accuracy.get_xydata().T, [SEEN.thresholds, SEEN.kept_accuracy])
    np.testing.assert_array_equal(kept.get_xydata().T, [SEEN.thresholds, SEEN.kept])


def test_each_measurement_has_one_color(figure: Figure) -> None:
    reliability, accuracy, share, kept = figure.axes
    lines = (reliability.lines[1:], accuracy.lines, kept.lines)
    for seen, unseen in lines:
        assert [to_hex(seen.get_color()), to_hex(unseen.get_color())] == list(LINE_COLORS[1:3])
    assert [to_hex(p.get_edgecolor()) for p in share.patches[1::2]] == list(LINE_COLORS[1:3])


def test_it_can_be_drawn_without_pixels() -> None:
    file = BytesIO()
    draw_calibration({"nothing": Calibration()}).savefig(file)
    assert Image.open(file).width > 900
