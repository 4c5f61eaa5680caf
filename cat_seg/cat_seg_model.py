"""The CATSeg meta-architecture: preprocessing, loss, whole-image and sliding-window inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_sem_seg_head
from torch import Tensor, nn

from cat_seg.configuration.precision import amp_dtype
from cat_seg.data.vocabularies import load_vocabulary
from cat_seg.errors import UserError, user_errors
from cat_seg.modeling.aggregator import Guidance
from cat_seg.modeling.head import CATSegHead
from cat_seg.modeling.losses import sem_seg_loss
from cat_seg.modeling.processing import pad, resize, restore, sliding_window
from cat_seg.modeling.reduction import Probabilities, Reducer
from cat_seg.modeling.wording import DEFAULT, Wording
from cat_seg.utils.sizes import padded_size

UNLABELED = -1  # never a class index, unlike a dataset's ignore value


@META_ARCH_REGISTRY.register()
class CATSeg(nn.Module):
    """Open-vocabulary segmentation by cost aggregation (CAT-Seg, arXiv 2303.11797).

    Args:
        sem_seg_head: CLIP and the aggregator.
        train_classes: class names to train on.
        test_classes: class names to predict in evaluation, until `set_vocabulary` replaces them.
        pixel_mean, pixel_std: per RGB channel, on the 0..255 scale.
        size_divisibility: height and width are padded to multiples of this many pixels, except
            in sliding-window inference.
        sliding: evaluate with sliding windows instead of the whole image.
        ignore_value: label value of unlabeled pixels.
        inference_dtype: dtype that segmentation autocasts to; None for that of the context.
            Probabilities and sums of them are float32.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    @configurable
    def __init__(
        self,
        *,
        sem_seg_head: CATSegHead,
        train_classes: Sequence[str],
        test_classes: Sequence[str],
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int,
        sliding: bool,
        ignore_value: int,
        inference_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.sem_seg_head = sem_seg_head
        self.size_divisibility = size_divisibility
        self.sliding = sliding
        self.ignore_value = ignore_value
        self.inference_dtype = inference_dtype
        self._train_classes = tuple(train_classes)
        self.set_vocabulary(test_classes)
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the constructor arguments for a config."""
        head = cfg.MODEL.SEM_SEG_HEAD
        sem_seg_head = build_sem_seg_head(cfg, None)
        train_json, test_json = head.TRAIN_CLASS_JSON, head.TEST_CLASS_JSON or head.TRAIN_CLASS_JSON
        classes = {path: load_vocabulary(path) for path in (train_json, test_json)}
        for path, names in classes.items():
            with user_errors(names=path):
                sem_seg_head.encoder.check_names(names, path)
        return {
            "sem_seg_head": sem_seg_head,
            "train_classes": classes[train_json],
            "test_classes": classes[test_json],
            "pixel_mean": cfg.MODEL.CLIP_PIXEL_MEAN,
            "pixel_std": cfg.MODEL.CLIP_PIXEL_STD,
            "size_divisibility": cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY,
            "sliding": cfg.TEST.SLIDING_WINDOW,
            "ignore_value": head.IGNORE_VALUE,
            "inference_dtype": amp_dtype(cfg, "TEST"),
        }

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.pixel_mean.device

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Class names of the current mode: those trained on, or those predicted in evaluation."""
        return self._train_classes if self.training else self._test_classes

    @property
    def train_classes(self) -> tuple[str, ...]:
        """Class names of training."""
        return self._train_classes

    def set_vocabulary(self, names: Sequence[str], wording: Wording = DEFAULT) -> None:
        """Set the classes to predict in evaluation, and the synonyms and prompts to use for them.

        Raises:
            UserError: `names` is empty, different names give the same prompt after truncation, or
                the encoder does not support `wording`. The previous classes stay in effect.
        """
        if not names:
            raise UserError("the vocabulary is empty; give at least one class name")
        given = () if wording == DEFAULT else (wording,)
        source = "the vocabulary"
        with user_errors(names=source, prompts=source, synonyms=source):
            self.sem_seg_head.encoder.check_names(names, source, *given)
        self._test_classes = tuple(names)
        self._test_wording = given

    def clip_parameters(self) -> Iterator[nn.Parameter]:
        """Return all parameters of CLIP and its adapter, trainable or not."""
        return self.sem_seg_head.encoder.parameters()

    def forward(self, batched_inputs: list[dict[str, Any]], reducer: Reducer | None = None) -> Any:
        """Compute losses in training mode, segment images in evaluation mode.

        Args:
            batched_inputs: one dict per image. "image": uint8 or float (3, H, W), RGB in 0..255.
                Training: "sem_seg", class indices (H, W). Evaluation: optional "height" and
                "width" of the output (default: the image's own size).
            reducer: see `segment`, which calls this; only in evaluation.

        Returns:
            In training, the weighted losses by name. In evaluation, one dict per image with
            "sem_seg": probabilities (T, height, width) of the T classes in the vocabulary; with a
            reducer, its result for each image.
        """
        if self.training:
            return self._losses(batched_inputs)
        images = [self._normalize(entry["image"]) for entry in batched_inputs]
        outputs = [
            (int(entry.get("height", image.shape[1])), int(entry.get("width", image.shape[2])))
            for entry, image in zip(batched_inputs, images, strict=True)
        ]
        segment = self._segment_windows if self.sliding else self._segment_whole
        results = segment(images, outputs, reducer or Probabilities)
        return results if reducer else [{"sem_seg": maps} for maps in results]

    def segment(
        self, batched_inputs: list[dict[str, Any]], reducer: Reducer = Probabilities
    ) -> list[Any]:
        """Segment images, in evaluation mode.

        Args:
            batched_inputs: as in `forward`.
            reducer: what to return of the probabilities of each image, such as
                `cat_seg.modeling.reduction.Argmax`. The maps of all classes never exist at once,
                except in the default's answer, (T, height, width).

        Returns:
            The reducer's result for each image.
        """
        return self(batched_inputs, reducer)

    @contextmanager
    def accumulated_batch(self, parts: Sequence[list[dict[str, Any]]]) -> Iterator[None]:
        """Prepare to forward the `parts` of one training batch one by one within this context.

        Shared work is done once on entry: the text features, and any statistic that a loss takes
        over the whole batch. The mean of the parts' losses is then the loss of the batch.
        CATSeg's own losses are already means and need no such statistic.
        """
        with self.sem_seg_head.encoder.accumulated_batch(self.vocabulary, len(parts)):
            yield

    def rectify_guidance(self, guidance: Guidance) -> tuple[Guidance, dict[str, Tensor]]:
        """Modify the guidance before aggregation.

        Returns:
            The guidance to use, and the weighted losses of this step by name.
        """
        return guidance, {}

    def auxiliary_losses(self, guidance: Guidance, labels: Tensor) -> dict[str, Tensor]:
        """Return further weighted training losses by name.

        Args:
            guidance: the output of `rectify_guidance`.
            labels: class indices (B, H, W), -1 where unlabeled.
        """
        return {}

    def guidance(self, images: Tensor) -> Guidance:
        """Return the guidance of normalized images (B, 3, H, W), before `rectify_guidance`."""
        encoder = self.sem_seg_head.encoder
        features = encoder.encode_image(resize(images, encoder.input_size))
        return self.sem_seg_head.guidance(features)

    def training_inputs(self, batched_inputs: list[dict[str, Any]]) -> tuple[Tensor, Tensor]:
        """Return normalized images (B, 3, H, W) and labels (B, H, W), padded to one size."""
        images = [self._normalize(entry["image"]) for entry in batched_inputs]
        labels = [self._mark_unlabeled(entry["sem_seg"]) for entry in batched_inputs]
        height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
        common = padded_size((height, width), self.size_divisibility)
        targets = torch.stack([pad(label, common, UNLABELED) for label in labels])
        return torch.stack([pad(image, common) for image in images]), targets

    def _logits(self, images: Tensor) -> tuple[Tensor, Guidance, dict[str, Tensor]]:
        """Return logits (B, T, h, w) of normalized images, the guidance used, and its losses."""
        encoder = self.sem_seg_head.encoder
        wording = () if self.training else self._test_wording
        inputs = resize(images, encoder.input_size)
        features, text = encoder.encode(inputs, self.vocabulary, *wording)
        guidance, losses = self.rectify_guidance(self.sem_seg_head.guidance(features))
        return self.sem_seg_head(features.dense_map(), text, guidance), guidance, losses

    def _inference_logits(self, images: Tensor) -> Tensor:
        """Return float32 logits (B, T, h, w) of normalized images, computed in mixed precision."""
        dtype = self.inference_dtype
        with torch.autocast(self.device.type, dtype) if dtype else nullcontext():
            return self._logits(images)[0].float()

    def _losses(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        images, targets = self.training_inputs(batched_inputs)
        logits, guidance, losses = self._logits(images)
        losses["loss_sem_seg"] = sem_seg_loss(logits, targets)
        return losses | self.auxiliary_losses(guidance, targets)

    def _mark_unlabeled(self, labels: Tensor) -> Tensor:
        labels = labels.to(self.device, non_blocking=True).long()
        return labels.masked_fill(labels == self.ignore_value, UNLABELED)

    def _normalize(self, image: Tensor) -> Tensor:
        image = image.to(self.device, non_blocking=True)
        return (image - self.pixel_mean) / self.pixel_std

    def _segment_whole(
        self, images: list[Tensor], outputs: list[tuple[int, int]], reducer: Reducer
    ) -> list[Any]:
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        padded = [padded_size(size, self.size_divisibility) for size in sizes]
        size_in = self.sem_seg_head.encoder.input_size
        inputs = [
            resize(pad(i, size)[None], size_in) for i, size in zip(images, padded, strict=True)
        ]
        logits = self._inference_logits(torch.cat(inputs))
        return [
            restore(*each, reducer=reducer)
            for each in zip(logits, padded, sizes, outputs, strict=True)
        ]

    def _segment_windows(
        self, images: list[Tensor], outputs: list[tuple[int, int]], reducer: Reducer
    ) -> list[Any]:
        return [
            sliding_window(image, self._inference_logits, output, reducer)
            for image, output in zip(images, outputs, strict=True)
        ]
