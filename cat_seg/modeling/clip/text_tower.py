"""CLIP's text tower."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.prefix_tree import PrefixTree, prefix_tree
from cat_seg.modeling.clip.transformer import AttentionWeights, Transformer
from cat_seg.modeling.norms import LayerNorm


class TextTower(nn.Module):
    """Causal text transformer; the feature of a prompt is that of its end-of-text token."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        width = architecture.text.width
        self.context_length = architecture.context_length
        self.token_embedding = nn.Embedding(architecture.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.zeros(self.context_length, width))
        self.transformer = Transformer(architecture.text)
        self.ln_final = LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, architecture.embed_dim))

    @staticmethod
    def arrange(tokens: Tensor) -> PrefixTree:
        """Return the prefix tree of prompts, given their token ids (N, context length)."""
        return prefix_tree(tokens)

    @property
    def device(self) -> torch.device:
        """Device of the tower."""
        return self.positional_embedding.device

    def forward(self, prompts: PrefixTree | Tensor, weights: Sequence[AttentionWeights]) -> Tensor:
        """Encode prompts.

        Args:
            prompts: the prefix tree of N prompts, or their token ids (N, context length), in
                which end-of-text has the highest id.
            weights: effective attention weights, one entry per block.

        Returns:
            Features (N, C) in the joint image-text space, not normalized.
        """
        tree = prompts if isinstance(prompts, PrefixTree) else self.arrange(prompts)
        tree = tree.to(self.device)
        x = self.token_embedding(tree.tokens) + self.positional_embedding[tree.positions]
        x = self.transformer.forward_tree(x, weights, tree)
        return self.ln_final(x) @ self.text_projection
