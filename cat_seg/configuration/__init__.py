"""Configs: reading YAML files, merging them, the published keys, and the checks of all values."""

from cat_seg.configuration.loading import load_config

__all__ = ["load_config"]
