"""A trained model, loaded once, for images in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
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

# Numbers in the probability maps that the model is asked for, unless probabilities are wanted:
# 2**28 are 1 GiB. Where classes times pixels are more, each class is enlarged by itself.
LARGEST_ANSWER = 2**28


@dataclass(frozen=True)
class Prediction:
    """What a model sees in an image of H x W pixels.

    labels: (H, W) int64, indices into the vocabulary.
    vocabulary: the T class names asked for.
    probabilities: (T, H, W) float32 in 0..1 where they were asked for.
    """

    labels: np.ndarray
    vocabulary: tuple[str, ...]
    probabilities: np.ndarray | None = None


class Predictor:
    """Segments images with the model of a config, into any classes."""

    def __init__(self, cfg: CfgNode, vocabulary: Iterable[str] | str | Path | None = None) -> None:
        """Build the model of `cfg` on MODEL.DEVICE and load MODEL.WEIGHTS.

        Args:
            cfg: also reads INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST and FORMAT, and MODEL.TF32, which
                applies to the whole process.
            vocabulary: see `set_vocabulary`; by default the class names of TEST_CLASS_JSON, or of
                TRAIN_CLASS_JSON where that is "".

        Raises:
            UserError: no or unfit weights, a model or device that is not there, a size that
                cannot be, a bad class list.
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
        """Segment into these classes from now on.

        Args:
            names: class names in index order, the path of a class list, or a text that
                `cat_seg.data.parse_vocabulary` understands.

        Raises:
            UserError: no names, an empty one, one that is there twice, names without an order (a
                set), an unreadable list, or names that are the same to CLIP because it reads only
                their beginning. The vocabulary then is what it was before.
        """
        self.model.set_vocabulary(vocabulary_from(names))

    @torch.no_grad()
    def __call__(self, image: np.ndarray, with_probabilities: bool = False) -> Prediction:
        """Segment an image.

        Args:
            image: (H, W, 3) uint8 RGB, of any size; see `read_rgb`.
            with_probabilities: keep the probabilities of all classes (4 T H W bytes).

        Raises:
            UserError: the image is no array, or one of another shape or type; it does not fit
                into memory; or the model's answer is NaN.
        """
        if not isinstance(image, np.ndarray):
            raise UserError(f"an image must be a NumPy array, not {type(image)}; see read_rgb")
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise UserError(
                f"an image must be (height, width, 3) uint8 RGB, not {image.shape} {image.dtype}"
            )
        try:
            return self._answer(image, with_probabilities)
        except (MemoryError, RuntimeError) as error:
            if not _is_lack_of_memory(error):
                raise
            raise UserError(
                f"there is not enough memory to segment {image.shape[1]}x{image.shape[0]} pixels "
                f"into {len(self.vocabulary)} classes; make the image smaller or name fewer classes"
            ) from error

    def _answer(self, image: np.ndarray, with_probabilities: bool) -> Prediction:
        size = image.shape[:2]
        answered = size if with_probabilities else _answer_size(size, len(self.vocabulary))
        maps = self._segment(image, *answered)
        # A sum is NaN where one of its numbers is, and takes no memory.
        if not torch.isfinite(maps.sum(dtype=torch.float32)):
            raise UserError(
                "the model's probabilities are not numbers (NaN); the weights of MODEL.WEIGHTS "
                "are damaged or diverged in training, so use another checkpoint"
            )
        labels = maps.argmax(dim=0) if maps.shape[1:] == size else _enlarged_argmax(maps, size)
        return Prediction(
            labels=labels.cpu().numpy(),
            vocabulary=tuple(self.vocabulary),
            probabilities=maps.float().cpu().numpy() if with_probabilities else None,
        )

    def _segment(self, image: np.ndarray, height: int, width: int) -> Tensor:
        """Probabilities (T, height, width) of an image of any other size."""
        if self._mapper.image_format == "BGR":
            image = image[..., ::-1]
        pixels = self._mapper.resized(image)
        return self.model([{"image": pixels, "height": height, "width": width}])[0]["sem_seg"]


def _answer_size(size: tuple[int, int], classes: int) -> tuple[int, int]:
    """Reduce (height, width) so that all classes' maps have at most LARGEST_ANSWER numbers."""
    largest = max(LARGEST_ANSWER // classes, 1)  # pixels
    scale = min(1.0, (LARGEST_ANSWER / (classes * size[0] * size[1])) ** 0.5)
    height, width = (max(1, int(side * scale)) for side in size)
    # One side of a long, thin image is not reduced as far.
    return min(height, max(1, largest // width)), min(width, max(1, largest // height))


def _is_lack_of_memory(error: Exception) -> bool:
    is_known = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)
    return is_known or "can't allocate memory" in str(error)  # PyTorch's words on a CPU


def _enlarged_argmax(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Argmax over T of maps (T, h, w) enlarged bilinearly to `size`, in memory for one class."""
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
