"""Segmentation of images from Python: a model, its classes, and results that draw themselves."""

from cat_seg.inference.result import Result
from cat_seg.inference.segmenter import Segmenter

from_pretrained = Segmenter.from_pretrained

__all__ = ["Result", "Segmenter", "from_pretrained"]
