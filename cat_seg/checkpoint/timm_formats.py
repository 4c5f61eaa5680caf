"""Entry names of EVA02-CLIP's and SigLIP's image towers: open_clip's with timm, and EVA-CLIP's.

EVA-CLIP's own code, and what builds on it such as DeCLIP, names the same parameters in another way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor

TRUNK = "visual.trunk."  # open_clip's prefix of a timm model
_SIGNS = ("visual.trunk.pos_embed", "visual.pos_embed")

# Name after the prefix -> our name; every pattern is applied in turn.
_NAMES = [
    (r"^cls_token$", r"class_embedding"),
    (r"^pos_embed$", r"positional_embedding"),
    (r"^patch_embed\.proj\.", r"conv1."),
    (r"^norm\.", r"ln_post."),
    (r"^head\.", r"proj."),
    (r"^attn_pool\.", r"pool."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"transformer.resblocks.\1.ln_\2."),
    (r"^blocks\.", r"transformer.resblocks."),
    (r"\.attn\.([qv])_bias$", r".attn.\1_proj.bias"),
    (r"\.attn\.qkv\.", r".attn.in_proj_"),
    (r"\.attn\.inner_attn_ln\.", r".attn.norm."),
    (r"\.attn\.proj\.", r".attn.out_proj."),
    (r"\.mlp\.w1\.", r".mlp.fc1_g."),
    (r"\.mlp\.w2\.", r".mlp.fc1_x."),
    (r"\.mlp\.w3\.", r".mlp.fc2."),
    (r"\.mlp\.ffn_ln\.", r".mlp.norm."),
]
# The plain MLPs of SigLIP's blocks; EVA02's gated ones keep timm's names.
_PLAIN_MLP = [
    (r"^(transformer\..*\.mlp)\.fc1\.", r"\1.c_fc."),
    (r"^(transformer\..*\.mlp)\.fc2\.", r"\1.c_proj."),
]


def is_timm(names: Iterable[str]) -> bool:
    """Return whether these are the entries of an EVA02-CLIP or SigLIP with both towers."""
    return any(name in _SIGNS for name in names)


def is_gated(names: Iterable[str]) -> bool:
    """Return whether the image tower's blocks are EVA02's."""
    return any(".attn.q_proj." in name for name in names if name.startswith("visual."))


def image_name(name: str, gated: bool) -> str | None:
    """Return our name of an image tower's entry, None for a rotary table.

    Args:
        name: the name in the file, which starts with "visual.".
        gated: see `is_gated`.
    """
    inner = name.removeprefix(TRUNK).removeprefix("visual.")
    if "rope." in inner:
        return None
    for pattern, ours in [*_NAMES, *(() if gated else _PLAIN_MLP)]:
        inner = re.sub(pattern, ours, inner)
    return f"image.{inner}"


def without_batch(name: str, tensor: Tensor) -> Tensor:
    """Remove the leading dimensions of 1 from the embeddings, which timm's have."""
    if name == "image.class_embedding":
        return tensor.flatten()
    if name == "image.positional_embedding" and tensor.ndim == 3:
        return tensor.flatten(0, 1)
    return tensor
