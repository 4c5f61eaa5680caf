"""Layers and towers of the segmentation models."""

from cat_seg.modeling.head import CATSegHead

__all__ = ["CATSegHead"]
