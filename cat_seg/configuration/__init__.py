"""Configs: reading and merging YAML files, keys of the published configs, and value checks."""

from cat_seg.configuration.loading import load_config

__all__ = ["load_config"]
