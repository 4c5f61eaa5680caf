"""Training and evaluation runs: setup, processes, the Trainer, checkpoints."""

from cat_seg.checkpoint.checkpointer import Checkpointer, last_checkpoint
from cat_seg.configuration.loading import load_config
from cat_seg.engine.evaluation import check_weights, evaluate, load_model, shared_weights_record
from cat_seg.engine.launch import launch
from cat_seg.engine.setup import argument_parser, config_restored_on_error, setup
from cat_seg.engine.trainer import Trainer

__all__ = [
    "Checkpointer",
    "Trainer",
    "argument_parser",
    "check_weights",
    "config_restored_on_error",
    "evaluate",
    "last_checkpoint",
    "launch",
    "load_config",
    "load_model",
    "setup",
    "shared_weights_record",
]
