"""Where relative paths in configs point to."""

from __future__ import annotations

import os
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parent.parent


def resolve(path: str) -> Path:
    """Return `path` as given if it exists, else the same path below the repository root.

    Commands therefore work from any folder. The returned path need not exist.
    """
    # Unlike pathlib's, these raise for no text: "~nobody/x", null characters, endless names.
    given = Path(os.path.expanduser(path))
    if given.is_absolute() or os.path.exists(given):
        return given
    return REPO_ROOT / given if os.path.exists(REPO_ROOT / given) else given
