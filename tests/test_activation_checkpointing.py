"""MODEL.ACTIVATION_CHECKPOINTING: the same step, with fewer activations kept."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch

from tests.tiny import CLASSES, image, tiny_model


def step(model):
    """The losses and gradients of a step, and the bytes that autograd kept of the aggregator."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(0)
    labels = torch.randint(0, len(CLASSES), (64, 64))
    aggregator, counting = model.sem_seg_head.aggregator, ExitStack()
    saved = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    aggregator.register_forward_pre_hook(lambda *_: counting.enter_context(saved))
    aggregator.register_forward_hook(lambda *_: counting.close())
    losses = model([{"image": image(64, 64), "sem_seg": labels}])
    sum(losses.values()).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return losses, gradients, sum(kept.values())


@pytest.mark.parametrize("base", ["configs/vitb_384.yaml", "configs/vitb_384_enhanced.yaml"])
def test_the_step_is_the_same_and_keeps_less(base):
    (losses, gradients, kept), (lean_losses, lean_gradients, lean) = (
        step(tiny_model("MODEL.ACTIVATION_CHECKPOINTING", on, base=base)) for on in (False, True)
    )
    torch.testing.assert_close(lean_losses, losses)
    torch.testing.assert_close(lean_gradients, gradients)
    assert lean < 0.2 * kept
