"""A model of two small convolutions that follows CATSeg's interface, and a dataset for it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.modeling import META_ARCH_REGISTRY
from PIL import Image
from torch import nn

from cat_seg.modeling.reduction import Probabilities, reduced

CLASSES = ("cat", "dog", "grass")


@META_ARCH_REGISTRY.register()
class StandIn(nn.Module):
    """It draws from the global generator in either mode, and a buffer follows the images."""

    def __init__(self, cfg):
        super().__init__()
        self.clip = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(1, 4))
        self.clip[1].bias.requires_grad_(False)
        self.head = nn.Conv2d(4, len(CLASSES), 1)
        self.register_buffer("running_mean", torch.zeros(()))
        self.test_classes = self.asked = CLASSES
        self.dtype_seen = None
        self.to(cfg.MODEL.DEVICE)

    @property
    def vocabulary(self):
        return CLASSES if self.training else self.test_classes

    def set_vocabulary(self, names):
        self.test_classes = tuple(names)

    def clip_parameters(self):
        return self.clip.parameters()

    def accumulated_batch(self, parts):
        return nullcontext()

    def scores(self, item):
        image = item["image"].to(self.head.weight)[None] / 255
        scores = self.head(F.dropout(self.clip(image), 0.5, self.training))[0]
        self.dtype_seen = scores.dtype
        return scores

    def segment(self, batch, reducer=Probabilities):
        return self(batch, reducer)

    def forward(self, batch, reducer=Probabilities):
        if not self.training:
            self.asked = self.vocabulary
            torch.rand(1)
            return [reduced(self.scores(item).sigmoid(), reducer) for item in batch]
        losses = []
        for item in batch:
            target = item["sem_seg"].to(self.head.weight.device).long()
            losses.append(F.cross_entropy(self.scores(item)[None], target[None], ignore_index=255))
            self.running_mean.mul_(0.9).add_(0.1 * item["image"].float().mean())
        return {"loss_sem_seg": torch.stack(losses).mean(), "loss_half": losses[0] / 2}


def write_dataset(root: Path, images: int = 6) -> Path:
    """Write images of 8x8 pixels with labels, a class list, and a config; returns the config."""
    generator = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / "stand_in" / folder).mkdir(parents=True)
    for index in range(images):
        image = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        label = (image[..., 0] // 86).astype(np.uint8)
        label[0, 0] = 255
        Image.fromarray(image).save(root / f"stand_in/images/{index}.png")
        Image.fromarray(label).save(root / f"stand_in/labels/{index}.png")
    (root / "classes.json").write_text(json.dumps(CLASSES))
    config = root / "config.yaml"
    config.write_text(
        f"""
MODEL:
  META_ARCHITECTURE: StandIn
  DEVICE: cpu
  SEM_SEG_HEAD: {{TRAIN_CLASS_JSON: "{root}/classes.json"}}
DATASETS: {{TRAIN: [stand_in], TEST: [stand_in]}}
DATALOADER: {{NUM_WORKERS: 0}}
INPUT: {{FORMAT: RGB, MIN_SIZE_TRAIN: [8], MIN_SIZE_TEST: 0}}
SOLVER:
  IMS_PER_BATCH: 2
  MAX_ITER: 30
  BASE_LR: 0.01
  LR_SCHEDULER_NAME: WarmupCosineLR
  WARMUP_ITERS: 0
  CLIP_GRADIENTS: {{ENABLED: True, CLIP_TYPE: full_model, CLIP_VALUE: 0.01}}
TEST: {{EVAL_PERIOD: 10}}
SEED: 1
VERSION: 2
"""
    )
    return config
