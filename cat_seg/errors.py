"""Errors that end a command in a single line, whatever the reason, and those that are bugs."""

from __future__ import annotations

import errno
import re
import signal
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import NoReturn, ParamSpec, TypeVar

from cat_seg.utils.processes import Stopped, status_of, stoppable

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

P = ParamSpec("P")
R = TypeVar("R")

_WORKER = re.compile(r"DataLoader worker \(pid\S* [\d, ]+\) (?:is killed by signal: ([\w ]+))?")
_NO_MEMORY = re.compile(
    r"(\w|error:) out of memory|ALLOC_FAILED|(can't|cannot) allocate memory", re.IGNORECASE
)
# What gloo, NCCL and PyTorch's store say when the process at the other end is gone.
_LOST = re.compile(r"gloo/transport|Connection (was likely )?(closed|reset)|remote process exited")
_LOST_TYPES = ("DistBackendError", "DistNetworkError")
# Errors of files that are never bugs.
_FILES = (
    *(errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENOSPC),
    *(errno.EPERM, errno.EROFS),
)
_LESS_MEMORY = (
    "in training, lower SOLVER.IMS_PER_BATCH, raise SOLVER.ACCUMULATION_STEPS, or set "
    "MODEL.ACTIVATION_CHECKPOINTING True; in evaluation, lower TEST.IMS_PER_BATCH or "
    "INPUT.MIN_SIZE_TEST"
)


class UserError(ValueError):
    """Bad input from the user: one line that names what was wrong, where, and what to do."""

    def __init__(self, message: str) -> None:
        """Take the message; file names in it may hold any bytes, see `printable`."""
        super().__init__(printable(message))


def printable(text: object) -> str:
    """Write a text that may hold a file name so that every stream and file takes it as one line.

    Bytes that are not UTF-8 and control characters become backslash escapes.
    """
    encoded = str(text).encode("utf-8", "backslashreplace").decode()
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], encoded)


def explain(error: BaseException) -> str | None:
    """Return the line that says what happened and what to do; None if the error is a bug."""
    message = worker_death(error)  # it also explains what failed because of it
    if message is not None:
        return message
    if isinstance(error, UserError):
        return str(error)
    text = printable(" ".join(str(error).split()))
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and _NO_MEMORY.search(text)
    ):
        return f"memory ran out ({_shortened(text or 'MemoryError')}); {_LESS_MEMORY}"
    if isinstance(error, OSError) and error.errno in _FILES:
        return f"{text}; make room, or fix the permissions"
    if lost_process(error):
        return f"the connection to another process of this run was lost ({_shortened(text)})"
    return None


def worker_death(error: BaseException) -> str | None:
    """Return what to say if PyTorch found a data worker dead; None for other errors."""
    texts = [str(link) for link in _chain(error) if isinstance(link, RuntimeError)]
    found = [match for match in map(_WORKER.search, texts) if match]
    if not found:
        return None
    # One error names the signal; PyTorch may raise a second one because of it.
    name = next((match[1] for match in found if match[1]), None)
    numbers = {(signal.strsignal(s) or "").split(":")[0]: s for s in signal.valid_signals()}
    number = numbers.get(name) if name else None
    cause = f"was killed (signal {int(number)})" if number else "ended unexpectedly"
    if number == signal.SIGTERM:
        return f"a data worker {cause}; run the command again"
    if number == signal.SIGBUS:
        return (
            f"a data worker {cause}, most likely because shared memory ran out; lower "
            "DATALOADER.NUM_WORKERS or enlarge /dev/shm (docker run --shm-size)"
        )
    return (
        f"a data worker {cause}, most likely because memory ran out; lower "
        "DATALOADER.NUM_WORKERS or SOLVER.IMS_PER_BATCH"
    )


def lost_process(error: BaseException) -> bool:
    """Whether an error says that another process of a distributed run is gone."""
    if type(error).__name__ in _LOST_TYPES:
        return True
    return isinstance(error, RuntimeError) and bool(_LOST.search(str(error)))


def fail(message: str, status: int = 2) -> NoReturn:
    """Print `error: message` on stderr and exit."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(status)


def one_line_errors(main: Callable[P, R]) -> Callable[P, R]:
    """Decorate an entry point so that it ends in one line.

    What `explain` explains ends it with that line and exit status 2, a signal with 128 + signal;
    the traceback of a bug stays. SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does.
    """

    @wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with stoppable():
            try:
                return main(*args, **kwargs)
            except KeyboardInterrupt as interrupt:
                name = str(interrupt) if isinstance(interrupt, Stopped) else "Ctrl-C"
                print(f"stopped by {name}", file=sys.stderr)
                raise SystemExit(status_of(interrupt)) from None
            except Exception as error:
                message = explain(error)
                if message is None:
                    raise
                fail(message)

    return wrapped


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _shortened(text: str, most: int = 160) -> str:
    return text if len(text) <= most else f"{text[:most]} ..."
