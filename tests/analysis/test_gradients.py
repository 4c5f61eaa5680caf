"""Gradients by loss and part, against backward passes of the losses one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cat_seg.analysis.gradients import ADAPTED, ALL, OTHER, measure_gradients, trained_parts
from tests.tiny import batch, tiny_model

HYPER, HEAD = "MODEL.HYPERSPHERICAL.", "MODEL.SEM_SEG_HEAD."
ENHANCED = ("MODEL.META_ARCHITECTURE", "EnhancedCATSeg")
OFT = (f"{HEAD}CLIP_FINETUNE", "oft_both")
SEPARATION = (f"{HYPER}HPA_SEPARATION_WEIGHT", 0.5)
HPA_ALONE = (f"{HYPER}USE_AFR", False)
PLAIN = {"image_tower", "text_tower", "aggregator", ALL}


def norm(tensors):
    return nn.utils.get_total_norm([t for t in tensors if t is not None]).item()


def norms_of(measured):
    return {key.removesuffix("/norm"): v for key, v in measured.items() if key.endswith("/norm")}


def test_norms_are_those_of_each_loss_alone():
    settings = (*ENHANCED, *OFT, *SEPARATION)
    found = norms_of(measure_gradients(tiny_model(*settings), batch()))
    expected = {}
    for loss in ("loss_sem_seg", "loss_afr", "loss_hpa", "loss_hpa_separation"):
        model = tiny_model(*settings)
        model(batch())[loss].backward()
        parts = trained_parts(model)
        parts[ALL] = [p for own in parts.values() for p in own]
        for part, own in parts.items():
            if any(p.grad is not None for p in own):
                key = f"{loss.removeprefix('loss_')}/{part}"
                expected[key] = norm([p.grad for p in own])
    adapted = {key for key in found if key.endswith("_attention")}
    assert found.keys() - adapted == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-4, abs=1e-12), key
    parts = {key.split("/")[1] for key in expected}
    assert parts == {"adapter", "aggregator", "afr", "hpa", ALL}
    assert "hpa/aggregator" not in expected  # it reaches the guidance, not the aggregator


@pytest.mark.parametrize("switch", ["USE_HPA", "USE_AFR"])
def test_the_gradient_of_the_total_is_the_sum_of_the_terms(switch):
    settings = (*ENHANCED, *OFT, f"{HYPER}{switch}", False)
    measured = measure_gradients(tiny_model(*settings), batch())
    (other,) = {key.split("/")[0] for key in measured} - {"sem_seg"}
    model = tiny_model(*settings)
    sum(model(batch()).values()).backward()
    parts = trained_parts(model)
    parts[ALL] = [p for own in parts.values() for p in own]
    compared = 0
    for part, own in parts.items():
        one, two = (measured.get(f"{loss}/{part}/norm", 0.0) for loss in ("sem_seg", other))
        mixed = 2 * one * two * measured.get(f"{other}/{part}/cosine", 0.0)
        total = norm([p.grad for p in own])
        assert total**2 == pytest.approx(one**2 + two**2 + mixed, rel=1e-4), part
        compared += one * two > 0
    assert compared >= 2


def test_attention_weights_of_each_tower_that_an_adapter_computes():
    settings = (*ENHANCED, *OFT, *HPA_ALONE)
    found = norms_of(measure_gradients(tiny_model(*settings), batch()))
    model = tiny_model(*settings)
    weights = {}

    def cut(adapter, inputs, towers):
        leaves = towers._make(
            [w._make(t.detach().requires_grad_() for t in w) for w in tower] for tower in towers
        )
        weights.update(leaves._asdict())
        return leaves

    model.sem_seg_head.clip.adapter.register_forward_hook(cut)
    losses = model(batch())
    for loss in ("loss_hpa", "loss_sem_seg"):
        for tower, part in ADAPTED.items():
            tensors = [t for block in weights[tower] for t in block]
            grads = torch.autograd.grad(losses[loss], tensors, retain_graph=True, allow_unused=True)
            key = f"{loss.removeprefix('loss_')}/{part}"
            if loss == "loss_hpa" and tower == "text":
                assert key not in found  # it sees no class names
            else:
                assert found[key] == pytest.approx(norm(grads), rel=1e-4)


def test_without_an_adapter_the_towers_are_parts():
    measured = measure_gradients(tiny_model(), batch())
    assert {key.split("/")[1] for key in measured} == PLAIN
    assert all(key.startswith("sem_seg/") and key.endswith("/norm") for key in measured)
    assert all(value > 0 for value in measured.values())


def test_every_parameter_is_in_one_part():
    model = tiny_model(*ENHANCED, *OFT, *SEPARATION)
    parts = trained_parts(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(len(own) for own in parts.values()) == len(trained)
    assert OTHER not in parts
    model.extra = nn.Linear(1, 1)
    assert len(trained_parts(model)[OTHER]) == 2


def test_no_gradient_is_touched():
    model = tiny_model(*ENHANCED, *OFT)
    kept = torch.ones(())
    model.afr.mix_weight.grad = kept.expand_as(model.afr.mix_weight)
    measure_gradients(model, batch())
    given = [name for name, p in model.named_parameters() if p.grad is not None]
    assert given == ["afr.mix_weight"] and model.afr.mix_weight.grad.item() == 1


def test_scale_recomputation_and_half_precision_change_little():
    settings = (*ENHANCED, *OFT)
    expected = measure_gradients(tiny_model(*settings), batch())
    scaled = measure_gradients(tiny_model(*settings), batch(), scale=1024.0)
    recomputing = tiny_model(*settings, "MODEL.ACTIVATION_CHECKPOINTING", True)
    recomputed = measure_gradients(recomputing, batch())
    assert scaled == pytest.approx(expected, rel=1e-4)
    assert recomputed == pytest.approx(expected, rel=1e-4)
    half = torch.autocast("cpu", dtype=torch.bfloat16)
    rough = norms_of(measure_gradients(tiny_model(*settings), batch(), half))
    assert rough == pytest.approx(norms_of(expected), rel=0.2)


def test_names_of_losses_and_models_of_others():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([3.0, 4.0]))
            self.frozen = nn.Parameter(torch.zeros(1), requires_grad=False)

        def forward(self, inputs):
            return {
                "loss_sem_seg": self.weight.sum(),
                "ratio": self.weight.square().sum() / 2,
                "nothing": self.frozen.sum(),
            }

    measured = measure_gradients(Other(), [])
    cosine = 7 / (5 * 2**0.5)
    expected = {"ratio/other/norm": 5.0, "ratio/other/cosine": cosine, "sem_seg/other/norm": 2**0.5}
    expected |= {key.replace(OTHER, ALL): value for key, value in expected.items()}
    assert measured == pytest.approx(expected)
