"""Initial weights of a CLIP: a file, one of open_clip's downloads, or random."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import open_clip
from torch import Tensor, nn

from cat_seg.checkpoint.reading import read_tensors
from cat_seg.errors import UserError
from cat_seg.modeling.clip.architecture import Architecture
from cat_seg.utils.paths import resolve

KEY = "MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS"
HUB_FILE = "open_clip_model.safetensors"

logger = logging.getLogger(__name__)


def start_weights(architecture: Architecture, weights: str) -> dict[str, Tensor]:
    """Return the state dict of a CLIP, in any supported format.

    Args:
        architecture: the CLIP.
        weights: "openai" or another of open_clip's tags for the model, such as "webli"
            (downloaded once), "random", or a local file.

    Raises:
        UserError: there is no such file or download, or it does not belong to the model.
    """
    if weights == "random":
        return open_clip_model(architecture.open_clip_config).state_dict()
    tags = open_clip.list_pretrained_tags_by_model(architecture.open_clip_name)
    if weights == "openai" or weights in tags:
        path = _download(architecture, weights)
    else:
        path = resolve(weights)
    if not os.path.isfile(path):
        others = f"{', '.join(tags)}, " if tags else ""
        raise UserError(f"{KEY}: no file {weights}; give {others}'random' or a file that exists")
    return read_tensors(path, KEY)


def open_clip_model(config: dict[str, Any]) -> nn.Module:
    """Return open_clip's own model of a config, with random weights."""
    settings = {key: value for key, value in config.items() if key != "custom_text"}
    if config.get("custom_text"):
        return open_clip.CustomTextCLIP(**settings)
    return open_clip.CLIP(**settings)


def pretrained_settings(architecture: Architecture, weights: str | None) -> dict[str, Any]:
    """Return open_clip's settings of its weights with this tag, {} if there are none."""
    if weights is None:
        return {}
    return open_clip.get_pretrained_cfg(architecture.open_clip_name, weights) or {}


def _download(architecture: Architecture, tag: str) -> Path:
    """Fetch weights through open_clip's cache."""
    name, config = architecture.open_clip_name, pretrained_settings(architecture, tag)
    whose = "OpenAI's weights" if tag == "openai" else f"the weights {tag!r}"
    if config.get("quick_gelu", tag == "openai") and not architecture.quick_gelu:
        raise UserError(
            f"{KEY}: {whose} need QuickGELU, which {name} does not use; set"
            f" MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED to '{name}-quickgelu'"
        )
    if not config:
        raise UserError(
            f"{KEY}: OpenAI published no weights for {name}; give a local file or 'random'"
        )
    if architecture.quick_gelu and not config.get("quick_gelu", tag == "openai"):
        raise UserError(
            f"{KEY}: {whose} do not use QuickGELU, which {name} does; set"
            f" MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED to '{name.removesuffix('-quickgelu')}'"
        )
    logger.info("Loading %s for %s (downloaded if not cached)", whose, name)
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it logs a warning for each of many retries
    try:
        return Path(open_clip.download_pretrained(config))
    except Exception as error:  # the exception type depends on the hub client
        raise UserError(
            f"{KEY}: cannot download {whose} for {name} ({type(error).__name__});"
            f" download {HUB_FILE} from https://huggingface.co/{config['hf_hub'].rstrip('/')} on a"
            f" machine with network access, copy it here, and set {KEY} to its path"
        ) from error
    finally:
        hub.setLevel(level)
