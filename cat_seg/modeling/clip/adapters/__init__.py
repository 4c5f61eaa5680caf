"""Ways to fine-tune CLIP: which of its parameters train, and which adapter modifies its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detectron2.config import CfgNode, get_cfg
from torch import nn

from cat_seg.config import add_cat_seg_config
from cat_seg.errors import user_errors
from cat_seg.modeling.clip.adapters.base import Adapter, TowerWeights, adapter_settings
from cat_seg.modeling.clip.adapters.hyperbolic import HyperbolicAdapter, HyperbolicSettings
from cat_seg.modeling.clip.adapters.hyperbolic_plus import (
    HyperbolicPlusAdapter,
    HyperbolicPlusSettings,
)
from cat_seg.modeling.clip.adapters.hyro import HyRoAdapter, HyRoSettings
from cat_seg.modeling.clip.adapters.lora import LoRAAdapter, LoRASettings
from cat_seg.modeling.clip.adapters.oft import OrthogonalAdapter
from cat_seg.modeling.clip.architecture import Architecture

if TYPE_CHECKING:
    from cat_seg.modeling.clip.image_tower import DenseImageTower
    from cat_seg.modeling.clip.siglip import SigLIPTextTower
    from cat_seg.modeling.clip.text_tower import TextTower
    from cat_seg.modeling.clip.transformer import Transformer

__all__ = [
    "FINE_TUNINGS",
    "Adapter",
    "FineTuning",
    "HyRoAdapter",
    "HyRoSettings",
    "HyperbolicAdapter",
    "HyperbolicPlusAdapter",
    "HyperbolicPlusSettings",
    "HyperbolicSettings",
    "LoRAAdapter",
    "LoRASettings",
    "OrthogonalAdapter",
    "TowerWeights",
    "register_fine_tuning",
]

KEY = "MODEL.SEM_SEG_HEAD.CLIP_FINETUNE"

_QV = ("attn.q_proj.weight", "attn.v_proj.weight")
_ATTENTION = ("attn.",)  # query, key, value and output weights and biases
_EVERYTHING = ("",)


def _no_adapter(architecture: Architecture, model: CfgNode) -> Adapter:
    return Adapter()


@dataclass(frozen=True)
class FineTuning:
    """One way to fine-tune CLIP.

    Args:
        text, image: prefixes of parameter names within a block; matching parameters of the tower
            train.
        adapter: builds the adapter from the CLIP architecture and the MODEL section of the config.
            All parameters of the adapter train.
    """

    text: tuple[str, ...] = ()
    image: tuple[str, ...] = ()
    adapter: Callable[[Architecture, CfgNode], Adapter] = _no_adapter

    @classmethod
    def from_name(cls, fine_tuning: str) -> FineTuning:
        """Look up a value of MODEL.SEM_SEG_HEAD.CLIP_FINETUNE.

        Raises:
            ValueError: there is no fine-tuning of that name.
        """
        if fine_tuning not in FINE_TUNINGS:
            known = ", ".join(FINE_TUNINGS)
            raise ValueError(f"fine_tuning must be one of {known}; it is {fine_tuning!r}")
        return FINE_TUNINGS[fine_tuning]

    def build_adapter(self, architecture: Architecture, model: CfgNode | None = None) -> Adapter:
        """Build the adapter with its initial parameters.

        Args:
            architecture: architecture of the CLIP to adapt.
            model: MODEL section of the config; None for the defaults.

        Raises:
            UserError: the adapter refuses a value of the config, or this architecture.
        """
        if model is None:
            model = add_cat_seg_config(get_cfg()).MODEL
        with user_errors(architecture=KEY):
            return self.adapter(architecture, model)

    def mark_trainable(self, text: TextTower | SigLIPTextTower, image: DenseImageTower) -> None:
        """Freeze both towers, except for the parameters that train and receive gradients."""
        towers: tuple[tuple[nn.Module, Transformer, tuple[str, ...]], ...] = (
            (text, text.transformer, self.text),
            (image, image.transformer, self.image),
        )
        for tower, transformer, prefixes in towers:
            tower.requires_grad_(False)
            for block in transformer.resblocks:
                for name, parameter in block.named_parameters():
                    parameter.requires_grad_(name.startswith(prefixes))
        for module in image.unused():
            module.requires_grad_(False)


FINE_TUNINGS: dict[str, FineTuning] = {}


def register_fine_tuning(name: str, fine_tuning: FineTuning) -> None:
    """Make a fine-tuning available as a value of MODEL.SEM_SEG_HEAD.CLIP_FINETUNE.

    An adapter reads its settings from its own config section, MODEL.ADAPTER.<NAME>; see
    `cat_seg.modeling.clip.adapters.base.adapter_settings` and docs/extending.md.

    Raises:
        ValueError: the name is taken.
    """
    if name in FINE_TUNINGS:
        raise ValueError(f"a fine-tuning named {name!r} is already registered")
    FINE_TUNINGS[name] = fine_tuning


def _orthogonal(architecture: Architecture, model: CfgNode) -> Adapter:
    return OrthogonalAdapter(architecture)


def _hyperbolic(architecture: Architecture, model: CfgNode) -> Adapter:
    node = model.HYPERBOLIC
    with user_errors(
        text_curvature="MODEL.HYPERBOLIC.TEXT_CURVATURE",
        image_curvature="MODEL.HYPERBOLIC.IMAGE_CURVATURE",
        block_size="MODEL.HYPERBOLIC.BLOCK_SIZE",
    ):
        settings = HyperbolicSettings(node.TEXT_CURVATURE, node.IMAGE_CURVATURE, node.BLOCK_SIZE)
        return HyperbolicAdapter(architecture, settings)


def _hyperbolic_plus(architecture: Architecture, model: CfgNode) -> Adapter:
    with adapter_settings(HyperbolicPlusSettings, model, "HYPERBOLIC_PLUS") as settings:
        return HyperbolicPlusAdapter(architecture, settings)


def _hyro(architecture: Architecture, model: CfgNode) -> Adapter:
    with adapter_settings(HyRoSettings, model, "HYRO") as settings:
        return HyRoAdapter(architecture, settings)


def _lora(architecture: Architecture, model: CfgNode) -> Adapter:
    with adapter_settings(LoRASettings, model, "LORA") as settings:
        return LoRAAdapter(architecture, settings)


register_fine_tuning("frozen", FineTuning())
register_fine_tuning("attention", FineTuning(text=_QV, image=_QV))
register_fine_tuning("full", FineTuning(text=_EVERYTHING, image=_EVERYTHING))
# As in H-CLIP's code, all three adapt both towers, so a checkpoint predicts the same under each.
register_fine_tuning("oft_both", FineTuning(adapter=_orthogonal))
register_fine_tuning("oft", FineTuning(image=_ATTENTION, adapter=_orthogonal))
register_fine_tuning("oft_qv", FineTuning(adapter=_orthogonal))
register_fine_tuning("hyperbolic", FineTuning(adapter=_hyperbolic))
register_fine_tuning("hyperbolic_plus", FineTuning(adapter=_hyperbolic_plus))
register_fine_tuning("hyro", FineTuning(adapter=_hyro))
register_fine_tuning("lora", FineTuning(adapter=_lora))
