"""The methods that the ablation compares."""

from __future__ import annotations

from tools.quickstart.training import ARCHITECTURE, FINE_TUNING, System

BASE = System("h_clip", "H-CLIP", (ARCHITECTURE, "CATSeg"))
METHODS = (
    BASE,
    System("hpa", "H-CLIP + HPA", ("MODEL.HYPERSPHERICAL.USE_AFR", "False")),
    System("afr", "H-CLIP + AFR", ("MODEL.HYPERSPHERICAL.USE_HPA", "False")),
    System("enhanced", "HPS-Seg (HPA + AFR)"),
    System("hyper_clip", "HyperCLIP", (ARCHITECTURE, "CATSeg", FINE_TUNING, "hyperbolic")),
    System("attention", "CAT-Seg (attention)", (ARCHITECTURE, "CATSeg", FINE_TUNING, "attention")),
)


def _variant(name: str, title: str, *options: str) -> System:
    """Return HPS-Seg with other settings, given as KEY VALUE pairs below MODEL.HYPERSPHERICAL."""
    settings = [
        f"MODEL.HYPERSPHERICAL.{part}" if index % 2 == 0 else part
        for index, part in enumerate(options)
    ]
    return System(name, f"HPS-Seg, {title}", tuple(settings))


# What the papers leave open, one setting at a time around HPS-Seg's defaults.
SWEEP = (
    _variant("weight_0.01", "loss weight 0.01", "LOSS_WEIGHT", "0.01"),
    _variant("weight_1", "loss weight 1", "LOSS_WEIGHT", "1.0"),
    _variant("separation_0.1", "separation 0.1", "HPA_SEPARATION_WEIGHT", "0.1"),
    _variant("separation_1", "separation 1", "HPA_SEPARATION_WEIGHT", "1.0"),
    _variant("momentum_0.9", "momentum 0.9", "HPA_MOMENTUM", "0.9"),
    _variant("momentum_0.999", "momentum 0.999", "HPA_MOMENTUM", "0.999"),
    _variant("afr_bias_0", "AFR biases 0", "AFR_BIAS_INIT", "0.0"),
    _variant("geodesic", "geodesic correlation", "GEODESIC_CORRELATION", "True"),
)
