"""CLIP and SigLIP entry names in open_clip, OpenAI, transformers and the published systems."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from cat_seg.checkpoint.adapter_formats import PublishedAdapters
from cat_seg.checkpoint.timm_formats import image_name, is_gated, is_timm, without_batch
from cat_seg.errors import UserError

_QKV = ("q_proj", "k_proj", "v_proj")

# transformers name -> our name; the first match wins.
_TRANSFORMERS = [
    (r"text_model\.embeddings\.token_embedding\.", r"text.token_embedding."),
    (r"text_model\.embeddings\.position_embedding\.weight$", r"text.positional_embedding"),
    (r"text_model\.final_layer_norm\.", r"text.ln_final."),
    (r"text_projection\.weight$", r"text.text_projection"),
    (r"vision_model\.embeddings\.class_embedding$", r"image.class_embedding"),
    (r"vision_model\.embeddings\.patch_embedding\.", r"image.conv1."),
    (r"vision_model\.embeddings\.position_embedding\.weight$", r"image.positional_embedding"),
    (r"vision_model\.pre_layrnorm\.", r"image.ln_pre."),  # transformers' own typo
    (r"vision_model\.post_layernorm\.", r"image.ln_post."),
    (r"visual_projection\.weight$", r"image.proj"),
    # SigLIP
    (r"text_model\.head\.", r"text.text_projection."),
    (r"vision_model\.head\.probe$", r"image.pool.latent"),
    (r"vision_model\.head\.attention\.in_proj_", r"image.pool.in_proj_"),
    (r"vision_model\.head\.attention\.out_proj\.", r"image.pool.proj."),
    (r"vision_model\.head\.layernorm\.", r"image.pool.norm."),
    (r"vision_model\.head\.mlp\.", r"image.pool.mlp."),
]
_TRANSFORMERS_TOWER = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)")
_TRANSFORMERS_BLOCK = {
    "self_attn.": "attn.",
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
}
_TRANSPOSED = ("text.text_projection", "image.proj")


class Converted(NamedTuple):
    """A checkpoint under our names.

    tensors: our name -> tensor.
    sources: our name -> the name in the file, for messages.
    unused: names in the file that hold no weights (masks, sizes, flags) or are unknown.
    """

    tensors: dict[str, Tensor]
    sources: dict[str, str]
    unused: list[str]


def is_clip(names: Iterable[str]) -> bool:
    """Return whether these are the entries of a CLIP, EVA02-CLIP or SigLIP, in any format."""
    names = list(names)
    signs = ("visual.class_embedding", "vision_model.embeddings.class_embedding")
    return is_timm(names) or any(name in (*signs, "vision_model.head.probe") for name in names)


def convert_clip(state: Mapping[str, Tensor], prefix: str = "") -> Converted:
    """Convert the entries of CLIP and its adapters to the names of our CLIP module.

    Args:
        state: as saved by open_clip, OpenAI, transformers or the published systems.
        prefix: what was stripped from the names in the file; used in messages.

    Raises:
        UserError: copies of a tied adapter parameter differ, adapters are missing in some blocks or
            differ in shape, or an in_proj entry cannot be split into query, key and value.
    """
    if any(name.startswith(("text_model.", "vision_model.")) for name in state):
        return _from_transformers(state)
    return _from_open_clip(dict(state), prefix)


def _from_transformers(state: Mapping[str, Tensor]) -> Converted:
    out = Converted({}, {}, [])
    for name, tensor in state.items():
        if name in ("logit_scale", "logit_bias") or name.endswith(".position_ids"):
            out.unused.append(name)
            continue
        ours = _rename_transformers(name)
        if ours in _TRANSPOSED and tensor.ndim == 2:
            tensor = tensor.T
        for split_name, part in _split_pool(ours, tensor):
            out.tensors[split_name], out.sources[split_name] = part, name
    return out


def _split_pool(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Split the projection of SigLIP's attention pooling into query, and key and value."""
    stem, is_pool, kind = name.partition("pool.in_proj_")
    if not is_pool or not tensor.ndim:
        return [(name, tensor)]
    width = len(tensor) // 3
    parts = zip(("q", "kv"), tensor.tensor_split([width]), strict=True)
    return [(f"{stem}pool.{part}.{kind}", value) for part, value in parts]


def _rename_transformers(name: str) -> str:
    if match := _TRANSFORMERS_TOWER.fullmatch(name):
        tower = "text" if match[1] == "text" else "image"
        for theirs, ours in _TRANSFORMERS_BLOCK.items():
            if match[3].startswith(theirs):
                leaf = ours + match[3].removeprefix(theirs)
                return f"{tower}.transformer.resblocks.{match[2]}.{leaf}"
    for pattern, ours in _TRANSFORMERS:
        if re.match(pattern, name):
            return re.sub(f"^{pattern}", ours, name)
    return name


def _from_open_clip(state: dict[str, Tensor], prefix: str) -> Converted:
    out = Converted({}, {}, [])
    adapters = PublishedAdapters(state)
    rename = _timm_name(state) if is_timm(state) else _open_clip_name
    for name, tensor in state.items():
        if adapters.take(name):
            continue
        ours = rename(name) if _is_weight(name) else None
        if ours is None:
            out.unused.append(name)
        else:
            if "in_proj_" in ours and (tensor.ndim == 0 or len(tensor) % 3):
                shape = tuple(tensor.shape)
                raise UserError(
                    f"{prefix}{name} has shape {shape}, which cannot be split into query, key and "
                    "value; use another checkpoint"
                )
            for split_name, part in _split_projections(ours, without_batch(ours, tensor)):
                out.tensors[split_name], out.sources[split_name] = part, name
    for ours, (tensor, source) in adapters.converted().items():
        out.tensors[ours], out.sources[ours] = tensor, source
    return out


def _open_clip_name(name: str) -> str:
    """Return our name of an entry of open_clip's, with or without a module for the text tower."""
    if name.startswith("visual."):
        return f"image.{name.removeprefix('visual.')}"
    return f"text.{name.removeprefix('text.')}"


def _timm_name(names: Iterable[str]) -> Callable[[str], str | None]:
    """Return the function that gives our names of a file's entries, None for those not used."""
    gated = is_gated(names)
    return lambda name: (
        image_name(name, gated) if name.startswith("visual.") else _open_clip_name(name)
    )


def _is_weight(name: str) -> bool:
    unread = ("logit_scale", "attn_mask", "input_resolution", "context_length", "vocab_size")
    short = name.removeprefix("text.")
    sizes = ("cross_attention_dim", "hidden_size")
    return short not in (*unread, "logit_bias") and not name.endswith(sizes)


def _split_projections(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """Split stored projections into one linear layer each for query, key and value."""
    stem, _, leaf = name.rpartition(".")
    if leaf in ("in_proj_weight", "in_proj_bias"):
        kind = leaf.removeprefix("in_proj_")
        parts = zip(_QKV, tensor.chunk(3), strict=True)
        return [(f"{stem}.{projection}.{kind}", part) for projection, part in parts]
    if leaf.removesuffix("_weight") in _QKV:
        return [(f"{stem}.{leaf.removesuffix('_weight')}.weight", tensor)]
    return [(name, tensor)]
