"""Hyperbolic radius of CLIP's embeddings, for any fine-tuning method.

HyperCLIP (CVPR 2025, figure 2) defines it on the hyperboloid (Lorentz model): map an embedding,
before normalization, by the exponential map, and take the distance to the origin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cat_seg.cat_seg_model import CATSeg
from cat_seg.errors import UserError
from cat_seg.modeling.processing import resize
from cat_seg.utils.metrics_file import read_metrics

# Keys of measurements: IMAGE for image patches, TEXT + vocabulary name for class names.
IMAGE, TEXT = "image", "text/"
PREFIX = "radius/"  # of metric names


def radius(z: Tensor) -> Tensor:
    """Return the hyperbolic radius (...) of embeddings z (..., C).

    On the hyperboloid of curvature -c, exp_o(z) is at distance |z| from the origin o, for every c.
    Computing exp_o(z) itself could overflow: its coordinates grow like exp(sqrt(c) |z|).
    """
    return torch.linalg.vector_norm(z, dim=-1)


@torch.no_grad()
def text_radius(model: CATSeg, names: Sequence[str]) -> Tensor:
    """Return the radius (T,) of each class name's text embeddings, averaged over templates."""
    return radius(model.sem_seg_head.encoder.embed_text(names)).mean(dim=1)


@torch.no_grad()
def image_radius(model: CATSeg, images: Sequence[Tensor]) -> Tensor:
    """Return the radius (B, N) of the dense embeddings of the N patches of each image.

    Args:
        images: B images (3, H, W), RGB in 0..255; each is resized as a whole to CLIP's input size.
    """
    encoder = model.sem_seg_head.encoder
    radii = []
    for image in images:
        pixels = (image.to(model.device) - model.pixel_mean) / model.pixel_std
        features = encoder.encode_image(resize(pixels[None], encoder.input_size))
        radii.append(radius(features.dense[0, 1:]))
    return torch.stack(radii)


def measure(
    model: CATSeg, vocabularies: Mapping[str, Sequence[str]], images: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Measure the radii of class names and image patches.

    Args:
        vocabularies: class names by vocabulary name.
        images: see `image_radius`; may be empty.

    Returns:
        Radii (N,) by TEXT + vocabulary name, and by IMAGE unless there are no images.
    """
    radii = {f"{TEXT}{name}": text_radius(model, names) for name, names in vocabularies.items()}
    if images:
        radii[IMAGE] = image_radius(model, images).flatten()
    return {measured: values.cpu() for measured, values in radii.items()}


def mean_and_spread(radii: Tensor) -> tuple[float, float]:
    """Return the mean and standard deviation of all radii; a single radius has deviation 0."""
    return radii.mean().item(), radii.std(correction=0).item()


def metric_names(measured: str) -> tuple[str, str]:
    """Return the metric names of mean and standard deviation.

    Args:
        measured: IMAGE, or TEXT + vocabulary name.
    """
    return f"{PREFIX}{measured}/mean", f"{PREFIX}{measured}/std"


@dataclass
class Trajectory:
    """Mean and standard deviation of the radius over training, as lists of equal length."""

    iteration: list[int] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)


def read_trajectories(path: Path) -> dict[str, Trajectory]:
    """Read the radius measurements of a training run from its metrics.json.

    Returns:
        Trajectories by IMAGE or TEXT + vocabulary name.

    Raises:
        UserError: the file is missing, is not a metrics.json, or contains no radius.
    """
    found: dict[str, Trajectory] = {}
    for iteration, metrics in read_metrics(path).items():
        for key, value in metrics.items():
            if key.startswith(PREFIX) and key.endswith("/mean"):
                measured = key.removeprefix(PREFIX).removesuffix("/mean")
                trajectory = found.setdefault(measured, Trajectory())
                trajectory.iteration.append(iteration)
                trajectory.mean.append(value)
                trajectory.std.append(metrics[metric_names(measured)[1]])
    if not found:
        raise UserError(
            f"{path} has no radius measurements; train with MODEL.HYPERBOLIC.RADIUS_PERIOD"
        )
    return found
