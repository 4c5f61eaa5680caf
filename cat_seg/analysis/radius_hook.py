"""Measuring the hyperbolic radius of CLIP's embeddings while it is fine-tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from detectron2.evaluation import inference_context
from torch import Tensor, nn

from cat_seg.analysis.radius import mean_and_spread, measure, metric_names
from cat_seg.data import load_vocabulary, read_image
from cat_seg.evaluation import vocabulary_of

# Images whose patches are measured, always the same: of training batches, which differ from one
# measurement to the next, the trajectory would show the differences too.
IMAGES = 8


def radius_loggers(cfg: CfgNode, model: nn.Module) -> list[RadiusLogger]:
    """Return the hook that MODEL.HYPERBOLIC.RADIUS_PERIOD asks for, or none."""
    period = cfg.MODEL.HYPERBOLIC.RADIUS_PERIOD
    if period <= 0:
        return []
    return [RadiusLogger(period, model, vocabularies(cfg), fixed_images(cfg))]


class RadiusLogger(HookBase):
    """Record mean and spread of the radius of vocabularies and of image patches.

    They are measured before the first iteration, after every `period`, and after the last. It
    draws no random number, and leaves the model's mode as it was.
    """

    def __init__(
        self,
        period: int,
        model: nn.Module,
        vocabularies: Mapping[str, Sequence[str]],
        images: Sequence[Tensor],
    ) -> None:
        """Measure `model`, or what DistributedDataParallel wraps in it.

        Args:
            period: in iterations.
            vocabularies: class names by the name of their list.
            images: (3, H, W), in 0..255.
        """
        self._period = period
        self._model = getattr(model, "module", model)
        self._vocabularies = vocabularies
        self._images = images

    def before_step(self) -> None:
        if self.trainer.iter % self._period == 0:
            self._measure(self.trainer.iter)

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # it did not end early
            self._measure(self.trainer.max_iter)

    def _measure(self, iteration: int) -> None:
        with inference_context(self._model):
            radii = measure(self._model, self._vocabularies, self._images)
        for measured, values in radii.items():
            for name, value in zip(metric_names(measured), mean_and_spread(values), strict=True):
                self.trainer.storage.put_scalar(
                    name, value, smoothing_hint=False, cur_iter=iteration
                )


def vocabularies(cfg: CfgNode) -> dict[str, list[str]]:
    """Class names of the training classes and of each of DATASETS.TEST, each list once.

    Returns:
        The lists by the names of their files, "ade150", or where two files of one name differ by
        that of the dataset.

    Raises:
        UserError: a list that cannot be read or does not fit its dataset.
    """
    head = cfg.MODEL.SEM_SEG_HEAD
    found = {Path(head.TRAIN_CLASS_JSON).stem: load_vocabulary(head.TRAIN_CLASS_JSON)}
    for dataset in cfg.DATASETS.TEST:
        names = vocabulary_of(cfg, dataset)
        spec = MetadataCatalog.get(dataset).get("spec")
        path = head.TEST_CLASS_JSON or (spec.vocabulary if spec else dataset)
        stem = Path(path).stem
        found[stem if found.get(stem, names) == names else dataset] = names
    return found


def fixed_images(cfg: CfgNode) -> list[Tensor]:
    """Read images (3, H, W) from all over the first test dataset, or the first trained on.

    Raises:
        UserError: an image that cannot be read.
    """
    dataset = (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)[0]
    records = DatasetCatalog.get(dataset)
    chosen = np.linspace(0, len(records) - 1, min(IMAGES, len(records))).round().astype(int)
    inputs = cfg.INPUT
    pictures = (
        read_image(records[index]["file_name"], inputs.FORMAT, inputs.IGNORE_EXIF_ORIENTATION)
        for index in chosen
    )
    return [torch.from_numpy(picture.transpose(2, 0, 1).copy()) for picture in pictures]
