"""Atomic file writes and folder locks that stay safe if the process dies."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from cat_seg.errors import UserError

if sys.platform == "win32":
    from filelock import FileLock
else:
    import fcntl

PARTIAL = ".partial"


@contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Open a temporary file that replaces `path` when the block ends without error.

    Args:
        path: the file to write; unchanged until the block ends.
        mode: "wb", or "w" for UTF-8 text.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with open(partial, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    if sys.platform != "win32":  # Windows cannot open a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


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
    nothing. On Windows, the folder contains an empty file `.lock` in the meantime.

    Raises:
        UserError: another process holds the lock.
    """
    with ExitStack() as held:
        try:
            _lock(folder, held)
        except (BlockingIOError, TimeoutError) as error:
            raise UserError(
                f"another process is writing to {folder}; wait until it finishes"
            ) from error
        except OSError:  # some network file systems have no locks
            pass
        yield


def _lock(folder: Path, held: ExitStack) -> None:
    """Lock a folder until `held` is closed.

    Raises:
        BlockingIOError, TimeoutError: another process holds the lock.
        OSError: the file system has no locks.
    """
    if sys.platform == "win32":
        held.enter_context(FileLock(folder / ".lock", timeout=0))
    else:
        handle = os.open(folder, os.O_RDONLY)
        held.callback(os.close, handle)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
