"""H-CLIP's adapter: orthogonal fine-tuning (OFT) shared across CLIP's blocks and towers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cat_seg.modeling.clip.adapters.base import Adapter, TowerWeights
from cat_seg.modeling.clip.adapters.slots import SLOT, SlotCounts, mix_rows, mix_slots
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.transformer import AttentionWeights


class OrthogonalAdapter(Adapter):
    """H-CLIP's adapter (Peng et al., CVPR 2025, pp. 15009-15020).

    Every attention weight is multiplied by a block-diagonal matrix of 128x128 slots: query, key
    and value weights on the input side (W Q), output weights on the output side (Q W).

    All slots come from one tensor of generators; see `cat_seg.modeling.clip.adapters.slots`. The
    Cayley map makes the text slots orthogonal; the image slots are used as they are. All slots
    start at the identity.

    Args:
        architecture: gives the width and depth of both towers.

    Raises:
        ValueError: the width of a tower is not a multiple of 128.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        counts = SlotCounts.of(architecture, "OFT")
        self.text_slots = counts.text
        identity = torch.eye(SLOT)[:, :, None, None].repeat(1, 1, counts.rows, counts.slots)
        identity[..., : self.text_slots] = 0  # the Cayley map takes 0 to the identity
        self.generators = nn.Parameter(identity)
        self.slot_mixers = nn.Parameter(torch.eye(counts.slots).repeat(counts.blocks, 1, 1))
        self.row_mixer = nn.Parameter(torch.eye(counts.rows))

    def forward(self, frozen: TowerWeights) -> TowerWeights:
        """Return both towers' attention weights, multiplied by the slots."""
        with torch.autocast(self.generators.device.type, enabled=False):
            rows = mix_rows(self.generators, self.row_mixer)
            text_mixers = self.slot_mixers[:, : self.text_slots]
            image_mixers = self.slot_mixers[:, self.text_slots :]
            text = cayley(mix_slots(rows, text_mixers, len(frozen.text)))
            image = mix_slots(rows, image_mixers, len(frozen.image))
            return TowerWeights(
                [_multiply(*pair) for pair in zip(frozen.text, text, strict=True)],
                [_multiply(*pair) for pair in zip(frozen.image, image, strict=True)],
            )


def cayley(matrices: Tensor) -> Tensor:
    """Return orthogonal matrices (I - S)(I + S)^-1, S = (M - M^T) / 2, for M (..., n, n)."""
    skew = (matrices - matrices.transpose(-1, -2)) / 2
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    return torch.linalg.solve(identity + skew, identity - skew)  # the two factors commute


def _multiply(frozen: AttentionWeights, blocks: Tensor) -> AttentionWeights:
    """Multiply q, k, v on the input side, out on the output side, by (4, slots, 128, 128)."""
    inputs = zip(frozen[:3], blocks[:3], strict=True)
    query, key, value = (_times_block_diagonal(w, b) for w, b in inputs)
    out = _times_block_diagonal(frozen.out.T, blocks[3].transpose(1, 2)).T
    return AttentionWeights(query, key, value, out)


def _times_block_diagonal(weight: Tensor, blocks: Tensor) -> Tensor:
    """Return weight (out, in) @ diag(blocks), with blocks (slots, n, n)."""
    columns = weight.unflatten(1, blocks.shape[:2]).transpose(0, 1)
    return (columns @ blocks).transpose(0, 1).flatten(1)
