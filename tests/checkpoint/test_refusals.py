"""Checkpoints that do not fit are refused with a line that says why; the model stays as it was."""

from __future__ import annotations

import re
from itertools import permutations

import pytest
import torch

from cat_seg.checkpoint import load_into
from cat_seg.errors import UserError
from tests.published import CLIP, ENHANCED, HEAD, MODELS, OFT, PREDICTOR, PUBLISHED, published
from tests.tiny import open_clip_model, tiny_model, write_clip


def versions(model):
    """Where each entry is, and how often it was written."""
    return {name: (t.data_ptr(), t._version) for name, t in model.state_dict().items()}


def refused(model, state, **kwargs) -> str:
    before = versions(model)
    with pytest.raises(UserError) as error:
        load_into(model, state, **kwargs)
    assert "\n" not in str(error.value)
    assert versions(model) == before
    return str(error.value)


@pytest.mark.parametrize("part", ["layer_R", "relation_l_R", "relation_m_R.1"])
def test_copies_of_a_tied_parameter_that_differ_are_refused(part):
    model = tiny_model(*OFT)
    state = published(model)
    (name, *_) = [n for n in state if part in n and ".visual." not in n and "resblocks.1" in n]
    state[name] = state[name] + 1
    assert name.removeprefix(CLIP) in refused(model, state)


@pytest.mark.parametrize("kind", ["CAT-Seg", "H-CLIP"])
def test_another_shape_names_the_entry_of_the_file(kind):
    model = tiny_model(*MODELS[kind])
    state = published(model)
    name = f"{PREDICTOR}transformer.layers.1.swin_block.block_1.mlp.fc1.weight"
    state[name] = state[name][:, :-1]
    message = refused(model, state)
    assert name in message and "(128, 31)" in message and "(128, 32)" in message


def test_another_shape_of_a_joint_projection_names_it():
    model = tiny_model(*OFT)
    state = published(model)
    name = f"{CLIP}visual.transformer.resblocks.2.attn.in_proj_weight"
    state[name] = torch.zeros(3 * 128, 128)
    assert name in refused(model, state)


def test_a_joint_projection_that_has_no_three_parts_names_it():
    model = tiny_model(*OFT)
    state = published(model)
    name = f"{CLIP}transformer.resblocks.0.attn.in_proj_weight"
    state[name] = torch.zeros(2, 128)
    assert name in refused(model, state)


def test_prototypes_of_other_classes_name_the_entry():
    model = tiny_model(*ENHANCED)
    state = published(model)
    for name in ("hpa.prototypes", "hpa.prototype_initialized", "hpa.log_temperatures"):
        state[name] = state[name][:-1]
    assert "hpa." in refused(model, state)


CURRENT = r"2023 CAT-Seg checkpoint.*model_base\.pth"


def test_a_2023_checkpoint_is_identified():
    model = tiny_model()
    state = published(model)
    conv = f"{PREDICTOR}transformer.conv1.weight"
    eighty = {conv: torch.zeros(32, 80, 7, 7)}
    backbone = {"backbone.patch_embed.proj.weight": torch.zeros(128, 3, 4, 4)}
    assert re.search(CURRENT, refused(model, state | eighty))
    assert re.search(CURRENT, refused(model, state | backbone))
    message = refused(model, backbone | state | eighty, strict=False)
    assert re.search(CURRENT, message) and "backbone.patch_embed" in message


def test_eighty_templates_load_where_the_config_has_them():
    model = tiny_model("MODEL.PROMPT_ENSEMBLE_TYPE", "imagenet")
    assert load_into(model, published(model)).format == "CAT-Seg"


def test_a_missing_entry_is_named():
    model = tiny_model()
    state = published(model)
    del state["upsample2.bias"]
    assert "upsample2.bias" in refused(model, state)


@pytest.mark.parametrize("strict", [True, False])
def test_an_unknown_entry_of_ours_is_named(strict):
    model = tiny_model()
    state = model.state_dict() | {"sem_seg_head.extra.weight": torch.zeros(1)}
    assert "sem_seg_head.extra.weight" in refused(model, state, strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_more_layers_than_the_model_are_refused(strict):
    """A part of another model would load without an error and answer wrongly."""
    state = tiny_model().state_dict()
    assert "layers.1" in refused(tiny_model(f"{HEAD}NUM_LAYERS", 1), state, strict=strict)


# How a line names each kind of model.
NAMES = {
    "CAT-Seg": r"CAT-Seg\b(?! with)",
    "H-CLIP": r"H-CLIP\b(?! with)",
    "HyperCLIP": r"HyperCLIP\b(?!\+| with)",
    "HyperCLIP++": r"HyperCLIP\+\+(?! with)",
    "HyRo": r"HyRo\b(?! with)",
    "LoRA": r"CAT-Seg with LoRA\b(?! with)",
    "HPS-Seg": r"HPS-Seg\b(?! without)",
    "HPS-Seg without AFR": r"HPS-Seg without AFR|H-CLIP with HPA(?! and AFR)",
    "HPS-Seg without HPA": r"HPS-Seg without HPA|H-CLIP with AFR",
}


def assert_names(message, kind, target):
    """First the checkpoint's kind, then the config's."""
    theirs, ours = message.split("this config", 1)
    assert re.search(NAMES[kind], theirs) and re.search(NAMES[target], ours), message


@pytest.mark.parametrize(("kind", "target"), list(permutations(MODELS, 2)))
def test_a_checkpoint_of_another_model_is_refused_by_its_name(kind, target):
    state = tiny_model(*MODELS[kind]).state_dict()
    assert_names(refused(tiny_model(*MODELS[target]), state), kind, target)


@pytest.mark.parametrize(
    ("kind", "target"), [pair for pair in permutations(MODELS, 2) if pair[0] in PUBLISHED]
)
def test_a_published_one_is_refused_by_its_name(kind, target):
    state = published(tiny_model(*MODELS[kind]))
    assert_names(refused(tiny_model(*MODELS[target]), state), kind, target)


@pytest.mark.parametrize("part", ["layer_R", "relation_l_R", "relation_m_R.1"])
def test_a_part_of_h_clips_adapters_is_refused(part):
    model = tiny_model(*OFT)
    refused(model, {n: t for n, t in published(model).items() if part not in n})


@pytest.mark.parametrize(
    "part", ["1.hyperbolic_attn.adapter_attn_k", "2.hyperbolic_attn", "visual.transformer"]
)
@pytest.mark.parametrize("kind", ["HyperCLIP", "HyRo"])
def test_a_part_of_hyper_clips_or_hyros_adapters_is_refused(kind, part):
    model = tiny_model(*MODELS[kind])
    state = published(model)
    missing = [name for name in state if part in name and "hyperbolic" in name]
    assert missing
    refused(model, {name: tensor for name, tensor in state.items() if name not in missing})


@pytest.mark.parametrize("part", ["layer_R", "l_R.w1", "l_R.w2", "m_R.1.w1", "m_R.2.w2", "m_R.0"])
def test_a_part_of_hyper_clip_plus_adapters_is_refused(part):
    model = tiny_model(*MODELS["HyperCLIP++"])
    state = published(model)
    assert any(part in name for name in state)
    refused(model, {name: tensor for name, tensor in state.items() if part not in name})


def test_rotations_of_one_tower_alone_are_refused():
    model = tiny_model(*MODELS["HyRo"])
    state = published(model)
    gone = [n for n in state if n.endswith("rotation_weights") and "visual" not in n]
    message = refused(model, {n: t for n, t in state.items() if n not in gone})
    assert "rotation_text" in message


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("HyperCLIP", "resblocks.1.hyperbolic_attn.adapter_attn_k.weights"),
        ("HyRo", "resblocks.1.hyperbolic_attn.adapter_attn_v.rotation_weights"),
        ("H-CLIP", "relation_m_R.1.weight"),
        ("HyperCLIP++", "relation_m_R.1.w2.weight"),
    ],
)
def test_blocks_of_different_shapes_name_an_entry(kind, entry):
    model = tiny_model(*MODELS[kind])
    other = torch.zeros(2, 2)
    state = {n: other if n.endswith(entry) else t for n, t in published(model).items()}
    assert entry in refused(model, state)


@pytest.mark.parametrize(
    "part", ["layer_R", "relation_l_R.w1", "relation_m_R.1.w1", "relation_m_R.1.w2"]
)
def test_copies_of_a_tied_hyper_clip_plus_parameter_that_differ_are_refused(part):
    model = tiny_model(*MODELS["HyperCLIP++"])
    state = published(model)
    (name, *_) = [n for n in state if part in n and ".visual." not in n and "resblocks.1" in n]
    state[name] = state[name] + 1
    assert name.removeprefix(CLIP) in refused(model, state)


def test_a_plain_clip_is_refused_and_told_where_it_goes(tmp_path):
    state = open_clip_model(write_clip(tmp_path)).state_dict()
    message = refused(tiny_model(), state)
    assert "CLIP" in message and "CLIP_WEIGHTS" in message


@pytest.mark.parametrize(
    "names",
    [
        ["conv1.weight", "layer1.0.conv1.weight", "fc.weight"],
        ["backbone.bottom_up.stem.conv1.weight", "sem_seg_head.predictor.weight.bias"],
        ["sem_seg_head.pixel_decoder.weight"],
    ],
    ids=["ResNet", "detectron2", "another head"],
)
@pytest.mark.parametrize("strict", [True, False])
def test_a_checkpoint_of_something_else_is_refused(names, strict):
    state = {name: torch.zeros(2, 2) for name in names}
    refused(tiny_model(), state, strict=strict)


def test_an_empty_state_is_refused():
    refused(tiny_model(), {})
