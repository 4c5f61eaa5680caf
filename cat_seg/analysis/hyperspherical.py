"""What AFR's gates and HPA's prototypes do to features: measurement without training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cat_seg.modeling.hyperspherical_innovations import (
    AdaptiveFeatureRectification,
    HypersphericalPrototypeAlignment,
    angle,
)


@torch.no_grad()
def measure_rectification(
    afr: AdaptiveFeatureRectification, features: Sequence[Tensor]
) -> dict[str, float]:
    """Measure AFR on batches of features (B, C, H, W).

    Returns:
        GATE/mean and GATE/std for the fields of `Gates`, over all images, channels and positions.
        change/mean, turn/mean: `feature_changes`, over all positions.
    """
    gates = [afr.gates(batch) for batch in features]
    measured = {}
    for name in gates[0]._fields:
        values = torch.cat([getattr(batch, name).float().flatten() for batch in gates])
        measured[f"{name}/mean"] = values.mean().item()
        measured[f"{name}/std"] = values.std(correction=0).item()
    changes = [feature_changes(batch, afr(batch)[0]) for batch in features]
    for name, maps in zip(("change", "turn"), zip(*changes, strict=True), strict=True):
        values = torch.cat([one.flatten() for one in maps])
        measured[f"{name}/mean"] = values.mean().item()
    return measured


@torch.no_grad()
def measure_alignment(
    hpa: HypersphericalPrototypeAlignment,
    names: Sequence[str],
    batches: Sequence[tuple[Tensor, Tensor]],
) -> dict[str, float]:
    """Measure how close features are to the prototypes of their classes.

    Args:
        hpa: its prototypes are not updated. Classes without a prototype are left out.
        names: the T class names.
        batches: features (B, C, H, W) with labels (B, h, w).

    Returns:
        cosine/class/NAME: mean cosine of the features of a class to its prototype. cosine/mean: its
        mean over classes. nearest/own: share of the features whose nearest prototype is their own.
        Empty if no feature has a prototype.
    """
    aligned, targets = (
        torch.cat(parts)
        for parts in zip(*(hpa.aligned(f.float(), labels) for f, labels in batches), strict=True)
    )
    known = hpa.prototype_initialized
    cosine = (aligned @ hpa.prototypes.T).masked_fill(~known, -torch.inf)
    chosen = (targets >= 0) & known[targets]
    cosine, targets = cosine[chosen], targets[chosen]
    if not len(targets):
        return {}
    own = cosine.gather(1, targets[:, None])[:, 0]
    present = targets.unique().tolist()
    by_class = {name: own[targets == c].mean().item() for c in present for name in (names[c],)}
    return {
        "cosine/mean": sum(by_class.values()) / len(by_class),
        "nearest/own": (cosine.argmax(dim=1) == targets).float().mean().item(),
        **{f"cosine/class/{name}": mean for name, mean in by_class.items()},
    }


@torch.no_grad()
def prototype_angles(hpa: HypersphericalPrototypeAlignment) -> tuple[Tensor, Tensor]:
    """Return the angles (K, K) in degrees between the K prototypes set so far, and their classes.

    The diagonal is 0.
    """
    classes = hpa.prototype_initialized.nonzero()[:, 0]
    prototypes = hpa.prototypes[classes].double()
    angles = angle(prototypes @ prototypes.T).rad2deg().fill_diagonal_(0)
    return angles, classes


def measure_geometry(hpa: HypersphericalPrototypeAlignment) -> dict[str, float]:
    """Measure the angles between prototypes, in degrees.

    Returns:
        angle/mean, angle/min: over all pairs. angle/nearest: mean over prototypes of the angle to
        the nearest other one. Empty with fewer than two prototypes.
    """
    angles, classes = prototype_angles(hpa)
    if len(classes) < 2:
        return {}
    apart = angles[~torch.eye(len(angles), dtype=torch.bool, device=angles.device)]
    nearest = apart.view(len(angles), -1).min(dim=1).values
    return {
        "angle/mean": apart.mean().item(),
        "angle/nearest": nearest.mean().item(),
        "angle/min": nearest.min().item(),
    }


def feature_changes(features: Tensor, rectified: Tensor) -> tuple[Tensor, Tensor]:
    """Return what AFR does to features (B, C, H, W) at each position, both (B, H, W).

    Returns:
        |rectified - x| / |x|, and the angle between the two in degrees. A gate that is the same for
        all channels changes the length of a feature, but does not turn it.
    """
    features, rectified = features.float(), rectified.float()
    length = torch.linalg.vector_norm
    relative = length(rectified - features, dim=1) / length(features, dim=1)
    chord = length(F.normalize(rectified, dim=1) - F.normalize(features, dim=1), dim=1)
    # Exact for small angles too, unlike arccos.
    return relative, 2 * (chord / 2).clamp(max=1).arcsin().rad2deg()
