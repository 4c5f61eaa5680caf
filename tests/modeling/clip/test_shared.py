"""A shared tensor back-propagates once, with the gradients of all its uses."""

from __future__ import annotations

import pytest
import torch

from cat_seg.modeling.clip.shared import SharedTensor


class Doubled(torch.autograd.Function):
    """2 x, and how often its backward pass ran."""

    runs = 0

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        Doubled.runs += 1
        return 2 * gradient


@pytest.mark.parametrize("uses", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_last_use_goes_on_with_the_gradients_of_all(uses, dtype, monkeypatch):
    monkeypatch.setattr(Doubled, "runs", 0)
    x = torch.tensor([1.0, 3.0], dtype=dtype, requires_grad=True)
    shared = SharedTensor(Doubled.apply(x), uses)
    for use in range(1, uses + 1):
        taken = shared.take()
        assert taken.dtype == dtype
        assert taken.tolist() == [2.0, 6.0]
        assert x.grad is None
        (use * taken).sum().backward()
    assert x.grad.tolist() == [2.0 * sum(range(1, uses + 1))] * 2
    assert Doubled.runs == 1


def test_small_gradients_are_not_lost_in_a_short_type():
    """Summed up in bfloat16, ones stop at 256."""
    x = torch.ones(1, dtype=torch.bfloat16, requires_grad=True)
    shared = SharedTensor(x * 1, 512)
    for _ in range(512):
        shared.take().sum().backward()
    assert x.grad.item() == 512


def test_what_does_not_train_is_shared_as_it_is():
    shared = SharedTensor(torch.ones(2), 2)
    assert not shared.take().requires_grad
    assert not shared.take().requires_grad


def test_it_is_taken_as_often_as_it_is_shared():
    shared = SharedTensor(torch.ones(2), 1)
    shared.take()
    with pytest.raises(RuntimeError, match="more often than"):
        shared.take()
