"""Inference on images in memory with a trained model that is loaded once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor

from cat_seg.checkpoint import Checkpointer
from cat_seg.configuration.precision import set_float32_precision
from cat_seg.data import read_image, vocabulary_from
from cat_seg.data.mapper import InferenceMapper
from cat_seg.engine.model import build_model
from cat_seg.engine.setup import check_device
from cat_seg.errors import UserError
from cat_seg.modeling.reduction import Argmax, Groups, PixelScores, Probabilities, Reducer, Scores
from cat_seg.modeling.wording import DEFAULT, Wording

KINDS = ("cuda", "mps", "cpu")  # of devices that images can be segmented on


@dataclass(frozen=True)
class Prediction:
    """The segmentation of an image of H x W pixels.

    labels: (H, W) int64, indices into the vocabulary.
    vocabulary: the T class names.
    probabilities: (T, H, W) float32 in 0..1, or None if not requested.
    """

    labels: np.ndarray
    vocabulary: tuple[str, ...]
    probabilities: np.ndarray | None = None


class Predictor:
    """Segments images into any classes with the model described by a config."""

    def __init__(self, cfg: CfgNode, vocabulary: Iterable[str] | str | Path | None = None) -> None:
        """Build the model of `cfg` on MODEL.DEVICE and load MODEL.WEIGHTS.

        Args:
            cfg: also reads INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST and FORMAT, and MODEL.TF32, which
                applies to the whole process.
            vocabulary: see `set_vocabulary`; defaults to the class names of TEST_CLASS_JSON, or of
                TRAIN_CLASS_JSON if that is "".

        Raises:
            UserError: missing or incompatible weights, an unknown model, an unavailable device, an
                invalid size, or a bad class list.
        """
        if not cfg.MODEL.WEIGHTS:
            raise UserError("MODEL.WEIGHTS is empty; set it to the checkpoint of a trained model")
        check_device(cfg, kinds=KINDS)
        set_float32_precision(cfg)
        self.model = build_model(cfg).eval()
        Checkpointer(self.model, averaged=cfg.MODEL.WEIGHTS_EMA).load(cfg.MODEL.WEIGHTS)
        self._mapper = InferenceMapper(cfg)
        if vocabulary is not None:
            self.set_vocabulary(vocabulary)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The class names that labels are indices into."""
        return self.model.vocabulary

    def set_vocabulary(self, names: Iterable[str] | str | Path, wording: Wording = DEFAULT) -> None:
        """Set the classes to segment into.

        Args:
            names: class names in index order, the path of a class list, or a text that
                `cat_seg.data.parse_vocabulary` understands.
            wording: which of a class's synonyms to use, and prompts in place of the model's own.

        Raises:
            UserError: no names, an empty name, a duplicate name, an unordered collection (a set),
                an unreadable list, or names that CLIP cannot tell apart because it truncates long
                ones. The previous vocabulary stays in effect.
        """
        given = () if wording == DEFAULT else (wording,)
        self.model.set_vocabulary(vocabulary_from(names), *given)

    def __call__(self, image: np.ndarray, with_probabilities: bool = False) -> Prediction:
        """Segment an image.

        Args:
            image: (H, W, 3) uint8 RGB, of any size; see `read_rgb`.
            with_probabilities: also return the probabilities of all classes (4 T H W bytes).
                Without them, memory does not depend on the number of classes.

        Raises:
            UserError: the image is not an array of this shape and type, memory runs out, or the
                model's output is NaN.
        """
        with self._naming_lack_of_memory([image]):
            if not with_probabilities:
                [winners] = self._segment([image], Argmax)
                _check_finite(winners.confidence)
                return Prediction(winners.labels.cpu().numpy(), self.vocabulary)
            [maps] = self._segment([image], Probabilities)
            # The sum is NaN if any value is, and checking it needs no extra memory.
            _check_finite(maps.sum(dtype=torch.float32))
            labels = maps.argmax(dim=0).cpu().numpy()
            return Prediction(labels, self.vocabulary, maps.float().cpu().numpy())

    def scores(
        self, images: Sequence[np.ndarray], groups: Sequence[int] | None = None
    ) -> list[PixelScores]:
        """Segment a batch of images, with the confidence of each pixel.

        Args:
            images: each (H, W, 3) uint8 RGB; sizes may differ.
            groups: merge names that follow each other into classes of these sizes, in which the
                highest probability counts; None makes each name a class.

        Returns:
            One `PixelScores` per image, with tensors (H, W) on the CPU.

        Raises:
            UserError: as `__call__`.
        """
        with self._naming_lack_of_memory(images):
            found = self._segment(images, Scores if groups is None else partial(_merged, groups))
            for scores in found:
                _check_finite(scores.confidence)
            return [PixelScores(*(values.cpu() for values in scores)) for scores in found]

    @torch.no_grad()
    def _segment(self, images: Sequence[np.ndarray], reducer: Reducer) -> list[Any]:
        """Return the reduced probabilities of images (H, W, 3), each at its own size."""
        items = []
        for image in images:
            _check_image(image)
            pixels = image[..., ::-1] if self._mapper.image_format == "BGR" else image
            height, width = image.shape[:2]
            items.append({"image": self._mapper.resized(pixels), "height": height, "width": width})
        return self.model.segment(items, reducer)

    @contextmanager
    def _naming_lack_of_memory(self, images: Sequence[np.ndarray]) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not _is_lack_of_memory(error):
                raise
            sizes = ", ".join(f"{image.shape[1]}x{image.shape[0]}" for image in images)
            raise UserError(
                f"not enough memory to segment {sizes} pixels into {len(self.vocabulary)} classes; "
                "use a smaller image or fewer classes"
            ) from error


def _merged(groups: Sequence[int], names: int) -> Groups:
    """Return the reduction of `names` maps to the scores of groups of them."""
    if sum(groups) != names:
        raise ValueError(f"groups have {sum(groups)} names; there are {names}")
    return Groups(groups, Scores)


def _check_image(image: Any) -> None:
    if not isinstance(image, np.ndarray):
        raise UserError(f"an image must be a NumPy array, not {type(image)}; see read_rgb")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise UserError(
            f"an image must be (height, width, 3) uint8 RGB, not {image.shape} {image.dtype}"
        )


def _check_finite(values: Tensor) -> None:
    if not torch.isfinite(values).all():
        raise UserError(
            "the model's probabilities are NaN; MODEL.WEIGHTS is damaged or its training diverged, "
            "so use another checkpoint"
        )


def _is_lack_of_memory(error: Exception) -> bool:
    is_known = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)
    return is_known or "can't allocate memory" in str(error)  # PyTorch's message on a CPU


def read_rgb(path: str, ignore_orientation: bool = False) -> np.ndarray:
    """Read an image file as uint8 RGB (H, W, 3); see `cat_seg.data.read_image`."""
    return read_image(path, "RGB", ignore_orientation)
