"""Model files: safe reading, the published formats, what fits a model, and the checkpointer."""

from cat_seg.checkpoint.checkpointer import Checkpointer, last_checkpoint

__all__ = ["Checkpointer", "last_checkpoint"]
