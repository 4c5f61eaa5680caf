"""EnhancedCATSeg: the three losses, what they reach, and where AFR and HPA sit."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import META_ARCH_REGISTRY

from cat_seg import CATSeg, EnhancedCATSeg
from tests.tiny import CLASSES, EMBED_DIM, batch, image, tiny_model

HEAD = "MODEL.SEM_SEG_HEAD."
HYPER = "MODEL.HYPERSPHERICAL."
OFT = (f"{HEAD}CLIP_FINETUNE", "oft_both")
SMALL = (f"{HYPER}AFR_REDUCTION", 4)  # of 64 channels


def make(*overrides):
    return tiny_model("MODEL.META_ARCHITECTURE", "EnhancedCATSeg", *OFT, *SMALL, *overrides)


def record(module, seen):
    """Append (inputs, output) of every call of `module` to `seen`."""
    module.register_forward_hook(lambda m, inputs, output: seen.append((inputs, output)))


def test_registered_and_extends_catseg():
    assert META_ARCH_REGISTRY.get("EnhancedCATSeg") is EnhancedCATSeg
    assert issubclass(EnhancedCATSeg, CATSeg)


@pytest.mark.parametrize("weight", [0.1, 0.7])
def test_three_losses_each_weighted_once(weight):
    model = make(f"{HYPER}LOSS_WEIGHT", weight)
    raw_afr, raw_hpa, logits = [], [], []
    record(model.afr, raw_afr)
    record(model.hpa, raw_hpa)
    record(model.sem_seg_head.aggregator, logits)
    inputs = batch()
    losses = model(inputs)
    assert set(losses) == {"loss_sem_seg", "loss_hpa", "loss_afr"}
    labels = torch.stack([entry["sem_seg"] for entry in inputs])
    one_hot = torch.stack([(labels == c).float() for c in range(len(CLASSES))], dim=1)
    up = F.interpolate(logits[0][1], (64, 64), mode="bilinear", align_corners=False)
    bce = F.binary_cross_entropy_with_logits(up, one_hot)
    afr, hpa = raw_afr[0][1][1], raw_hpa[0][1]["alignment"]
    close = {"atol": 1e-7, "rtol": 1e-5}
    torch.testing.assert_close(losses["loss_sem_seg"], bce, **close)
    torch.testing.assert_close(losses["loss_afr"], weight * afr, **close)
    torch.testing.assert_close(losses["loss_hpa"], weight * 0.1 * hpa, **close)
    torch.testing.assert_close(sum(losses.values()), bce + weight * (afr + 0.1 * hpa), **close)
    assert afr > 0 and hpa > 0


@pytest.mark.parametrize(("hpa", "afr"), product([True, False], repeat=2))
def test_each_part_can_be_switched_off(hpa, afr):
    model = make(f"{HYPER}USE_HPA", hpa, f"{HYPER}USE_AFR", afr)
    losses = set(model(batch()))
    switched = {"loss_hpa": hpa, "loss_afr": afr}
    assert losses == {"loss_sem_seg", *(name for name, on in switched.items() if on)}
    names = {name.split(".")[0] for name in model.state_dict()}
    assert ("hpa" in names, "afr" in names) == (hpa, afr)


def test_without_both_it_is_catseg():
    bare = make(f"{HYPER}USE_HPA", False, f"{HYPER}USE_AFR", False)
    plain = tiny_model(*OFT)
    plain.load_state_dict(bare.state_dict())
    torch.testing.assert_close(bare(batch()), plain(batch()))


@pytest.mark.parametrize(
    ("hpa", "afr", "separation"),
    [(True, True, 0.5), *((hpa, afr, 0.0) for hpa, afr in product([True, False], repeat=2))],
)
def test_a_gradient_reaches_exactly_what_trains(hpa, afr, separation):
    switches = (f"{HYPER}USE_HPA", hpa, f"{HYPER}USE_AFR", afr)
    model = make(*switches, f"{HYPER}HPA_SEPARATION_WEIGHT", separation)
    sum(model(batch()).values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name
    if hpa:
        assert model.hpa.log_temperatures.requires_grad == (separation > 0)


ELSEWHERE = ["frozen", "attention", "full", "oft", "oft_qv", "hyperbolic"]
ELSEWHERE += ["hyperbolic_plus", "hyro", "lora"]
HYRO = ("MODEL.ADAPTER.HYRO.ROTATION_SIZE", 128)  # the tiny text tower is 128 wide


@pytest.mark.parametrize("fine_tuning", ELSEWHERE)
def test_a_gradient_reaches_what_trains_in_every_way_of_fine_tuning(fine_tuning):
    model = make(f"{HEAD}CLIP_FINETUNE", fine_tuning, *HYRO)
    sum(model(batch()).values()).backward()
    silent = [n for n, p in model.named_parameters() if p.requires_grad == (p.grad is None)]
    assert not silent


@pytest.mark.parametrize("loss", ["loss_afr", "loss_hpa"])
def test_the_auxiliary_losses_reach_the_adapters(loss):
    """The features, and through them OFT; HPA also reaches AFR, which its features come from."""
    model = make()
    model(batch())[loss].backward()
    assert model.sem_seg_head.clip.adapter.generators.grad.abs().sum() > 0
    assert model.afr.channel_gate[2].weight.grad.abs().sum() > 0
    assert model.sem_seg_head.aggregator.head.weight.grad is None


def test_a_batch_without_labels_still_reaches_everything():
    model = make()
    empty = [e | {"sem_seg": torch.full_like(e["sem_seg"], 255)} for e in batch()]
    losses = model(empty)
    sum(losses.values()).backward()
    assert losses["loss_hpa"] == 0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert torch.isfinite(parameter.grad).all(), name
    assert not model.hpa.prototype_initialized.any()


def test_afr_changes_the_guidance_but_not_the_cost_volume():
    model = make().eval()
    dense, guidance, afr = [], [], []
    record(model.sem_seg_head.clip.image, dense)
    record(model.sem_seg_head.aggregator, guidance)
    record(model.afr, afr)
    with torch.no_grad():
        model([{"image": image(64, 64)}])
    features = dense[0][1].dense_map()
    (rectified_input,), (rectified, _) = afr[0]
    cost, text, passed = guidance[0][0]
    torch.testing.assert_close(rectified_input, features)
    torch.testing.assert_close(passed.res3, rectified)
    assert not torch.allclose(rectified, features)
    plain = torch.einsum("bchw,btc->bthw", F.normalize(features, dim=1), text)
    torch.testing.assert_close(cost[:, :, 0], plain, atol=1e-6, rtol=1e-5)


def test_hpa_reads_the_rectified_features_and_the_labels():
    model = make()
    afr, hpa = [], []
    record(model.afr, afr)
    record(model.hpa, hpa)
    inputs = batch((40, 50), (64, 64))
    model(inputs)
    features, labels = hpa[0][0]
    torch.testing.assert_close(features, afr[0][1][0])
    assert labels.shape == (2, 64, 64)
    expected = F.pad(inputs[0]["sem_seg"], (0, 14, 0, 24), value=255)
    known = expected < len(CLASSES)
    assert torch.equal(labels[0][known], expected[known])
    assert not ((labels[0] >= 0) & (labels[0] < len(CLASSES)))[~known].any()


def test_the_ignored_value_gets_no_prototype():
    model = make(f"{HEAD}IGNORE_VALUE", 2)
    model(batch())
    assert model.hpa.prototype_initialized.tolist() == [True, True, False, True, True]


def test_prototypes_move_in_training_alone():
    model = make()
    model(batch())
    seen = model.hpa.prototype_initialized
    assert seen.any()
    norms = model.hpa.prototypes[seen].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-5, rtol=0)
    before = model.hpa.prototypes.clone()
    model.eval()
    with torch.no_grad():
        (found,) = model([{"image": image(20, 30)}])
    assert found["sem_seg"].shape == (len(CLASSES), 20, 30)
    assert torch.equal(model.hpa.prototypes, before)


@cache
def second_losses(*overrides):
    """The losses of a second step, when there are prototypes already."""
    model = make(*overrides)
    model(batch())
    return {name: loss.item() for name, loss in model(batch(seed=5)).items()}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("HPA_MOMENTUM", 0.5),
        ("HPA_SEPARATION_WEIGHT", 0.5),
        ("LOSS_WEIGHT", 0.2),
        ("AFR_REDUCTION", 8),
        ("AFR_BIAS_INIT", 0.0),
        ("GEODESIC_CORRELATION", True),
        ("USE_HPA", False),
        ("USE_AFR", False),
    ],
)
def test_every_key_changes_the_second_step(key, value):
    assert second_losses(f"{HYPER}{key}", value) != second_losses()


def test_the_temperature_changes_the_separation_loss():
    def loss(temperature):
        keys = (f"{HYPER}HPA_SEPARATION_WEIGHT", 1.0, f"{HYPER}HPA_TEMPERATURE", temperature)
        return make(*keys)(batch())["loss_hpa_separation"].item()

    assert loss(0.07) != pytest.approx(loss(0.2))


def test_prototypes_have_clips_channels_and_the_training_classes():
    model = make()
    assert model.hpa.prototypes.shape == (len(CLASSES), EMBED_DIM)
    model.set_vocabulary(["tree"])
    assert model.hpa.prototypes.shape == (len(CLASSES), EMBED_DIM)


def test_bfloat16_training_is_close_to_float32():
    expected = make()(batch())
    model = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(batch())
    for name, loss in losses.items():
        torch.testing.assert_close(loss.float(), expected[name], atol=1e-4, rtol=0.03)
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert torch.isfinite(parameter.grad).all(), name
    norms = model.hpa.prototypes[model.hpa.prototype_initialized].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-5, rtol=0)


def test_nothing_but_hpa_and_afr_is_added():
    added = make().state_dict().keys() - tiny_model(*OFT).state_dict().keys()
    assert {name.split(".")[0] for name in added} == {"hpa", "afr"}
