"""The chart shows every value of the table."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from cat_seg.analysis.radius_figure import COLORS
from cat_seg.evaluation.results.chart import draw_chart
from cat_seg.evaluation.results.table import Cell, Row


def row(method, backbone="ViT-B/16", runs=1, **cells):
    return Row(method, backbone, runs, "H-CLIP", {k.replace("_", "-"): v for k, v in cells.items()})


ROWS = [
    row("H-CLIP", runs=3, A_150=Cell(32.0, 0.3, 3), PAS_20=Cell(95.0, 0.1, 3)),
    row("HPS-Seg", runs=3, A_150=Cell(32.5, 0.2, 3, 0.5), PAS_20=Cell(94.75, 0.2, 3, -0.25)),
    row("H-CLIP", "ViT-L/14@336px", A_150=Cell(37.9, None, 1)),
    row("HyperCLIP"),
]


@pytest.fixture(scope="module")
def panels():
    return draw_chart(ROWS, "mIoU").axes


def texts(axes):
    return sorted(text.get_text() for text in axes.texts)


def test_every_backbone_has_its_panels_and_unmeasured_columns_none(panels):
    titles = [axes.get_title("left") for axes in panels]
    assert titles == [
        "mIoU (%), ViT-B/16",
        "difference from H-CLIP (points), ViT-B/16",
        "mIoU (%), ViT-L/14@336px",
    ]
    for axes in panels:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["A-150", "PAS-20"]


def test_bars_and_their_values(panels):
    means, differences, other = panels
    assert sorted(bar.get_height() for bar in means.patches) == [32.0, 32.5, 94.75, 95.0]
    assert texts(means) == ["32.0", "32.5", "94.8", "95.0"]
    assert sorted(bar.get_height() for bar in differences.patches) == [-0.25, 0.5]
    assert texts(differences) == ["+0.5", "-0.2"]
    assert texts(other) == ["37.9"]


def spans(axes):
    """Where the error bars of a panel begin and end."""
    bars = [bar for bar in axes.containers if isinstance(bar, ErrorbarContainer)]
    return sorted(bar.lines[2][0].get_segments()[0][:, 1].tolist() for bar in bars)


def test_deviations_are_error_bars(panels):
    means, differences, other = panels
    expected = [[31.7, 32.3], [32.3, 32.7], [94.55, 94.95], [94.9, 95.1]]
    assert np.allclose(spans(means), expected)
    # The baseline's own stand where its differences would be.
    assert np.allclose(spans(differences), [[-0.45, -0.05], [-0.3, 0.3], [-0.1, 0.1], [0.3, 0.7]])
    assert spans(other) == []


def test_a_method_has_one_color_and_the_baseline_is_gray():
    cat_seg = row("CAT-Seg", A_150=Cell(31.0, None, 1, -1.0))
    figure = draw_chart([cat_seg, *ROWS], "mIoU")
    (legend,) = figure.legends
    entries = zip(legend.get_texts(), legend.get_patches(), strict=True)
    colors = {text.get_text(): to_hex(patch.get_facecolor()) for text, patch in entries}
    assert list(colors) == ["CAT-Seg", "H-CLIP", "HPS-Seg"]
    assert colors["H-CLIP"] == COLORS[0]
    assert len(set(colors.values())) == 3


def test_no_measurement_gives_no_chart():
    assert draw_chart([row("HyperCLIP")], "mIoU") is None


def test_values_of_many_methods_stand_upright():
    many = [
        row(f"method {i}", A_150=Cell(30.0, None, 1), A_847=Cell(12.0, None, 1)) for i in range(13)
    ]
    (axes,) = draw_chart(many, "mIoU").axes
    assert {text.get_rotation() for text in axes.texts} == {90.0}
    few = draw_chart(many[:4], "mIoU").axes[0]
    assert {text.get_rotation() for text in few.texts} == {0.0}


def test_noise_is_not_drawn_large():
    noise = row("HPS-Seg", A_150=Cell(32.01, None, 1, 0.01))
    differences = draw_chart([row("H-CLIP", A_150=Cell(32.0, None, 1)), noise], "mIoU").axes[1]
    low, high = differences.get_ylim()
    assert low <= -0.5 and high >= 0.5
