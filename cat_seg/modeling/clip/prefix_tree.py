"""Prompts as a tree of their prefixes, so that what they have in common is encoded once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PrefixTree(NamedTuple):
    """N prompts of at most L tokens, up to their end-of-text tokens.

    Under causal attention a token's state depends on the tokens up to it alone. Prompts that begin
    alike ("A photo of a ...") have those states in common, and what stands after the end-of-text
    token cannot change its state: a node stands for all prompts that are equal up to its token.

    tokens, positions: (nodes,) token id of each node, and its place in the prompt.
    paths: (N, L) the nodes of each prompt in order, node 0 behind the end.
    slots: (nodes,) for each node one place in `paths`, counted row by row.
    ends: (N,) the node of each prompt's end-of-text token.
    reached: (N, L) which places are not behind the end.
    """

    tokens: Tensor
    positions: Tensor
    paths: Tensor
    slots: Tensor
    ends: Tensor
    reached: Tensor

    def to(self, device: torch.device) -> PrefixTree:
        """The tree with all tensors on a device."""
        return PrefixTree(*(tensor.to(device) for tensor in self))


def prefix_tree(tokens: Tensor) -> PrefixTree:
    """Build the tree of prompts.

    Args:
        tokens: (N, context length) ids; the end-of-text token has the highest id.
    """
    tokens = tokens.cpu()
    ends = tokens.argmax(dim=1)
    length = int(ends.max()) + 1
    reached = torch.arange(length) <= ends[:, None]
    paths = torch.zeros(len(tokens), length, dtype=torch.long)
    last = torch.zeros(len(tokens), dtype=torch.long)
    ids, positions, slots = [], [], []
    nodes, base = 0, int(tokens.max()) + 1
    for position in range(length):
        prompts = reached[:, position].nonzero()[:, 0]
        prefixes = last[prompts] * base + tokens[prompts, position]
        distinct, index = prefixes.unique(return_inverse=True)
        last[prompts] = nodes + index
        paths[prompts, position] = last[prompts]
        places = prompts * length + position
        first = torch.full_like(distinct, paths.numel()).scatter_reduce(0, index, places, "amin")
        ids.append(distinct % base)
        positions.append(torch.full_like(distinct, position))
        slots.append(first)
        nodes += len(distinct)
    return PrefixTree(torch.cat(ids), torch.cat(positions), paths, torch.cat(slots), last, reached)
