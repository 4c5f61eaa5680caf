"""A tiny but complete CLIP, config and model, and inputs for them.

CLIP: text width 128 (2 blocks), image width 256 (3 blocks), patches of 16 pixels. Config: a 4x4
grid, windows of 2, at most 8 classes in the aggregator.
"""

from __future__ import annotations

import copy
import json
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import Tensor, nn

from cat_seg import add_cat_seg_config
from cat_seg.modeling.clip import CLIP, build_clip

EMBED_DIM = 64
TEXT_WIDTH, TEXT_LAYERS = 128, 2
IMAGE_WIDTH, IMAGE_LAYERS = 256, 3
CONTEXT = 20
PAD_LEN = 8
CLASSES = ["cat", "dog, hound", "green grass", "sky", "car"]
MANY_CLASSES = [f"{color} {thing}" for color in ("red", "blue", "old") for thing in CLASSES[:4]]


def write_clip(folder: Path, name: str = "tiny", **changes: Any) -> Path:
    """Write an open_clip model config; `changes` replace values by their key, in any part."""
    config = {
        "embed_dim": EMBED_DIM,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 64,
            "layers": IMAGE_LAYERS,
            "width": IMAGE_WIDTH,
            "head_width": 64,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": 49408,
            "width": TEXT_WIDTH,
            "heads": 2,
            "layers": TEXT_LAYERS,
        },
    }
    for path, value in changes.items():
        *parts, key = path.split("__")
        node = config
        for part in parts:
            node = node[part]
        node[key] = value
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    return path


def open_clip_model(config: Path) -> open_clip.CLIP:
    """open_clip's own model of a config that write_clip wrote, noisy where it starts plain."""
    torch.manual_seed(1)
    model = open_clip.CLIP(**json.loads(config.read_text()))
    shake(model)
    return model.eval()


def shake(module: nn.Module, scale: float = 0.05) -> None:
    """Move every parameter away from its start (zero, one, identity)."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)


def tiny_cfg(folder: Path, *overrides: Any, base: str | None = None) -> CfgNode:
    """A config at tiny size.

    Args:
        folder: where the class list and the CLIP config go.
        overrides: KEY, VALUE, KEY, VALUE, ...
        base: a config file to start from.
    """
    classes = folder / "classes.json"
    classes.write_text(json.dumps(CLASSES))
    cfg = add_cat_seg_config(get_cfg())
    if base is not None:
        cfg.merge_from_file(base)
    head = cfg.MODEL.SEM_SEG_HEAD
    cfg.MODEL.DEVICE = "cpu"
    head.TRAIN_CLASS_JSON = str(classes)
    head.CLIP_PRETRAINED = str(write_clip(folder))
    head.CLIP_WEIGHTS = "random"
    head.FEATURE_RESOLUTION = [4, 4]
    head.WINDOW_SIZES = 2
    head.HIDDEN_DIMS = 32
    head.PAD_LEN = PAD_LEN
    head.TEXT_GUIDANCE_PROJ_DIM = 32
    head.APPEARANCE_GUIDANCE_PROJ_DIM = 32
    head.DECODER_DIMS = [32, 16]
    head.DECODER_GUIDANCE_DIMS = [24, 16]
    head.DECODER_GUIDANCE_PROJ_DIMS = [8, 8]
    cfg.merge_from_list(list(overrides))
    return cfg


def tiny_model(*overrides: Any, base: str | None = None) -> nn.Module:
    """A model of tiny_cfg, always with the same noisy parameters, in training mode."""
    return _copy(_model_to_copy(overrides, base))


def tiny_clip(
    fine_tuning: str, ensemble: str = "single", grid: tuple[int, int] = (4, 4), **changes: Any
) -> CLIP:
    """CLIP of write_clip(changes), always with the same noisy parameters, in training mode."""
    return _copy(_clip_to_copy(fine_tuning, ensemble, grid, tuple(changes.items())))


@lru_cache(maxsize=12)
def _model_to_copy(overrides: tuple, base: str | None) -> nn.Module:
    with TemporaryDirectory() as folder:
        cfg = tiny_cfg(Path(folder), *map(_thawed, overrides), base=base)
        torch.manual_seed(0)
        model = build_model(cfg)
    shake(model, 0.02)
    return model


@lru_cache(maxsize=12)
def _clip_to_copy(fine_tuning: str, ensemble: str, grid: tuple, changes: tuple) -> CLIP:
    with TemporaryDirectory() as folder:
        config = str(write_clip(Path(folder), **dict(changes)))
        torch.manual_seed(0)
        clip = build_clip(config, "random", fine_tuning, ensemble, grid)
    shake(clip, 0.02)
    return clip


def _thawed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _copy(module: nn.Module) -> nn.Module:
    """A deep copy that shares the tokenizer, which is slow to build and never changes."""
    memo = {id(m.prompts): m.prompts for m in module.modules() if isinstance(m, CLIP)}
    return copy.deepcopy(module, memo)


def share_tokenizers(monkeypatch: Any) -> None:
    """Build open_clip's tokenizer of a context length only once while `monkeypatch` lasts."""
    monkeypatch.setattr(open_clip, "SimpleTokenizer", _tokenizer)


@cache
def _tokenizer(context_length: int) -> open_clip.SimpleTokenizer:
    return open_clip.tokenizer.SimpleTokenizer(context_length=context_length)


def image(height: int, width: int, seed: int = 0) -> Tensor:
    """A smooth random picture, uint8 (3, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 5, generator=generator)
    size = (height, width)
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=True)
    return (smooth[0].clamp(0, 1) * 255).byte()


def labels(height: int, width: int, seed: int = 0, ignored: float = 0.1) -> Tensor:
    """Blocks of 8x8 pixels of one class each, a share of the pixels ignored, (height, width)."""
    generator = torch.Generator().manual_seed(seed)
    blocks = (-(-height // 8), -(-width // 8))
    coarse = torch.randint(len(CLASSES), blocks, generator=generator)
    fine = coarse.repeat_interleave(8, 0).repeat_interleave(8, 1)[:height, :width].clone()
    fine[torch.rand(height, width, generator=generator) < ignored] = 255
    return fine


def batch(*sizes: tuple[int, int], seed: int = 0) -> list[dict[str, Tensor]]:
    """Training inputs of these (height, width), 64x64 twice by default."""
    return [
        {"image": image(*size, seed + index), "sem_seg": labels(*size, seed + index)}
        for index, size in enumerate(sizes or ((64, 64), (64, 64)))
    ]


def answer(model: nn.Module, *inputs: dict[str, Any]) -> list[Tensor]:
    """The probabilities of each input, without gradients, in evaluation mode."""
    model.eval()
    with torch.no_grad():
        return [result["sem_seg"] for result in model(list(inputs))]


def assert_same(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    """Compare answers of two models or to two batches."""
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=0)
