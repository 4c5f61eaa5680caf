"""Config keys, their defaults, and the shipped configs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model

from cat_seg import add_cat_seg_config
from cat_seg.configuration.loading import leaves
from cat_seg.errors import UserError
from tests.tiny import batch, share_tokenizers, tiny_cfg, write_clip

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
SHIPPED = (
    "config",
    "vitb_384",
    "vitl_336",
    "vitb_384_oft",
    "vitb_384_enhanced",
    "vitb_384_hpa_only",
    "vitb_384_afr_only",
    "quickstart",
)


@pytest.fixture(autouse=True)
def shared_tokenizers(monkeypatch):
    share_tokenizers(monkeypatch)


def load(name: str) -> CfgNode:
    cfg = add_cat_seg_config(get_cfg())
    cfg.merge_from_file(str(ROOT / "configs" / f"{name}.yaml"))
    return cfg


def test_hyperspherical_defaults():
    cfg = add_cat_seg_config(get_cfg())
    assert dict(cfg.MODEL.HYPERSPHERICAL) == {
        "USE_HPA": True,
        "HPA_MOMENTUM": 0.99,
        "HPA_TEMPERATURE": 0.07,
        "HPA_SEPARATION_WEIGHT": 0.0,
        "USE_AFR": True,
        "AFR_REDUCTION": 16,
        "AFR_BIAS_INIT": 2.0,
        "LOSS_WEIGHT": 0.1,
        "GEODESIC_CORRELATION": False,
    }


def test_published_numbers_are_the_defaults():
    cfg = add_cat_seg_config(get_cfg())
    head = cfg.MODEL.SEM_SEG_HEAD
    assert cfg.MODEL.CLIP_PIXEL_MEAN == [122.7709383, 116.7460125, 104.09373615]
    assert cfg.MODEL.CLIP_PIXEL_STD == [68.5005327, 66.6321579, 70.3231630]
    assert cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY == 32
    assert cfg.MODEL.PROMPT_ENSEMBLE_TYPE == "single"
    assert (head.CLIP_PRETRAINED, head.CLIP_WEIGHTS) == ("ViT-B/16", "openai")
    assert head.FEATURE_RESOLUTION == [24, 24]
    assert (head.HIDDEN_DIMS, head.NUM_LAYERS, head.NUM_HEADS) == (128, 2, 4)
    assert (head.WINDOW_SIZES, head.POOLING_SIZES, head.PAD_LEN) == (12, [2, 2], 256)
    assert (head.TEXT_GUIDANCE_PROJ_DIM, head.APPEARANCE_GUIDANCE_PROJ_DIM) == (128, 128)
    assert (head.DECODER_DIMS, head.DECODER_GUIDANCE_DIMS) == ([64, 32], [256, 128])
    assert head.DECODER_GUIDANCE_PROJ_DIMS == [32, 16]
    assert cfg.SOLVER.CLIP_MULTIPLIER == 0.01
    assert cfg.TEST.SLIDING_WINDOW is False


def test_the_config_is_changed_in_place_and_returned():
    cfg = get_cfg()
    assert add_cat_seg_config(cfg) is cfg


def test_every_added_key_is_read_somewhere():
    before, after = dict(leaves(get_cfg())), dict(leaves(add_cat_seg_config(get_cfg())))
    added = {key.rsplit(".", 1)[-1] for key in after.keys() - before.keys()}
    assert len(added) > 20
    sources = [p for p in (ROOT / "cat_seg").rglob("*.py") if p.name != "config.py"]
    read = set()
    for node in (n for p in sources for n in ast.walk(ast.parse(p.read_text()))):
        if isinstance(node, ast.Attribute):
            read.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            read.add(node.value)  # cfg[key] and getattr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            read.add(node.target.id.upper())  # fields of the settings of adapters
    assert not added - read


def test_all_configs_are_there():
    assert set(SHIPPED) <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_no_key_repeats_the_value_of_its_base(path):
    content = yaml.safe_load(path.read_text())
    base = add_cat_seg_config(get_cfg())
    if "_BASE_" in content:
        base.merge_from_file(str(path.parent / content.pop("_BASE_")))
    before = dict(leaves(base))
    base.merge_from_file(str(path))
    after = dict(leaves(base))
    # VERSION says how to read the file; it configures nothing.
    given = dict(leaves(content)).keys() & before.keys() - {"VERSION"}
    repeated = [key for key in given if before[key] == after[key]]
    assert not repeated


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "quickstart"])
def test_published_recipe(name):
    cfg = load(name)
    solver = cfg.SOLVER
    assert (solver.MAX_ITER, solver.IMS_PER_BATCH, solver.BASE_LR) == (80_000, 4, 2e-4)
    assert (solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM) == (1e-4, 0)
    assert solver.LR_SCHEDULER_NAME == "WarmupCosineLR"
    assert solver.CLIP_MULTIPLIER == 0.01
    clipping = solver.CLIP_GRADIENTS
    assert (clipping.ENABLED, clipping.CLIP_TYPE) == (True, "full_model")
    assert (clipping.CLIP_VALUE, clipping.NORM_TYPE) == (0.01, 2.0)
    assert (cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.SIZE) == (True, [384, 384])
    assert cfg.INPUT.FORMAT == "RGB"
    assert cfg.MODEL.SEM_SEG_HEAD.POOLING_SIZES == [2, 2]


@pytest.mark.parametrize(
    ("name", "architecture", "clip", "fine_tuning", "hpa", "afr"),
    [
        ("vitb_384", "CATSeg", "ViT-B/16", "attention", True, True),
        ("vitl_336", "CATSeg", "ViT-L/14@336px", "attention", True, True),
        ("vitb_384_oft", "CATSeg", "ViT-B/16", "oft_both", True, True),
        ("vitb_384_enhanced", "EnhancedCATSeg", "ViT-B/16", "oft_both", True, True),
        ("vitb_384_hpa_only", "EnhancedCATSeg", "ViT-B/16", "oft_both", True, False),
        ("vitb_384_afr_only", "EnhancedCATSeg", "ViT-B/16", "oft_both", False, True),
    ],
)
def test_what_each_config_builds(name, architecture, clip, fine_tuning, hpa, afr):
    cfg = load(name)
    assert architecture == cfg.MODEL.META_ARCHITECTURE
    assert clip == cfg.MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED
    assert fine_tuning == cfg.MODEL.SEM_SEG_HEAD.CLIP_FINETUNE
    assert (hpa, afr) == (cfg.MODEL.HYPERSPHERICAL.USE_HPA, cfg.MODEL.HYPERSPHERICAL.USE_AFR)


@pytest.mark.parametrize(
    ("name", "losses"),
    [
        ("vitb_384", {"loss_sem_seg"}),
        ("vitb_384_oft", {"loss_sem_seg"}),
        ("vitb_384_enhanced", {"loss_sem_seg", "loss_hpa", "loss_afr"}),
        ("vitb_384_hpa_only", {"loss_sem_seg", "loss_hpa"}),
        ("vitb_384_afr_only", {"loss_sem_seg", "loss_afr"}),
    ],
)
def test_each_config_builds_a_model_that_trains(tmp_path, name, losses):
    base = str(ROOT / "configs" / f"{name}.yaml")
    torch.manual_seed(0)
    model = build_model(tiny_cfg(tmp_path, base=base))
    found = model(batch())
    assert set(found) == losses
    sum(found.values()).backward()
    assert all(torch.isfinite(loss) for loss in found.values())


def test_the_one_call_is_enough_for_a_model(tmp_path):
    model = build_model(tiny_cfg(tmp_path))
    assert type(model).__name__ == "CATSeg"
    assert type(model.sem_seg_head).__name__ == "CATSegHead"


HEAD = "MODEL.SEM_SEG_HEAD."
HYPER = "MODEL.HYPERSPHERICAL."


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (f"{HEAD}CLIP_FINETUNE", "prompt"),
        (f"{HEAD}CLIP_WEIGHTS", "absent.pt"),
        (f"{HEAD}CLIP_PRETRAINED", "ViT-Z/99"),
        (f"{HEAD}TRAIN_CLASS_JSON", "absent.json"),
        (f"{HEAD}TEST_CLASS_JSON", "absent.json"),
        (f"{HEAD}WINDOW_SIZES", 3),
        (f"{HEAD}HIDDEN_DIMS", 30),
        (f"{HEAD}DECODER_DIMS", [32]),
        (f"{HEAD}DECODER_DIMS", [32, 20]),
        (f"{HEAD}DECODER_GUIDANCE_DIMS", [32, 16, 8]),
        (f"{HEAD}DECODER_GUIDANCE_PROJ_DIMS", [8]),
        (f"{HEAD}POOLING_SIZES", [2]),
        (f"{HEAD}POOLING_SIZES", [0, 1]),
        (f"{HEAD}POOLING_SIZES", [8, 8]),
        (f"{HEAD}FEATURE_RESOLUTION", [4]),
        (f"{HEAD}FEATURE_RESOLUTION", [0, 4]),
        (f"{HEAD}FEATURE_RESOLUTION", [2, 5]),
        (f"{HEAD}PAD_LEN", 0),
        ("MODEL.PROMPT_ENSEMBLE_TYPE", "many"),
        (f"{HYPER}AFR_REDUCTION", 4096),
        (f"{HYPER}AFR_REDUCTION", 0),
        (f"{HYPER}HPA_MOMENTUM", 1.5),
        (f"{HYPER}HPA_TEMPERATURE", 0.0),
    ],
)
def test_a_bad_value_is_one_line_with_its_key_or_value(tmp_path, key, value):
    cfg = tiny_cfg(tmp_path, "MODEL.META_ARCHITECTURE", "EnhancedCATSeg", key, value)
    with pytest.raises(UserError) as error:
        build_model(cfg)
    message = str(error.value)
    assert "\n" not in message
    assert key.rsplit(".", 1)[-1] in message or str(value) in message


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        (f"{HEAD}CLIP_FINETUNE", "prompt", "fine_tuning must be one of .*'prompt'"),
        (f"{HEAD}CLIP_PRETRAINED", "ViT-Z/99", "name must be .*'ViT-Z/99'"),
        ("MODEL.PROMPT_ENSEMBLE_TYPE", "many", "ensemble must be one of .*'many'"),
        (f"{HYPER}AFR_REDUCTION", 4096, "reduction must be from 1 to C = 64; .* 4096"),
        (f"{HYPER}HPA_MOMENTUM", 1.5, "momentum must be .* 1.5"),
        (f"{HYPER}HPA_TEMPERATURE", 0.0, "temperature must be .* 0.0"),
    ],
)
def test_what_a_layer_refuses_names_the_key(tmp_path, key, value, told):
    cfg = tiny_cfg(tmp_path, "MODEL.META_ARCHITECTURE", "EnhancedCATSeg", key, value)
    with pytest.raises(UserError, match=f"^{re.escape(key)}: {told}"):
        build_model(cfg)


def test_an_adapter_that_does_not_fit_the_clip_names_the_key(tmp_path):
    clip = str(write_clip(tmp_path, "narrow", vision_cfg__width=192))
    cfg = tiny_cfg(tmp_path, f"{HEAD}CLIP_PRETRAINED", clip, f"{HEAD}CLIP_FINETUNE", "oft")
    told = r"^MODEL\.SEM_SEG_HEAD\.CLIP_FINETUNE: architecture must .* 128 .* 192"
    with pytest.raises(UserError, match=told):
        build_model(cfg)
