"""Low-rank adapters, against values recorded from peft."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cat_seg.checkpoint import load_into
from cat_seg.errors import UserError
from cat_seg.modeling.clip.adapters import LoRAAdapter, LoRASettings
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.transformer import AttentionWeights
from cat_seg.utils.paths import REPO_ROOT
from tests.modeling.clip.adapters.formulas import frozen_weights
from tests.published import MODELS
from tests.tiny import answer, batch, image, shake, tiny_clip, tiny_model, write_clip

LORA = MODELS["LoRA"]
KEY = "MODEL.ADAPTER.LORA."
LAYERS = ("q", "k", "v", "out")
RANK, ALPHA = 4, 10.0


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    return Architecture.from_name(str(write_clip(tmp_path_factory.mktemp("clip"))))


@pytest.fixture(scope="module")
def frozen(architecture):
    return frozen_weights(architecture)


def make(architecture, noise=0.1, **settings):
    torch.manual_seed(0)
    adapter = LoRAAdapter(architecture, LoRASettings(RANK, ALPHA, **settings))
    shake(adapter, noise)
    return adapter


def part(adapter, tower, projection, kind):
    return adapter.get_parameter(f"lora_{tower}_{projection}_{kind}")


@pytest.fixture(scope="module")
def recorded():
    """What peft 0.21.2 computed for one block of four layers nn.Linear(64, 64, bias=False).

    The block is x -> tanh(q(x)), and likewise with k, v and out. The adapters are those of
    LoraConfig(r=4, lora_alpha=10.0), with B drawn from a normal distribution. Recorded are the
    weights before (weight_*) and after merge_and_unload (merged_*), A (down_*), B (up_*), inputs x
    and outputs y, and the gradients of sum(y^2) (down_*_grad, up_*_grad).
    """
    with np.load(REPO_ROOT / "tests" / "golden" / "lora.npz") as content:
        return {name: torch.from_numpy(content[name]) for name in content.files}


@pytest.fixture(scope="module")
def block(recorded, tmp_path_factory):
    """An adapter whose first image block is the recorded one, and its effective weights."""
    config = write_clip(tmp_path_factory.mktemp("clip"), vision_cfg__width=64)
    architecture = Architecture.from_name(str(config))
    adapter = make(architecture, image_projections=tuple(LAYERS), text_projections=())
    frozen = frozen_weights(architecture)
    weights = AttentionWeights(*(recorded[f"weight_{name}"] for name in LAYERS))
    for name in LAYERS:
        for kind in ("down", "up"):
            part(adapter, "image", name, kind).data[0] = recorded[f"{kind}_{name}"]
    return adapter, adapter(frozen._replace(image=[weights, *frozen.image[1:]])).image[0]


def test_effective_weights_are_pefts_merged_ones(recorded, block):
    _, effective = block
    for name, found in zip(LAYERS, effective, strict=True):
        assert_close(found, recorded[f"merged_{name}"], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(found, recorded[f"weight_{name}"], atol=1e-3)


def test_outputs_and_gradients_are_pefts(recorded, block):
    adapter, effective = block
    found = recorded["x"]
    for weight in effective:
        found = (found @ weight.T).tanh()
    assert_close(found, recorded["y"], rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    for name in LAYERS:
        for kind in ("down", "up"):
            gradient = part(adapter, "image", name, kind).grad[0]
            assert_close(gradient, recorded[f"{kind}_{name}_grad"], rtol=1e-3, atol=1e-5)


def test_projections_that_are_not_named_stay(architecture, frozen):
    adapter = make(architecture, image_projections=("k",), text_projections=("q", "v"))
    for tower, chosen in (("image", {"key"}), ("text", {"query", "value"})):
        own, effective = getattr(frozen, tower), getattr(adapter(frozen), tower)
        for before, after in zip(own, effective, strict=True):
            changed = {
                field
                for field in AttentionWeights._fields
                if not torch.equal(getattr(before, field), getattr(after, field))
            }
            assert changed == chosen


def test_start_values_are_distributed_as_a_linear_layers(architecture):
    start = LoRAAdapter(architecture, LoRASettings(rank=RANK))
    down, up = part(start, "image", "q", "down"), part(start, "image", "q", "up")
    width = architecture.image.width
    assert down[0].shape == (RANK, width)
    assert up[0].shape == (width, RANK)
    assert not up.any()
    bound = width**-0.5
    assert 0.95 * bound < down.abs().max() <= bound
    assert_close(down.std().item(), bound / 3**0.5, rtol=0.1, atol=0)


@torch.no_grad()
def test_it_starts_as_frozen_clip(architecture, frozen):
    start = LoRAAdapter(architecture, LoRASettings())
    for tower, own in zip(start(frozen), frozen, strict=True):
        for found, weights in zip(tower, own, strict=True):
            assert all(torch.equal(one, other) for one, other in zip(found, weights, strict=True))


def test_a_tower_without_projections_has_no_parameters(architecture, frozen):
    adapter = make(architecture, text_projections=())
    assert adapter(frozen).text is frozen.text
    assert all("image" in name for name, _ in adapter.named_parameters())


# Dropout


def test_dropout_drops_input_channels_and_keeps_the_expected_weights(architecture, frozen):
    adapter = make(architecture, dropout=0.25)
    exact = make(architecture)
    delta = exact(frozen).image[0].query - frozen.image[0].query
    torch.manual_seed(0)
    dropped = adapter(frozen).image[0].query - frozen.image[0].query
    gone = (dropped == 0).all(dim=0)
    assert 0.1 < gone.float().mean() < 0.4
    assert_close(dropped[:, ~gone], delta[:, ~gone] / 0.75, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        mean = sum(adapter(frozen).image[0].query for _ in range(400)) / 400
    error = (mean - exact(frozen).image[0].query).norm() / delta.norm()
    assert error < 0.1
    assert not torch.equal(adapter(frozen).image[0].query, adapter(frozen).image[0].query)


def test_blocks_and_projections_drop_channels_of_their_own(architecture, frozen):
    adapter = make(architecture, dropout=0.5)
    effective = adapter(frozen).image
    masks = {
        tuple((getattr(found, name) == getattr(own, name)).all(dim=0).tolist())
        for found, own in zip(effective, frozen.image, strict=True)
        for name in ("query", "value")
    }
    assert len(masks) == 6


def test_nothing_is_dropped_in_evaluation(architecture, frozen):
    adapter, exact = make(architecture, dropout=0.5).eval(), make(architecture)
    assert torch.equal(adapter(frozen).image[0].query, exact(frozen).image[0].query)


# In the model


def test_only_the_adapters_train_in_clip():
    clip = tiny_clip("lora")
    training = {name for name, p in clip.named_parameters() if p.requires_grad}
    towers, kinds = ("text", "image"), ("down", "up")
    assert training == {
        f"adapter.lora_{tower}_{p}_{kind}" for tower in towers for p in "qv" for kind in kinds
    }


def test_the_settings_come_from_the_config():
    keys = ("RANK", 3, "ALPHA", 6.0, "DROPOUT", 0.1, "TEXT_PROJECTIONS", ())
    keys += ("IMAGE_PROJECTIONS", ("k", "out"))
    overrides = [f"{KEY}{k}" if i % 2 == 0 else k for i, k in enumerate(keys)]
    adapter = tiny_model(*LORA, *overrides).sem_seg_head.clip.adapter
    assert adapter.settings == LoRASettings(3, 6.0, 0.1, (), ("k", "out"))


def test_the_weights_are_merged_once_in_evaluation():
    model = tiny_model(*LORA, f"{KEY}DROPOUT", 0.5).eval()
    adapter, calls = model.sem_seg_head.clip.adapter, []
    adapter.register_forward_hook(lambda *_: calls.append(1))
    inputs = [{"image": image(64, 64)}]
    with torch.no_grad():
        first = model(inputs)[0]["sem_seg"]
        assert torch.equal(model(inputs)[0]["sem_seg"], first)
        assert len(calls) == 1
        adapter.lora_image_v_up.add_(0.1)
        assert not torch.allclose(model(inputs)[0]["sem_seg"], first)


def test_hps_seg_on_lora_trains_and_loads_again():
    keys = ("MODEL.META_ARCHITECTURE", "EnhancedCATSeg", "MODEL.HYPERSPHERICAL.AFR_REDUCTION", 4)
    model, other = tiny_model(*LORA, *keys), tiny_model(*LORA, *keys)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    totals = []
    for _ in range(4):
        losses = model(batch())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        totals.append(losses["loss_sem_seg"].item())
    assert totals[-1] < totals[0]
    adapter = model.sem_seg_head.clip.adapter
    assert all(parameter.grad.any() for parameter in adapter.parameters())
    assert load_into(other, model.state_dict()) == ("ours", [], [])
    inputs = {"image": image(64, 64)}
    assert_close(answer(other, inputs), answer(model, inputs))


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("RANK", 0, "1 or more; it is 0"),
        ("RANK", 129, "at most the width 128 of the text tower"),
        ("ALPHA", -1.0, "positive number"),
        ("DROPOUT", 1.0, "below 1"),
        ("TEXT_PROJECTIONS", ("q", "mlp"), "q, k, v, out"),
        ("IMAGE_PROJECTIONS", ("q", "q"), "different"),
    ],
)
def test_a_bad_setting_is_one_line(key, value, complaint):
    with pytest.raises(UserError, match=rf"MODEL\.ADAPTER\.LORA\.{key}: .*{complaint}") as error:
        tiny_model(*LORA, f"{KEY}{key}", value)
    assert "\n" not in str(error.value)


def test_adapters_nowhere_are_refused():
    nowhere = (f"{KEY}TEXT_PROJECTIONS", (), f"{KEY}IMAGE_PROJECTIONS", ())
    with pytest.raises(UserError, match=r"IMAGE_PROJECTIONS: .* must name a projection"):
        tiny_model(*LORA, *nowhere)
