"""Size of a transformer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TowerSpec:
    """Size of one transformer: `width` channels, `layers` blocks with `heads` heads each.

    Attributes:
        mlp_width: hidden channels of the MLPs.
        activation: of the MLPs: "gelu", "gelu_tanh" (its tanh approximation), "quick_gelu", or
            "silu" in EVA02's gated MLPs.
        norm_eps: epsilon of the layer norms.
        eva: EVA02's blocks, with gated MLPs and further norms.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str = "gelu"
    norm_eps: float = 1e-5
    eva: bool = False
