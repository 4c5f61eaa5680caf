"""Colors of classes, well separated whatever their number, and of charts."""

from __future__ import annotations

from functools import cache

import numpy as np

# Charts: gray for the reference, then the Okabe-Ito colors, which are safe for color blindness.
LINE_COLORS = ("#7f7f7f", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@cache
def _color_order() -> np.ndarray:
    """Order a lattice of moderately light, moderately saturated RGB colors: (N, 3) uint8.

    Each color is the one farthest in OKLab (Ottosson 2020) from all previous colors. Colors close
    to the last one are avoided.
    """
    levels = np.arange(0, 256, 17)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _oklab(rgb)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    keep = (lab[:, 0] > 0.54) & (lab[:, 0] < 0.85) & (chroma > 0.1) & (chroma < 0.2)
    rgb, lab = rgb[keep], lab[keep]
    chosen = [int(np.abs(rgb - (68, 136, 221)).sum(axis=1).argmin())]
    distance = np.full(len(rgb), np.inf)
    while len(chosen) < len(rgb):
        to_last = ((lab - lab[chosen[-1]]) ** 2).sum(axis=1)
        distance = np.minimum(distance, to_last)
        chosen.append(int((distance * np.where(to_last < 0.2**2, 0.01, 1)).argmax()))
    return rgb[chosen].astype(np.uint8)


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """Convert sRGB (N, 3) in 0..255 to OKLab (N, 3), where distances match human perception."""
    value = rgb / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


def palette(n: int) -> np.ndarray:
    """Return the colors of classes 0..n-1: (n, 3) uint8 RGB.

    The color of an index is the same for every `n`. There are more than 1000 distinct colors, the
    first ones most distinct; after that they repeat.
    """
    order = _color_order()
    return order[np.arange(n) % len(order)]
