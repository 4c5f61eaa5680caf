"""Pixel statistics: those of another model are refused where the right ones are known."""

from __future__ import annotations

import pytest
from detectron2.config import get_cfg

from cat_seg import add_cat_seg_config
from cat_seg.configuration import load_config
from cat_seg.errors import UserError
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.pixels import check_pixels
from cat_seg.utils.paths import REPO_ROOT

HALF = [127.5, 127.5, 127.5]


def check(name, weights, mean=None, std=None):
    model = add_cat_seg_config(get_cfg()).MODEL
    model.CLIP_PIXEL_MEAN = mean or model.CLIP_PIXEL_MEAN
    model.CLIP_PIXEL_STD = std or model.CLIP_PIXEL_STD
    check_pixels(Architecture.from_name(name), weights, model)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("ViT-B/16", "openai"),
        ("ViT-H-14-378-quickgelu", "dfn5b"),
        ("EVA02-B-16", "merged2b_s8b_b131k"),
        ("EVA02-B-16", "declip.pt"),
        ("EVA02-B-16", None),
    ],
)
def test_openais_are_the_defaults(name, weights):
    check(name, weights)
    with pytest.raises(UserError, match=r"^MODEL\.CLIP_PIXEL_MEAN is \[127.5, .* set it to that$"):
        check(name, weights, HALF, HALF)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("ViT-B-16-SigLIP2", "webli"),
        ("ViT-B-16-SigLIP", "file.safetensors"),
        ("ViT-L-14", "laion2b_s32b_b82k"),
    ],
)
def test_one_half(name, weights):
    check(name, weights, HALF, HALF)
    with pytest.raises(UserError, match=r"^MODEL\.CLIP_PIXEL_MEAN .* with \[127.5, 127.5, 127.5\]"):
        check(name, weights)
    with pytest.raises(UserError, match=r"^MODEL\.CLIP_PIXEL_STD"):
        check(name, weights, HALF)


def test_a_clip_of_ones_own_has_any():
    check("ViT-B/16", "my_clip.pt", HALF, HALF)
    check("configs/quickstart_siglip.json", "my_siglip.pt")


@pytest.mark.parametrize("config", sorted(REPO_ROOT.glob("configs/*.yaml")), ids=lambda p: p.stem)
def test_shipped_configs_have_the_right_ones(config):
    model = load_config(str(config), ()).MODEL
    head = model.SEM_SEG_HEAD
    check_pixels(Architecture.from_name(head.CLIP_PRETRAINED), head.CLIP_WEIGHTS, model)
