"""The adapters of the published systems, which store them among CLIP's entries.

H-CLIP and HyperCLIP++ repeat their tied parameters in every block of both towers. HyperCLIP and
HyRo have separate matrices in each block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cat_seg.errors import UserError

_TIED = re.compile(
    r".*\.attn_q_proj_oft_(layer_R|relation_l_R|relation_m_R\.\d+)(\.w[12])?(?:\.weight)?$"
)
_HYPERBOLIC = re.compile(
    r"(visual\.)?transformer\.resblocks\.(\d+)\.hyperbolic_attn"
    r"\.adapter_attn_([qkv])\.(rotation_)?weights$"
)
# Published tied parameter, without the block index -> our name, in H-CLIP and in HyperCLIP++.
_H_CLIP = {
    "layer_R": "generators",
    "relation_m_R": "slot_mixers",
    "relation_l_R": "row_mixer",
}
_HYPER_CLIP_PLUS = {
    "layer_R": "shared",
    "relation_m_R.w1": "slot_in",
    "relation_m_R.w2": "slot_out",
    "relation_l_R.w1": "row_in",
    "relation_l_R.w2": "row_out",
}


class PublishedAdapters:
    """Collects the adapter entries of a published checkpoint.

    Args:
        state: CLIP's entries and the adapters', without the prefix of CLIP.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = state
        # Tied parameter -> block of its mixer (0 if there is but one) -> its first name in `state`.
        self._tied: dict[str, dict[int, str]] = {}
        # (tower, whether a rotation) -> (block, 0..2 for q, k, v) -> name in `state`.
        self._hyperbolic: dict[tuple[str, bool], dict[tuple[int, int], str]] = {}

    def take(self, name: str) -> bool:
        """Add an entry, and return whether it is an adapter's.

        Raises:
            UserError: it is a copy of a tied parameter and differs from an earlier copy.
        """
        if match := _TIED.match(name):
            stem, _, block = match[1].partition(".")
            first = self._tied.setdefault(stem + (match[2] or ""), {}).setdefault(
                int(block or 0), name
            )
            _check_tied(self._state, first, name)
        elif match := _HYPERBOLIC.match(name):
            kind = "image" if match[1] else "text", bool(match[4])
            self._hyperbolic.setdefault(kind, {})[int(match[2]), "qkv".index(match[3])] = name
        return match is not None

    def converted(self) -> dict[str, tuple[Tensor, str]]:
        """Return the entries by our names, each with the first name it has in the file.

        Raises:
            UserError: adapters are missing in some blocks, or differ in shape between blocks.
        """
        plus = any(part.endswith((".w1", ".w2")) for part in self._tied)
        parts = _HYPER_CLIP_PLUS if plus else _H_CLIP
        found = {}
        for part, blocks in self._tied.items():
            names = [blocks[block] for block in sorted(blocks)]
            stacked = self._stacked(names) if "relation_m_R" in part else self._state[names[0]]
            found[f"adapter.{parts.get(part, part)}"] = stacked, names[0]
        return found | self._converted_hyperbolic()

    def _converted_hyperbolic(self) -> dict[str, tuple[Tensor, str]]:
        rotated = any(rotation for _, rotation in self._hyperbolic)
        found = {}
        for (tower, rotation), entries in self._hyperbolic.items():
            blocks = {block for block, _ in entries}
            if blocks != set(range(len(blocks))) or len(entries) != 3 * len(blocks):
                raise UserError(
                    f"the hyperbolic adapters of the {tower} tower are incomplete; use a complete "
                    "checkpoint"
                )
            kind = f"{'rotation' if rotation else 'scaling'}_{tower}" if rotated else tower
            names = [entries[key] for key in sorted(entries)]
            found[f"adapter.{kind}"] = self._stacked(names).unflatten(0, (-1, 3)), names[0]
        return found

    def _stacked(self, names: Sequence[str]) -> Tensor:
        tensors = [self._state[name] for name in names]
        for name, tensor in zip(names, tensors, strict=True):
            if tensor.shape != tensors[0].shape:
                raise UserError(
                    f"{names[0]} has shape {tuple(tensors[0].shape)}, but {name} has"
                    f" {tuple(tensor.shape)}; use another checkpoint"
                )
        return torch.stack(tensors)


def _check_tied(state: Mapping[str, Tensor], first: str, other: str) -> None:
    a, b = state[first], state[other]
    if a.data_ptr() != b.data_ptr() and not torch.equal(a, b):
        raise UserError(
            f"{first} and {other} are tied and should be equal, but they differ; use another "
            "checkpoint"
        )
