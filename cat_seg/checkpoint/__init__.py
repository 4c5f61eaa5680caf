"""Model files: safe reading, published formats, fitting entries to a model, and checkpointing."""

from cat_seg.checkpoint.checkpointer import Checkpointer, last_checkpoint

__all__ = ["Checkpointer", "last_checkpoint"]
