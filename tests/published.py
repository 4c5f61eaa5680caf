"""The published checkpoint formats, written from our models, and a model of each format."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

HEAD = "MODEL.SEM_SEG_HEAD."
HYPER = "MODEL.HYPERSPHERICAL."
PREDICTOR = "sem_seg_head.predictor."
CLIP = f"{PREDICTOR}clip_model."

OFT = (f"{HEAD}CLIP_FINETUNE", "oft_both")
ENHANCED = (*OFT, "MODEL.META_ARCHITECTURE", "EnhancedCATSeg", f"{HYPER}AFR_REDUCTION", 4)
MODELS = {
    "CAT-Seg": (),
    "H-CLIP": OFT,
    "HyperCLIP": (f"{HEAD}CLIP_FINETUNE", "hyperbolic"),
    "HyperCLIP++": (f"{HEAD}CLIP_FINETUNE", "hyperbolic_plus"),
    # The tiny text tower is 128 wide.
    "HyRo": (f"{HEAD}CLIP_FINETUNE", "hyro", "MODEL.ADAPTER.HYRO.ROTATION_SIZE", 128),
    "LoRA": (f"{HEAD}CLIP_FINETUNE", "lora"),
    "HPS-Seg": ENHANCED,
    "HPS-Seg without AFR": (*ENHANCED, f"{HYPER}USE_AFR", False),
    "HPS-Seg without HPA": (*ENHANCED, f"{HYPER}USE_HPA", False),
}
PUBLISHED = ("CAT-Seg", "H-CLIP", "HyperCLIP", "HyperCLIP++", "HyRo", "HPS-Seg")

# Our name -> the published one, for what is not CLIP; written out from the published lists.
TRANSFORMER = [
    ("cost_embedding.", "conv1."),
    ("image_guidance.", "guidance_projection.0."),
    ("text_guidance.", "text_guidance_projection.0."),
    ("decoder_guidance.0.", "decoder_guidance_projection.0.0."),
    ("decoder_guidance.1.", "decoder_guidance_projection.1.0."),
    (".spatial.blocks.0.", ".swin_block.block_1."),
    (".spatial.blocks.1.", ".swin_block.block_2."),
    (".spatial.guidance_norm.", ".swin_block.guidance_norm."),
    (".classes.padding_token", ".attention.padding_tokens"),
    (".classes.padding_guidance", ".attention.padding_guidance"),
    (".classes.attn.", ".attention.attention."),
    (".classes.mlp.fc1.", ".attention.MLP.0."),
    (".classes.mlp.fc2.", ".attention.MLP.2."),
    (".classes.norm", ".attention.norm"),
    (".conv1.", ".conv.double_conv.0."),
    (".norm1.", ".conv.double_conv.1."),
    (".conv2.", ".conv.double_conv.3."),
    (".norm2.", ".conv.double_conv.4."),
]


def published(model: nn.Module) -> dict[str, Tensor]:
    """The state of one of our models as the published code would have saved it."""
    state = model.state_dict()
    out = {f"{CLIP}logit_scale": torch.ones(())}
    for name, tensor in state.items():
        if name.startswith(("hpa.", "afr.")):
            out[name] = tensor
        elif ".upsample" in name:
            out[name.removeprefix("sem_seg_head.")] = tensor
        elif ".aggregator." in name:
            inner = name.removeprefix("sem_seg_head.aggregator.")
            for ours, theirs in TRANSFORMER:
                if ours in inner:
                    inner = inner.replace(ours, theirs, 1)
                    break
            out[f"{PREDICTOR}transformer.{inner}"] = tensor
        elif ".adapter." not in name and not re.search(r"\.[qkv]_proj\.", name):
            out[tower(name)] = tensor
    for name in state:
        if match := re.match(
            r"(.*\.(text|image)\..*\.resblocks\.(\d+)\.)attn\.q_proj\.weight", name
        ):
            out |= _attention(state, match[1])
            out |= _adapter(state, tower(match[1]), match[2], int(match[3]))
    for layer in (0, 1):
        mask = f"{PREDICTOR}transformer.layers.{layer}.swin_block.block_2.attn_mask"
        out[mask] = torch.zeros(4, 4, 4)
    return out


def tower(name: str) -> str:
    """The published name of one of our CLIP entries."""
    name = name.removeprefix("sem_seg_head.clip.")
    return CLIP + name.removeprefix("text.").replace("image.", "visual.", 1)


def _attention(state: dict[str, Tensor], block: str) -> dict[str, Tensor]:
    """Query, key and value of one block: joint, but for CAT-Seg's weights."""
    weights = [state[f"{block}attn.{letter}_proj.weight"] for letter in "qkv"]
    biases = [state[f"{block}attn.{letter}_proj.bias"] for letter in "qkv"]
    attn = f"{tower(block)}attn."
    out = {f"{attn}in_proj_bias": torch.cat(biases)}
    if any(".adapter." in name for name in state):
        return out | {f"{attn}in_proj_weight": torch.cat(weights)}
    split = {f"{attn}{letter}_proj_weight": w for letter, w in zip("qkv", weights, strict=True)}
    return out | split


def _adapter(state: dict[str, Tensor], block: str, part: str, index: int) -> dict[str, Tensor]:
    """The adapter's entries under one block; tied ones are repeated under every block."""
    prefix = "sem_seg_head.clip.adapter."
    adapter = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    if "generators" in adapter:
        oft = f"{block}attn_q_proj_oft_"
        out = {
            f"{oft}layer_R": adapter["generators"],
            f"{oft}relation_l_R.weight": adapter["row_mixer"],
            f"{block}to_out_oft{'_vision' if part == 'image' else ''}.hidden_size": torch.zeros(()),
        }
        mixers = enumerate(adapter["slot_mixers"])
        return out | {f"{oft}relation_m_R.{i}.weight": mixer for i, mixer in mixers}
    if "shared" in adapter:
        oft = f"{block}attn_q_proj_oft_"
        out = {f"{oft}layer_R": adapter["shared"]}
        for weight, end in (("w1", "in"), ("w2", "out")):
            out[f"{oft}relation_l_R.{weight}.weight"] = adapter[f"row_{end}"]
            for i, mixer in enumerate(adapter[f"slot_{end}"]):
                out[f"{oft}relation_m_R.{i}.{weight}.weight"] = mixer
        return out
    if f"scaling_{part}" in adapter:
        kinds = {"weights": "scaling", "rotation_weights": "rotation"}
        return {
            f"{block}hyperbolic_attn.adapter_attn_{letter}.{theirs}": matrix
            for theirs, ours in kinds.items()
            for letter, matrix in zip("qkv", adapter[f"{ours}_{part}"][index], strict=True)
        }
    if part in adapter:  # hyperbolic: (layers, q/k/v, blocks, side, side)
        pairs = zip("qkv", adapter[part][index], strict=True)
        return {f"{block}hyperbolic_attn.adapter_attn_{letter}.weights": m for letter, m in pairs}
    return {}
