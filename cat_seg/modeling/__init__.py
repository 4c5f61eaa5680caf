"""Layers and towers of the segmentation models."""

from .head import CATSegHead

__all__ = ["CATSegHead"]
