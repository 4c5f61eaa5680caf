"""Winner, confidence, margin and entropy of probabilities."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import entropy

from cat_seg.inference.scores import score


def each(classes: int) -> list[tuple[int, ...]]:
    return [(index,) for index in range(classes)]


def test_scores_are_what_they_are_defined_as():
    maps = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(0))
    found = score(maps, each(5), (3, 4))
    top = maps.topk(2, dim=0)
    assert torch.equal(found.winner, top.indices[0])
    assert torch.equal(found.confidence, top.values[0])
    torch.testing.assert_close(found.margin, top.values[0] - top.values[1])
    expected = torch.from_numpy(entropy(maps.double().numpy(), axis=0, base=5)).float()
    torch.testing.assert_close(found.entropy, expected, atol=1e-6, rtol=0)
    assert found.winner.dtype == torch.int64 and found.entropy.dtype == torch.float32


def test_a_group_has_the_probability_of_its_best_name():
    maps = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(0))
    found = score(maps, [(0, 3), (1,), (2, 4)], (3, 4))
    merged = torch.stack([maps[[0, 3]].amax(0), maps[1], maps[[2, 4]].amax(0)])
    expected = score(merged, each(3), (3, 4))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_one_class_has_its_probability_as_margin():
    maps = torch.tensor([[[0.25, 0.0]]])
    found = score(maps, each(1), (1, 2))
    assert found.margin.tolist() == found.confidence.tolist() == [[0.25, 0.0]]
    assert found.entropy.tolist() == [[0.0, 0.0]]


def test_entropy_at_its_ends():
    maps = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.5, 0.0]])[:, None]
    found = score(maps, each(2), (1, 3))
    assert found.entropy[0].tolist() == pytest.approx([0, 1, 1], abs=1e-6)
    assert found.winner[0].tolist() == [0, 0, 0]


def test_smaller_maps_are_enlarged():
    maps = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    enlarged = F.interpolate(maps[None], (9, 11), mode="bilinear", align_corners=False)[0]
    found, expected = score(maps, each(3), (9, 11)), score(enlarged, each(3), (9, 11))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
