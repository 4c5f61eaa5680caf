"""Pretrain the quickstart's CLIP on drawn crops and captions of all classes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cat_seg.modeling.clip.prompts import TEMPLATES
from cat_seg.modeling.clip.start_weights import open_clip_model
from cat_seg.utils.files import atomic_write
from cat_seg.utils.progress import bar
from tools.quickstart.classes import Classes
from tools.quickstart.drawing import Shape, draw_scene

CAPTIONS: tuple[Callable[[str], str], ...] = (
    *TEMPLATES["single"],  # the template that segmentation uses
    "a photo of a {}".format,
    "a {}".format,
    "there is a {}".format,
    "a picture of a {} on the ground".format,
)
# Range of the shape's radius, relative to the crop side. In close crops most patches show the
# captioned class, which the dense features need.
RADIUS = (0.45, 0.75)
MARGIN = 16  # pixels; range of the random window offset
MEAN = 255 * torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
STD = 255 * torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)


@dataclass(frozen=True)
class PretrainSettings:
    """Data and schedule of CLIP's pretraining.

    Attributes:
        steps: optimizer steps.
        batch: crops per step.
        crops: training crops drawn per class; random windows and flips augment them.
        test_crops: test crops drawn per class.
        learning_rate: peak learning rate; with 1e-3 or more, training stays at chance.
        warmup: warm-up steps.
    """

    steps: int = 1000
    batch: int = 64
    crops: int = 120
    test_crops: int = 20
    learning_rate: float = 6e-4
    warmup: int = 150


def pretrain(
    config: Path, weights: Path, classes: Classes, settings: PretrainSettings, seed: int
) -> dict[str, float]:
    """Train an open_clip CLIP from scratch and write its state dict.

    Args:
        config: the open_clip model config.
        weights: the file to write.
        classes: the classes; all of them get captions, including the unseen ones.
        settings: data and schedule.
        seed: seed of weights and data.

    Returns:
        "loss": mean over the last tenth of the steps. "seen" and "unseen": accuracy of CLIP on test
        crops of these classes, classified among all classes.
    """
    torch.manual_seed(seed)
    architecture = json.loads(config.read_text(encoding="utf-8"))
    model = open_clip_model(architecture)
    # Random token embeddings are distinct enough; training 49408 rows would take most of the time.
    getattr(model, "text", model).token_embedding.requires_grad_(False)
    size = architecture["vision_cfg"]["image_size"]
    rng = np.random.default_rng([seed, len(classes.names)])
    crops, labels = _draw_crops(rng, classes, settings.crops, size, MARGIN)
    tokenizer = open_clip.SimpleTokenizer(context_length=architecture["text_cfg"]["context_length"])
    captions = torch.stack(
        [tokenizer([caption(name) for name in classes.names]) for caption in CAPTIONS]
    )

    optimizer, scheduler = _optimizer(model, settings)
    losses = []
    with bar(total=settings.steps, desc="pre-train CLIP", unit="step") as progress:
        for _ in range(settings.steps):
            chosen = torch.randint(len(crops), (settings.batch,))
            images = _random_window(crops[chosen], size)
            tokens = captions[torch.randint(len(captions), ())]  # one template per batch
            loss = contrastive_loss(model, images, tokens, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(100))
            losses.append(loss.item())
            progress.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            progress.update()

    tests = _draw_crops(rng, classes, settings.test_crops, size)
    right = name_crops(model, tests[0], captions[0]) == tests[1]
    unseen = torch.isin(tests[1], torch.tensor(classes.unseen_shapes))
    with atomic_write(weights) as file:
        torch.save(model.state_dict(), file)
    return {
        "loss": float(np.mean(losses[-max(1, settings.steps // 10) :])),
        "seen": right[~unseen].float().mean().item(),
        "unseen": right[unseen].float().mean().item(),
    }


def contrastive_loss(model: nn.Module, images: Tensor, tokens: Tensor, labels: Tensor) -> Tensor:
    """Return CLIP's symmetric cross-entropy, with one caption shared by all images of a class.

    Args:
        model: the CLIP.
        images: uint8 (B, 3, S, S).
        tokens: one caption per class (T, context length).
        labels: class indices (B,).
    """
    present, row = labels.unique(return_inverse=True)
    text = model.encode_text(tokens[present], normalize=True)
    logits = model.logit_scale.exp() * encode_images(model, images) @ text.T
    positives = F.one_hot(row, len(present)).float()
    by_text = F.cross_entropy(logits.T, (positives / positives.sum(dim=0)).T)
    return (F.cross_entropy(logits, row) + by_text) / 2


@torch.no_grad()
def name_crops(model: nn.Module, images: Tensor, tokens: Tensor) -> Tensor:
    """Return the class (B,) whose caption (T, context length) is nearest each crop (B, 3, S, S)."""
    text = model.encode_text(tokens, normalize=True)
    return torch.cat(
        [(encode_images(model, part) @ text.T).argmax(dim=1) for part in images.split(64)]
    )


def encode_images(model: nn.Module, images: Tensor) -> Tensor:
    """Return L2-normalized features (B, C) of uint8 images (B, 3, S, S)."""
    return model.encode_image((images - MEAN) / STD, normalize=True)


def _draw_crops(
    rng: np.random.Generator, classes: Classes, count: int, size: int, margin: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw `count` crops per class: a shape on a random ground, or only a ground.

    Returns:
        Images uint8 (N, 3, size + margin, size + margin) and class indices (N,).
    """
    crops = []
    side = size + margin
    labels = np.repeat(np.arange(len(classes.names)), count)
    for index in bar(iterable=labels.tolist(), desc="draw crops", unit="crop"):
        ground, shapes = index, []
        if index not in classes.grounds:
            ground = int(rng.choice(classes.grounds))
            shapes = [Shape(index, side / 2, side / 2, rng.uniform(*RADIUS) * size)]
        crops.append(draw_scene(rng, classes.names, ground, shapes, side)[0])
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    return images, torch.from_numpy(labels)


def _random_window(crops: Tensor, size: int) -> Tensor:
    """Apply one random window and one random flip to the whole batch."""
    top, left = torch.randint(crops.shape[-1] - size + 1, (2,)).tolist()
    window = crops[:, :, top : top + size, left : left + size]
    return window.flip(-1) if torch.rand(()) < 0.5 else window


def _optimizer(
    model: nn.Module, settings: PretrainSettings
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Build AdamW and a cosine schedule to 0 with linear warm-up; only matrices decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / settings.warmup)
        return warm * 0.5 * (1 + math.cos(math.pi * step / settings.steps))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
