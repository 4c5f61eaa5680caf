"""Atomic file writes and folder locks that stay safe if the process dies."""

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
    """Open a temporary file that replaces `path` when the block ends without error.

    Args:
        path: the file to write; unchanged until the block ends.
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
    """Truncate a file after its last newline, dropping a line cut short by a kill or a full disk.

    Args:
        path: a line-based file about to be appended to; may be missing.
    """
    if not path.is_file():
        return
    with open(path, "r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder for the duration of the block.

    The lock is also released when the process ends. On file systems without locks this does
    nothing.

    Raises:
        UserError: another process holds the lock.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is writing to {folder}; wait until it has ended"
            ) from error
        except OSError:  # some network file systems have no locks
            pass
        yield
    finally:
        os.close(handle)
