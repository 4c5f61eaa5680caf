"""Errors that end a command with one line; everything else is a bug and keeps its traceback."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import NoReturn, ParamSpec, TypeVar

from cat_seg.utils.processes import Stopped, status_of, stoppable

BROKEN_PIPE = 141  # 128 + SIGPIPE, which Windows does not have
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

P = ParamSpec("P")
R = TypeVar("R")

_WORKER = re.compile(r"DataLoader worker \(pid\S* [\d, ]+\) (?:is killed by signal: ([\w ]+))?")
_NO_MEMORY = re.compile(
    r"(\w|error:) out of memory|ALLOC_FAILED|(can't|cannot) allocate memory", re.IGNORECASE
)
# Error messages of gloo, NCCL and PyTorch's store when the peer process is gone.
_LOST = re.compile(r"gloo/transport|Connection (was likely )?(closed|reset)|remote process exited")
_LOST_TYPES = ("DistBackendError", "DistNetworkError")
# File errors caused by the environment, never by a bug.
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
    """Bad user input, described in one line: what is wrong, where, and how to fix it."""

    def __init__(self, message: str) -> None:
        """Store the message, escaped by `printable` because file names may contain any bytes."""
        super().__init__(printable(message))


class WorkerDied(UserError):
    """A data worker died; the message is that of `worker_death`."""


@contextmanager
def user_errors(**keys: str) -> Iterator[None]:
    """Turn a ValueError about an argument into a UserError about what the user set it with.

    Layers do not know the config. They raise ValueError with a message that starts with the name of
    the argument, such as "block_size must divide 512; it is 96". The caller that takes arguments
    from a config knows their keys. All other errors pass unchanged.

    Args:
        keys: argument -> config key, or another source of the value.

    Raises:
        UserError: "KEY: message".
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        argument = str(error).partition(" ")[0]
        if argument not in keys:
            raise
        raise UserError(f"{keys[argument]}: {error}") from error


def printable(text: object) -> str:
    """Escape a text so that it prints as one line on any stream, whatever file names it contains.

    Non-UTF-8 bytes and control characters become backslash escapes.
    """
    encoded = str(text).encode("utf-8", "backslashreplace").decode()
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], encoded)


def explain(error: BaseException) -> str | None:
    """Return one line saying what happened and what to do, or None if the error is a bug."""
    # First, because a dead worker also causes other errors.
    died = next((link for link in _chain(error) if isinstance(link, WorkerDied)), None)
    message = worker_death(error) if died is None else str(died)
    if message is not None:
        return message
    if isinstance(error, UserError):
        return str(error)
    text = printable(" ".join(str(error).split()))
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and _NO_MEMORY.search(text)
    ):
        return f"out of memory ({_shortened(text or 'MemoryError')}); {_LESS_MEMORY}"
    if isinstance(error, OSError) and error.errno in _FILES:
        return f"{text}; free some space or fix the permissions"
    if lost_process(error):
        return f"lost the connection to another process of this run ({_shortened(text)})"
    return None


def worker_death(error: BaseException, exit_codes: Sequence[int] = ()) -> str | None:
    """Return the message for a data worker that died, or None for other errors.

    Args:
        error: any error of a DataLoader.
        exit_codes: those of the workers that have ended. PyTorch names the signal only if it sees
            the worker's end in its handler of SIGCHLD, not if a pipe of the worker breaks first.
    """
    killed = next((-code for code in exit_codes if code < 0), None)
    texts = [str(link) for link in _chain(error) if isinstance(link, RuntimeError)]
    found = [match for match in map(_WORKER.search, texts) if match]
    if not found and not (killed and isinstance(error, ConnectionError | EOFError)):
        return None
    # Only one error in the chain names the signal; PyTorch may raise a second one because of it.
    name = next((match[1] for match in found if match[1]), None)
    numbers = {(signal.strsignal(s) or "").split(":")[0]: s for s in signal.valid_signals()}
    number = numbers.get(name) if name else killed
    cause = f"was killed (signal {int(number)})" if number else "ended unexpectedly"
    if number == signal.SIGTERM:
        return f"a data worker {cause}; run the command again"
    if sys.platform != "win32" and number == signal.SIGBUS:
        return (
            f"a data worker {cause}, most likely because shared memory ran out; lower "
            "DATALOADER.NUM_WORKERS or enlarge /dev/shm (docker run --shm-size)"
        )
    return (
        f"a data worker {cause}, most likely because memory ran out; lower "
        "DATALOADER.NUM_WORKERS or SOLVER.IMS_PER_BATCH"
    )


def lost_process(error: BaseException) -> bool:
    """Return whether an error means that another process of a distributed run is gone."""
    if type(error).__name__ in _LOST_TYPES:
        return True
    return isinstance(error, RuntimeError) and bool(_LOST.search(str(error)))


def fail(message: str, status: int = 2) -> NoReturn:
    """Print `error: message` on stderr and exit."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(status)


def one_line_errors(main: Callable[P, R]) -> Callable[P, R]:
    """Decorate an entry point so that it reports errors in one line instead of a traceback.

    Errors that `explain` recognizes exit with status 2, signals with status 128 + signal, a closed
    output with that of SIGPIPE. Bugs keep their traceback. SIGTERM, SIGUSR1 and SIGHUP raise
    KeyboardInterrupt, as Ctrl-C does.
    """

    @wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with stoppable():
            try:
                result = main(*args, **kwargs)
                sys.stdout.flush()
                return result
            except BrokenPipeError:
                # Whoever read the output has stopped, as `head` does. Nothing is left to flush at
                # exit, which would fail again.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise SystemExit(BROKEN_PIPE) from None
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
