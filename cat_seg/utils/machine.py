"""The hardware and the versions of the libraries that this process runs with."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

# Name in records -> distribution.
LIBRARIES = {
    "torchvision": "torchvision",
    "numpy": "numpy",
    "Pillow": "pillow",
    "detectron2": "detectron2",
    "open_clip": "open_clip_torch",
}


@cache
def cpu_name() -> str:
    """Return the processor's name, or its architecture if it has none."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def device_name(device: str) -> str:
    """Return the name of the GPU that a PyTorch device means, or else that of the processor."""
    on_gpu = device.startswith("cuda") and torch.cuda.is_available()
    return torch.cuda.get_device_name(device) if on_gpu else cpu_name()


@cache
def versions() -> dict[str, str | None]:
    """Return the versions of Python, PyTorch and LIBRARIES; None for one that is not installed."""
    return {
        "Python": platform.python_version(),
        "torch": torch.__version__,  # with the kind of build, such as +cu128
        **{name: _version(distribution) for name, distribution in LIBRARIES.items()},
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
