"""Published checkpoint formats in, ours out, and other models refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg

from cat_seg import add_cat_seg_config
from cat_seg.checkpoint import Checkpointer, load_into
from cat_seg.checkpoint.clip_formats import convert_clip
from cat_seg.checkpoint.formats import checkpoint_holds_clip, convert, format_of
from cat_seg.checkpoint.reading import read_tensors
from cat_seg.engine.model import build_model
from cat_seg.errors import UserError
from tests.published import CLIP, ENHANCED, HEAD, MODELS, OFT, PUBLISHED, published
from tests.tiny import batch, image, open_clip_model, tiny_cfg, tiny_model, write_clip

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"


def assert_same_state(model, other):
    own, expected = model.state_dict(), other.state_dict()
    assert own.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(own[name], value), name


ADAPTER = "sem_seg_head.clip.adapter."


# The published lists of entries, at full size


def golden(name):
    entries = json.loads((GOLDEN / f"{name}.names.json").read_text())["entries"]
    state = {n: torch.empty(e["shape"], device="meta") for n, e in entries.items()}
    return entries, state


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """Entry shapes of the full-size HPS-Seg model."""
    folder = tmp_path_factory.mktemp("full")
    weights = folder / "holds_clip.pth"  # so that CLIP is given no start weights
    torch.save({f"{CLIP}text_projection": torch.zeros(1)}, weights)
    base = str(ROOT / "configs" / "vitb_384_enhanced.yaml")
    cfg = add_cat_seg_config(get_cfg())
    cfg.merge_from_file(base)
    cfg.MODEL.DEVICE = "meta"
    cfg.MODEL.WEIGHTS = str(weights)
    return {name: tuple(value.shape) for name, value in build_model(cfg).state_dict().items()}


# Our entries of the adapters that HPS-Seg does not have.
ADAPTER_SHAPES = {
    # (blocks, q/k/v, slots of 128 channels, 128, 128)
    "hyper_clip": {"text": (12, 3, 4, 128, 128), "image": (12, 3, 6, 128, 128)},
    "hyper_clip_pp": {
        "shared": (128, 128, 48, 10),
        "slot_in": (12, 40, 10),
        "slot_out": (12, 10, 40),
        "row_in": (192, 48),
        "row_out": (48, 192),
    },
    "hyro": {
        "scaling_text": (12, 3, 4, 128, 128),
        "scaling_image": (12, 3, 6, 128, 128),
        "rotation_text": (12, 3, 2, 256, 256),
        "rotation_image": (12, 3, 3, 256, 256),
    },
}


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("cat_seg", ("hpa.", "afr.", ADAPTER)),
        ("h_clip", ("hpa.", "afr.")),
        ("hps_seg", ()),
        ("hyper_clip", ("hpa.", "afr.", ADAPTER)),
        ("hyper_clip_pp", ("hpa.", "afr.", ADAPTER)),
        ("hyro", ("hpa.", "afr.", ADAPTER)),
    ],
)
def test_every_published_entry_has_its_place(full_size, name, without):
    entries, state = golden(name)
    found = convert(state)
    shapes = {n: tuple(t.shape) for n, t in found.tensors.items()}
    for adapter, shape in ADAPTER_SHAPES.get(name, {}).items():
        assert shapes.pop(f"{ADAPTER}{adapter}") == shape
    assert shapes == {n: s for n, s in full_size.items() if not n.startswith(without)}
    # Named as unused: exactly what carries no weights.
    unread = {n for n, e in entries.items() if not e["recipe"]} - {"hpa.prototype_initialized"}
    assert set(found.unused) == unread
    # Everything else is a source, or a copy of one.
    joint = {n for n in entries if re.search("_oft_(layer|relation)_|hyperbolic_attn", n)}
    assert set(found.sources.values()) | unread | joint == set(entries)
    assert set(found.sources) == set(found.tensors)


PLUS_MIXERS = {"slot_in": 0, "slot_out": 100}
HYPER_CLIP = {"text": 0, "image": 1000}
HYRO = {
    "scaling_text": 0,
    "scaling_image": 1000,
    "rotation_text": 2000,
    "rotation_image": 3000,
}


@pytest.mark.parametrize(("kind", "parts"), [("hyper_clip", HYPER_CLIP), ("hyro", HYRO)])
def test_every_hyperbolic_matrix_is_in_its_place(kind, parts):
    _, state = golden(kind)
    for name in state:
        if match := re.search(r"resblocks\.(\d+)\.hyperbolic_attn\.adapter_attn_([qkv])", name):
            value = 10 * int(match[1]) + "qkv".index(match[2]) + 1000 * ("visual" in name)
            value += 2000 * ("rotation" in name)
            state[name] = torch.full(state[name].shape, float(value))
    tensors = convert(state).tensors
    for part, offset in parts.items():
        found = tensors[f"{ADAPTER}{part}"][:, :, 0, 0, 0]
        expected = torch.tensor([[10.0 * i + j + offset for j in range(3)] for i in range(12)])
        assert torch.equal(found, expected)


def test_every_slot_mixer_of_twelve_blocks_is_in_its_place():
    for kind, parts in (("h_clip", {"slot_mixers": 0}), ("hyper_clip_pp", PLUS_MIXERS)):
        _, state = golden(kind)
        for name in state:
            if match := re.search(r"relation_m_R\.(\d+)", name):
                value = int(match[1]) + 100 * ("w2" in name)
                state[name] = torch.full(state[name].shape, float(value))
        for part, offset in parts.items():
            mixers = convert(state).tensors[f"{ADAPTER}{part}"]
            assert [int(mixer[0, 0]) for mixer in mixers] == [i + offset for i in range(12)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat_seg", "CAT-Seg"),
        ("h_clip", "H-CLIP"),
        ("hyper_clip", "HyperCLIP"),
        ("hyper_clip_pp", "HyperCLIP++"),
        ("hyro", "HyRo"),
        ("hps_seg", "HPS-Seg"),
    ],
)
def test_formats_are_told_apart(name, expected):
    assert format_of(golden(name)[0]) == expected


def test_other_formats_are_told_apart(tmp_path):
    assert format_of(tiny_model().state_dict()) == "ours"
    assert format_of(open_clip_model(write_clip(tmp_path)).state_dict()) == "CLIP"
    assert format_of(["conv1.weight", "layer1.0.conv1.weight", "fc.bias"]) == "unknown"
    assert format_of([]) == "unknown"


# Published checkpoints into tiny models


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_checkpoints_load(kind):
    source, model = tiny_model(*MODELS[kind]), tiny_model(*MODELS[kind])
    if kind == "HPS-Seg":
        source(batch())  # so that there are prototypes
    with torch.no_grad():
        for parameter in source.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    state = published(source)
    found, missing, unused = load_into(model, state)
    assert found == kind
    assert_same_state(model, source)
    assert not missing
    carries_nothing = ("logit_scale", "attn_mask", "hidden_size")
    assert set(unused) == {name for name in state if name.endswith(carries_nothing)}


def test_published_checkpoints_load_through_the_checkpointer(tmp_path):
    source, model = tiny_model(*ENHANCED), tiny_model(*ENHANCED)
    source(batch())
    path = tmp_path / "published.pth"
    torch.save({"model": published(source), "iteration": 79_999}, path)
    Checkpointer(model).load(str(path))
    assert_same_state(model, source)


def test_projections_are_split_in_order():
    weight, bias = torch.arange(12.0).view(6, 2), torch.arange(6.0)
    for prefix, ours in (("", "text"), ("visual.", "image")):
        attn = f"{prefix}transformer.resblocks.0.attn."
        state = {f"{attn}in_proj_weight": weight, f"{attn}in_proj_bias": bias}
        found = convert_clip(state).tensors
        for index, letter in enumerate("qkv"):
            name = f"{ours}.transformer.resblocks.0.attn.{letter}_proj"
            assert torch.equal(found[f"{name}.weight"], weight[2 * index : 2 * index + 2])
            assert torch.equal(found[f"{name}.bias"], bias[2 * index : 2 * index + 2])


# Our own checkpoints


@pytest.mark.parametrize("kind", MODELS)
def test_our_checkpoints_store_each_tensor_once_and_load_again(tmp_path, kind):
    source = tiny_model(*MODELS[kind])
    source(batch())
    state = source.state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state)
    persistent = sum(p.numel() for p in source.parameters())
    if source_hpa := getattr(source, "hpa", None):
        persistent += source_hpa.prototypes.numel() + source_hpa.prototype_initialized.numel()
    assert sum(value.numel() for value in state.values()) == persistent

    path = tmp_path / "model.pth"
    torch.save({"model": state}, path)
    other = tiny_model(*MODELS[kind])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert load_into(other, read_tensors(path)) == ("ours", [], [])
    assert_same_state(other, source)
    inputs = [{"image": image(40, 50)}]
    with torch.no_grad():
        expected = source.eval()(inputs)[0]["sem_seg"]
        found = other.eval()(inputs)[0]["sem_seg"]
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_loading_leaves_the_state_dict_as_it_was():
    model = tiny_model(*OFT)
    state = published(model)
    names = list(state)
    load_into(model, state)
    assert list(state) == names


def test_loading_keeps_what_trains():
    model = tiny_model(*OFT)
    expected = {name: p.requires_grad for name, p in model.named_parameters()}
    load_into(model, published(model))
    assert {name: p.requires_grad for name, p in model.named_parameters()} == expected
    model(batch())["loss_sem_seg"].backward()


@pytest.mark.parametrize("fine_tuning", ["frozen", "full"])
def test_the_way_of_fine_tuning_a_plain_clip_does_not_matter(fine_tuning):
    source = tiny_model()
    model = tiny_model(f"{HEAD}CLIP_FINETUNE", fine_tuning)
    load_into(model, source.state_dict())
    assert_same_state(model, source)


# Whether MODEL.WEIGHTS brings CLIP


@pytest.mark.parametrize("kind", PUBLISHED)
def test_full_checkpoints_hold_clip(tmp_path, kind):
    model = tiny_model(*MODELS[kind])
    for index, state in enumerate((model.state_dict(), published(model))):
        path = tmp_path / f"{index}.pth"
        torch.save(state, path)
        assert checkpoint_holds_clip(str(path))


def test_no_checkpoint_holds_no_clip(tmp_path):
    assert not checkpoint_holds_clip("")
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS.*absent\.pth"):
        checkpoint_holds_clip(str(tmp_path / "absent.pth"))


def test_a_model_is_built_for_a_checkpoint_and_loads_it(tmp_path):
    source = tiny_model(*OFT)
    torch.save({"model": published(source)}, tmp_path / "model.pth")
    weights = ("MODEL.WEIGHTS", str(tmp_path / "model.pth"), f"{HEAD}CLIP_WEIGHTS", "openai")
    model = build_model(tiny_cfg(tmp_path, *OFT, *weights))
    Checkpointer(model).load(str(tmp_path / "model.pth"))
    assert_same_state(model, source)
