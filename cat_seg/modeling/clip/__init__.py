"""CLIP's towers for dense prediction, and their adapters."""

from cat_seg.modeling.clip.clip import CLIP
from cat_seg.modeling.clip.loading import build_clip

__all__ = ["CLIP", "build_clip"]
