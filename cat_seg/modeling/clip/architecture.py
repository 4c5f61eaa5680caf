"""Architectures of CLIP, EVA02-CLIP and SigLIP, read from open_clip's model configs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip

from cat_seg.modeling.clip.plainness import TOKENS, odd_settings
from cat_seg.modeling.clip.spec import TowerSpec
from cat_seg.modeling.clip.timm_towers import ImageSize, image_tower
from cat_seg.utils.paths import resolve


@dataclass(frozen=True)
class Architecture:
    """A model of one of three kinds.

    Attributes:
        open_clip_name: open_clip's name of the model.
        open_clip_config: open_clip's config of the model.
        kind: "clip" (plain ViT), "eva02" or "siglip"; the kind of the image tower.
        causal: whether the text tower is CLIP's; otherwise it is SigLIP's.
        embed_dim: channels of the joint image-text space.
        image, text: sizes of the towers.
        patch_size: pixels of a patch's side.
        pretrained_grid: patches of a side of the images of the pretraining.
        context_length: tokens of a prompt, with padding.
        vocab_size: tokens that there are.
        tokenizer: where the tokenizer is on the Hub; "" for CLIP's own.
        projects_text: whether the text tower ends with a projection.
    """

    open_clip_name: str
    open_clip_config: dict[str, Any]
    kind: str
    causal: bool
    embed_dim: int
    image: TowerSpec
    text: TowerSpec
    patch_size: int
    pretrained_grid: int
    context_length: int
    vocab_size: int
    tokenizer: str
    projects_text: bool

    @classmethod
    def from_name(cls, name: str) -> Architecture:
        """Read the architecture from open_clip's config of a model.

        Args:
            name: OpenAI's name ("ViT-B/16", "ViT-L/14@336px"), an open_clip model name, or the
                path of an open_clip model config (.json).

        Raises:
            ValueError: there is no such model, or its towers are not of the kinds known here.
        """
        open_clip_name, config = _read_config(name)
        if odd := odd_settings(config):
            raise ValueError(
                "name must be a CLIP with plain transformers, EVA02-CLIP or SigLIP, such as"
                " 'ViT-B/16', 'ViT-L/14@336px', 'EVA02-B-16' or 'ViT-B-16-SigLIP2';"
                f" '{name}' has unsupported settings: {', '.join(odd)}"
            )
        vision, text = config["vision_cfg"], config["text_cfg"]
        quick_gelu = config.get("quick_gelu", False)
        image = image_tower(vision) or _plain_image(vision, quick_gelu)
        return cls(
            open_clip_name=open_clip_name,
            open_clip_config=config,
            kind=image.kind,
            causal=not text.get("no_causal_mask", False),
            embed_dim=config["embed_dim"],
            image=image.spec,
            text=_tower(text, text.get("width", 512), text.get("heads", 8), quick_gelu),
            patch_size=image.patch_size,
            pretrained_grid=image.grid,
            context_length=text.get("context_length", 77),
            vocab_size=text.get("vocab_size", TOKENS),
            tokenizer=text.get("hf_tokenizer_name", ""),
            projects_text=text.get("proj_type", "linear") != "none",
        )

    @property
    def quick_gelu(self) -> bool:
        """Whether the towers have OpenAI's activation."""
        return self.text.activation == "quick_gelu"


def _plain_image(vision: dict[str, Any], quick_gelu: bool) -> ImageSize:
    patch, size = vision.get("patch_size", 16), vision.get("image_size", 224)
    width = vision.get("width", 768)
    spec = _tower(vision, width, width // vision.get("head_width", 64), quick_gelu)
    return ImageSize("clip", spec, patch, size // patch)


def _tower(config: dict[str, Any], width: int, heads: int, quick_gelu: bool) -> TowerSpec:
    activation = "quick_gelu" if quick_gelu else "gelu"
    return TowerSpec(
        width,
        config.get("layers", 12),
        heads,
        int(width * config.get("mlp_ratio", 4.0)),
        "gelu_tanh" if config.get("act_kwargs") else activation,
        config.get("norm_kwargs", {}).get("eps", 1e-5),
    )


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
