"""Checkpoint formats: tensors from files, published names into ours.

Our own checkpoints store each tensor once. The published ones (CAT-Seg, H-CLIP, HyperCLIP, HPS-Seg)
differ in names, in how query, key and value projections are split, and repeat tied adapter
parameters under every block of both towers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys

from .errors import UserError
from .model_files import local_file, read_tensors

_PREDICTOR = "sem_seg_head.predictor."
_HEAD = "sem_seg_head."
_OFT = re.compile(r".*\.attn_q_proj_oft_(layer_R|relation_l_R|relation_m_R\.(\d+))(?:\.weight)?$")
_HYPERBOLIC = re.compile(
    r"(visual\.)?transformer\.resblocks\.(\d+)\.hyperbolic_attn\.adapter_attn_([qkv])\.weights$"
)
_QKV = ("q_proj", "k_proj", "v_proj")
_COST_EMBEDDING = f"{_HEAD}aggregator.cost_embedding.weight"
_TEMPLATES_2023 = 80

# Published name -> ours, below the published predictor; tried in order, first match wins.
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


# Entries that only one kind of model has, and what it is called with them.
_SIGNS = {
    "sem_seg_head.clip.adapter.generators": "OFT adapters",
    "sem_seg_head.clip.adapter.text": "hyperbolic adapters",
    "hpa.prototypes": "HPA",
    "afr.mix_weight": "AFR",
}
_BASES = {"OFT adapters": "H-CLIP", "hyperbolic adapters": "HyperCLIP"}


class Converted(NamedTuple):
    """A checkpoint under our names.

    tensors: our name -> tensor.
    sources: our name -> the name in the file, for messages.
    unused: names in the file that carry nothing (masks, sizes, flags) or are unknown.
    """

    tensors: dict[str, Tensor]
    sources: dict[str, str]
    unused: list[str]


def checkpoint_holds_clip(weights: str) -> bool:
    """Whether the checkpoint that MODEL.WEIGHTS names (or "") has all of CLIP in it.

    Raises:
        UserError: if there is no such file, or it cannot be read.
    """
    if not weights:
        return False
    return format_of(read_tensors(local_file(weights))) not in ("CLIP", "unknown")


def clip_from_open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's (and OpenAI's) CLIP entries under the names of our CLIP module."""
    return _convert_clip(dict(tensors)).tensors


def format_of(names: Iterable[str]) -> str:
    """Which model a checkpoint with these entries belongs to.

    Returns:
        "ours", "CAT-Seg", "H-CLIP", "HPS-Seg", "HyperCLIP", "CLIP" or "unknown".
    """
    names = list(names)
    if any(name.startswith(_PREDICTOR) for name in names):
        if any("hyperbolic_attn" in name for name in names):
            return "HyperCLIP"
        if any(name.startswith(("hpa.", "afr.")) for name in names):
            return "HPS-Seg"
        return "H-CLIP" if any("_oft_layer_R" in name for name in names) else "CAT-Seg"
    if any(name.startswith("sem_seg_head.clip.") for name in names):
        return "ours"
    return "CLIP" if "visual.class_embedding" in names else "unknown"


def convert(state: Mapping[str, Tensor]) -> Converted:
    """Bring a published or our own checkpoint under our names.

    Raises:
        UserError: if copies of a tied adapter parameter differ.
    """
    if format_of(state) == "ours":
        return Converted(dict(state), {name: name for name in state}, [])
    clip_prefix = f"{_PREDICTOR}clip_model."
    clip = {n.removeprefix(clip_prefix): t for n, t in state.items() if n.startswith(clip_prefix)}
    out = _prefixed(_convert_clip(clip, clip_prefix), f"{_HEAD}clip.", clip_prefix)
    for name, tensor in state.items():
        if name.startswith(clip_prefix):
            continue
        ours = _rename(name)
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


def _convert_clip(state: dict[str, Tensor], prefix: str = "") -> Converted:
    """Convert CLIP's entries; `prefix` stands before their names in the file, for messages."""
    out = Converted({}, {}, [])
    tied: dict[str, str] = {}
    hyperbolic: dict[tuple[str, int, int], str] = {}
    for name, tensor in state.items():
        if match := _OFT.match(name):
            _check_tied(state, tied.setdefault(match[1], name), name)
        elif match := _HYPERBOLIC.match(name):
            tower = "image" if match[1] else "text"
            hyperbolic[tower, int(match[2]), "qkv".index(match[3])] = name
        elif not _is_weight(name):
            out.unused.append(name)
        else:
            if "in_proj_" in name and (tensor.ndim == 0 or len(tensor) % 3):
                shape = tuple(tensor.shape)
                raise UserError(f"{prefix}{name} is {shape}, not query, key and value together")
            visual = name.startswith("visual.")
            ours = f"image.{name.removeprefix('visual.')}" if visual else f"text.{name}"
            for split_name, part in _split_projections(ours, tensor):
                out.tensors[split_name], out.sources[split_name] = part, name
    _stack_oft(state, tied, out)
    _stack_hyperbolic(state, hyperbolic, out)
    return out


def _stack_oft(state: dict[str, Tensor], tied: dict[str, str], out: Converted) -> None:
    """Tied published parameter -> its first name, into the three tensors of ours."""
    mixers = sorted((part for part in tied if "_m_" in part), key=lambda part: int(part[13:]))
    parts = {"generators": ["layer_R"], "row_mixer": ["relation_l_R"], "slot_mixers": mixers}
    for ours, published in parts.items():
        names = [tied[part] for part in published if part in tied]
        if names:
            tensors = [state[name] for name in names]
            stacked = torch.stack(tensors) if ours == "slot_mixers" else tensors[0]
            out.tensors[f"adapter.{ours}"], out.sources[f"adapter.{ours}"] = stacked, names[0]


def _stack_hyperbolic(
    state: dict[str, Tensor], names: dict[tuple[str, int, int], str], out: Converted
) -> None:
    """(tower, block, q/k/v) -> published name, into one tensor a tower."""
    for tower in ("text", "image"):
        own = [name for key, name in sorted(names.items()) if key[0] == tower]
        blocks = {key[1] for key in names if key[0] == tower}
        if blocks != set(range(len(blocks))) or len(own) != 3 * len(blocks):
            raise UserError(f"the {tower} tower's hyperbolic adapters of the checkpoint have gaps")
        if own:
            stacked = torch.stack([state[name] for name in own]).unflatten(0, (-1, 3))
            out.tensors[f"adapter.{tower}"], out.sources[f"adapter.{tower}"] = stacked, own[0]


def _is_weight(name: str) -> bool:
    unread = ("logit_scale", "attn_mask", "input_resolution", "context_length", "vocab_size")
    return name not in unread and not name.endswith(("cross_attention_dim", "hidden_size"))


def _split_projections(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """One linear layer each for query, key and value, however they were stored."""
    stem, _, leaf = name.rpartition(".")
    if leaf in ("in_proj_weight", "in_proj_bias"):
        kind = leaf.removeprefix("in_proj_")
        parts = zip(_QKV, tensor.chunk(3), strict=True)
        return [(f"{stem}.{projection}.{kind}", part) for projection, part in parts]
    if leaf.removesuffix("_weight") in _QKV:
        return [(f"{stem}.{leaf.removesuffix('_weight')}.weight", tensor)]
    return [(name, tensor)]


def _check_tied(state: dict[str, Tensor], first: str, other: str) -> None:
    a, b = state[first], state[other]
    if a.data_ptr() != b.data_ptr() and not torch.equal(a, b):
        raise UserError(f"the copies {first} and {other} of one tied parameter differ")


def load_converted(
    model: nn.Module,
    load: Callable[..., _IncompatibleKeys],
    state: Mapping[str, Tensor],
    assign: bool,
) -> _IncompatibleKeys:
    """Load a state dict of any known format into a segmentation model.

    Args:
        model: the model; gets the attribute `load_format`, the name of the format.
        load: nn.Module.load_state_dict, bound to the model.
        assign: as in nn.Module.load_state_dict.

    Returns:
        No missing keys; as unexpected ones, the entries that carry nothing (masks, sizes, flags).

    Raises:
        UserError: for a checkpoint of another model, an entry that is missing or has no place
            here, and a shape that does not fit.
    """
    found = format_of(state)
    own = model.state_dict()
    _check_current(found, state, own)
    converted = convert(state)
    _check_same_model(found, own, converted)
    for name, tensor in converted.tensors.items():
        if name in own and own[name].shape != tensor.shape:
            raise UserError(
                f"checkpoint entry {converted.sources[name]} is {tuple(tensor.shape)},"
                f" but this config's model has {tuple(own[name].shape)}"
            )
    if missing := [name for name in own if name not in converted.tensors]:
        raise UserError(f"the checkpoint lacks {missing[0]} ({len(missing)} missing in all)")
    if foreign := [source for name, source in converted.sources.items() if name not in own]:
        raise UserError(
            f"the checkpoint's {foreign[0]} ({len(foreign)} such entries) has no place in this"
            " config's model; take the config that it was trained with"
        )
    load(converted.tensors, assign=assign)
    model.load_format = found
    return _IncompatibleKeys([], converted.unused)


def _check_current(found: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse CAT-Seg's checkpoints of 2023: a backbone beside CLIP, 80 templates in the cost."""
    if found in ("ours", "CLIP", "unknown"):
        return
    backbone = next((name for name in state if name.startswith("backbone.")), None)
    cost = state.get(f"{_PREDICTOR}transformer.conv1.weight")
    templates = None if cost is None or cost.ndim < 2 else cost.shape[1]
    wanted = own[_COST_EMBEDDING].shape[1]
    if backbone or (templates == _TEMPLATES_2023 != wanted):
        sign = f"it holds {backbone}" if backbone else f"it has {templates} prompt templates"
        raise UserError(
            f"this is a CAT-Seg checkpoint of 2023 ({sign}), written by an earlier version of its"
            " code, whose model is a different one; use CAT-Seg's current files, model_base.pth or"
            " model_large.pth"
        )


def _check_same_model(found: str, own: Mapping[str, Tensor], converted: Converted) -> None:
    if found == "CLIP":
        raise UserError(
            "the checkpoint is a plain CLIP; give it as MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS"
        )
    if found == "unknown":
        example = next(iter(converted.unused), "nothing")
        raise UserError(
            "the checkpoint is of no CAT-Seg, H-CLIP, HyperCLIP or HPS-Seg model"
            f" (it holds {example})"
        )
    theirs = [sign for name, sign in _SIGNS.items() if name in converted.tensors]
    ours = [sign for name, sign in _SIGNS.items() if name in own]
    if theirs != ours:
        raise UserError(
            f"the checkpoint is of {_kind(theirs)}, but this config's model is {_kind(ours)};"
            " take the config that it was trained with"
        )


def _kind(signs: list[str]) -> str:
    """What a model with these parts is called."""
    innovations = [sign for sign in signs if sign not in _BASES]
    base = next((_BASES[sign] for sign in signs if sign in _BASES), "CAT-Seg")
    if base == "H-CLIP" and len(innovations) == 2:
        return "HPS-Seg (H-CLIP with HPA and AFR)"
    return " with ".join([base, *innovations])
