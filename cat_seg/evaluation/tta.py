"""Test-time augmentation: averages predictions over several image sizes and mirrored copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from cat_seg.data.augmentation import ResizeShortestEdge
from cat_seg.errors import UserError
from cat_seg.modeling.reduction import Probabilities, Reducer, reduced
from cat_seg.modeling.segmentor import Segmentor


class SemanticSegmentorWithTTA(nn.Module):
    """Averages a model's probabilities over augmented copies of each image.

    The shorter side of each copy is resized to one of TEST.AUG.MIN_SIZES (0 keeps the image's
    size), with the longer side at most TEST.AUG.MAX_SIZE. With TEST.AUG.FLIP, each copy is also
    mirrored. Copies are segmented one at a time, and only the sum of the probabilities is kept.
    """

    model: Segmentor

    def __init__(self, cfg: CfgNode, model: Segmentor) -> None:
        """Wrap `model`.

        Raises:
            UserError: TEST.AUG.MIN_SIZES is empty, or a size is invalid.
        """
        super().__init__()
        sizes, longest = cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE
        if not sizes:
            raise UserError(
                "TEST.AUG.MIN_SIZES is empty; set it to at least one size, such as [384]"
            )
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise UserError(
                f"TEST.AUG.MIN_SIZES is {list(sizes)}; set it to integers of at least 0"
            )
        if longest < 1:
            raise UserError(f"TEST.AUG.MAX_SIZE is {longest}; set it to 1 or more")
        self.model = model
        self.resizes = [ResizeShortestEdge(size, longest) for size in sizes]
        self.flip = cfg.TEST.AUG.FLIP
        self.train(model.training)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The model's class names."""
        return self.model.vocabulary

    def set_vocabulary(self, names: Sequence[str]) -> None:
        """Set the model's class names for evaluation; raises what the model raises."""
        self.model.set_vocabulary(names)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """Segment images.

        Args:
            batched_inputs: one dict per image: "image", uint8 (3, H, W) on the CPU, and "height"
                and "width", the output size.

        Returns:
            One dict per image: "sem_seg", probabilities (T, height, width).
        """
        return [{"sem_seg": maps} for maps in self.segment(batched_inputs)]

    def segment(
        self, batched_inputs: list[dict[str, Any]], reducer: Reducer = Probabilities
    ) -> list[Any]:
        """Segment images and reduce their mean probabilities; see `CATSeg.segment`.

        The maps of all classes exist at once, because the copies are averaged.
        """
        return [reduced(self._mean(entry), reducer) for entry in batched_inputs]

    def _mean(self, entry: dict[str, Any]) -> Tensor:
        first, *others = self._copies(entry["image"])
        total = self._answer(entry, *first)
        for copy in others:
            total.add_(self._answer(entry, *copy))
        return total.div_(1 + len(others))

    def _copies(self, pixels: Tensor) -> Iterator[tuple[Tensor, bool]]:
        """Yield the image (3, H, W) at each size, with whether it is mirrored."""
        image = pixels.permute(1, 2, 0).numpy()
        for resize in self.resizes:
            resized = resize.get_transform(image).apply_image(image)
            copy = torch.from_numpy(resized.transpose(2, 0, 1).copy())
            yield copy, False
            if self.flip:
                yield copy.flip(-1), True

    def _answer(self, entry: dict[str, Any], copy: Tensor, mirrored: bool) -> Tensor:
        [probabilities] = self.model.segment([entry | {"image": copy}])
        return probabilities.flip(-1) if mirrored else probabilities
