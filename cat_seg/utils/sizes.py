"""Sizes of padded images."""

from __future__ import annotations


def padded_size(size: tuple[int, int], divisibility: int) -> tuple[int, int]:
    """Round `size` up to multiples of `divisibility`; 0 or less leaves it unchanged."""
    if divisibility <= 0:
        return size
    height, width = (-(-side // divisibility) * divisibility for side in size)
    return height, width
