"""Inference on images in memory with a trained model that is loaded once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor

import cat_seg.enhanced_cat_seg_model  # noqa: F401 (registers the models)
from cat_seg.checkpoint import Checkpointer
from cat_seg.configuration.checks import check_registered
from cat_seg.data import read_image, vocabulary_from
from cat_seg.data.mapper import InferenceMapper
from cat_seg.engine.precision import set_float32_precision
from cat_seg.engine.setup import check_device
from cat_seg.errors import UserError

# Maximum number of values in the probability maps requested from the model, 1 GiB in float32.
# For larger outputs, smaller maps are requested and upsampled one class at a time. Does not apply
# if the caller wants the probabilities.
LARGEST_ANSWER = 2**28


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
        check_device(cfg)
        set_float32_precision(cfg)
        check_registered(cfg.MODEL)
        self.model = build_model(cfg).eval()
        Checkpointer(self.model, averaged=cfg.MODEL.WEIGHTS_EMA).load(cfg.MODEL.WEIGHTS)
        self._mapper = InferenceMapper(cfg)
        if vocabulary is not None:
            self.set_vocabulary(vocabulary)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The class names that labels are indices into."""
        return self.model.vocabulary

    def set_vocabulary(self, names: Iterable[str] | str | Path) -> None:
        """Set the classes to segment into.

        Args:
            names: class names in index order, the path of a class list, or a text that
                `cat_seg.data.parse_vocabulary` understands.

        Raises:
            UserError: no names, an empty name, a duplicate name, an unordered collection (a set),
                an unreadable list, or names that CLIP cannot tell apart because it truncates long
                ones. The previous vocabulary stays in effect.
        """
        self.model.set_vocabulary(vocabulary_from(names))

    @torch.no_grad()
    def __call__(self, image: np.ndarray, with_probabilities: bool = False) -> Prediction:
        """Segment an image.

        Args:
            image: (H, W, 3) uint8 RGB, of any size; see `read_rgb`.
            with_probabilities: also return the probabilities of all classes (4 T H W bytes).

        Raises:
            UserError: the image is not an array of this shape and type, memory runs out, or the
                model's output is NaN.
        """
        if not isinstance(image, np.ndarray):
            raise UserError(f"an image must be a NumPy array, not {type(image)}; see read_rgb")
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise UserError(
                f"an image must be (height, width, 3) uint8 RGB, not {image.shape} {image.dtype}"
            )
        with self._memory_errors(image.shape):
            return self._answer(image, with_probabilities)

    @torch.no_grad()
    def maps(self, images: Sequence[np.ndarray]) -> list[Tensor]:
        """Return the probabilities of all classes in a batch of images, on the model's device.

        Args:
            images: each (H, W, 3) uint8 RGB, of any size.

        Returns:
            One (T, H, W) for each image; smaller in height and width if it would have more than
            LARGEST_ANSWER values.

        Raises:
            UserError: memory runs out, or the model's output is NaN.
        """
        sizes = [_answer_size(image.shape[:2], len(self.vocabulary)) for image in images]
        with self._memory_errors(max((image.shape for image in images), key=prod)):
            return self._segment(images, sizes)

    @contextmanager
    def _memory_errors(self, shape: tuple[int, ...]) -> Iterator[None]:
        """Turn a lack of memory into a UserError that names the size (H, W, ...) of the image."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not _is_lack_of_memory(error):
                raise
            raise UserError(
                f"there is not enough memory to segment {shape[1]}x{shape[0]} pixels "
                f"into {len(self.vocabulary)} classes; make the image smaller or name fewer classes"
            ) from error

    def _answer(self, image: np.ndarray, with_probabilities: bool) -> Prediction:
        size = image.shape[:2]
        answered = size if with_probabilities else _answer_size(size, len(self.vocabulary))
        [maps] = self._segment([image], [answered])
        labels = maps.argmax(dim=0) if maps.shape[1:] == size else _enlarged_argmax(maps, size)
        return Prediction(
            labels=labels.cpu().numpy(),
            vocabulary=tuple(self.vocabulary),
            probabilities=maps.float().cpu().numpy() if with_probabilities else None,
        )

    def _segment(
        self, images: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """Return probabilities (T, *size) for images (H, W, 3) of any size."""
        inputs = [
            {"image": self._pixels(image), "height": height, "width": width}
            for image, (height, width) in zip(images, sizes, strict=True)
        ]
        maps = [output["sem_seg"] for output in self.model(inputs)]
        # The sum is NaN if any value is, and checking it needs no extra memory.
        if not all(torch.isfinite(one.sum(dtype=torch.float32)) for one in maps):
            raise UserError(
                "the model's probabilities are not numbers (NaN); the weights of MODEL.WEIGHTS "
                "are damaged or diverged in training, so use another checkpoint"
            )
        return maps

    def _pixels(self, image: np.ndarray) -> Tensor:
        """Return an image (H, W, 3) as the model's input (3, h, w)."""
        if self._mapper.image_format == "BGR":
            image = image[..., ::-1]
        return self._mapper.resized(image)


def _answer_size(size: tuple[int, int], classes: int) -> tuple[int, int]:
    """Shrink (height, width) so that the maps of all classes have at most LARGEST_ANSWER values."""
    largest = max(LARGEST_ANSWER // classes, 1)  # pixels
    scale = min(1.0, (LARGEST_ANSWER / (classes * size[0] * size[1])) ** 0.5)
    height, width = (max(1, int(side * scale)) for side in size)
    # In a long, thin image the short side is clamped to 1, so the long side must shrink further.
    return min(height, max(1, largest // width)), min(width, max(1, largest // height))


def _is_lack_of_memory(error: Exception) -> bool:
    is_known = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)
    return is_known or "can't allocate memory" in str(error)  # PyTorch's words on a CPU


def _enlarged_argmax(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample maps (T, h, w) bilinearly to `size`, one class at a time, and take the argmax."""
    labels = torch.zeros(size, dtype=torch.int64, device=maps.device)
    highest = torch.full(size, -torch.inf, device=maps.device)
    for index in range(len(maps)):
        enlarged = F.interpolate(
            maps[None, index : index + 1].float(), size, mode="bilinear", align_corners=False
        )[0, 0]
        labels[enlarged > highest] = index
        highest = torch.maximum(highest, enlarged)
    return labels


def read_rgb(path: str, ignore_orientation: bool = False) -> np.ndarray:
    """Read an image file as uint8 RGB (H, W, 3); see `cat_seg.data.read_image`."""
    return read_image(path, "RGB", ignore_orientation)
