"""AFR and HPA in numbers, on features whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from cat_seg.analysis.hyperspherical import (
    feature_changes,
    measure_alignment,
    measure_geometry,
    measure_rectification,
    prototype_angles,
)
from cat_seg.modeling.hyperspherical_innovations import (
    AdaptiveFeatureRectification,
    HypersphericalPrototypeAlignment,
)
from tests.tiny import shake

CHANNELS = 16
NAMES = ["cat", "dog", "grass", "sky"]


@pytest.fixture
def hpa():
    """Three of four prototypes, on the axes 0 and 1 and between them."""
    torch.manual_seed(0)
    hpa = HypersphericalPrototypeAlignment(len(NAMES), CHANNELS, 0.9, 0.07, 0.0)
    axes = torch.eye(CHANNELS)
    for index, direction in ((0, axes[0]), (1, axes[1]), (3, axes[0] + axes[1])):
        hpa.prototypes[index] = F.normalize(direction, dim=0)
        hpa.prototype_initialized[index] = True
    return hpa


def test_gates_over_all_batches():
    torch.manual_seed(0)
    afr = AdaptiveFeatureRectification(CHANNELS, 4)
    shake(afr, 0.5)
    batches = [torch.randn(2, CHANNELS, 3, 5), torch.randn(1, CHANNELS, 4, 4)]
    found = measure_rectification(afr, batches)
    gates = [afr.gates(batch) for batch in batches]
    for name in ("channel", "spatial", "uncertainty", "mix"):
        values = torch.cat([getattr(one, name).flatten() for one in gates])
        assert found[f"{name}/mean"] == pytest.approx(values.mean().item(), rel=1e-5)
        assert found[f"{name}/std"] == pytest.approx(values.std(correction=0).item(), rel=1e-4)
    changes = [
        ((afr(batch)[0] - batch).norm(dim=1) / batch.norm(dim=1)).flatten() for batch in batches
    ]
    assert found["change/mean"] == pytest.approx(torch.cat(changes).mean().item(), rel=1e-5)
    cosines = [F.cosine_similarity(afr(batch)[0].double(), batch.double()) for batch in batches]
    turn = torch.cat([cosine.flatten() for cosine in cosines]).arccos().rad2deg().mean()
    assert found["turn/mean"] == pytest.approx(turn.item(), rel=1e-3)
    assert found.keys() == {
        *(f"{name}/{what}" for name in gates[0]._fields for what in ("mean", "std")),
        *("change/mean", "turn/mean"),
    }
    with torch.no_grad():
        afr.mix_weight.fill_(-torch.inf)  # nothing is mixed in
    assert measure_rectification(afr, batches)["change/mean"] == 0


def test_changes_of_features():
    features = torch.tensor([[3.0, 0.0, 2.0], [4.0, 1.0, 0.0]])[None, :, :, None]
    rectified = torch.tensor([[1.5, 1.0, -2.0], [2.0, 1.0, 0.0]])[None, :, :, None]
    relative, turn = feature_changes(features, rectified)
    assert relative[0, :, 0].tolist() == pytest.approx([0.5, 1.0, 2.0])
    assert turn[0, :, 0].tolist() == pytest.approx([0.0, 45.0, 180.0], abs=1e-3)


def test_cosines_to_the_own_prototype(hpa, monkeypatch):
    monkeypatch.setattr(hpa, "align", lambda features: F.normalize(features, dim=1))
    angles = torch.tensor([0.0, 30.0, 90.0, 60.0, 45.0, 10.0]).deg2rad()
    features = torch.zeros(1, CHANNELS, 1, 6)
    features[0, 0, 0], features[0, 1, 0] = angles.cos(), angles.sin()
    labels = torch.tensor([[[0, 0, 1, 3, 2, 255]]])  # "grass" has no prototype
    before = hpa.prototypes.clone()
    found = measure_alignment(hpa, NAMES, [(features, labels)])
    cosines = {"cat": (1 + math.cos(math.radians(30))) / 2, "dog": 1.0}
    cosines["sky"] = math.cos(math.radians(15))
    assert found == pytest.approx(
        {
            "cosine/mean": sum(cosines.values()) / 3,
            "nearest/own": 3 / 4,  # 30 degrees are nearer to 45 than to 0
            **{f"cosine/class/{name}": value for name, value in cosines.items()},
        },
        rel=1e-5,
    )
    halves = [(features[..., :3], labels[..., :3]), (features[..., 3:], labels[..., 3:])]
    assert measure_alignment(hpa, NAMES, halves) == pytest.approx(found)
    assert torch.equal(hpa.prototypes, before)
    assert measure_alignment(hpa, NAMES, [(features, torch.full_like(labels, 255))]) == {}


def test_angles_between_prototypes(hpa):
    angles, classes = prototype_angles(hpa)
    assert classes.tolist() == [0, 1, 3]
    expected = [[0, 90, 45], [90, 0, 45], [45, 45, 0]]
    torch.testing.assert_close(
        angles, torch.tensor(expected, dtype=torch.double), atol=1e-4, rtol=0
    )
    found = measure_geometry(hpa)
    assert found == pytest.approx(
        {"angle/mean": 60, "angle/nearest": 45, "angle/min": 45}, rel=1e-5
    )
    hpa.prototype_initialized[:2] = False
    assert measure_geometry(hpa) == {}
