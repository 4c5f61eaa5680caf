"""From images of any size to CLIP's input, and from logits back to the image."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F
from detectron2.modeling.postprocessing import sem_seg_postprocess
from torch import Tensor

from cat_seg.modeling.chunking import chunked

WINDOW = 384  # pixels, side of a window and of the whole image beside the windows
OVERLAP = 0.333
CANVAS = 640  # pixels, side of the square that the windows tile


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (B, C, H, W) bilinearly."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def pad(image: Tensor, size: tuple[int, int], value: float = 0.0) -> Tensor:
    """Pad an image or label map (..., H, W) at the right and the bottom to `size`."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, size[1] - width, 0, size[0] - height), value=value)


def padded_size(size: tuple[int, int], divisibility: int) -> tuple[int, int]:
    """`size` rounded up to multiples of `divisibility`; 0 or less leaves it."""
    if divisibility <= 0:
        return size
    return tuple(-(-side // divisibility) * divisibility for side in size)


def restore(
    logits: Tensor, padded: tuple[int, int], image: tuple[int, int], output: tuple[int, int]
) -> Tensor:
    """Probabilities at the size asked for, from the logits over a padded image.

    Args:
        logits: (T, h, w), over the padded image.
        padded, image, output: (height, width) of the padded image, of the image in it, and of
            the result.

    Returns:
        (T, *output).
    """

    def classes(part: Tensor) -> Tensor:
        probabilities = part.sigmoid()
        if padded == image:
            return sem_seg_postprocess(probabilities, part.shape[-2:], *output)
        # The padding is cut off where it is whole pixels.
        return sem_seg_postprocess(resize(probabilities[None], padded)[0], image, *output)

    return chunked(classes, logits, dim=0)


def sliding_window(
    image: Tensor,
    predict: Callable[[Tensor], Tensor],
    output: tuple[int, int] = (CANVAS, CANVAS),
) -> Tensor:
    """CAT-Seg's evaluation protocol: overlapping windows and the whole image, averaged.

    Args:
        image: (C, H, W).
        predict: from a batch (B, C, 384, 384) to logits (B, T, h, w).
        output: (height, width) of the result.

    Returns:
        Probabilities (T, *output).
    """
    canvas = resize(image[None], (CANVAS, CANVAS))
    starts = range(0, CANVAS - WINDOW + 1, int(WINDOW * (1 - OVERLAP)))
    corners = list(product(starts, starts))
    windows = [canvas[..., y : y + WINDOW, x : x + WINDOW] for y, x in corners]
    logits = predict(torch.cat([*windows, resize(image[None], (WINDOW, WINDOW))]))
    count = logits.new_zeros(CANVAS, CANVAS)
    for y, x in corners:
        count[y : y + WINDOW, x : x + WINDOW] += 1

    def classes(part: Tensor) -> Tensor:
        maps = resize(part, (WINDOW, WINDOW)).sigmoid()
        mean = maps.new_zeros(maps.shape[1], CANVAS, CANVAS)
        for (y, x), window in zip(corners, maps[:-1], strict=True):
            mean[:, y : y + WINDOW, x : x + WINDOW] += window
        mean = (mean.div_(count) + resize(maps[-1:], (CANVAS, CANVAS))[0]).div_(2)
        return sem_seg_postprocess(mean, (CANVAS, CANVAS), *output)[None]

    return chunked(classes, logits, dim=1)[0]
