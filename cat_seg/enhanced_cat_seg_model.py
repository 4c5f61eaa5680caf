"""The EnhancedCATSeg meta-architecture of HPS-Seg: CATSeg with AFR and HPA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor

from cat_seg.cat_seg_model import CATSeg
from cat_seg.errors import user_errors
from cat_seg.modeling.aggregator import Guidance
from cat_seg.modeling.hyperspherical_innovations import (
    AdaptiveFeatureRectification,
    HypersphericalPrototypeAlignment,
)

HPA_SHARE = 0.1  # weight of the HPA losses relative to the AFR regularizer
HPA_LOSSES = {"alignment": "loss_hpa", "separation": "loss_hpa_separation"}


@META_ARCH_REGISTRY.register()
class EnhancedCATSeg(CATSeg):
    """HPS-Seg: CATSeg whose res3 guidance is rectified by AFR and, in training, aligned by HPA.

    The total loss is BCE + loss_weight * (AFR regularizer + 0.1 * HPA loss).

    Args:
        hpa: hyperspherical prototype alignment, or None to leave it out.
        afr: adaptive feature rectification, or None to leave it out.
        loss_weight: weight of both auxiliary losses in the total.
        cat_seg: arguments of `CATSeg`.
    """

    @configurable
    def __init__(
        self,
        *,
        hpa: HypersphericalPrototypeAlignment | None,
        afr: AdaptiveFeatureRectification | None,
        loss_weight: float,
        **cat_seg: Any,
    ) -> None:
        super().__init__(**cat_seg)
        self.hpa = hpa
        self.afr = afr
        self.loss_weight = loss_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the constructor arguments for a config."""
        arguments = super().from_config(cfg)
        key, node = "MODEL.HYPERSPHERICAL", cfg.MODEL.HYPERSPHERICAL
        channels = arguments["sem_seg_head"].encoder.embed_dim
        hpa = afr = None
        with user_errors(
            momentum=f"{key}.HPA_MOMENTUM",
            temperature=f"{key}.HPA_TEMPERATURE",
            reduction=f"{key}.AFR_REDUCTION",
        ):
            if node.USE_HPA:
                hpa = HypersphericalPrototypeAlignment(
                    len(arguments["train_classes"]),
                    channels,
                    node.HPA_MOMENTUM,
                    node.HPA_TEMPERATURE,
                    node.HPA_SEPARATION_WEIGHT,
                )
            if node.USE_AFR:
                afr = AdaptiveFeatureRectification(channels, node.AFR_REDUCTION, node.AFR_BIAS_INIT)
        return arguments | {"hpa": hpa, "afr": afr, "loss_weight": node.LOSS_WEIGHT}

    @contextmanager
    def accumulated_batch(self, parts: Sequence[list[dict[str, Any]]]) -> Iterator[None]:
        """Also update HPA's prototypes from the whole batch.

        This takes one extra image encoding per part, without gradients.
        """
        with ExitStack() as whole:
            whole.enter_context(super().accumulated_batch(parts))
            if self.hpa is not None:
                whole.enter_context(self.hpa.accumulated_batch(self._class_sums(parts), len(parts)))
            yield

    def _class_sums(self, parts: Sequence[list[dict[str, Any]]]) -> Tensor:
        """Return HPA's `class_sums` over all parts."""
        assert self.hpa is not None
        sums = []
        with torch.no_grad():
            for part in parts:
                images, labels = self.training_inputs(part)
                guidance, _ = self.rectify_guidance(self.guidance(images))
                sums.append(self.hpa.class_sums(guidance.res3, labels))
        return torch.stack(sums).sum(dim=0)

    def rectify_guidance(self, guidance: Guidance) -> tuple[Guidance, dict[str, Tensor]]:
        """Rectify res3 by AFR; the cost volume keeps the unrectified features."""
        if self.afr is None:
            return guidance, {}
        rectified, regularizer = self.afr(guidance.res3)
        return guidance._replace(res3=rectified), {"loss_afr": self.loss_weight * regularizer}

    def auxiliary_losses(self, guidance: Guidance, labels: Tensor) -> dict[str, Tensor]:
        """Return HPA's losses between the rectified res3 and the class prototypes.

        They are loss_hpa, the alignment, and with separation loss_hpa_separation.
        """
        if self.hpa is None:
            return {}
        losses = self.hpa(guidance.res3, labels)
        return {HPA_LOSSES[name]: self.loss_weight * HPA_SHARE * losses[name] for name in losses}
