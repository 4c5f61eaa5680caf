"""What HPS-Seg adds to H-CLIP: AFR, HPA and the geodesic correlation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

UNLABELED = -1
COSINE_LIMIT = 1 - 1e-7  # the gradient of arccos is infinite at +-1


def angle(cosine: Tensor) -> Tensor:
    """Return the angle (radians) of a cosine, which is clamped to keep the gradient finite."""
    return cosine.clamp(-COSINE_LIMIT, COSINE_LIMIT).arccos()


def geodesic_similarity(cosine: Tensor) -> Tensor:
    """Return 1 - angle / pi of a cosine: 1 for equal directions, 0 for opposite ones."""
    return 1 - angle(cosine) / math.pi


class Gates(NamedTuple):
    """What AFR blends features (B, C, H, W) by, each value in 0..1.

    Attributes:
        channel: channel gate (B, C).
        spatial: spatial gate (B, 1, H, W).
        uncertainty: (B, 1).
        mix: share of the gated features in the output, (B, 1).
    """

    channel: Tensor
    spatial: Tensor
    uncertainty: Tensor
    mix: Tensor


class AdaptiveFeatureRectification(nn.Module):
    """AFR: channel and spatial gates, blended in according to the estimated certainty.

    Output: (1 - mix) * x + mix * x * gate, with gate = channel gate * spatial gate and
    mix = sigmoid(mix_weight) * (1 - uncertainty).

    Args:
        channels: channels C of the features.
        reduction: r; the hidden layers have C / r channels.
        bias_init: initial value of all biases. The published 2.0 makes features uncertain (0.9),
            so that AFR hardly changes them.

    Raises:
        ValueError: the reduction is not from 1 to C.
    """

    def __init__(self, channels: int, reduction: int, bias_init: float = 2.0) -> None:
        super().__init__()
        if not 1 <= reduction <= channels:
            raise ValueError(f"reduction must be from 1 to C = {channels}; it is {reduction}")
        hidden = channels // reduction

        def of_mean(outputs: int) -> nn.Sequential:
            layers = (nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *layers, nn.Sigmoid())

        self.channel_gate = of_mean(channels)
        self.uncertainty_estimator = of_mean(1)
        self.spatial_gate = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, 1, 1), nn.Sigmoid()
        )
        self.mix_weight = nn.Parameter(torch.zeros(1))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, gain=0.1)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, nn.Linear | nn.Conv2d):
                assert module.bias is not None
                nn.init.constant_(module.bias, bias_init)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Rectify features (B, C, H, W).

        Returns:
            The rectified features (B, C, H, W), and the regularizer of the gates, a scalar.
        """
        gates = self.gates(features)
        gate = gates.channel[:, :, None, None] * gates.spatial
        mix = gates.mix[:, :, None, None]
        rectified = (1 - mix) * features + mix * features * gate
        return rectified, self._regularizer(gate.float(), gates.spatial.float())

    def gates(self, features: Tensor) -> Gates:
        """Return the gates and the mix for features (B, C, H, W)."""
        spatial = self.spatial_gate(features)
        channel = self.channel_gate(features)
        uncertainty = self.uncertainty_estimator(features)
        return Gates(channel, spatial, uncertainty, self.mix_weight.sigmoid() * (1 - uncertainty))

    @staticmethod
    def _regularizer(gate: Tensor, spatial: Tensor) -> Tensor:
        """Return the penalty that keeps the gates near 0.5 and the spatial gate smooth."""
        steps = sum(spatial.diff(dim=axis).abs().mean() for axis in (2, 3))
        return 0.1 * (gate - 0.5).abs().mean() + 0.01 * steps


class HypersphericalPrototypeAlignment(nn.Module):
    """HPA: a loss that pulls features toward the prototype of their class on the unit hypersphere.

    Prototypes are moving averages, without gradient, of the class means of the global batch.
    They are therefore the same on every rank.

    Args:
        classes: number T of training classes.
        channels: channels C of the features.
        momentum: weight of the old prototype in an update.
        temperature: temperature of the separation loss.
        separation_weight: weight of the separation loss; at 0 the per-class temperatures do not
            train.

    Raises:
        ValueError: the momentum is not from 0 to 1, or the temperature is not positive.
    """

    prototypes: Tensor
    prototype_initialized: Tensor

    def __init__(
        self,
        classes: int,
        channels: int,
        momentum: float,
        temperature: float,
        separation_weight: float,
    ) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be a number from 0 to 1; it is {momentum}")
        if not temperature > 0:
            raise ValueError(f"temperature must be a positive number; it is {temperature}")
        self.momentum = momentum
        self.temperature = temperature
        self.separation_weight = separation_weight
        self.alignment_proj = nn.Sequential(
            nn.Linear(channels, channels // 4), nn.ReLU(), nn.Linear(channels // 4, channels)
        )
        for layer in (self.alignment_proj[0], self.alignment_proj[2]):
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight, gain=0.1)
            nn.init.zeros_(layer.bias)
        self.log_temperatures = nn.Parameter(torch.zeros(classes), separation_weight > 0)
        self.register_buffer("prototypes", torch.zeros(classes, channels))
        self.register_buffer("prototype_initialized", torch.zeros(classes, dtype=torch.bool))
        self._share: Tensor | None = None  # weight of one feature in an accumulated batch's loss

    @contextmanager
    def accumulated_batch(self, sums: Tensor, parts: int) -> Iterator[None]:
        """Update the prototypes once for a batch whose parts are then forwarded one by one.

        Within this context, the mean of the parts' losses is the loss of the batch.

        Args:
            sums: the sum of `class_sums` over all parts, (T, C + 1).
            parts: number of parts.
        """
        self._share = parts * self._update_prototypes(sums)
        try:
            yield
        finally:
            self._share = None

    @torch.no_grad()
    def class_sums(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return per-class sums (T, C) and counts (T, 1) of aligned features, as (T, C + 1).

        Args:
            features: (B, C, H, W).
            labels: class indices (B, h, w); values outside 0..T-1 count as unlabeled.
        """
        with torch.autocast(features.device.type, enabled=False):
            return self._sums(*self.aligned(features.float(), labels))

    def forward(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Update the prototypes and return the losses.

        Args:
            features: (B, C, H, W).
            labels: class indices (B, h, w); values outside 0..T-1 count as unlabeled.

        Returns:
            "alignment": mean geodesic distance (radians) between each labeled feature and the
            prototype of its class; "separation", if its weight is not 0: the weighted separation
            loss. With several ranks, each returns its own features' part, scaled so that the mean
            over ranks is the loss of the global batch.
        """
        with torch.autocast(features.device.type, enabled=False):
            aligned, targets = self.aligned(features.float(), labels)
            share = self._share
            if share is None:
                share = self._update_prototypes(self._sums(aligned.detach(), targets))
            own = self.prototypes[targets.clamp_min(0)]
            distances = angle((aligned * own).sum(dim=1)) * (targets >= 0)
            losses = {"alignment": distances.sum() * share}
            if self.separation_weight > 0:
                separation = self.separation_weight * self._separation(aligned, targets)
                losses["separation"] = separation * share
            return losses

    def align(self, features: Tensor) -> Tensor:
        """Return aligned unit features (N, C) of features (N, C) of any norm."""
        unit = F.normalize(features, dim=1)
        return F.normalize(unit + 0.1 * F.normalize(self.alignment_proj(unit), dim=1), dim=1)

    def aligned(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the aligned features (N, C) and classes (N,), -1 where unlabeled.

        Selecting the labeled positions would wait for a GPU to count them.

        Args:
            features: (B, C, H, W) float32.
            labels: class indices (B, h, w); values outside 0..T-1 count as unlabeled.
        """
        grid = features.shape[-2:]
        targets = F.interpolate(labels[:, None].float(), size=grid, mode="nearest")
        targets = targets.long().flatten()
        known = (targets >= 0) & (targets < len(self.prototypes))
        targets = targets.masked_fill(~known, UNLABELED)
        return self.align(features.permute(0, 2, 3, 1).flatten(0, 2)), targets

    def _sums(self, aligned: Tensor, targets: Tensor) -> Tensor:
        classes = torch.arange(len(self.prototypes), device=targets.device)
        members = (targets[:, None] == classes).to(aligned.dtype)
        return torch.cat([members.T @ aligned, members.sum(dim=0)[:, None]], dim=1)

    @torch.no_grad()
    def _update_prototypes(self, sums: Tensor) -> Tensor:
        """Update the prototypes of the classes present; return one feature's weight in the loss."""
        if _world_size() > 1:
            dist.all_reduce(sums)
        means, counts = F.normalize(sums[:, :-1], dim=1), sums[:, -1]
        kept = self.momentum * self.prototypes
        moved = F.normalize(kept + (1 - self.momentum) * means, dim=1)
        updated = torch.where(self.prototype_initialized[:, None], moved, means)
        present = counts > 0
        self.prototypes.copy_(torch.where(present[:, None], updated, self.prototypes))
        self.prototype_initialized |= present
        return _world_size() / counts.sum().clamp(min=1)

    def _separation(self, aligned: Tensor, targets: Tensor) -> Tensor:
        """Return the summed cross-entropy of all features over the initialized prototypes."""
        known = self.prototype_initialized
        similarity = geodesic_similarity(aligned @ self.prototypes.T.clone())
        logits = similarity / (self.temperature * F.softplus(self.log_temperatures))
        logits = logits.masked_fill(~known, -math.inf)
        return F.cross_entropy(logits, targets, reduction="sum", ignore_index=UNLABELED)


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
