"""Configs that describe a model on any machine, without this one's paths."""

from __future__ import annotations

import os
from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from cat_seg.config import add_cat_seg_config
from cat_seg.configuration.loading import leaves
from cat_seg.errors import UserError
from cat_seg.hub.locating import VOCABULARY
from cat_seg.utils.paths import resolve

CLIP_CONFIG = "clip_config.json"
# Keys that describe the machine or the run, not the model.
_OF_THE_RUN = (
    *("MODEL.WEIGHTS", "MODEL.DEVICE", "MODEL.COMPILE", "MODEL.SEM_SEG_HEAD.CLIP_TOKENIZER"),
    *("OUTPUT_DIR", "DATASETS.CUSTOM"),
)


def portable_config(cfg: CfgNode) -> tuple[CfgNode, bytes | None]:
    """Return a config for a folder with the class list and CLIP's architecture beside it.

    TEST_CLASS_JSON becomes "": a dataset is evaluated with its own classes, and other images
    with the training classes until a vocabulary is given. A file in CLIP_WEIGHTS keeps its
    name alone.

    Args:
        cfg: a full config.

    Returns:
        The config, and the content of CLIP_CONFIG if CLIP's architecture is in a file.

    Raises:
        UserError: a key names a file of this machine.
    """
    defaults = add_cat_seg_config(get_cfg())
    portable = cfg.clone()
    portable.defrost()
    for key in _OF_THE_RUN:
        *sections, name = key.split(".")
        node, default = portable, defaults
        for section in sections:
            node, default = node[section], default[section]
        node[name] = default[name]
    portable.DATASETS.TRAIN, portable.DATASETS.TEST = (), ()
    head = portable.MODEL.SEM_SEG_HEAD
    head.TRAIN_CLASS_JSON, head.TEST_CLASS_JSON = VOCABULARY, ""
    head.CLIP_WEIGHTS = os.path.basename(head.CLIP_WEIGHTS)
    architecture = _clip_config(head.CLIP_PRETRAINED)
    if architecture is not None:
        head.CLIP_PRETRAINED = CLIP_CONFIG
    for key, value in leaves(portable):
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, str) and (os.path.isabs(one) or one.startswith("~")):
                raise UserError(
                    f"{key} is {one!r}, a path of this machine, which others do not have; "
                    "change it before sharing the model"
                )
    return portable, architecture


def _clip_config(name: str) -> bytes | None:
    if not name.endswith(".json"):
        return None
    file: Path = resolve(name)
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED: cannot read {file}: {error.strerror}"
        ) from error
