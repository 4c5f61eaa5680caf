"""The config of a model that is given by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.config import CfgNode

from cat_seg.configuration import load_config
from cat_seg.hub import locate


class NamedConfig(NamedTuple):
    """A config with MODEL.WEIGHTS and MODEL.DEVICE set, and the name of its model."""

    cfg: CfgNode
    name: str


def config_of(
    source: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    revision: str | None = None,
    config_file: str | os.PathLike[str] | None = None,
    opts: Sequence[str] = (),
) -> NamedConfig:
    """Return the config of a model; see `Segmenter.from_pretrained` for arguments and errors."""
    files = locate(source, revision, config_file)
    fixed = [*files.overrides(), "MODEL.DEVICE", str(device or default_device())]
    return NamedConfig(load_config(str(files.config), [*fixed, *opts]), files.name)


def default_device() -> str:
    """Return the first of cuda, mps and cpu that this machine has."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
