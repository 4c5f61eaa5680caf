"""Test-time augmentation: an image at several sizes, each also mirrored, the answers averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling.test_time_augmentation import DatasetMapperTTA
from fvcore.transforms import HFlipTransform
from torch import Tensor, nn

from cat_seg.errors import UserError


class SemanticSegmentorWithTTA(nn.Module):
    """Answers with the mean of a model's probabilities for augmented copies of each image.

    Each copy has its shorter side resized to one of TEST.AUG.MIN_SIZES (0 leaves the image's own
    size), the longer one up to TEST.AUG.MAX_SIZE, and with TEST.AUG.FLIP comes mirrored as well.
    One copy is segmented at a time, and only the sum of the answers is kept.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        """Augment for `model`, which follows CATSeg's interface.

        Raises:
            UserError: TEST.AUG.MIN_SIZES is empty, or a size that no image can have.
        """
        super().__init__()
        sizes, longest = cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE
        if not sizes:
            raise UserError("TEST.AUG.MIN_SIZES is empty; give at least one size, such as [384]")
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise UserError(f"TEST.AUG.MIN_SIZES is {list(sizes)}; give whole numbers from 0 on")
        if longest < 1:
            raise UserError(f"TEST.AUG.MAX_SIZE is {longest}; set it to 1 or more")
        self.model = model
        self.augment = DatasetMapperTTA(cfg)
        self.train(model.training)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The model's class names."""
        return self.model.vocabulary

    def set_vocabulary(self, names: Sequence[str]) -> None:
        """Answer with these classes in evaluation; errors as the model's."""
        self.model.set_vocabulary(names)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """Segment.

        Args:
            batched_inputs: one dict an image: "image", uint8 (3, H, W) on the CPU, "height" and
                "width", the size of the answer.

        Returns:
            One dict an image: "sem_seg", probabilities (T, height, width).
        """
        return [{"sem_seg": self._mean(entry)} for entry in batched_inputs]

    def _mean(self, entry: dict[str, Any]) -> Tensor:
        first, *others = self.augment(entry)
        total = self._answer(first)
        for copy in others:
            total.add_(self._answer(copy))
        return total.div_(1 + len(others))

    def _answer(self, copy: dict[str, Any]) -> Tensor:
        probabilities = self.model([copy])[0]["sem_seg"]
        mirrored = any(isinstance(t, HFlipTransform) for t in copy["transforms"].transforms)
        return probabilities.flip(-1) if mirrored else probabilities
