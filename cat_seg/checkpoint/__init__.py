"""Model files: safe reading, published formats, fitting entries to a model, and checkpointing."""

from cat_seg.checkpoint.checkpointer import Checkpointer, last_checkpoint
from cat_seg.checkpoint.fitting import load_into, start_from

__all__ = ["Checkpointer", "last_checkpoint", "load_into", "start_from"]
