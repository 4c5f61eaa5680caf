"""Block-diagonal matrices from one tensor of 128x128 slots, shared across CLIP's blocks and towers.

H-CLIP introduced the scheme (Peng et al., CVPR 2025, pp. 15009-15020) and HyperCLIP++ reuses it.
All slots come from one tensor (128, 128, rows, slots). There are 4 rows (q, k, v, out) per block
of the deeper tower, and text width / 128 + image width / 128 slots, text first. One linear map per
block index mixes the slots; one linear map, shared by all blocks of both towers, mixes the rows.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from cat_seg.modeling.clip.architecture import Architecture

SLOT = 128  # side of one slot


class SlotCounts(NamedTuple):
    """Sizes of the shared tensor.

    rows: 4 per block of the deeper tower.
    text: slots of the text tower, which come first.
    slots: slots of both towers.
    """

    rows: int
    text: int
    slots: int

    @property
    def blocks(self) -> int:
        """Blocks of the deeper tower."""
        return self.rows // 4

    @classmethod
    def of(cls, architecture: Architecture, method: str) -> SlotCounts:
        """Count the rows and slots of a CLIP.

        Args:
            architecture: gives the width and depth of both towers.
            method: name of the fine-tuning, for the message.

        Raises:
            ValueError: the width of a tower is not a multiple of 128.
        """
        text, image = architecture.text, architecture.image
        for name, spec in (("text", text), ("image", image)):
            if spec.width % SLOT:
                raise ValueError(
                    f"architecture must have tower widths that are multiples of {SLOT} for"
                    f" {method}; the {name} tower of {architecture.open_clip_name} has"
                    f" {spec.width}, so use another CLIP or fine-tuning"
                )
        text_slots = text.width // SLOT
        slots = text_slots + image.width // SLOT
        return cls(4 * max(text.layers, image.layers), text_slots, slots)


def mix_rows(shared: Tensor, mixer: Tensor) -> Tensor:
    """Mix the rows of all slots.

    Args:
        shared: the tensor of slots, (128, 128, rows, slots).
        mixer: (rows, rows).

    Returns:
        Slots by block, (blocks, 4, slots, 128 * 128).
    """
    rows = shared.permute(2, 3, 0, 1).flatten(1)
    return (mixer @ rows).unflatten(0, (-1, 4)).unflatten(2, (-1, SLOT * SLOT))


def mix_slots(rows: Tensor, mixers: Tensor, layers: int) -> Tensor:
    """Mix the slots of a tower's blocks.

    Args:
        rows: result of `mix_rows`.
        mixers: one per block, with the tower's slots as outputs, (blocks, kept, slots).
        layers: blocks of the tower.

    Returns:
        Slots (layers, 4, kept, 128, 128).
    """
    return (mixers[:layers, None] @ rows[:layers]).unflatten(-1, (SLOT, SLOT))
