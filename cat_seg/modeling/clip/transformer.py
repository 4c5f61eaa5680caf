"""The transformer of all towers, with attention weights passed in by the caller."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from timm.layers import SwiGLU, apply_rot_embed_cat
from torch import Tensor, nn

from cat_seg.modeling.clip.prefix_tree import PrefixTree
from cat_seg.modeling.clip.spec import TowerSpec
from cat_seg.modeling.norms import LayerNorm

# Parts of the projections.
QUERY, KEY_VALUE, VALUE = slice(1), slice(1, 3), slice(2, 3)


class AttentionWeights(NamedTuple):
    """Projection matrices of one attention, each (C, C), with output units as rows."""

    query: Tensor
    key: Tensor
    value: Tensor
    out: Tensor


class QuickGELU(nn.Module):
    """OpenAI CLIP's activation, x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(1.702 * x) / 1.702


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "quick_gelu": QuickGELU,
}


class SelfAttention(nn.Module):
    """Multi-head self-attention whose weights are passed in with every call.

    The module holds the pretrained projections. The caller passes either their weights or weights
    modified by an adapter; the biases are always the module's own.

    Args:
        spec: width, heads, and whether this is EVA02's attention: without a bias of the keys, and
            with a norm before the output projection.
    """

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        width = spec.width
        self.heads = spec.heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=not spec.eva)
        self.v_proj = nn.Linear(width, width)
        self.norm = LayerNorm(width, spec.norm_eps) if spec.eva else nn.Identity()
        self.out_proj = nn.Linear(width, width)

    def weights(self) -> AttentionWeights:
        """Return the module's own weights."""
        projections = (self.q_proj, self.k_proj, self.v_proj, self.out_proj)
        return AttentionWeights(*(projection.weight for projection in projections))

    def forward(self, x: Tensor, weights: AttentionWeights, rope: Tensor | None = None) -> Tensor:
        """Attend within each sequence of x, (B, N, C) to (B, N, C).

        Args:
            x: the sequences.
            weights: the weights to use.
            rope: rotary embedding (N - 1, 2 C / heads) of all tokens but the first, sines before
                cosines; None for none.
        """
        q, k, v = self._split(self._project(x, weights))
        if rope is not None:
            q, k = (_rotated(t, rope) for t in (q, k))
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

    def forward_last(self, x: Tensor, weights: AttentionWeights) -> Tensor:
        """Attend only from the last token of each sequence, (B, N, C) to (B, 1, C)."""
        (q,) = self._split(self._project(x[:, -1:], weights, QUERY))
        k, v = self._split(self._project(x, weights, KEY_VALUE))
        return self._out(F.scaled_dot_product_attention(q, k, v), weights)

    def value_path(self, x: Tensor, weights: AttentionWeights) -> Tensor:
        """Return out_proj(v_proj(x)): attention in which every token sees only itself."""
        return self._output(self._project(x, weights, VALUE), weights)

    def correlative(self, x: Tensor, weights: AttentionWeights) -> Tensor:
        """Attend from queries to queries and from keys to keys, and add both.

        This is the correlative self-attention (CSA) of SCLIP (Wang et al., ECCV 2024, arXiv
        2312.01597), without a scale and without rotary embedding as in DeCLIP's CAT-Seg.
        """
        q, k, v = self._split(self._project(x, weights))
        mixed = sum(F.scaled_dot_product_attention(t, t, v, scale=1.0) for t in (q, k))
        return self._out(cast("Tensor", mixed), weights)

    def _project(self, x: Tensor, weights: AttentionWeights, parts: slice = slice(3)) -> Tensor:
        """Return queries, keys and values, or some of them, side by side, by one product.

        The copy that it takes is all that stays of an adapter's weights for the backward pass: they
        may be views of those of a whole tower.
        """
        matrices = [weights.query, weights.key, weights.value]
        biases: list[Tensor] = [self.q_proj.bias, self._key_bias(), self.v_proj.bias]
        return F.linear(x, torch.cat(matrices[parts]), torch.cat(biases[parts]))

    def _key_bias(self) -> Tensor:
        bias: Tensor | None = self.k_proj.bias
        return torch.zeros_like(self.q_proj.bias) if bias is None else bias

    def _out(self, mixed: Tensor, weights: AttentionWeights) -> Tensor:
        return self._output(mixed.transpose(1, 2).flatten(2), weights)

    def _output(self, x: Tensor, weights: AttentionWeights) -> Tensor:
        return F.linear(self.norm(x), weights.out, self.out_proj.bias)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Split projections x (B, N, n C) into n of (B, heads, N, C / heads)."""
        parts = x.chunk(x.shape[-1] // self.q_proj.out_features, dim=-1)
        return tuple(part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)


def _rotated(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate all tokens of x (B, heads, N, C) but the first, which has no position."""
    return torch.cat([x[:, :, :1], apply_rot_embed_cat(x[:, :, 1:], rope).type_as(x)], dim=2)


class TransformerBlock(nn.Module):
    """Pre-norm transformer block of CLIP, SigLIP and EVA02; the latter has a gated MLP."""

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(spec.width, spec.norm_eps)
        self.attn = SelfAttention(spec)
        self.ln_2 = LayerNorm(spec.width, spec.norm_eps)
        self.mlp = _gated_mlp(spec) if spec.eva else _mlp(spec)

    def forward(self, x: Tensor, weights: AttentionWeights, rope: Tensor | None = None) -> Tensor:
        """Map tokens x (B, N, C) to (B, N, C); `rope` as in `SelfAttention.forward`."""
        x = x + self.attn(self.ln_1(x), weights, rope)
        return x + self.mlp(self.ln_2(x))

    def forward_last(self, x: Tensor, weights: AttentionWeights) -> Tensor:
        """Map the last token of each sequence x (B, N, C), to (B, C)."""
        last = x[:, -1:] + self.attn.forward_last(self.ln_1(x), weights)
        return (last + self.mlp(self.ln_2(last)))[:, 0]

    def forward_tree(self, x: Tensor, weights: AttentionWeights, tree: PrefixTree) -> Tensor:
        """Map the nodes x of a prefix tree, (nodes, C) to (nodes, C), with causal attention."""
        x = x + self.attn.forward_tree(self.ln_1(x), weights, tree)
        return x + self.mlp(self.ln_2(x))

    def forward_ends(self, x: Tensor, weights: AttentionWeights, tree: PrefixTree) -> Tensor:
        """Map the nodes x (nodes, C) of a prefix tree to the end tokens of its prompts, (N, C)."""
        ends = F.embedding(tree.ends, x)
        ends = ends + self.attn.forward_ends(self.ln_1(x), weights, tree)
        return ends + self.mlp(self.ln_2(ends))

    def forward_dense(
        self, x: Tensor, weights: AttentionWeights, cls_residual: bool = True
    ) -> Tensor:
        """Apply the block with the value path in place of attention, for dense features.

        Args:
            x: tokens (B, 1 + HW, C), CLS first.
            weights: only the value and output weights are used.
            cls_residual: the residual of every token is the CLS token's block input instead of its
                own (CAT-Seg, arXiv 2303.11797).
        """
        x = self.attn.value_path(self.ln_1(x), weights) + (x[:, :1] if cls_residual else x)
        return x + self.mlp(self.ln_2(x))


def _mlp(spec: TowerSpec) -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            c_fc=nn.Linear(spec.width, spec.mlp_width),
            act=ACTIVATIONS[spec.activation](),
            c_proj=nn.Linear(spec.mlp_width, spec.width),
        )
    )


def _gated_mlp(spec: TowerSpec) -> nn.Module:
    norm = partial(LayerNorm, eps=spec.norm_eps)
    return SwiGLU(spec.width, spec.mlp_width, norm_layer=norm)  # type: ignore[arg-type]


class Transformer(nn.Module):
    """Stack of transformer blocks. In all methods, `weights` holds one entry per block."""

    resblocks: Sequence[TransformerBlock]

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        blocks = nn.ModuleList(TransformerBlock(spec) for _ in range(spec.layers))
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

    def forward_last(self, x: Tensor, weights: Sequence[AttentionWeights]) -> Tensor:
        """Run all blocks over sequences x (B, N, C), without a mask.

        Returns:
            States (B, C) of the last tokens, the only outputs the last block computes.
        """
        *_, last = self.resblocks
        return last.forward_last(self.forward(x, weights[:-1])[0], weights[-1])

    def forward(
        self,
        x: Tensor,
        weights: Sequence[AttentionWeights],
        taps: Sequence[int] = (),
        rope: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the first len(weights) blocks over x (B, N, C), without a mask.

        Args:
            x: the sequences.
            weights: one entry for each block to run.
            taps: indices of blocks.
            rope: as in `SelfAttention.forward`.

        Returns:
            The output (B, N, C), and that of each block whose index is in `taps`.
        """
        tapped = []
        for index, (block, own) in enumerate(zip(self.resblocks, weights, strict=False)):
            x = block(x, own, rope)
            if index in taps:
                tapped.append(x)
        return x, tapped
