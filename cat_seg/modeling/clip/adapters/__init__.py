"""Ways of fine-tuning CLIP: which of its parameters train, and which adapter changes them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ....errors import UserError
from ..architecture import Architecture
from ..transformer import Transformer
from .base import Adapter, TowerWeights
from .hyperbolic import HyperbolicAdapter, HyperbolicSettings
from .oft import OrthogonalAdapter

__all__ = [
    "FINE_TUNINGS",
    "Adapter",
    "FineTuning",
    "HyperbolicAdapter",
    "HyperbolicSettings",
    "OrthogonalAdapter",
    "TowerWeights",
]

_QV = ("attn.q_proj.weight", "attn.v_proj.weight")
_ATTENTION = ("attn.",)  # query, key, value and output weights and biases
_EVERYTHING = ("",)


@dataclass(frozen=True)
class FineTuning:
    """What trains in CLIP.

    Args:
        text, image: name prefixes, within a block, of the tower's own parameters that train.
        oft: whether H-CLIP's adapters sit in both towers. They train along with the above.
        hyperbolic: whether both towers are adapted in hyperbolic space.
    """

    text: tuple[str, ...] = ()
    image: tuple[str, ...] = ()
    oft: bool = False
    hyperbolic: bool = False

    @classmethod
    def from_name(cls, name: str) -> FineTuning:
        """Look up a value of MODEL.SEM_SEG_HEAD.CLIP_FINETUNE, or raise UserError."""
        if name not in FINE_TUNINGS:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.CLIP_FINETUNE: '{name}' is none of {', '.join(FINE_TUNINGS)}"
            )
        return FINE_TUNINGS[name]

    def build_adapter(
        self, architecture: Architecture, hyperbolic: HyperbolicSettings | None = None
    ) -> Adapter:
        """The adapter module, with its start values."""
        if self.hyperbolic:
            return HyperbolicAdapter(architecture, hyperbolic or HyperbolicSettings())
        return OrthogonalAdapter(architecture) if self.oft else Adapter()

    def mark_trainable(self, text: nn.Module, image: nn.Module) -> None:
        """Freeze both towers but for what trains and what a loss reaches."""
        for tower, prefixes in ((text, self.text), (image, self.image)):
            tower.requires_grad_(False)
            transformer: Transformer = tower.transformer
            for block in transformer.resblocks:
                for name, parameter in block.named_parameters():
                    parameter.requires_grad_(name.startswith(prefixes))
        # The dense last image block has no use for queries and keys.
        last = image.transformer.resblocks[-1].attn
        last.q_proj.requires_grad_(False)
        last.k_proj.requires_grad_(False)


FINE_TUNINGS = {
    "frozen": FineTuning(),
    "attention": FineTuning(text=_QV, image=_QV),
    "full": FineTuning(text=_EVERYTHING, image=_EVERYTHING),
    # As in H-CLIP's code: all three adapt both towers, so a checkpoint answers alike under each.
    "oft_both": FineTuning(oft=True),
    "oft": FineTuning(image=_ATTENTION, oft=True),
    "oft_qv": FineTuning(oft=True),
    "hyperbolic": FineTuning(hyperbolic=True),
}
