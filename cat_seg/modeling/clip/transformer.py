"""The transformer of both CLIP towers, with attention weights passed in by the caller."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cat_seg.modeling.clip.architecture import TowerSpec
from cat_seg.modeling.clip.prefix_tree import PrefixTree
from cat_seg.modeling.norms import LayerNorm


class AttentionWeights(NamedTuple):
    """Projection matrices of one attention, each (C, C), with output units as rows."""

    query: Tensor
    key: Tensor
    value: Tensor
    out: Tensor


QUERY, VALUE, KEY_VALUE = slice(0, 1), slice(2, 3), slice(1, 3)  # of query, key and value


class QuickGELU(nn.Module):
    """OpenAI CLIP's activation, x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(1.702 * x) / 1.702


class SelfAttention(nn.Module):
    """Multi-head self-attention whose weights are passed in with every call.

    The module holds the pretrained projections. The caller passes either their weights or weights
    modified by an adapter; the biases are always the module's own.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def weights(self) -> AttentionWeights:
        """Return the module's own weights."""
        projections = (self.q_proj, self.k_proj, self.v_proj, self.out_proj)
        return AttentionWeights(*(projection.weight for projection in projections))

    def forward(self, x: Tensor, weights: AttentionWeights) -> Tensor:
        """Attend within each sequence of x, (B, N, C) to (B, N, C)."""
        q, k, v = self._split(self._project(x, weights))
        return self._out(F.scaled_dot_product_attention(q, k, v), weights)

    def forward_tree(self, x: Tensor, weights: AttentionWeights, tree: PrefixTree) -> Tensor:
        """Attend from every node of the tree to the nodes on its path, (nodes, C) to (nodes, C)."""
        # F.embedding gathers rows: first nodes into paths (N, L, 3 C), finally one slot per node.
        q, k, v = self._split(F.embedding(tree.paths, self._project(x, weights)))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = mixed.transpose(1, 2).flatten(2).flatten(0, 1)
        return F.linear(F.embedding(tree.slots, mixed), weights.out, self.out_proj.bias)

    def forward_ends(self, x: Tensor, weights: AttentionWeights, tree: PrefixTree) -> Tensor:
        """Attend only from the end-of-text tokens of the N prompts, (nodes, C) to (N, C)."""
        q = self._project(F.embedding(tree.ends, x), weights, QUERY)
        k, v = self._split(F.embedding(tree.paths, self._project(x, weights, KEY_VALUE)))
        (q,) = self._split(q[:, None])
        mask = tree.reached[:, None, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self._out(mixed, weights)[:, 0]

    def value_path(self, x: Tensor, weights: AttentionWeights) -> Tensor:
        """Return out_proj(v_proj(x)): attention in which every token sees only itself."""
        values = self._project(x, weights, VALUE)
        return F.linear(values, weights.out, self.out_proj.bias)

    def _project(self, x: Tensor, weights: AttentionWeights, parts: slice = slice(3)) -> Tensor:
        """Return queries, keys and values, or some of them, side by side, by one product.

        The copy that it takes is all that stays of an adapter's weights for the backward pass: they
        may be views of those of a whole tower.
        """
        matrices = [weights.query, weights.key, weights.value]
        biases: list[Tensor] = [self.q_proj.bias, self.k_proj.bias, self.v_proj.bias]
        return F.linear(x, torch.cat(matrices[parts]), torch.cat(biases[parts]))

    def _out(self, mixed: Tensor, weights: AttentionWeights) -> Tensor:
        return F.linear(mixed.transpose(1, 2).flatten(2), weights.out, self.out_proj.bias)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Split projections x (B, N, n C) into n of (B, heads, N, C / heads)."""
        parts = x.chunk(x.shape[-1] // self.q_proj.out_features, dim=-1)
        return tuple(part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)


class TransformerBlock(nn.Module):
    """CLIP's pre-norm transformer block."""

    def __init__(self, spec: TowerSpec, quick_gelu: bool) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(spec.width)
        self.attn = SelfAttention(spec.width, spec.heads)
        self.ln_2 = LayerNorm(spec.width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(spec.width, spec.mlp_width),
                act=QuickGELU() if quick_gelu else nn.GELU(),
                c_proj=nn.Linear(spec.mlp_width, spec.width),
            )
        )

    def forward(self, x: Tensor, weights: AttentionWeights) -> Tensor:
        """Map tokens x (B, N, C) to (B, N, C)."""
        x = x + self.attn(self.ln_1(x), weights)
        return x + self.mlp(self.ln_2(x))

    def forward_tree(self, x: Tensor, weights: AttentionWeights, tree: PrefixTree) -> Tensor:
        """Map the nodes x of a prefix tree, (nodes, C) to (nodes, C), with causal attention."""
        x = x + self.attn.forward_tree(self.ln_1(x), weights, tree)
        return x + self.mlp(self.ln_2(x))

    def forward_ends(self, x: Tensor, weights: AttentionWeights, tree: PrefixTree) -> Tensor:
        """Map the nodes x (nodes, C) of a prefix tree to the end tokens of its prompts, (N, C)."""
        ends = F.embedding(tree.ends, x)
        ends = ends + self.attn.forward_ends(self.ln_1(x), weights, tree)
        return ends + self.mlp(self.ln_2(ends))

    def forward_dense(self, x: Tensor, weights: AttentionWeights) -> Tensor:
        """Apply the block with the value path in place of attention, for dense features.

        The residual of every token is the CLS token's block input instead of its own (CAT-Seg,
        arXiv 2303.11797).

        Args:
            x: tokens (B, 1 + HW, C), CLS first.
            weights: only the value and output weights are used.
        """
        x = self.attn.value_path(self.ln_1(x), weights) + x[:, :1]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """Stack of transformer blocks. In all methods, `weights` holds one entry per block."""

    resblocks: Sequence[TransformerBlock]

    def __init__(self, spec: TowerSpec, quick_gelu: bool) -> None:
        super().__init__()
        blocks = nn.ModuleList(TransformerBlock(spec, quick_gelu) for _ in range(spec.layers))
        self.resblocks = cast("Sequence[TransformerBlock]", blocks)

    def attention_weights(self) -> list[AttentionWeights]:
        """Return the pretrained attention weights, one entry per block."""
        return [block.attn.weights() for block in self.resblocks]

    def forward_tree(
        self, x: Tensor, weights: Sequence[AttentionWeights], tree: PrefixTree
    ) -> Tensor:
        """Run all blocks over the nodes x (nodes, C) of a prefix tree, with causal attention.

        Returns:
            States (N, C) of the end-of-text tokens, the only outputs the last block computes.
        """
        *blocks, last = zip(self.resblocks, weights, strict=True)
        for block, own in blocks:
            x = block.forward_tree(x, own, tree)
        block, own = last
        return block.forward_ends(x, own, tree)

    def forward_dense(
        self, x: Tensor, weights: Sequence[AttentionWeights], taps: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """Run all blocks over x (B, 1 + HW, C), the last one in its dense form.

        Returns:
            The dense tokens (B, 1 + HW, C), and the tokens (B, 1 + HW, C) after each block whose
            index is in `taps`.
        """
        tapped = []
        *blocks, last = zip(self.resblocks, weights, strict=True)
        for index, (block, own) in enumerate(blocks):
            x = block(x, own)
            if index in taps:
                tapped.append(x)
        block, own = last
        return block.forward_dense(x, own), tapped
