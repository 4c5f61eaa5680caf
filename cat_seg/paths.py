"""Where relative paths in configs point to."""

from __future__ import annotations

from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parent.parent


def resolve(path: str) -> Path:
    """Return `path` as given if it exists, else the same path below the repository root.

    Commands therefore work from any folder. The returned path need not exist.
    """
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given
    return REPO_ROOT / given if (REPO_ROOT / given).exists() else given
