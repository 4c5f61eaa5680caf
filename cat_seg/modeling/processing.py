"""Resizing and padding of images for CLIP, and mapping of logits back to the image."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.modeling.postprocessing import sem_seg_postprocess
from torch import Tensor

from cat_seg.modeling.chunking import part_sizes
from cat_seg.modeling.reduction import Probabilities, Reducer

WINDOW = 384  # pixels; side of a window, and of the whole image once resized for its own pass
OVERLAP = 0.333  # fraction of a window; the stride is int(384 * (1 - 0.333)) = 256 pixels
CANVAS = 640  # pixels; side of the square image covered by the windows


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (B, C, H, W) bilinearly."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def pad(image: Tensor, size: tuple[int, int], value: float = 0.0) -> Tensor:
    """Pad an image or label map (..., H, W) on the right and bottom to `size`."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, size[1] - width, 0, size[0] - height), value=value)


def restore(
    logits: Tensor,
    padded: tuple[int, int],
    image: tuple[int, int],
    output: tuple[int, int],
    reducer: Reducer = Probabilities,
) -> Any:
    """Convert the logits of a padded image to probabilities at the output size.

    Args:
        logits: (T, h, w), covering the padded image.
        padded, image, output: (height, width) of the padded image, the image without padding, and
            the result.
        reducer: what to return of the probabilities; by default all of them, (T, *output).
    """

    def classes(part: Tensor) -> Tensor:
        probabilities = part.sigmoid()
        if padded == image:
            return sem_seg_postprocess(probabilities, part.shape[-2:], *output)
        # Crop at the padded image's resolution, where the padding is a whole number of pixels.
        return sem_seg_postprocess(resize(probabilities[None], padded)[0], image, *output)

    return _reduce(classes, logits, 0, output, reducer)


def sliding_window(
    image: Tensor,
    predict: Callable[[Tensor], Tensor],
    output: tuple[int, int] = (CANVAS, CANVAS),
    reducer: Reducer = Probabilities,
) -> Any:
    """Segment an image by CAT-Seg's evaluation protocol.

    Overlapping windows are averaged, and their mean is averaged with the whole image's prediction.

    Args:
        image: (C, H, W).
        predict: maps a batch (B, C, 384, 384) to logits (B, T, h, w).
        output: (height, width) of the result.
        reducer: what to return of the probabilities; by default all of them, (T, *output).
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
        return sem_seg_postprocess(mean, (CANVAS, CANVAS), *output)

    return _reduce(classes, logits, 1, output, reducer)


def _reduce(
    probabilities: Callable[[Tensor], Tensor],
    logits: Tensor,
    dim: int,
    output: tuple[int, int],
    reducer: Reducer,
) -> Any:
    """Reduce `probabilities` of logits, a few classes along `dim` at a time."""
    classes = logits.shape[dim]
    elements = max(logits.numel(), classes * output[0] * output[1])
    reduction = reducer(classes)
    for part in logits.split(part_sizes(classes, elements, logits.device), dim):
        reduction.add(probabilities(part))
    return reduction.result()
