"""Settings of open_clip's model configs that the towers do not implement."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import open_clip

from cat_seg.modeling.clip.timm_towers import image_tower

TOKENS = 49408  # vocabulary size of CLIP's byte-pair encoding
LEAST_LAYERS = 3  # of an image tower: two levels of guidance and the dense block

# Settings without effect here, whatever their value.
_NEUTRAL = {"timm_drop_path", "patch_dropout", "output_tokens"}
_OUTSIDE = {"embed_dim", "quick_gelu", "custom_text", "init_logit_scale", "init_logit_bias"}
_SIZES = {"layers", "width", "head_width", "heads", "mlp_ratio", "patch_size", "image_size"}
_SIZES |= {"context_length", "vocab_size"}
_TIMM = {"image_size", "timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj"}
# What SigLIP's text towers have in common, and what they may set.
_SIGLIP_TEXT = {"no_causal_mask": True, "pool_type": "last"}
_FREE = {"hf_tokenizer_name", "tokenizer_kwargs", "norm_kwargs", "act_kwargs"}
_FREE |= {"proj_bias", "proj_type"}


def odd_settings(config: dict[str, Any]) -> list[str]:
    """Return the settings of an open_clip model config that are not supported, in words."""
    odd = [key for key in config if key not in {*_OUTSIDE, "vision_cfg", "text_cfg"}]
    return [*odd, *_odd_text(config["text_cfg"]), *_odd_image(config["vision_cfg"])]


def _odd_text(text: dict[str, Any]) -> Iterator[str]:
    defaults = open_clip.model.CLIPTextCfg()
    siglip = all(text.get(key) == value for key, value in _SIGLIP_TEXT.items())
    siglip &= text.get("proj_bias", False) or text.get("proj_type") == "none"
    allowed = _SIZES | _NEUTRAL | (_FREE | _SIGLIP_TEXT.keys() if siglip else set())
    yield from _unlike(defaults, text, allowed, "text_cfg")
    if siglip:
        for key, known in (
            ("norm_kwargs", {"eps"}),
            ("act_kwargs", {"approximate"}),
            ("tokenizer_kwargs", {"clean"}),
        ):
            yield from (f"text_cfg.{key}.{one}" for one in text.get(key, {}) if one not in known)
        if text.get("act_kwargs", {}).get("approximate", "tanh") != "tanh":
            yield f"text_cfg.act_kwargs={text['act_kwargs']}"
    if not text.get("hf_tokenizer_name") and text.get("vocab_size", TOKENS) != TOKENS:
        yield f"text_cfg.vocab_size other than CLIP's {TOKENS}"


def _odd_image(vision: dict[str, Any]) -> Iterator[str]:
    layers = vision.get("layers", 12)
    if vision.get("timm_model_name"):
        yield from _unlike(open_clip.model.CLIPVisionCfg(), vision, _TIMM | _NEUTRAL, "vision_cfg")
        tower = image_tower(vision)
        if tower is None:
            yield f"vision_cfg.timm_model_name={vision['timm_model_name']}"
            return
        layers = tower.spec.layers
    else:
        allowed = _SIZES | _NEUTRAL
        yield from _unlike(open_clip.model.CLIPVisionCfg(), vision, allowed, "vision_cfg")
    if not isinstance(layers, int):
        yield "a ResNet image tower"
    elif layers < LEAST_LAYERS:
        yield f"fewer than {LEAST_LAYERS} image blocks, which the guidance needs"


def _unlike(
    defaults: object, settings: dict[str, Any], allowed: set[str], part: str
) -> Iterator[str]:
    """Yield the settings of a part that are neither allowed nor at open_clip's default."""
    for key, value in settings.items():
        if key not in allowed and value != getattr(defaults, key, None):
            yield f"{part}.{key}={value}"
