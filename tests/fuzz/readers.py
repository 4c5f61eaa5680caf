"""What reads each kind of file, with what has to hold for an answer."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode

from cat_seg.checkpoint.formats import convert, format_of
from cat_seg.checkpoint.reading import read_file, read_tensors
from cat_seg.data import load_vocabulary, read_image, read_label
from cat_seg.data.reading import read_image_size
from cat_seg.engine import load_config


def image(path: Path) -> None:
    """An image is RGB, and has the size that was read before it."""
    pixels = read_image(str(path), "RGB")
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert pixels.size
    assert read_image_size(str(path)) == pixels.shape[:2]


def label(path: Path) -> None:
    """A label map is one channel of integers."""
    labels = read_label(str(path))
    assert labels.dtype == np.int64 and labels.ndim == 2
    assert labels.flags.writeable


def classes(path: Path) -> None:
    """Names differ, are not empty, and survive being written and read again."""
    names = load_vocabulary(str(path))
    assert names and all(name == name.strip() != "" for name in names)
    assert len(set(names)) == len(names)
    again = path.with_name("again.json")
    again.write_text(json.dumps(names))
    assert load_vocabulary(str(again)) == names


def config(path: Path) -> None:
    """A config has all sections, and can be written as YAML."""
    cfg = load_config(str(path))
    for section in ("MODEL", "INPUT", "SOLVER", "DATASETS", "TEST"):
        assert isinstance(cfg[section], CfgNode), section
    assert cfg.dump()


def checkpoint(path: Path) -> None:
    """A checkpoint holds tensors alone, which have names of one of the formats or none."""
    tensors = read_tensors(path)
    assert tensors and all(isinstance(value, torch.Tensor) for value in tensors.values())
    for value in tensors.values():
        value.float().sum() if not value.is_quantized else value.dequantize().sum()
    format_of(tensors)
    convert(tensors)
    assert isinstance(read_file(path), dict)


def fault(path: Path) -> None:
    """What a file asks for in words, to test what becomes of faults."""
    match path.read_text():
        case "die":
            os.abort()
        case "hang":
            time.sleep(1000)
        case "fail":
            raise ZeroDivisionError("a fault")


READERS = {
    "fault": fault,
    "image": image,
    "label": label,
    "classes": classes,
    "config": config,
    "checkpoint": checkpoint,
}
