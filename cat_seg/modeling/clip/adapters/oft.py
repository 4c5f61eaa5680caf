"""H-CLIP's adapter: orthogonal fine-tuning (OFT) shared across CLIP's blocks and towers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
            return TowerWeights(_multiply(frozen.text, text), _multiply(frozen.image, image))


def cayley(matrices: Tensor) -> Tensor:
    """Return orthogonal matrices (I - S)(I + S)^-1, S = (M - M^T) / 2, for M (..., n, n)."""
    skew = (matrices - matrices.transpose(-1, -2)) / 2
    identity = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    # The two factors commute. I + S is never singular, and a check of that would wait for a GPU.
    return torch.linalg.solve_ex(identity + skew, identity - skew).result


def _multiply(frozen: list[AttentionWeights], slots: Tensor) -> list[AttentionWeights]:
    """Multiply q, k, v on the input side, out on the output side, by (layers, 4, slots, n, n)."""
    qkv = _times_block_diagonal([w for weights in frozen for w in weights[:3]], slots[:, :3])
    out = _times_block_diagonal([weights.out.T for weights in frozen], slots[:, 3:].mT)
    return [AttentionWeights(*(*qkv[3 * i : 3 * i + 3], own.T)) for i, own in enumerate(out)]


def _times_block_diagonal(weights: list[Tensor], blocks: Tensor) -> tuple[Tensor, ...]:
    """Return weight (out, in) @ diag(blocks) of each weight; its blocks are (slots, n, n)."""
    columns = [w.unflatten(1, blocks.shape[-3:-1]).transpose(0, 1) for w in weights]
    products = _Products.apply(blocks.flatten(0, 1), *columns)
    return products.transpose(1, 2).flatten(2).unbind()


class _Products(torch.autograd.Function):
    """torch.stack(left) @ right, without keeping the stack, a copy of CLIP's weights."""

    @staticmethod
    def forward(ctx: Any, right: Tensor, *left: Tensor) -> Tensor:
        ctx.save_for_backward(right, *left)
        return torch.stack(left) @ right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        right, *left = ctx.saved_tensors
        own = torch.stack(left).mT @ gradient
        if any(ctx.needs_input_grad[1:]):
            return own, *(gradient @ right.mT).unbind()
        return own, *(None for _ in left)
