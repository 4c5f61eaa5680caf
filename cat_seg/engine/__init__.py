"""Training and evaluation runs: set-up, processes, the Trainer, checkpoints."""

from cat_seg.engine.checkpointer import Checkpointer, last_checkpoint
from cat_seg.engine.launch import launch
from cat_seg.engine.setup import argument_parser, load_config, setup
from cat_seg.engine.trainer import Trainer, evaluate

__all__ = [
    "Checkpointer",
    "Trainer",
    "argument_parser",
    "evaluate",
    "last_checkpoint",
    "launch",
    "load_config",
    "setup",
]
