"""CLIP's text tower."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .architecture import Architecture
from .transformer import AttentionWeights, Transformer


class TextTower(nn.Module):
    """Causal text transformer; the feature is that of the end-of-text token."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        width = architecture.text.width
        self.context_length = architecture.context_length
        self.token_embedding = nn.Embedding(architecture.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.zeros(self.context_length, width))
        self.transformer = Transformer(architecture.text, architecture.quick_gelu)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, architecture.embed_dim))

    def forward(self, tokens: Tensor, weights: Sequence[AttentionWeights]) -> Tensor:
        """Encode prompts.

        Args:
            tokens: (N, context length) ids; the end-of-text token has the highest id.

        Returns:
            Features (N, C) in the joint image-text space, not normalised.
        """
        ends = tokens.argmax(dim=-1)
        # What stands after the end-of-text token cannot change its feature under causal attention.
        length = int(ends.max()) + 1
        x = self.token_embedding(tokens[:, :length]) + self.positional_embedding[:length]
        x = self.transformer.forward_causal(x, weights)
        at_end = x[torch.arange(len(x), device=x.device), ends]
        return self.ln_final(at_end) @ self.text_projection
