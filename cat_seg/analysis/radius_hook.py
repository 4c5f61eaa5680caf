"""Hook that records the hyperbolic radius of CLIP's embeddings during fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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

# Number of images whose patches are measured. They are fixed, since with changing training batches
# the trajectory would also show the differences between batches.
IMAGES = 8


def radius_loggers(cfg: CfgNode, model: nn.Module) -> list[RadiusLogger]:
    """Return the hook for MODEL.HYPERBOLIC.RADIUS_PERIOD in a list, or [] if it is not positive."""
    period = cfg.MODEL.HYPERBOLIC.RADIUS_PERIOD
    if period <= 0:
        return []
    return [RadiusLogger(period, model, vocabularies(cfg), fixed_images(cfg))]


class RadiusLogger(HookBase):
    """Hook that records mean and standard deviation of the radii of vocabularies and image patches.

    It measures before the first iteration, after every `period` iterations, and after the last.
    It draws no random numbers and restores the model's train/eval mode.
    """

    def __init__(
        self,
        period: int,
        model: nn.Module,
        vocabularies: Mapping[str, Sequence[str]],
        images: Sequence[Tensor],
    ) -> None:
        """Prepare to measure `model`, unwrapped from DistributedDataParallel if necessary.

        Args:
            period: iterations between measurements.
            model: the model to measure.
            vocabularies: class names by vocabulary name.
            images: (3, H, W), in 0..255.
        """
        self._period = period
        self._model: Any = getattr(model, "module", model)
        self._vocabularies = vocabularies
        self._images = images

    def before_step(self) -> None:
        if self.trainer.iter % self._period == 0:
            self._measure(self.trainer.iter)

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # training did not end early
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
    """Return the class lists of training and of each dataset in DATASETS.TEST, without duplicates.

    Returns:
        The lists by file stem, such as "ade150". If two lists with the same stem differ, the
        second is stored under the name of its dataset.

    Raises:
        UserError: a list cannot be read or does not fit its dataset.
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
    """Read images (3, H, W), evenly spaced over the first test dataset.

    Without a test dataset, they come from the first training dataset.

    Raises:
        UserError: an image cannot be read.
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
