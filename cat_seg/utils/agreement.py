"""What all processes (ranks) of a run must agree on, and errors that all of them raise."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from detectron2.utils import comm

from cat_seg.errors import UserError, explain
from cat_seg.utils.files import sha256_of

R = TypeVar("R")

logger = logging.getLogger(__name__)


def raise_on_every_rank(work: Callable[[], R]) -> R:
    """Run `work` and return its result; if it fails in any process, raise in all of them.

    Every process must call this, and `work` must not wait for other processes. The traceback of an
    unexpected exception is logged.

    Raises:
        UserError: `work` failed in some process. The message is that of the lowest such rank; see
            `cat_seg.errors.explain`.
    """
    result = error = None
    try:
        result = work()
    except Exception as found:
        error = explain(found)
        if error is None:
            logger.exception("Unexpected error")
            error = " ".join(f"{type(found).__name__}: {found}".split())
    error = next(filter(None, comm.all_gather(error)), None)
    if error is not None:
        raise UserError(error)
    return cast(R, result)  # None only if `work` returned it


def require_same(what: str, found: str, advice: str) -> None:
    """Check that every process found what rank 0 found. Every process must call this.

    Args:
        what: what they looked at.
        found: a description that is equal if the findings are.
        advice: how to make them equal.

    Raises:
        UserError: in all processes; the message names the first rank that differs, its machine, and
            both findings.
    """
    answers = comm.all_gather((found, socket.gethostname()))
    expected, first = answers[0]
    for rank, (answer, machine) in enumerate(answers):
        if answer != expected:
            raise UserError(
                f"{what}: rank {rank} on {machine} has {answer}, but rank 0 on {first} has "
                f"{expected}; {advice}"
            )


def require_same_file(key: str, file: Path) -> None:
    """Check that every process has the same file. Every process must call this.

    Args:
        key: the config key that names the file, for messages.
        file: its path on this machine.

    Raises:
        UserError: in all processes, if a file is missing, unreadable, or not that of rank 0.
    """
    if comm.get_world_size() == 1:
        return

    def describe() -> str:
        return f"SHA-256 {sha256_of(file)[:16]}" if file.is_file() else "no such file"

    found = raise_on_every_rank(describe)
    require_same(f"{key}: {file}", found, "copy the file of rank 0 to every machine")
