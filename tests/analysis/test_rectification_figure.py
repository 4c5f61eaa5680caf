"""AFR over images: what is measured, and what the picture shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cat_seg.analysis.rectification_figure import draw_rectifications, rectify
from tests.tiny import image, tiny_model

AFR = ("MODEL.META_ARCHITECTURE", "EnhancedCATSeg", "MODEL.HYPERSPHERICAL.AFR_REDUCTION", 4)


@pytest.fixture
def model():
    return tiny_model(*AFR).eval()


def test_the_gates_are_those_of_the_model(model):
    picture = image(40, 64)
    seen = []
    model.afr.spatial_gate.register_forward_hook(lambda m, i, output: seen.append((i[0], output)))
    found = rectify(model, "one.png", picture)
    features, spatial = seen[0]
    assert np.allclose(found.spatial, spatial[0, 0].detach())
    with torch.no_grad():
        gates = model.afr.gates(features)
        rectified, _ = model.afr(features)
    assert np.allclose(found.channel, gates.channel[0])
    assert found.uncertainty == pytest.approx(gates.uncertainty.item())
    assert found.mix == pytest.approx(gates.mix.item())
    change = (rectified - features).norm(dim=1) / features.norm(dim=1)
    assert np.allclose(found.change, change[0], atol=1e-6)
    assert np.array_equal(found.image, picture.permute(1, 2, 0))
    seen.clear()
    with torch.no_grad():
        model([{"image": picture}])  # inference on the whole image
    inference = seen[0][0]
    assert inference.shape == features.shape
    if (40 % model.size_divisibility, 64 % model.size_divisibility) == (0, 0):
        torch.testing.assert_close(inference, features, atol=1e-5, rtol=1e-4)


def test_a_row_for_each_image(model):
    rows = [rectify(model, f"{index}$.png", image(32, 64, index)) for index in range(2)]
    figure = draw_rectifications(rows, "run")
    figure.canvas.draw()
    grid = np.array(figure.axes[:8]).reshape(2, 4)
    assert len(figure.axes) == 10  # with two color bars
    for row, axes in zip(rows, grid, strict=True):
        assert axes[0].get_title(loc="left") == row.name
        assert (
            axes[0]
            .get_xlabel()
            .startswith(f"uncertainty {row.uncertainty:.3f}, mix {row.mix:.3f}, turn ")
        )
        assert np.array_equal(axes[0].images[0].get_array(), row.image)
        assert np.array_equal(axes[1].images[0].get_array(), row.spatial)
        assert np.array_equal(axes[2].images[0].get_array(), row.change)
        assert sum(bar.get_height() for bar in axes[3].patches) == len(row.channel)
    for column, name in ((1, "spatial"), (2, "change")):
        values = np.stack([getattr(row, name) for row in rows])
        for axes in grid[:, column]:
            assert axes.images[0].get_clim() == pytest.approx((values.min(), values.max()))


def test_a_single_image(model):
    assert len(draw_rectifications([rectify(model, "x", image(64, 64))]).axes) == 6
