"""CLIP architectures, read from open_clip's model configs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip

from cat_seg.utils.paths import resolve

TOKENS = 49408  # vocabulary size of CLIP's byte-pair encoding
# open_clip tower settings that have no effect here, whatever their value.
_NEUTRAL = {"timm_drop_path", "patch_dropout", "output_tokens", "hf_tokenizer_name"}


@dataclass(frozen=True)
class TowerSpec:
    """Size of one transformer: `width` channels, `layers` blocks with `heads` heads each."""

    width: int
    layers: int
    heads: int
    mlp_width: int


@dataclass(frozen=True)
class Architecture:
    """A CLIP with a plain ViT image tower and a plain causal text tower."""

    open_clip_name: str
    open_clip_config: dict[str, Any]
    embed_dim: int
    quick_gelu: bool
    image: TowerSpec
    text: TowerSpec
    patch_size: int
    pretrained_grid: int
    context_length: int
    vocab_size: int

    @classmethod
    def from_name(cls, name: str) -> Architecture:
        """Read the architecture from open_clip's config of a model.

        Args:
            name: OpenAI's name ("ViT-B/16", "ViT-L/14@336px"), an open_clip model name, or the
                path of an open_clip model config (.json).

        Raises:
            ValueError: there is no such model, or its towers are not plain transformers.
        """
        open_clip_name, config = _read_config(name)
        _check_plain(name, config)
        vision, text = config["vision_cfg"], config["text_cfg"]
        patch, size = vision.get("patch_size", 16), vision.get("image_size", 224)
        width = vision.get("width", 768)
        return cls(
            open_clip_name=open_clip_name,
            open_clip_config=config,
            embed_dim=config["embed_dim"],
            quick_gelu=config.get("quick_gelu", False),
            image=_tower(vision, width, width // vision.get("head_width", 64)),
            text=_tower(text, text.get("width", 512), text.get("heads", 8)),
            patch_size=patch,
            pretrained_grid=size // patch,
            context_length=text.get("context_length", 77),
            vocab_size=text.get("vocab_size", TOKENS),
        )


def _tower(config: dict[str, Any], width: int, heads: int) -> TowerSpec:
    ratio = config.get("mlp_ratio", 4.0)
    return TowerSpec(width, config.get("layers", 12), heads, int(width * ratio))


def _read_config(name: str) -> tuple[str, dict[str, Any]]:
    """Return open_clip's name of a model, and its config."""
    if name.endswith(".json"):
        path = resolve(name)
        return path.stem, _read_file(path)
    known = name
    if "/" in name:  # OpenAI's spelling; OpenAI's models use QuickGELU
        known = name.replace("/", "-").replace("@", "-").removesuffix("px") + "-quickgelu"
    if known not in open_clip.list_models():
        raise ValueError(
            "name must be an OpenAI or open_clip ViT name such as 'ViT-B/16', or the path of an"
            f" open_clip model config (.json); there is no model '{name}'"
        )
    return known, open_clip.get_model_config(known)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"name must be the path of a readable config; {path}: {error}") from error
    parts = ("vision_cfg", "text_cfg")
    if not isinstance(config, dict) or not all(isinstance(config.get(p), dict) for p in parts):
        raise ValueError(
            f"name must be an open_clip config with vision_cfg and text_cfg; {path} lacks them"
        )
    if not isinstance(config.get("embed_dim"), int):
        raise ValueError(f"name must be an open_clip config with embed_dim; {path} has none")
    return config


def _check_plain(name: str, config: dict[str, Any]) -> None:
    """Reject towers with features that the dense encoders do not implement."""
    plain = {
        "vision_cfg": open_clip.model.CLIPVisionCfg(),
        "text_cfg": open_clip.model.CLIPTextCfg(),
    }
    sizes = {"layers", "width", "head_width", "heads", "mlp_ratio", "patch_size", "image_size"}
    sizes |= {"context_length", "vocab_size"} | _NEUTRAL
    odd = [f"{key}" for key in config if key not in {"embed_dim", "quick_gelu", *plain}]
    for part, defaults in plain.items():
        for key, value in config[part].items():
            if key not in sizes and value != getattr(defaults, key, None):
                odd.append(f"{part}.{key}={value}")
    layers = config["vision_cfg"].get("layers", 12)
    if not isinstance(layers, int):
        odd.append("a ResNet image tower")
    elif layers < 3:
        odd.append("fewer than 3 image blocks, which the guidance needs")
    if config["text_cfg"].get("vocab_size", TOKENS) != TOKENS:
        odd.append(f"text_cfg.vocab_size other than CLIP's {TOKENS}")
    if odd:
        raise ValueError(
            "name must be a plain CLIP ViT such as 'ViT-B/16', 'ViT-L/14@336px' or 'ViT-B-16';"
            f" '{name}' has unsupported settings: {', '.join(odd)}"
        )
