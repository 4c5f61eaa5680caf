"""What an adapter is: a function from frozen attention weights to effective ones."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from ..transformer import AttentionWeights


class TowerWeights(NamedTuple):
    """The attention weights of both towers, block by block."""

    text: list[AttentionWeights]
    image: list[AttentionWeights]


class Adapter(nn.Module):
    """The identity, and the base of every adapter.

    One adapter serves both towers, so that it can share parameters between them; a tower that it
    does not adapt passes through.
    """

    def forward(self, frozen: TowerWeights) -> TowerWeights:
        """Return the weights in effect."""
        return frozen
