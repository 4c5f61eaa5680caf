"""The cost volume, and the choice of classes for the aggregator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from cat_seg.modeling.aggregator import cost_volume, scatter_logits, select_classes


def test_cosine_of_every_patch_and_prompt():
    torch.manual_seed(0)
    features = 5 * torch.randn(2, 8, 3, 4)
    text = F.normalize(torch.randn(5, 2, 8), dim=-1)
    cost = cost_volume(features, text)
    assert cost.shape == (2, 5, 2, 3, 4)
    for b, t, p, i, j in [(0, 0, 0, 0, 0), (1, 4, 1, 2, 3), (1, 2, 0, 1, 1)]:
        expected = F.cosine_similarity(features[b, :, i, j], text[t, p], dim=0)
        torch.testing.assert_close(cost[b, t, p, i, j], expected, atol=1e-6, rtol=1e-5)


def test_geodesic_similarity_takes_the_place_of_the_cosine():
    torch.manual_seed(0)
    features = torch.randn(1, 8, 3, 4)
    text = F.normalize(torch.randn(5, 1, 8), dim=-1)
    cosine = cost_volume(features, text)
    expected = 1 - torch.arccos(cosine) / math.pi
    geodesic = cost_volume(features, text, geodesic=True)
    torch.testing.assert_close(geodesic, expected, atol=1e-6, rtol=1e-5)


def test_classes_with_the_highest_maximum_go_on_per_image():
    torch.manual_seed(0)
    cost = torch.randn(3, 9, 2, 4, 5)
    selected = select_classes(cost, 4)
    for b in range(3):
        best = {t: max(cost[b, t].flatten().tolist()) for t in range(9)}
        wanted = sorted(sorted(best, key=best.get, reverse=True)[:4])
        assert selected[b].tolist() == wanted


def test_one_peak_in_one_template_selects_a_class():
    cost = torch.zeros(1, 5, 2, 3, 3)
    cost[0, :4] += 0.1
    cost[0, 4, 1, 2, 0] = 0.5  # the mean of class 4 is the lowest
    assert 4 in select_classes(cost, 2)[0].tolist()


def test_classes_left_out_get_minus_100():
    torch.manual_seed(0)
    selected = torch.tensor([[0, 3], [1, 2]])
    logits = torch.randn(2, 2, 4, 4)
    full = scatter_logits(logits, selected, 5)
    assert full.shape == (2, 5, 4, 4)
    for b in range(2):
        for t in range(5):
            chosen = selected[b].tolist()
            if t in chosen:
                assert torch.equal(full[b, t], logits[b, chosen.index(t)])
            else:
                assert (full[b, t] == -100).all()


def test_gradient_flows_to_the_selected_logits():
    logits = torch.randn(1, 2, 2, 2, requires_grad=True)
    scatter_logits(logits, torch.tensor([[1, 2]]), 4).sum().backward()
    assert torch.equal(logits.grad, torch.ones_like(logits))
