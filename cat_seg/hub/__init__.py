"""Models by name: the registry, downloads from the Hugging Face Hub, saving and sharing."""

from cat_seg.hub.locating import ModelFiles, locate
from cat_seg.hub.registry import MODELS, ModelEntry, list_models, register_model

__all__ = ["MODELS", "ModelEntry", "ModelFiles", "list_models", "locate", "register_model"]
