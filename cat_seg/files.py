"""Writing files so that they are complete or absent, whenever the process dies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PARTIAL = ".partial"


@contextmanager
def replacing(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Open a temporary file beside `path` that takes its place when the block ends without error.

    Args:
        path: the file to write; until the end of the block it stays as it was.
        mode: "wb" or "w".
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with open(partial, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
