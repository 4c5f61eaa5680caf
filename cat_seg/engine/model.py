"""Build a model whose weights are then loaded from MODEL.WEIGHTS."""

from __future__ import annotations

from detectron2 import modeling
from detectron2.config import CfgNode

import cat_seg.enhanced_cat_seg_model  # noqa: F401 (registers the models)
from cat_seg.cat_seg_model import CATSeg
from cat_seg.checkpoint.formats import checkpoint_holds_clip
from cat_seg.configuration.checks import check_registered


def build_model(cfg: CfgNode) -> CATSeg:
    """Build the model of a config, without reading CLIP's weights where MODEL.WEIGHTS has them.

    In that case CLIP_WEIGHTS is neither read nor downloaded, and CLIP is zero until MODEL.WEIGHTS
    is loaded. detectron2's `build_model` always reads CLIP_WEIGHTS.

    Args:
        cfg: the complete config; it is not modified.

    Raises:
        UserError: the architecture is unknown, MODEL.WEIGHTS cannot be read, or the model rejects a
            value in the config.
    """
    check_registered(cfg.MODEL)
    if checkpoint_holds_clip(cfg.MODEL.WEIGHTS):
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.SEM_SEG_HEAD.CLIP_WEIGHTS = None
    return modeling.build_model(cfg)
