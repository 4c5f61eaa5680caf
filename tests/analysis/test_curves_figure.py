"""Curves of the diagnostics: which lines are drawn, and where."""

from __future__ import annotations

import pytest
from matplotlib.colors import to_hex

from cat_seg.analysis import curves_figure as figures
from cat_seg.visualization.palette import LINE_COLORS

METRICS = {
    0: {
        "iteration": 0,
        "gradient/sem_seg/adapter/norm": 2.0,
        "gradient/hpa/adapter/norm": 0.5,
        "gradient/hpa/adapter/cosine": -0.25,
        "gradient/sem_seg/aggregator/norm": 4.0,
        "update/adapter": 0.01,
        "update/all": 0.02,
        "afr/mix/mean": 0.4,
        "afr/mix/std": 0.1,
        "afr/change/mean": 0.2,
        "total_loss": 1.0,
    },
    10: {
        "gradient/sem_seg/adapter/norm": 1.0,
        "gradient/hpa/adapter/norm": 0.25,
        "hpa/cosine/mean": 0.9,
        "hpa/nearest/own": 0.7,
        "hpa/cosine/class/cat": 0.95,
        "hpa/cosine/class/a/b": 0.85,
        "hpa/angle/mean": 60.0,
        "hpa/angle/nearest": 30.0,
        "hpa/angle/min": 20.0,
        "afr/mix/mean": 0.2,
        "afr/mix/std": 0.05,
        "afr/change/mean": 0.1,
    },
}


@pytest.fixture
def curves():
    return figures.curves_of(METRICS, ("gradient/", "update/", "afr/", "hpa/"))


def lines(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


def test_selected_by_prefix(curves):
    assert curves["gradient/sem_seg/adapter/norm"] == {0: 2.0, 10: 1.0}
    assert "total_loss" not in curves
    assert set(figures.curves_of(METRICS, ("update/",))) == {"update/adapter", "update/all"}
    assert figures.curves_of({}, ("update/",)) == {}


def test_gradients_have_a_panel_for_each_part_and_a_line_for_each_loss(curves):
    panels = figures.gradient_panels(curves)
    figure = figures.draw_curves(panels, "norms")
    adapter, aggregator = figure.axes
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["sem_seg", "hpa"]
    assert adapter.get_legend() is None
    assert adapter.get_title(loc="left") == "adapter" and adapter.get_yscale() == "log"
    assert lines(adapter) == {"sem_seg": [[0, 2], [10, 1]], "hpa": [[0, 0.5], [10, 0.25]]}
    assert aggregator.lines[0].get_marker() == "o"  # a single measurement is seen
    colors = [to_hex(axes.lines[0].get_color()) for axes in (adapter, aggregator)]
    assert colors == [LINE_COLORS[1]] * 2  # that of the loss
    (cosine,) = figures.draw_curves(figures.cosine_panels(curves)).axes
    assert lines(cosine) == {"hpa": [[0, -0.25]]} and cosine.get_yscale() == "linear"
    panels = figures.cosine_panels(curves)
    (cosine,) = figures.draw_curves(panels, first=["sem_seg", "hpa"]).axes
    assert to_hex(cosine.lines[0].get_color()) == LINE_COLORS[2]


def test_updates_have_one_panel(curves):
    (axes,) = figures.draw_curves(figures.update_panels(curves)).axes
    assert lines(axes) == {"adapter": [[0, 0.01]], "all": [[0, 0.02]]}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["all", "adapter"]
    assert figures.update_panels({}) == []


def test_gates_have_their_spread(curves):
    mix, change = figures.draw_curves(figures.rectification_panels(curves)).axes
    assert lines(mix) == {"mix": [[0, 0.4], [10, 0.2]]}
    corners = mix.collections[0].get_paths()[0].vertices
    for corner in ([0, 0.3], [0, 0.5], [10, 0.15], [10, 0.25]):
        assert any(corner == pytest.approx(one) for one in corners.tolist())
    assert change.get_title(loc="left") == "change" and not change.collections


def test_prototypes(curves):
    own, classes, angles = figures.draw_curves(figures.prototype_panels(curves)).axes
    assert [line[1] for (line,) in lines(own).values()] == [0.9, 0.7]
    assert lines(classes) == {"cat": [[10, 0.95]], "a/b": [[10, 0.85]]}
    assert [line[1] for (line,) in lines(angles).values()] == [60, 30, 20]
    assert figures.prototype_panels({}) == []


def test_many_classes_have_no_legend():
    classes = {f"hpa/cosine/class/{index}": {0: 0.5, 1: 0.6} for index in range(171)}
    (axes,) = figures.draw_curves(figures.prototype_panels(classes)).axes
    assert len(axes.lines) == 171 and axes.get_legend() is None


def test_panels_fill_rows_of_three():
    panels = [figures.Panel(str(index), {"x": {0: 0.0}}, log=True) for index in range(5)]
    figure = figures.draw_curves(panels)
    drawn = [axes.get_title(loc="left") for axes in figure.axes if axes.axison]
    assert drawn == [str(index) for index in range(5)] and len(figure.axes) == 6
