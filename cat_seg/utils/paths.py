"""Resolution of relative paths in configs and commands."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
REPO_ROOT = PACKAGE.parent  # of a checkout
# A wheel installs configs/ and datasets/ here; a checkout has them beside the package.
_INSTALLED = PACKAGE / "shipped"
SHIPPED_ROOT = _INSTALLED if _INSTALLED.is_dir() else REPO_ROOT
# Default folder for data and outputs: the checkout, or the current folder if installed.
WORK_ROOT = Path() if _INSTALLED.is_dir() else REPO_ROOT


def resolve(path: str) -> Path:
    """Return `path` if it exists, else the same path among the shipped files if that exists.

    Paths such as "configs/vitb_384.yaml" and "datasets/ade150.json" thus work from any folder, in
    a checkout or an installed wheel. If neither exists, `path` is returned.
    """
    # os.path, unlike pathlib, never raises for odd input: "~nobody/x", null bytes, very long names.
    given = Path(os.path.expanduser(path))
    if given.is_absolute() or os.path.exists(given):
        return given
    return SHIPPED_ROOT / given if os.path.exists(SHIPPED_ROOT / given) else given
