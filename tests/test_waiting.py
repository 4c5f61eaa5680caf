"""A training step never waits for its device: all systems, forward and backward."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.published import MODELS
from tests.tiny import batch, tiny_model

# Operations whose result, or its shape, the host has to know before it can go on.
WAITING = {
    *("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select"),
    *("_unique2", "unique_dim", "unique_consecutive", "_linalg_check_errors"),
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}  # as nonzero, with a mask
HYPER = "MODEL.HYPERSPHERICAL."
SEPARATED = (*MODELS["HPS-Seg"], f"{HYPER}HPA_SEPARATION_WEIGHT", 0.5)
SYSTEMS = {
    **MODELS,
    "HPA's separation, geodesic": (*SEPARATED, f"{HYPER}GEODESIC_CORRELATION", True),
}


class Watch(TorchDispatchMode):
    """Refuses operations that wait, and counts tensors that change device."""

    def __init__(self):
        super().__init__()
        self.moved = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        masks = name in INDEXING and any(t.dtype == torch.bool for t in tensors[1:])
        assert name not in WAITING and not masks, f"{name} waits for the device"
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and tensors and name in ("_to_copy", "copy_"):
            devices = tensors[-1].device.type, result.device.type
            if len(set(devices)) > 1:
                self.moved["{} to {}".format(*devices)] += 1
        return result


def step(model, inputs):
    with Watch() as watch:
        sum(model(inputs).values()).backward()
    return watch.moved


@pytest.mark.parametrize("system", SYSTEMS)
def test_nothing_in_a_step_waits(system):
    model = tiny_model(*SYSTEMS[system])
    model(batch())  # prepares the prompts, once
    assert not step(model, batch())


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_step_moves_its_inputs_alone(system, monkeypatch):
    """On the meta device, where a value that the host asked for would not exist."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # has no meta device
    model = tiny_model(*SYSTEMS[system]).to("meta")
    model(batch())  # moves the prompts, once
    assert step(model, batch()) == {"cpu to meta": 4}  # two images and their labels
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
