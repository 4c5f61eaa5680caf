"""Prompts as a prefix tree, so that shared prefixes are encoded only once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PrefixTree(NamedTuple):
    """Prefix tree of N prompts, each of at most L tokens up to its end-of-text token.

    Under causal attention, the state of a token depends only on the tokens up to it. Prompts with
    a common prefix ("A photo of a ...") therefore share the states of that prefix, and tokens
    after the end-of-text token can be dropped. One node represents one distinct prefix.

    Attributes:
        tokens: (nodes,) token id of each node.
        positions: (nodes,) position of each node in its prompts.
        paths: (N, L) nodes of each prompt in order; node 0 after the end-of-text token.
        slots: (nodes,) flat row-major index of one occurrence of each node in `paths`.
        ends: (N,) node of each prompt's end-of-text token.
        reached: (N, L) bool, True up to and including the end-of-text token.
    """

    tokens: Tensor
    positions: Tensor
    paths: Tensor
    slots: Tensor
    ends: Tensor
    reached: Tensor

    def to(self, device: torch.device) -> PrefixTree:
        """Return the tree with all tensors moved to a device."""
        return PrefixTree(*(tensor.to(device) for tensor in self))


def prefix_tree(tokens: Tensor) -> PrefixTree:
    """Build the prefix tree of N prompts.

    Args:
        tokens: token ids (N, context length), in which end-of-text has the highest id.
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
