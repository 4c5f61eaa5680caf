"""open_clip models with three small blocks, and features of whole images by our towers."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import open_clip
import timm
import torch
from torch import Tensor, nn

from cat_seg.checkpoint.clip_formats import convert_clip
from cat_seg.modeling.clip import timm_towers
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.loading import image_tower, text_tower
from cat_seg.modeling.clip.start_weights import open_clip_model

LAYERS, SIDE, TOKENS = 3, 4, 500


@contextmanager
def shallow_timm(patch_size: int) -> Iterator[None]:
    """timm builds towers with LAYERS blocks for images of SIDE patches within this context."""
    shallow = partial(timm.create_model, depth=LAYERS, img_size=SIDE * patch_size)
    timm_towers._read.cache_clear()
    with patch.object(timm, "create_model", shallow):
        yield
    timm_towers._read.cache_clear()


def shallow_config(name: str) -> dict[str, Any]:
    """open_clip's config of a model with LAYERS blocks in each tower."""
    config = copy.deepcopy(open_clip.get_model_config(name))
    config["text_cfg"]["layers"] = LAYERS
    if config["text_cfg"].get("hf_tokenizer_name"):
        config["text_cfg"]["vocab_size"] = TOKENS
    if "timm_model_name" not in config["vision_cfg"]:
        config["vision_cfg"]["layers"] = LAYERS
        config["vision_cfg"]["image_size"] = SIDE * config["vision_cfg"]["patch_size"]
    return config


def built(config: dict[str, Any], folder: Path) -> tuple[nn.Module, Architecture]:
    """open_clip's model of a config, with all parameters off their start, and the architecture."""
    path = folder / "model.json"
    path.write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2 or parameter.shape[0] == 1:  # norms, biases, embeddings
                parameter += 0.1 * torch.randn(parameter.shape)
        # A timm head starts near 0.
        if (head := getattr(getattr(model.visual, "trunk", None), "head", None)) is not None:
            [p.normal_(std=0.03) for p in head.parameters()]
    return model, Architecture.from_name(str(path))


@torch.no_grad()
def largest_differences(model: nn.Module, architecture: Architecture) -> tuple[float, float]:
    """How far whole-image and text features of our towers are from open_clip's own, relatively."""
    grid = (architecture.pretrained_grid,) * 2
    image = image_tower(architecture, grid, "value")
    text = text_tower(architecture, recompute=False)
    load(image, "image.", model)
    load(text, "text.", model)
    torch.manual_seed(1)
    images = torch.randn(2, 3, *image.input_size)
    length, vocabulary = architecture.context_length, architecture.vocab_size
    tokens = torch.randint(1, vocabulary - 1, (2, length))
    if architecture.causal:
        tokens[0, 9], tokens[1, 20] = vocabulary - 1, vocabulary - 1  # end of text
    found = whole_image(image, images)
    found_text = text(tokens, text.transformer.attention_weights())
    return distance(found, model.encode_image(images)), distance(
        found_text, model.encode_text(tokens)
    )


def load(tower: nn.Module, prefix: str, model: nn.Module) -> None:
    """Load our tower with the entries of open_clip's model, all of which must have a place."""
    tensors = convert_clip(model.state_dict()).tensors
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    tower.load_state_dict(own, strict=True)


def whole_image(tower: Any, images: Tensor) -> Tensor:
    """Features (B, C) of whole images, by ordinary blocks and the pooling of the pretraining."""
    weights = tower.transformer.attention_weights()
    x = tower.tokens(images)
    if hasattr(tower, "pool"):
        return tower.pool(tower.ln_post(tower.transformer(x, weights)[0]))
    if hasattr(tower, "rope"):
        x, _ = tower.transformer(x, weights, rope=tower.rope(x.device))
        return tower.proj(tower.ln_post(x))[:, 0]
    x, _ = tower.transformer(tower.ln_pre(x), weights)
    return (tower.ln_post(x) @ tower.proj)[:, 0]


def distance(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest value if that exceeds 1."""
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1)).item()
