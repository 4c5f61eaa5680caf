"""Fine-tuning in hyperbolic space against the formula written with full matrices."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from cat_seg.checkpoint import load_into
from cat_seg.errors import UserError
from cat_seg.modeling.clip.adapters import HyperbolicAdapter, HyperbolicSettings, TowerWeights
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.image_tower import ImageTower
from cat_seg.modeling.clip.text_tower import TextTower
from cat_seg.modeling.clip.transformer import AttentionWeights
from cat_seg.utils.paths import REPO_ROOT
from tests.modeling.clip.adapters.formulas import frozen_weights, on_the_ball
from tests.published import HEAD, MODELS, PREDICTOR, published
from tests.tiny import answer, batch, image, shake, tiny_model, write_clip

SIDE = 64
SETTINGS = HyperbolicSettings(text_curvature=1.0, image_curvature=0.01, block_size=SIDE)
HYPERBOLIC = MODELS["HyperCLIP"]
ENHANCED = str(REPO_ROOT / "configs" / "vitb_384_hyperbolic_enhanced.yaml")
LAST = {"text": math.atanh(0.999) / 1.0, "image": math.atanh(0.999) / 0.1}


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    return Architecture.from_name(str(write_clip(tmp_path_factory.mktemp("clip"))))


@pytest.fixture
def adapter(architecture):
    made = HyperbolicAdapter(architecture, SETTINGS)
    shake(made, 0.05)
    return made


@pytest.fixture(scope="module")
def frozen(architecture):
    return frozen_weights(architecture)


def scaled(tower, size):
    return [AttentionWeights(*(size * part for part in weights)) for weights in tower]


@pytest.mark.parametrize(("tower", "c"), [("text", 1.0), ("image", 0.01)])
@torch.no_grad()
def test_effective_weights_follow_the_formula(adapter, frozen, tower, c):
    effective, own = getattr(adapter(frozen), tower), getattr(frozen, tower)
    assert len(effective) == len(own)
    for layer, (found, weights) in enumerate(zip(effective, own, strict=True)):
        for projection in range(3):  # query, key, value
            blocks = getattr(adapter, tower)[layer, projection]
            expected = on_the_ball(weights[projection], torch.block_diag(*blocks), c)
            assert_close(found[projection], expected, atol=1e-5, rtol=1e-4)
            assert not torch.allclose(found[projection], weights[projection], atol=1e-2)


@torch.no_grad()
def test_output_projections_are_not_adapted(adapter, frozen):
    for tower in ("text", "image"):
        for found, own in zip(getattr(adapter(frozen), tower), getattr(frozen, tower), strict=True):
            assert found.out is own.out


@pytest.mark.parametrize("tower", ["text", "image"])
@torch.no_grad()
def test_start_is_the_identity_up_to_the_rim_of_the_ball(architecture, frozen, tower):
    """Rows shorter than artanh(0.999) / sqrt(c), 3.8 and 38, pass; longer ones get that length."""
    start = HyperbolicAdapter(architecture, SETTINGS)
    own = getattr(frozen, tower)
    for size in (1e-3, 1.0, 0.9 * LAST[tower]):
        sized = scaled(own, size)
        effective = getattr(start(frozen._replace(**{tower: sized})), tower)
        for found, weights in zip(effective, sized, strict=True):
            lengths = weights.query.norm(dim=1, keepdim=True)
            short = (lengths < 0.999 * LAST[tower])[:, 0]
            assert short.any()
            # The logarithms in artanh round at 6e-8, which weighs on short rows. Near the rim
            # artanh amplifies the rounding of its argument.
            bound = 1e-6 if size <= 1 else 1e-3
            assert_close(
                found.query[short], weights.query[short], rtol=bound, atol=bound * max(size, 1)
            )
    long = scaled(own, 10 * LAST[tower])
    found = getattr(start(frozen._replace(**{tower: long})), tower)[0].query
    lengths = long[0].query.norm(dim=1, keepdim=True)
    assert_close(found, long[0].query / lengths * LAST[tower], rtol=1e-3, atol=1e-4)


def test_start_values(architecture):
    start = HyperbolicAdapter(architecture, SETTINGS)
    assert start.text.shape == (2, 3, 2, SIDE, SIDE)
    assert start.image.shape == (3, 3, 4, SIDE, SIDE)
    for parameter in start.parameters():
        assert parameter.requires_grad
        assert_close(parameter.data, torch.eye(SIDE).expand_as(parameter), rtol=0, atol=0)


def test_every_matrix_acts_on_its_own_weight(adapter, frozen):
    before = adapter(frozen).image
    with torch.no_grad():
        adapter.image[1, 2, 3] += 0.1  # block 1, value, the last 64 channels
    after = adapter(frozen).image
    for layer, (one, other) in enumerate(zip(before, after, strict=True)):
        changed = [not torch.equal(a, b) for a, b in zip(one, other, strict=True)]
        assert changed == ([False, False, True, False] if layer == 1 else [False] * 4)


def test_gradient_reaches_every_matrix_and_is_finite(adapter, frozen):
    effective = adapter(frozen)
    sum(w.sin().sum() for tower in effective for weights in tower for w in weights[:3]).backward()
    for parameter in adapter.parameters():
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad.abs().sum(dim=(-2, -1)) > 0).all()


@pytest.mark.parametrize("size", [0.0, 1e-6, 1e3])
def test_weights_of_any_size_train(adapter, frozen, size):
    effective = adapter(TowerWeights(*(scaled(tower, size) for tower in frozen)))
    values = [w for tower in effective for weights in tower for w in weights[:3]]
    sum(value.sin().sum() for value in values).backward()
    for value in (*values, adapter.text.grad, adapter.image.grad):
        assert torch.isfinite(value).all()


def test_precision_is_float32_under_autocast(adapter, frozen):
    expected = adapter(frozen)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = adapter(frozen)
    assert torch.equal(found.text[0].query, expected.text[0].query)


def test_vit_b_16_trains_5898240_parameters():
    with torch.device("meta"):
        adapter = HyperbolicAdapter(Architecture.from_name("ViT-B/16"), HyperbolicSettings())
    assert adapter.text.shape == (12, 3, 4, 128, 128)
    assert adapter.image.shape == (12, 3, 6, 128, 128)
    assert sum(p.numel() for p in adapter.parameters() if p.requires_grad) == 5_898_240


def test_the_documented_share_of_vit_b_16():
    """docs/hyperclip.md and the log of a run count the adapters in CLIP's parameters."""
    architecture = Architecture.from_name("ViT-B/16")
    with torch.device("meta"):
        adapter = HyperbolicAdapter(architecture, HyperbolicSettings())
        clip = (TextTower(architecture), ImageTower(architecture, (24, 24)), adapter)
    total = sum(p.numel() for module in clip for p in module.parameters())
    trained = sum(p.numel() for p in adapter.parameters())
    text = (REPO_ROOT / "docs" / "hyperclip.md").read_text()
    assert f"{trained:,} parameters for ViT-B/16, {100 * trained / total:.2f} % of" in text
    assert f"{total:,}" in text


# In the model


def test_the_settings_come_from_the_config():
    keys = ("TEXT_CURVATURE", 0.5, "IMAGE_CURVATURE", 2.0, "BLOCK_SIZE", 32)
    overrides = [f"MODEL.HYPERBOLIC.{key}" if isinstance(key, str) else key for key in keys]
    adapter = tiny_model(*HYPERBOLIC, *overrides).sem_seg_head.clip.adapter
    assert adapter.settings == HyperbolicSettings(0.5, 2.0, 32)
    assert adapter.text.shape == (2, 3, 4, 32, 32)


def test_the_towers_run_on_the_adapted_weights_computed_once():
    model = tiny_model(*HYPERBOLIC).eval()
    calls = []
    adapter = model.sem_seg_head.clip.adapter
    adapter.register_forward_hook(lambda *_: calls.append(1))
    inputs = [{"image": image(64, 64)}]
    with torch.no_grad():
        before = model(inputs)[0]["sem_seg"]
        model(inputs)
        assert len(calls) == 1
        adapter.image[0, 2] += 0.1 * torch.eye(128)
        after = model(inputs)[0]["sem_seg"]
    assert len(calls) == 2
    assert not torch.allclose(before, after)


def test_hpa_and_afr_on_a_hyperbolic_clip_train_and_every_parameter_is_reached():
    model = tiny_model("MODEL.HYPERSPHERICAL.AFR_REDUCTION", 4, base=ENHANCED)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained if ".clip." in name} == {
        "sem_seg_head.clip.adapter.text",
        "sem_seg_head.clip.adapter.image",
    }
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-3)
    totals = []
    for _ in range(6):
        losses = model(batch())
        assert set(losses) == {"loss_sem_seg", "loss_hpa", "loss_afr"}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        for name, parameter in trained.items():
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0, name
        optimizer.step()
        totals.append(losses["loss_sem_seg"].item())
    assert totals[-1] < 0.95 * totals[0]


def test_a_checkpoint_of_hpa_and_afr_on_a_hyperbolic_clip_loads_again():
    def make():
        return tiny_model("MODEL.HYPERSPHERICAL.AFR_REDUCTION", 4, base=ENHANCED)

    source, other = make(), make()
    with torch.no_grad():
        source.sem_seg_head.clip.adapter.text.add_(0.1)
    assert load_into(other, source.state_dict()) == ("ours", [], [])
    assert_close(answer(other, {"image": image(64, 64)}), answer(source, {"image": image(64, 64)}))


# Bad input


@pytest.mark.parametrize("key", ["TEXT_CURVATURE", "IMAGE_CURVATURE"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_curvature_that_is_not_positive_is_one_line(key, value):
    with pytest.raises(
        UserError,
        match=rf"MODEL\.HYPERBOLIC\.{key}: .* a positive number .*; it is {value}",
    ) as error:
        tiny_model(*HYPERBOLIC, f"MODEL.HYPERBOLIC.{key}", value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("side", "complaint"),
    [(0, "positive number .* is 0"), (96, "divide .* 128 .* text .* is 96"), (256, "128 .* 256")],
)
def test_a_block_size_that_does_not_divide_a_width_is_one_line(side, complaint):
    with pytest.raises(UserError, match=rf"MODEL\.HYPERBOLIC\.BLOCK_SIZE: .*{complaint}") as error:
        tiny_model(*HYPERBOLIC, "MODEL.HYPERBOLIC.BLOCK_SIZE", side)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["CAT-Seg", "H-CLIP"])
def test_a_checkpoint_without_hyperbolic_entries_is_one_line(kind):
    model = tiny_model(*HYPERBOLIC)
    source = tiny_model(*MODELS[kind])
    for state in (source.state_dict(), published(source)):
        with pytest.raises(UserError, match=rf"model is {kind}\b.*HyperCLIP") as error:
            load_into(model, state)
        assert "\n" not in str(error.value)


def test_a_matrix_of_another_size_is_one_line():
    source = tiny_model(*HYPERBOLIC, "MODEL.HYPERBOLIC.BLOCK_SIZE", SIDE)
    with pytest.raises(UserError, match=rf"{PREDICTOR}.*adapter_attn_q.*64.*128") as error:
        load_into(tiny_model(*HYPERBOLIC), published(source))
    assert "\n" not in str(error.value)


def test_other_ways_of_fine_tuning_take_any_block_size():
    tiny_model(f"{HEAD}CLIP_FINETUNE", "frozen", "MODEL.HYPERBOLIC.BLOCK_SIZE", 7)
