"""Running reductions of class probabilities against the same on all maps at once."""

from __future__ import annotations

import math

import pytest
import torch

from cat_seg.modeling.reduction import Argmax, Groups, Probabilities, Scores, reduced


def run(reducer, maps, sizes):
    reduction = reducer(len(maps))
    for part in maps.split(sizes, dim=0):
        reduction.add(part)
    return reduction.result()


def random_maps(classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    # Few distinct values, so that ties are common.
    return torch.randint(0, 9, (classes, 13, 17), generator=generator) / 8


SPLITS = [[7], [1] * 7, [3, 4], [1, 5, 1], [6, 1]]


@pytest.mark.parametrize("sizes", SPLITS)
def test_argmax_is_that_of_all_maps(sizes):
    maps = random_maps(7)
    winners = run(Argmax, maps, sizes)
    assert torch.equal(winners.labels, maps.argmax(dim=0))
    assert torch.equal(winners.confidence, maps.amax(dim=0))


@pytest.mark.parametrize("sizes", SPLITS)
def test_a_nan_in_any_class_shows_in_the_confidence(sizes):
    maps = random_maps(7)
    maps[4, 2, 3] = maps[1, 5, 6] = maps[6, 5, 6] = torch.nan
    assert torch.equal(run(Argmax, maps, sizes).confidence.isnan(), maps.isnan().any(dim=0))


@pytest.mark.parametrize("sizes", SPLITS)
def test_probabilities_are_kept_in_order(sizes):
    maps = random_maps(7).requires_grad_()
    with torch.no_grad():
        assert torch.equal(run(Probabilities, maps, sizes), maps)
    found = run(Probabilities, maps, sizes)
    assert torch.equal(torch.autograd.grad(found.square().sum() / 2, maps)[0], maps)


@pytest.mark.parametrize("sizes", SPLITS)
def test_scores_are_those_of_all_maps(sizes):
    maps = random_maps(7)
    maps[:, 0, 0] = 0
    found = run(Scores, maps, sizes)
    first, second = maps.topk(2, dim=0).values
    assert torch.equal(found.labels, maps.argmax(dim=0))
    assert torch.equal(found.confidence, first)
    assert torch.equal(found.margin, first - second)
    shares = maps / maps.sum(dim=0)
    expected = torch.special.entr(shares).sum(dim=0) / math.log(7)
    expected[0, 0] = 1  # nothing is known about a pixel whose probabilities are all zero
    torch.testing.assert_close(found.entropy, expected)


def test_entropy_is_one_for_equal_classes_and_zero_for_a_single_one():
    equal = reduced(torch.full((5, 2, 2), 0.3), Scores)
    torch.testing.assert_close(equal.entropy, torch.ones(2, 2))
    certain = reduced(torch.eye(5)[:, :, None], Scores)
    torch.testing.assert_close(certain.entropy, torch.zeros(5, 1))


def test_the_margin_of_one_class_is_its_probability():
    found = reduced(torch.full((1, 2, 2), 0.25), Scores)
    torch.testing.assert_close(found.margin, torch.full((2, 2), 0.25))
    torch.testing.assert_close(found.entropy, torch.zeros(2, 2))
    assert found.labels.unique().tolist() == [0]


def test_scores_of_half_precision_are_float32():
    found = reduced(random_maps(3).half(), Scores)
    assert found.confidence.dtype == found.margin.dtype == found.entropy.dtype == torch.float32


@pytest.mark.parametrize("sizes", SPLITS)
@pytest.mark.parametrize("groups", [[1] * 7, [2, 1, 4], [7], [1, 6], [3, 3, 1]])
def test_groups_have_the_highest_map_of_their_names(groups, sizes):
    maps = random_maps(7)
    merged = torch.stack([part.amax(dim=0) for part in maps.split(groups)])
    found = run(lambda names: Groups(groups, Scores), maps, sizes)
    for one, other in zip(found, reduced(merged, Scores), strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(found.labels, merged.argmax(dim=0))
