"""Writing files so that they are complete or absent, whenever the process dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cat_seg.errors import UserError

PARTIAL = ".partial"


@contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO]:
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


def drop_unfinished_line(path: Path) -> None:
    """Cut off what follows the last newline of a file, which a full disk or a kill may leave.

    Args:
        path: a file of lines that is to be appended to; may be missing.
    """
    if not path.is_file():
        return
    with open(path, "r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Keep other processes that enter this for the same folder out, until the block ends.

    The end of the process frees the folder too. Where the file system has no locks, nobody is kept
    out.

    Raises:
        UserError: another process is in the block.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is writing to {folder}; wait until it has ended"
            ) from error
        except OSError:  # no locks on some network file systems
            pass
        yield
    finally:
        os.close(handle)
