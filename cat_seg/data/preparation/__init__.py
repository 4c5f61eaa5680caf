"""Conversion of downloaded datasets into the label maps that `cat_seg.data` registers."""

from cat_seg.data.preparation.command import prepare
from cat_seg.data.preparation.jobs import Conversion, Job

__all__ = ["Conversion", "Job", "prepare"]
