"""CLIP's towers for dense prediction, and their adapters."""

from .clip import CLIP
from .image_tower import ImageFeatures
from .loading import build_clip

__all__ = ["CLIP", "ImageFeatures", "build_clip"]
