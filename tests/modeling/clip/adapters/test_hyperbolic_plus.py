"""HyperCLIP++ against its formula: matrices mixed one by one, and rows mapped one by one."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from cat_seg.checkpoint import load_into
from cat_seg.errors import UserError
from cat_seg.modeling.clip.adapters import HyperbolicPlusAdapter, HyperbolicPlusSettings
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.utils.paths import REPO_ROOT
from tests.modeling.clip.adapters.formulas import frozen_weights, on_the_ball
from tests.published import HEAD, MODELS
from tests.tiny import answer, batch, image, tiny_model, write_clip

PLUS = MODELS["HyperCLIP++"]
KEY = "MODEL.ADAPTER.HYPERBOLIC_PLUS."
SLOTS = {"text": slice(0, 1), "image": slice(1, 3)}  # widths 128 and 256


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    return Architecture.from_name(str(write_clip(tmp_path_factory.mktemp("clip"))))


@pytest.fixture
def adapter(architecture):
    """An adapter whose matrices are of order 1, with blocks that differ."""
    torch.manual_seed(0)
    made = HyperbolicPlusAdapter(architecture, HyperbolicPlusSettings(0.5, 0.01))
    with torch.no_grad():
        made.shared += 0.05 * torch.randn_like(made.shared)
        for name in ("slot_in", "slot_out", "row_in", "row_out"):
            getattr(made, name).copy_(torch.randn_like(getattr(made, name)) * 0.5)
    return made


@pytest.fixture(scope="module")
def frozen(architecture):
    return frozen_weights(architecture)


def matrix(adapter, tower, block, projection):
    """M of a weight, in the published order: the slots are mixed first, then the rows."""
    rows = []
    for row in range(adapter.shared.shape[2]):
        slots = adapter.shared[:, :, row]  # (128, 128, slots)
        mixed = slots @ adapter.slot_in[block].T @ adapter.slot_out[block].T
        rows.append(mixed[..., SLOTS[tower]])
    stacked = torch.stack(rows, dim=-1)  # (128, 128, kept, rows)
    mixed = stacked @ adapter.row_in.T @ adapter.row_out.T
    return torch.block_diag(*mixed[..., 4 * block + projection].permute(2, 0, 1))


@pytest.mark.parametrize(("tower", "c"), [("text", 0.5), ("image", 0.01)])
@torch.no_grad()
def test_effective_weights_follow_the_formula(adapter, frozen, tower, c):
    effective, own = getattr(adapter(frozen), tower), getattr(frozen, tower)
    assert len(effective) == len(own)
    for block, (found, weights) in enumerate(zip(effective, own, strict=True)):
        for projection in range(4):  # out too, on its input side
            m = matrix(adapter, tower, block, projection)
            expected = on_the_ball(weights[projection], m, c)
            assert_close(found[projection], expected, atol=2e-5, rtol=1e-4)


def test_the_published_start(architecture):
    torch.manual_seed(0)
    start = HyperbolicPlusAdapter(architecture, HyperbolicPlusSettings())
    assert_close(start.shared, torch.eye(128)[:, :, None, None].expand(128, 128, 12, 3))
    shapes = {"slot_in": (3, 12, 3), "slot_out": (3, 3, 12), "row_in": (48, 12)}
    for name, shape in (shapes | {"row_out": (12, 48)}).items():
        mixer = getattr(start, name)
        assert mixer.shape == shape
        bound = shape[-1] ** -0.5
        assert 0.8 * bound < mixer.abs().max() <= bound * (1 + 1e-3)
        assert torch.equal(mixer, mixer.half().float())


@torch.no_grad()
def test_at_the_start_every_slot_scales_its_columns(architecture, frozen):
    torch.manual_seed(0)
    start = HyperbolicPlusAdapter(architecture, HyperbolicPlusSettings())
    found, own = start(frozen).image[0].value, frozen.image[0].value
    for slot in (slice(0, 128), slice(128, 256)):
        ratio = (found[:, slot] / own[:, slot]).flatten()
        assert_close(ratio, ratio.median().expand_as(ratio), rtol=1e-3, atol=1e-4)


def test_gradient_reaches_every_parameter(adapter, frozen):
    towers = adapter(frozen)
    sum(w.sin().sum() for tower in towers for weights in tower for w in weights).backward()
    for name, parameter in adapter.named_parameters():
        assert torch.isfinite(parameter.grad).all()
        # The tiny text tower has no third block, which its part of a mixer would be for.
        assert (parameter.grad != 0).float().mean() > 0.8, name


def test_precision_is_float32_under_autocast(adapter, frozen):
    expected = adapter(frozen)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = adapter(frozen)
    assert torch.equal(found.text[0].out, expected.text[0].out)


def test_the_published_number_of_parameters():
    with torch.device("meta"):
        architecture = Architecture.from_name("ViT-B/16")
        adapter = HyperbolicPlusAdapter(architecture, HyperbolicPlusSettings())
    assert sum(p.numel() for p in adapter.parameters() if p.requires_grad) == 7_892_352


def test_a_larger_clip_has_more_slots_and_rows():
    with torch.device("meta"):
        architecture = Architecture.from_name("ViT-L/14@336px")
        adapter = HyperbolicPlusAdapter(architecture, HyperbolicPlusSettings())
    assert adapter.shared.shape == (128, 128, 96, 14)
    assert adapter.slot_out.shape == (24, 14, 56)


# In the model


def test_the_settings_come_from_the_config():
    keys = (f"{KEY}TEXT_CURVATURE", 0.5, f"{KEY}IMAGE_CURVATURE", 2.0)
    adapter = tiny_model(*PLUS, *keys).sem_seg_head.clip.adapter
    assert adapter.settings == HyperbolicPlusSettings(0.5, 2.0)


def test_hps_seg_on_hyper_clip_plus_trains_and_loads_again():
    config = str(REPO_ROOT / "configs" / "vitb_384_hyperclip_plus.yaml")
    keys = ("MODEL.META_ARCHITECTURE", "EnhancedCATSeg", "MODEL.HYPERSPHERICAL.AFR_REDUCTION", 4)
    model = tiny_model(*keys, base=config)
    losses = model(batch())
    assert set(losses) == {"loss_sem_seg", "loss_hpa", "loss_afr"}
    sum(losses.values()).backward()
    for parameter in model.sem_seg_head.clip.adapter.parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.any()
    other = tiny_model(*keys, base=config)
    with torch.no_grad():
        model.sem_seg_head.clip.adapter.row_out.add_(0.1)
    assert load_into(other, model.state_dict()) == ("ours", [], [])
    inputs = {"image": image(64, 64)}
    assert_close(answer(other, inputs), answer(model, inputs))


@pytest.mark.parametrize("key", ["TEXT_CURVATURE", "IMAGE_CURVATURE"])
def test_a_curvature_that_is_not_positive_is_one_line(key):
    with pytest.raises(UserError, match=rf"MODEL\.ADAPTER\.HYPERBOLIC_PLUS\.{key}: .*is 0"):
        tiny_model(*PLUS, f"{KEY}{key}", 0.0)


def test_a_width_without_whole_slots_is_one_line(tmp_path):
    clip = str(write_clip(tmp_path, text_cfg__width=64))
    with pytest.raises(UserError, match=r"multiples of 128 for HyperCLIP\+\+; .* has 64"):
        tiny_model(*PLUS, f"{HEAD}CLIP_PRETRAINED", clip)
