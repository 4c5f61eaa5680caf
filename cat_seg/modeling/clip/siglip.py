"""The towers of SigLIP and SigLIP 2."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from timm.layers import AttentionPoolLatent
from torch import Tensor, nn

from cat_seg.modeling.chunking import part_sizes, recomputed
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.modeling.clip.image_tower import DenseImageTower
from cat_seg.modeling.clip.transformer import ACTIVATIONS, AttentionWeights, Transformer
from cat_seg.modeling.encoder import ImageFeatures
from cat_seg.modeling.norms import LayerNorm


class SigLIPImageTower(DenseImageTower):
    """SigLIP's (Zhai et al., ICCV 2023, arXiv 2303.15343), which has no CLS token.

    Its attention pooling is applied to every patch on its own, as if the image were this one
    patch: value projection, output projection and MLP. That is MaskCLIP's recipe for the attention
    pooling of CLIP's ResNets (Zhou et al., ECCV 2022, arXiv 2112.01071). All blocks are left as
    they are.

    Args:
        architecture, grid: as in `DenseImageTower`.
    """

    def __init__(self, architecture: Architecture, grid: tuple[int, int]) -> None:
        super().__init__(architecture, grid, cls=False, bias=True)
        spec = architecture.image
        self.transformer = Transformer(spec)
        self.ln_post = LayerNorm(spec.width, spec.norm_eps)
        self.pool = AttentionPoolLatent(
            spec.width,
            num_heads=spec.heads,
            mlp_ratio=(spec.mlp_width + 0.5) / spec.width,  # timm truncates the product
            norm_layer=partial(LayerNorm, eps=spec.norm_eps),  # type: ignore[arg-type]
            act_layer=ACTIVATIONS[spec.activation],  # type: ignore[arg-type]
        )

    def forward(self, images: Tensor, weights: Sequence[AttentionWeights]) -> ImageFeatures:
        """Encode normalized images; see `DenseImageTower.forward`."""
        x, tapped = self.transformer(self.tokens(images), weights, self.taps)
        _, value = self.pool.kv.weight.chunk(2)
        _, bias = self.pool.kv.bias.chunk(2)
        x = self.pool.proj(nn.functional.linear(self.ln_post(x), value, bias))
        dense = x + self.pool.mlp(self.pool.norm(x))  # type: ignore[misc]  # it has an MLP
        return ImageFeatures(dense, self.maps(tapped))

    def unused(self) -> list[nn.Module]:
        """Return nothing: the last block is as in the pretraining."""
        return []


class SigLIPTextTower(nn.Module):
    """SigLIP's text transformer, without a mask.

    The feature of a prompt is that of its last token. Padding is attended to, as in training, so
    every prompt takes the whole context.

    Args:
        architecture: architecture of the model that the weights come from.
        recompute: activation checkpointing, a few prompts at a time.
    """

    def __init__(self, architecture: Architecture, recompute: bool = False) -> None:
        super().__init__()
        spec = architecture.text
        self.recompute = recompute
        self.width = spec.width
        self.token_embedding = nn.Embedding(architecture.vocab_size, spec.width)
        self.positional_embedding = nn.Parameter(
            torch.zeros(architecture.context_length, spec.width)
        )
        self.transformer = Transformer(spec)
        self.ln_final = LayerNorm(spec.width, spec.norm_eps)
        self.text_projection = (
            nn.Linear(spec.width, architecture.embed_dim)
            if architecture.projects_text
            else nn.Identity()
        )

    @staticmethod
    def arrange(tokens: Tensor) -> Tensor:
        """Return the token ids (N, context length) of prompts as they are."""
        return tokens

    @property
    def device(self) -> torch.device:
        """Device of the tower."""
        return self.positional_embedding.device

    def forward(self, prompts: Tensor, weights: Sequence[AttentionWeights]) -> Tensor:
        """Encode prompts.

        Args:
            prompts: token ids (N, context length).
            weights: effective attention weights, one entry per block.

        Returns:
            Features (N, C) in the joint image-text space, not normalized.
        """
        prompts = prompts.to(self.device)
        encode = partial(recomputed, self._encode) if self.recompute else self._encode
        if torch.is_grad_enabled() and not self.recompute:
            return encode(prompts, weights)
        sizes = part_sizes(len(prompts), prompts.numel() * self.width, prompts.device)
        return torch.cat([encode(part, weights) for part in prompts.split(sizes)])

    def _encode(self, tokens: Tensor, weights: Sequence[AttentionWeights]) -> Tensor:
        x = self.token_embedding(tokens) + self.positional_embedding
        x = self.transformer.forward_last(x, weights)
        return self.text_projection(self.ln_final(x))
