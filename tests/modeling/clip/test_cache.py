"""When a kept result is given again, and when it is computed anew."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cat_seg.modeling.clip.cache import ParameterCache


class Counted:
    """A sum of parameters that counts how often it is computed."""

    def __init__(self):
        self.parameters = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
        self.cache = ParameterCache()
        self.calls = 0

    def compute(self):
        self.calls += 1
        return sum(p.sum() for p in self.parameters)

    def get(self, request=None):
        return self.cache.get(request, self.parameters, self.compute)


@pytest.fixture
def counted():
    return Counted()


def test_kept_while_nothing_changes(counted):
    with torch.no_grad():
        assert counted.get().item() == counted.get().item() == 5
    assert counted.calls == 1


def test_another_request_is_computed(counted):
    with torch.no_grad():
        for request in ("a", "a", "b", "b", "a"):
            counted.get(request)
    assert counted.calls == 3


@pytest.mark.parametrize("index", [0, 1])
def test_a_change_in_place_is_noticed(counted, index):
    with torch.no_grad():
        counted.get()
        counted.parameters[index].add_(1)
        assert counted.get().item() == 5 + counted.parameters[index].numel()


def test_an_optimizer_step_is_noticed(counted):
    with torch.no_grad():
        before = counted.get().item()
    counted.compute().backward()
    torch.optim.AdamW(counted.parameters, lr=0.1).step()
    with torch.no_grad():
        assert counted.get().item() == pytest.approx(counted.compute().item())
        assert counted.get().item() != before


def test_a_replaced_parameter_is_noticed(counted):
    with torch.no_grad():
        counted.get()
        counted.parameters[0] = nn.Parameter(torch.full((2,), 7.0))
        assert counted.get().item() == 17


def test_cleared(counted):
    with torch.no_grad():
        counted.get()
        counted.cache.clear()
        counted.get()
    assert counted.calls == 2


def test_nothing_is_kept_where_a_gradient_is_needed(counted):
    first, second = counted.get(), counted.get()
    assert counted.calls == 2
    first.backward()
    second.backward()
    with torch.no_grad():
        counted.get()
    assert counted.get().requires_grad


def test_frozen_parameters_are_kept_with_gradients_enabled_too(counted):
    for parameter in counted.parameters:
        parameter.requires_grad_(False)
    counted.get()
    counted.get()
    assert counted.calls == 1


def test_an_inference_tensor_never_reaches_autograd(counted):
    for parameter in counted.parameters:
        parameter.requires_grad_(False)
    with torch.inference_mode():
        counted.get()
    weight = torch.ones((), requires_grad=True)
    (weight * counted.get()).backward()  # an inference tensor could not be saved for this
    assert weight.grad.item() == 5


def test_precisions_are_kept_apart(counted):
    with torch.no_grad():
        counted.get()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            counted.get()
        counted.get()
    assert counted.calls == 3
