"""The hyperbolic radius of CLIP's embeddings, whatever the way of fine-tuning.

HyperCLIP (CVPR 2025, figure 2) measures it on the hyperboloid (Lorentz model): the distance from
the origin of an embedding's exponential map, before normalization.
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

# What is measured on patches of images; on class names it is TEXT and the vocabulary's name.
IMAGE, TEXT = "image", "text/"
PREFIX = "radius/"  # of metrics


def radius(z: Tensor) -> Tensor:
    """Hyperbolic radius (...) of embeddings z (..., C).

    On the hyperboloid of curvature -c, exp_o(z) lies at distance |z| from the origin o, for every
    c. Going through the point itself would overflow: its coordinates grow like exp(sqrt(c) |z|).
    """
    return torch.linalg.vector_norm(z, dim=-1)


@torch.no_grad()
def text_radius(model: CATSeg, names: Sequence[str]) -> Tensor:
    """Radius (T,) of each class name's text embedding, the mean over the prompt templates."""
    return radius(model.sem_seg_head.encoder.embed_text(names)).mean(dim=1)


@torch.no_grad()
def image_radius(model: CATSeg, images: Sequence[Tensor]) -> Tensor:
    """Radius (B, N) of the dense embeddings of the N patches of each image.

    Args:
        images: B of them (3, H, W), RGB in 0..255, resized to CLIP's input as a whole.
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
    """Radii (N,) by what they were measured on: TEXT + a vocabulary's name, and IMAGE.

    Args:
        vocabularies: class names by the name of their list.
        images: see `image_radius`; where there are none, IMAGE is left out.
    """
    radii = {f"{TEXT}{name}": text_radius(model, names) for name, names in vocabularies.items()}
    if images:
        radii[IMAGE] = image_radius(model, images).flatten()
    return {measured: values.cpu() for measured, values in radii.items()}


def mean_and_spread(radii: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all radii; that of a single one is 0."""
    return radii.mean().item(), radii.std(correction=0).item()


def metric_names(measured: str) -> tuple[str, str]:
    """Names of the mean's and the spread's metric of IMAGE or of TEXT + a vocabulary's name."""
    return f"{PREFIX}{measured}/mean", f"{PREFIX}{measured}/std"


@dataclass
class Trajectory:
    """Mean and spread of the radius over training; all three lists are of one length."""

    iteration: list[int] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)


def read_trajectories(path: Path) -> dict[str, Trajectory]:
    """Read what was measured in a training run from its metrics.json.

    Returns:
        Trajectories by IMAGE or TEXT + a vocabulary's name.

    Raises:
        UserError: there is no such file, it is no metrics.json, or has no radius in it.
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
        raise UserError(f"{path} has no radius in it; train with MODEL.HYPERBOLIC.RADIUS_PERIOD")
    return found
