"""Checkpoint formats: conversion of published entry names to ours.

Our checkpoints store each tensor once. The published ones (CAT-Seg, H-CLIP, HPS-Seg, HyperCLIP,
HyperCLIP++, HyRo) use other names, split the query, key and value projections differently, and
repeat tied adapter parameters in every block of both towers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from cat_seg.checkpoint.clip_formats import Converted, convert_clip, is_clip
from cat_seg.checkpoint.reading import local_file, read_tensors
from cat_seg.checkpoint.without_clip import clip_digest

_PREDICTOR = "sem_seg_head.predictor."
_HEAD = "sem_seg_head."

# Published name below the predictor's transformer -> our name; the first match wins.
_AGGREGATOR_NAMES = [
    (r"conv1\.", r"cost_embedding."),
    (r"guidance_projection\.0\.", r"image_guidance."),
    (r"text_guidance_projection\.0\.", r"text_guidance."),
    (r"decoder_guidance_projection\.(\d)\.0\.", r"decoder_guidance.\1."),
    (r"layers\.(\d+)\.swin_block\.block_1\.", r"layers.\1.spatial.blocks.0."),
    (r"layers\.(\d+)\.swin_block\.block_2\.(?!attn_mask)", r"layers.\1.spatial.blocks.1."),
    (r"layers\.(\d+)\.swin_block\.guidance_norm\.", r"layers.\1.spatial.guidance_norm."),
    (r"layers\.(\d+)\.attention\.padding_tokens", r"layers.\1.classes.padding_token"),
    (r"layers\.(\d+)\.attention\.padding_guidance", r"layers.\1.classes.padding_guidance"),
    (r"layers\.(\d+)\.attention\.attention\.", r"layers.\1.classes.attn."),
    (r"layers\.(\d+)\.attention\.MLP\.0\.", r"layers.\1.classes.mlp.fc1."),
    (r"layers\.(\d+)\.attention\.MLP\.2\.", r"layers.\1.classes.mlp.fc2."),
    (r"layers\.(\d+)\.attention\.(norm\d)\.", r"layers.\1.classes.\2."),
    (r"(decoder\d)\.up\.", r"\1.up."),
    (r"(decoder\d)\.conv\.double_conv\.0\.", r"\1.conv1."),
    (r"(decoder\d)\.conv\.double_conv\.1\.", r"\1.norm1."),
    (r"(decoder\d)\.conv\.double_conv\.3\.", r"\1.conv2."),
    (r"(decoder\d)\.conv\.double_conv\.4\.", r"\1.norm2."),
    (r"head\.", r"head."),
]


def checkpoint_holds_clip(weights: str) -> bool:
    """Return whether the checkpoint named by MODEL.WEIGHTS (may be "") contains all of CLIP.

    Raises:
        UserError: the file does not exist or cannot be read.
    """
    if not weights:
        return False
    file = local_file(weights)
    tensors = read_tensors(file)  # first, because it reports a damaged file
    return clip_digest(file) is None and format_of(tensors) not in ("CLIP", "unknown")


def format_of(names: Iterable[str]) -> str:
    """Return which kind of model a checkpoint with these entries belongs to.

    Returns:
        "ours", "CAT-Seg", "H-CLIP", "HPS-Seg", "HyperCLIP", "HyperCLIP++", "HyRo", "CLIP" or
        "unknown".
    """
    names = list(names)
    if any(name.startswith(_PREDICTOR) for name in names):
        if any(name.endswith(".rotation_weights") for name in names):
            return "HyRo"
        if any("hyperbolic_attn" in name for name in names):
            return "HyperCLIP"
        if any("_oft_relation_l_R.w1" in name for name in names):
            return "HyperCLIP++"
        if any(name.startswith(("hpa.", "afr.")) for name in names):
            return "HPS-Seg"
        return "H-CLIP" if any("_oft_layer_R" in name for name in names) else "CAT-Seg"
    if any(name.startswith(("sem_seg_head.clip.", "sem_seg_head.aggregator.")) for name in names):
        return "ours"
    return "CLIP" if is_clip(names) else "unknown"


def convert(state: Mapping[str, Tensor]) -> Converted:
    """Convert a published or our own checkpoint to our names.

    Raises:
        UserError: as in `convert_clip`.
    """
    if format_of(state) == "ours":
        return Converted(dict(state), {name: name for name in state}, [])
    clip_prefix = f"{_PREDICTOR}clip_model."
    clip = {n.removeprefix(clip_prefix): t for n, t in state.items() if n.startswith(clip_prefix)}
    out = _prefixed(convert_clip(clip, clip_prefix), f"{_HEAD}clip.", clip_prefix)
    for name, tensor in state.items():
        if name.startswith(clip_prefix):
            continue
        ours = _rename(name)
        if ours is None and name.startswith(_PREDICTOR) and not name.endswith("attn_mask"):
            ours = name  # from another model; kept so that it is reported as not ours
        if ours is None:
            out.unused.append(name)
        else:
            out.tensors[ours], out.sources[ours] = tensor, name
    return out


def _rename(name: str) -> str | None:
    if name.startswith(("hpa.", "afr.")):
        return name
    if name.startswith(("upsample1.", "upsample2.")):
        return f"{_HEAD}{name}"
    inner = name.removeprefix(f"{_PREDICTOR}transformer.")
    for pattern, ours in _AGGREGATOR_NAMES:
        if inner != name and re.match(pattern, inner):
            return f"{_HEAD}aggregator." + re.sub(f"^{pattern}", ours, inner)
    return None


def _prefixed(converted: Converted, ours: str, theirs: str) -> Converted:
    return Converted(
        {ours + name: tensor for name, tensor in converted.tensors.items()},
        {ours + name: theirs + source for name, source in converted.sources.items()},
        [theirs + name for name in converted.unused],
    )
