"""Small valid files of every kind that users bring, as bytes by file name."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from cat_seg.utils.paths import REPO_ROOT


def seeds() -> dict[str, dict[str, bytes]]:
    """File name -> content, by kind of file."""
    return {
        "image": _images(),
        "label": _labels(),
        "classes": _class_lists(),
        "config": _configs(),
        "checkpoint": _checkpoints(),
    }


def _encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _images() -> dict[str, bytes]:
    rows, columns = np.mgrid[:9, :7]
    color = np.stack([rows * 25, columns * 30, rows * columns * 3], axis=-1).astype(np.uint8)
    gray16 = (rows * columns * 1000).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "color.png": _encoded(color, "PNG", exif=exif),
        "alpha.png": _encoded(np.dstack([color, color[..., :1]]), "PNG"),
        "deep.png": _encoded(gray16, "PNG"),
        "turned.jpg": _encoded(color, "JPEG", exif=exif),
        "progressive.jpg": _encoded(color, "JPEG", progressive=True),
        "lossy.webp": _encoded(color, "WEBP"),
        "lossless.webp": _encoded(color, "WEBP", lossless=True, exif=exif),
        "turned.tif": _encoded(color, "TIFF", tiffinfo={0x0112: 6}),
        "packed.tif": _encoded(color, "TIFF", compression="tiff_lzw"),
        "color.gif": _encoded(color, "GIF"),
        "color.bmp": _encoded(color, "BMP"),
    }


def _labels() -> dict[str, bytes]:
    labels = np.arange(63, dtype=np.uint8).reshape(9, 7) % 5
    palette = Image.fromarray(labels)
    palette.putpalette([channel for index in range(5) for channel in (index * 50, 0, 255)])
    buffer = BytesIO()
    palette.save(buffer, "PNG", bits=4)
    return {
        "gray.png": _encoded(labels, "PNG"),
        "palette.png": buffer.getvalue(),
        "deep.tif": _encoded(labels.astype(np.uint16), "TIFF"),
        "packed.tiff": _encoded(labels, "TIFF", compression="tiff_deflate"),
        "bits.tif": _encoded(labels > 1, "TIFF", compression="group4"),
    }


def _class_lists() -> dict[str, bytes]:
    names = ["road, route", "café", "traffic light", "水", "t-shirt"]
    return {
        "names.txt": "\n".join(names).encode(),
        "windows.txt": ("\ufeff" + "\r\n".join(names) + "\r\n").encode(),
        "names.json": json.dumps(names).encode(),
        "pretty.json": json.dumps(names, ensure_ascii=False, indent=2).encode(),
    }


def _configs() -> dict[str, bytes]:
    text = """
_BASE_: {base}
MODEL:
  META_ARCHITECTURE: "CATSeg"
  SEM_SEG_HEAD: {{NUM_LAYERS: 2, FEATURE_RESOLUTION: [24, 24], CLIP_FINETUNE: "attention"}}
INPUT:
  MIN_SIZE_TRAIN: [192, 384]
SOLVER:
  BASE_LR: 2e-4
  STEPS: (10, 20)
DATASETS:
  TRAIN: ("coco_2017_train_stuff_all_sem_seg",)
  CUSTOM:
    field: {{IMAGES: images, LABELS: labels, CLASSES: classes.txt}}
"""
    return {
        "based.yaml": text.format(base=REPO_ROOT / "configs" / "config.yaml").encode(),
        "alone.yaml": text.replace("_BASE_: {base}\n", "").format().encode(),
    }


def state_dicts() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Some entries of a checkpoint of ours, and of a published one."""
    clip = "sem_seg_head.predictor.clip_model"
    own = {
        "sem_seg_head.clip.text.positional_embedding": torch.arange(6.0).view(2, 3),
        "sem_seg_head.upsample1.bias": torch.ones(4, dtype=torch.float16),
    }
    published = {
        f"{clip}.visual.class_embedding": torch.zeros(3),
        f"{clip}.transformer.resblocks.0.attn.in_proj_weight": torch.zeros(6, 2),
        "sem_seg_head.predictor.transformer.head.weight": torch.zeros(1, 2, 3, 3),
    }
    return own, published


def _checkpoints() -> dict[str, bytes]:
    state, published = state_dicts()
    training = {"model": state, "iteration": 3, "optimizer": {"state": {0: {"step": 1.0}}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated
        script = _saved(lambda file: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file))
    return {
        "zip.pth": _saved(lambda file: torch.save(training, file)),
        "published.pth": _saved(lambda file: torch.save(published, file)),
        "legacy.pth": _saved(
            lambda file: torch.save(training, file, _use_new_zipfile_serialization=False)
        ),
        "script.pt": script,
        "plain.safetensors": safetensors.torch.save(state),
    }


def _saved(save: Callable[[BytesIO], None]) -> bytes:
    buffer = BytesIO()
    save(buffer)
    return buffer.getvalue()
