"""HyRo against its formula written row by row, and against HyperCLIP."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from cat_seg.checkpoint import load_into
from cat_seg.errors import UserError
from cat_seg.modeling.clip.adapters import (
    HyperbolicAdapter,
    HyperbolicSettings,
    HyRoAdapter,
    HyRoSettings,
    TowerWeights,
)
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.utils.paths import REPO_ROOT
from tests.modeling.clip.adapters.formulas import frozen_weights, on_the_ball
from tests.published import HEAD, MODELS
from tests.tiny import answer, batch, image, shake, tiny_model, write_clip

SETTINGS = HyRoSettings(block_size=64, rotation_size=128)
HYRO = "MODEL.ADAPTER.HYRO."
CURVATURES = {"text": 1.0, "image": 0.01}


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    return Architecture.from_name(str(write_clip(tmp_path_factory.mktemp("clip"))))


@pytest.fixture
def adapter(architecture):
    made = HyRoAdapter(architecture, SETTINGS)
    shake(made, 0.02)
    return made


@pytest.fixture(scope="module")
def frozen(architecture):
    return frozen_weights(architecture)


@pytest.mark.parametrize("tower", CURVATURES)
@torch.no_grad()
def test_effective_weights_follow_the_formula(adapter, frozen, tower):
    scaling, rotation = getattr(adapter, f"scaling_{tower}"), getattr(adapter, f"rotation_{tower}")
    effective, own = getattr(adapter(frozen), tower), getattr(frozen, tower)
    for layer, (found, weights) in enumerate(zip(effective, own, strict=True)):
        assert found.out is weights.out
        for projection in range(3):
            t = torch.block_diag(*rotation[layer, projection]).double()
            eye = torch.eye(len(t)).double()
            q = torch.linalg.inv(eye - (t - t.T)) @ (eye + (t - t.T))
            assert_close(q @ q.T, eye)
            m = torch.block_diag(*scaling[layer, projection]).double()
            expected = on_the_ball(weights[projection], m, CURVATURES[tower], rotation=q)
            assert_close(found[projection], expected, atol=1e-5, rtol=1e-4)
            assert not torch.allclose(found[projection], weights[projection], atol=1e-2)


@torch.no_grad()
def test_it_starts_where_hyper_clip_starts(architecture, frozen):
    start = HyRoAdapter(architecture, SETTINGS)
    hyper_clip = HyperbolicAdapter(architecture, HyperbolicSettings(block_size=64))
    for found, expected in zip(start(frozen), hyper_clip(frozen), strict=True):
        assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_gradient_reaches_every_matrix_and_is_skew_in_the_rotation(adapter, frozen):
    towers = adapter(frozen)
    sum(w.sin().sum() for tower in towers for weights in tower for w in weights[:3]).backward()
    for name, parameter in adapter.named_parameters():
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad.abs().sum(dim=(-2, -1)) > 0).all(), name
    gradient = adapter.rotation_image.grad
    assert_close(gradient, -gradient.mT, rtol=1e-4, atol=1e-5 * gradient.abs().max().item())


def test_precision_is_float32_under_autocast(adapter, frozen):
    expected = adapter(frozen)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = adapter(frozen)
    assert torch.equal(found.text[0].query, expected.text[0].query)


def test_weights_of_zeros_train(adapter, frozen):
    zeros = TowerWeights(*([w._make(torch.zeros_like(p) for p in w) for w in t] for t in frozen))
    values = [w for tower in adapter(zeros) for weights in tower for w in weights[:3]]
    sum(value.sin().sum() for value in values).backward()
    assert not any(value.any() for value in values)
    assert all(torch.isfinite(parameter.grad).all() for parameter in adapter.parameters())


@pytest.mark.parametrize(("clip", "count"), [("ViT-B/16", 17_694_720), ("ViT-L/14", 38_928_384)])
def test_the_published_number_of_parameters(clip, count):
    with torch.device("meta"):
        adapter = HyRoAdapter(Architecture.from_name(clip), HyRoSettings())
    assert sum(p.numel() for p in adapter.parameters() if p.requires_grad) == count


# In the model


def test_the_settings_come_from_the_config():
    keys = ("TEXT_CURVATURE", 0.5, "IMAGE_CURVATURE", 2.0, "BLOCK_SIZE", 32, "ROTATION_SIZE", 64)
    overrides = [f"{HYRO}{key}" if isinstance(key, str) else key for key in keys]
    adapter = tiny_model(f"{HEAD}CLIP_FINETUNE", "hyro", *overrides).sem_seg_head.clip.adapter
    assert adapter.settings == HyRoSettings(0.5, 2.0, 32, 64)
    assert adapter.rotation_text.shape == (2, 3, 2, 64, 64)


def test_hps_seg_on_hyro_trains_and_loads_again():
    config = str(REPO_ROOT / "configs" / "vitb_384_hyro.yaml")
    keys = ("MODEL.META_ARCHITECTURE", "EnhancedCATSeg", "MODEL.HYPERSPHERICAL.AFR_REDUCTION", 4)
    options = (*MODELS["HyRo"], *keys)
    model = tiny_model(*options, base=config)
    losses = model(batch())
    assert set(losses) == {"loss_sem_seg", "loss_hpa", "loss_afr"}
    sum(losses.values()).backward()
    for parameter in model.sem_seg_head.clip.adapter.parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any()
    other = tiny_model(*options, base=config)
    with torch.no_grad():
        model.sem_seg_head.clip.adapter.rotation_text.add_(0.1)
    assert load_into(other, model.state_dict()) == ("ours", [], [])
    inputs = {"image": image(64, 64)}
    assert_close(answer(other, inputs), answer(model, inputs))


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("ROTATION_SIZE", 256, "divide the width 128 of the text tower .* is 256"),
        ("ROTATION_SIZE", 0, "positive number .* is 0"),
        ("BLOCK_SIZE", 96, "divide the width 128 .* is 96"),
        ("TEXT_CURVATURE", -1.0, "positive number"),
    ],
)
def test_a_bad_setting_is_one_line(key, value, complaint):
    with pytest.raises(UserError, match=rf"MODEL\.ADAPTER\.HYRO\.{key}: .*{complaint}") as error:
        tiny_model(*MODELS["HyRo"], f"{HYRO}{key}", value)
    assert "\n" not in str(error.value)
