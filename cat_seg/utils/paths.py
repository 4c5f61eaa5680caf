"""Where relative paths in configs and commands point to."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
REPO_ROOT = PACKAGE.parent  # of a checkout
# An installed wheel carries configs/ and datasets/ in here; a checkout has them beside the package.
_INSTALLED = PACKAGE / "shipped"
SHIPPED_ROOT = _INSTALLED if _INSTALLED.is_dir() else REPO_ROOT
# Where commands look for data and write by default: the checkout, or the current folder.
WORK_ROOT = Path() if _INSTALLED.is_dir() else REPO_ROOT


def resolve(path: str) -> Path:
    """Return `path` as given if it exists, else the same path among the shipped files.

    "configs/vitb_384.yaml" and "datasets/ade150.json" therefore work from any folder, in a
    checkout and in an installed wheel. The returned path need not exist.
    """
    # Unlike pathlib's, these raise for no text: "~nobody/x", null characters, endless names.
    given = Path(os.path.expanduser(path))
    if given.is_absolute() or os.path.exists(given):
        return given
    return SHIPPED_ROOT / given if os.path.exists(SHIPPED_ROOT / given) else given
