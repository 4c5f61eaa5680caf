"""CLIP's towers for dense prediction, and their adapters."""

from .clip import CLIP
from .loading import build_clip

__all__ = ["CLIP", "build_clip"]
