from __future__ import annotations

import platform
from importlib import metadata

import numpy
import PIL
import torch

from cat_seg.utils import machine


def test_versions_are_those_that_are_imported(monkeypatch):
    machine.versions.cache_clear()
    found = machine.versions()
    assert found["Python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert found["numpy"] == numpy.__version__
    assert found["Pillow"] == PIL.__version__
    assert all(found.values())

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    machine.versions.cache_clear()
    assert machine.versions()["detectron2"] is None
    machine.versions.cache_clear()


def test_the_device_has_a_name(monkeypatch):
    assert machine.device_name("cpu") == machine.cpu_name() != ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    assert machine.device_name("cuda:1") == "GPU of cuda:1"
