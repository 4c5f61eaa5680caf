"""HPS-Seg: open-vocabulary semantic segmentation on CLIP, in detectron2."""

from .cat_seg_model import CATSeg
from .config import add_cat_seg_config
from .enhanced_cat_seg_model import EnhancedCATSeg

__all__ = ["CATSeg", "EnhancedCATSeg", "add_cat_seg_config"]
