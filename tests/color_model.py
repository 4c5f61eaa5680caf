"""A stand-in model for tests: each class is the color that its first name names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from PIL import ImageColor
from torch import nn

from cat_seg.data import load_vocabulary
from cat_seg.modeling.reduction import Probabilities, Reducer, reduced

CONFIG = """
MODEL:
  META_ARCHITECTURE: NearestColor
  DEVICE: cpu
  SEM_SEG_HEAD:
    TRAIN_CLASS_JSON: {train}
INPUT:
  FORMAT: RGB
  MIN_SIZE_TEST: 0
VERSION: 2
"""


@META_ARCH_REGISTRY.register()
class NearestColor(nn.Module):
    """Answers with exp(-sharpness * distance to the class's color); untrained, all are equal."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        head = cfg.MODEL.SEM_SEG_HEAD
        self.vocabulary = tuple(load_vocabulary(head.TEST_CLASS_JSON or head.TRAIN_CLASS_JSON))
        self.sharpness = nn.Parameter(torch.zeros(()))
        self.seen: list[dict[str, Any]] = []

    def set_vocabulary(self, names: Sequence[str]) -> None:
        self.vocabulary = tuple(names)

    def segment(self, batch: list[dict[str, Any]], reducer: Reducer = Probabilities) -> list[Any]:
        assert not self.training
        self.seen += batch
        first_names = [name.split(",")[0].strip() for name in self.vocabulary]
        colors = torch.tensor([ImageColor.getrgb(name) for name in first_names]) / 255
        answers = []
        for entry in batch:
            difference = entry["image"][None] / 255 - colors[:, :, None, None]
            maps = torch.exp(-self.sharpness * difference.norm(dim=1))
            size = (entry["height"], entry["width"])
            maps = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
            answers.append(reduced(maps, reducer))
        return answers


def write_config(folder: Path) -> str:
    """Write a config of this model, for the classes red, lime and blue."""
    classes = folder / "classes.json"
    classes.write_text('["red", "lime", "blue"]')
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(train=classes))
    return str(config)


def write_weights(folder: Path) -> str:
    """Write trained weights of this model."""
    file = folder / "model.pth"
    torch.save({"model": {"sharpness": torch.tensor(10.0)}}, file)
    return str(file)
