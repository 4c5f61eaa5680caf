"""Checkpoints without the frozen weights of CLIP, which are loaded over the CLIP of the config.

Such a file is safetensors, and its metadata has a digest of the CLIP that it belongs to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from cat_seg.checkpoint.file_kinds import is_safetensors
from cat_seg.errors import UserError

DIGEST = "clip_sha256"  # key in the metadata
_TOWERS = ("sem_seg_head.clip.text.", "sem_seg_head.clip.image.")


def split_clip(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Return the entries that are not CLIP's own, and the digest of those that are.

    Args:
        state: state dict of a segmentation model.
    """
    towers = {name: tensor for name, tensor in state.items() if name.startswith(_TOWERS)}
    return {n: t for n, t in state.items() if n not in towers}, _digest(towers)


def clip_digest(file: Path) -> str | None:
    """Return the digest of the CLIP that a checkpoint lacks, or None if it is not of this kind."""
    if not is_safetensors(file):
        return None
    with safe_open(file, framework="pt") as content:
        return (content.metadata() or {}).get(DIGEST)


def with_clip(tensors: dict[str, Tensor], file: Path, model: nn.Module) -> dict[str, Tensor]:
    """Complete the tensors of a checkpoint with CLIP's own from `model`, if it lacks them.

    Args:
        tensors: what was read from `file`.
        file: the checkpoint.
        model: a segmentation model with CLIP's weights.

    Raises:
        UserError: the model's CLIP is not the one that the checkpoint belongs to.
    """
    digest = clip_digest(file)
    if digest is None:
        return tensors
    towers = {n: t for n, t in model.state_dict().items() if n.startswith(_TOWERS)}
    if _digest(towers) != digest:
        raise UserError(
            "its adapters belong to another CLIP; set MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED and "
            "CLIP_WEIGHTS to the one that was fine-tuned"
        )
    return tensors | towers


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
