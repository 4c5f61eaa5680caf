"""What the picture of the radius shows, and where."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from cat_seg.analysis.radius import Trajectory
from cat_seg.analysis.radius_figure import MOST_DOTS, draw_radii
from cat_seg.visualization.palette import LINE_COLORS

RUN = Trajectory([0, 10, 20], [8.0, 7.0, 6.0], [1.0, 0.5, 0.25])
FEW, MANY = [3.0, 5.0, 7.0], list(np.linspace(4, 8, MOST_DOTS + 1))


def panels(figure):
    """Rows of axes, from what they are called."""
    found = {}
    for axes in figure.axes:
        found.setdefault(axes.get_title(loc="left"), []).append(axes)
    return found


@pytest.fixture
def both():
    distributions = {
        "before": {"image": FEW, "text/coco": FEW},
        "after": {"image": FEW, "text/coco": MANY},
    }
    return draw_radii(distributions, {"after": {"text/coco": RUN}}, "a title")


def test_one_row_for_each_vocabulary_then_the_image(both):
    assert list(panels(both)) == ["text: coco", "image patches"]
    assert [len(row) for row in panels(both).values()] == [2, 2]
    assert both.get_suptitle() == "a title"


def test_distributions_have_their_mean_and_few_radii_their_dots(both):
    axes = panels(both)["text: coco"][0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["before", "after"]
    assert axes.yaxis_inverted()  # the first is at the top
    means = [line.get_xdata().tolist() for line in axes.lines]
    assert means == [[5.0, 5.0], [pytest.approx(6.0)] * 2]
    dots = [c.get_offsets() for c in axes.collections if len(c.get_offsets()) > 1]
    assert len(dots) == 1
    assert dots[0][:, 0].tolist() == FEW


def test_trajectories_have_their_spread(both):
    axes = panels(both)["text: coco"][1]
    (line,), (band,) = axes.lines, axes.collections
    assert line.get_xydata().tolist() == [[0, 8], [10, 7], [20, 6]]
    corners = band.get_paths()[0].vertices.tolist()
    assert [0, 7] in corners and [0, 9] in corners and [20, 5.75] in corners
    assert line.get_label() == "after"


def test_a_single_measurement_is_seen():
    figure = draw_radii({}, {"run": {"image": Trajectory([0], [8.0], [1.0])}})
    assert figure.axes[0].lines[0].get_marker() == "o"


def test_long_headings_end_before_the_next_panel():
    names = {f"text/{', '.join(40 * ['cat'])}": FEW}
    figure = draw_radii({"one": names}, {"one": {"text/coco": RUN}})
    figure.canvas.draw()
    left, right = figure.axes[:2]
    assert left.get_title(loc="left").startswith("text: cat, cat")
    (heading,) = (
        text for text in left.get_children() if isinstance(text, Text) and text.get_text()
    )
    assert heading.get_window_extent().x1 < right.get_window_extent().x0


def test_a_model_and_its_run_share_a_color(both):
    left, right = panels(both)["text: coco"]
    colors = [to_hex(line.get_color()) for line in left.lines]
    assert colors == [LINE_COLORS[0], LINE_COLORS[1]]
    assert to_hex(right.lines[0].get_color()) == LINE_COLORS[1]


def test_what_was_not_measured_is_said(both):
    axes = panels(both)["image patches"][1]
    assert [text.get_text() for text in axes.texts] == ["not measured"]
    assert not axes.lines


def test_either_side_alone():
    assert len(draw_radii({}, {"run": {"text/coco": RUN, "image": RUN}}).axes) == 2
    (axes,) = draw_radii({"model": {"text/coco": FEW}}, {}).axes
    assert axes.get_xlabel() == "hyperbolic radius"


def test_more_models_than_colors_and_single_or_equal_radii_can_be_drawn():
    models = {f"model {index}": {"text/coco": [5.0]} for index in range(len(LINE_COLORS) + 2)}
    models["equal"] = {"text/coco": [4.0, 4.0]}
    file = BytesIO()
    draw_radii(models, {"run": {"text/coco": Trajectory([5], [1.0], [0.0])}}).savefig(file)
    assert Image.open(file).size[0] > 500
