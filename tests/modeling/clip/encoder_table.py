"""Tables of docs/encoders.md: python -m tests.modeling.clip.encoder_table prints them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import open_clip

from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.plainness import odd_settings

KINDS = {"clip": "CLIP", "eva02": "EVA02-CLIP", "siglip": "SigLIP"}
# Start of a setting -> what it means; the first one that a name has counts.
REASONS = {
    "multimodal_cfg": "CoCa, with a text decoder",
    "a ResNet": "a ResNet image tower",
    "text_cfg.hf_model_name": "a text tower of transformers",
    "vision_cfg.timm_model_name": "another image tower of timm",
    "vision_cfg.pool_type": "CLIPA, whose image tower pools by averaging",
    "text_cfg.pool_type": "MetaCLIP 2, whose text tower has another tokenizer and end token",
    "vision_cfg.ls_init_value": "layer scale in the blocks",
}


def supported() -> Iterator[str]:
    """Rows of the names that can be built, with their weights."""
    yield "| `CLIP_PRETRAINED` | kind | blocks, channels: image; text | input | `CLIP_WEIGHTS` |"
    yield "|---|---|---|--:|---|"
    for name in open_clip.list_models():
        try:
            found = Architecture.from_name(name)
        except ValueError:
            continue
        sizes = "; ".join(f"{t.layers}, {t.width}" for t in (found.image, found.text))
        side = found.pretrained_grid * found.patch_size
        tags = ", ".join(usable_tags(found)) or "none published"
        yield f"| {name} | {KINDS[found.kind]} | {sizes} | {side} | {tags} |"


def usable_tags(found: Architecture) -> list[str]:
    """open_clip's weights for a model that were trained with its activation."""
    name = found.open_clip_name
    tags = open_clip.list_pretrained_tags_by_model(name)
    settings = {tag: open_clip.get_pretrained_cfg(name, tag) for tag in tags}
    return [t for t in tags if settings[t].get("quick_gelu", False) == found.quick_gelu]


def refused() -> Iterator[str]:
    """Rows of the reasons for which names are refused."""
    names = defaultdict(list)
    for name in open_clip.list_models():
        if odd := odd_settings(open_clip.get_model_config(name)):
            sign = next(sign for sign in REASONS if any(one.startswith(sign) for one in odd))
            names[REASONS[sign]].append(name)
    yield "| why | names |"
    yield "|---|---|"
    for reason in REASONS.values():
        yield f"| {reason} | {', '.join(names[reason])} |"


if __name__ == "__main__":
    print("\n".join([*supported(), "", *refused()]))
