"""Signal handling, and child processes that never outlive their parent."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, context, parent_process
from multiprocessing.process import BaseProcess
from types import FrameType

# Forked workers start in a moment and share what is loaded. macOS cannot fork safely, Windows not
# at all. Explicit, because Python 3.14 no longer forks by default.
if sys.platform == "linux":
    WorkerContext = context.ForkContext
    WorkerProcess = context.ForkProcess
else:
    WorkerContext = context.SpawnContext
    WorkerProcess = context.SpawnProcess

# Signals that ask a run to save and stop. Schedulers announce the end of the time limit with
# SIGUSR1, which Windows does not have.
STOPPING: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
if sys.platform != "win32":
    STOPPING = (*STOPPING, signal.SIGUSR1)


class Stopped(KeyboardInterrupt):
    """A signal other than Ctrl-C asked this process to stop.

    Attributes:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        """Store the signal."""
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def status_of(interrupt: KeyboardInterrupt) -> int:
    """Return the exit status for an interrupt by shell convention, 128 + signal."""
    return 128 + (interrupt.signum if isinstance(interrupt, Stopped) else signal.SIGINT)


@contextmanager
def stoppable() -> Iterator[None]:
    """Make SIGTERM, SIGUSR1 and SIGHUP raise `Stopped` in the block, so that files are cleaned up.

    Ignored signals stay ignored (nohup). Outside the main thread, nothing changes.
    """
    before = {}
    signals = [signal.SIGTERM]
    if sys.platform != "win32":
        signals += [signal.SIGUSR1, signal.SIGHUP]
    if threading.current_thread() is threading.main_thread():
        for signum in signals:
            if signal.getsignal(signum) != signal.SIG_IGN:
                before[signum] = signal.signal(signum, _stop)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped(signum)


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Block the signals in STOPPING in this thread and in children started in the block.

    A child unblocks them with `begin_child`. Windows cannot block signals.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_child(
    wait: Callable[[], None],
    on_sigterm: signal.Handlers | Callable[[int, FrameType | None], object] = signal.SIG_DFL,
) -> None:
    """Set up signals in a process that multiprocessing has just started.

    The terminal sends Ctrl-C to every process, and a scheduler SIGUSR1. Children ignore both and
    leave the decision to the parent.

    Args:
        wait: runs in a thread; this process exits when it returns. See `wait_for_parent`.
        on_sigterm: the handler for SIGTERM.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_sigterm)
    if sys.platform != "win32":
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    threading.Thread(target=_end_after, args=(wait,), daemon=True).start()


def begin_rank(wait: Callable[[], None]) -> None:
    """Set up signals in a process of a run that another program has started.

    Those in STOPPING end it at once, also while it waits for other processes outside of Python.

    Args:
        wait: as in `begin_child`.
    """
    for signum in STOPPING:
        signal.signal(signum, signal.SIG_DFL)
    threading.Thread(target=_end_after, args=(wait,), daemon=True).start()


def wait_for_parent(seconds: float | None = None) -> None:
    """Wait until the parent process has ended for any reason, or until the timeout in seconds."""
    parent = parent_process()
    assert parent is not None  # only children call this
    connection.wait([parent.sentinel], seconds)


def stop_with_parent(grace: float) -> None:
    """When the parent has ended, send this process SIGTERM and give it `grace` seconds to stop."""
    wait_for_parent()
    _stop_within(grace)


def stop_with_starter(grace: float) -> None:
    """Do as `stop_with_parent` in a process that multiprocessing has not started."""
    starter = os.getppid()
    while os.getppid() == starter:
        time.sleep(1)
    _stop_within(grace)


def _stop_within(grace: float) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)


def end_children(children: Sequence[BaseProcess], settling: float, grace: float) -> None:
    """End child processes: let them exit, then send SIGTERM, then kill what is left.

    Args:
        children: some may have ended already.
        settling: seconds to exit on their own.
        grace: seconds to exit after SIGTERM.
    """
    for action, seconds in (
        (lambda child: None, settling),
        (BaseProcess.terminate, grace),
        (BaseProcess.kill, None),
    ):
        left = [child for child in children if child.is_alive()]
        for child in left:
            action(child)
        end = None if seconds is None else time.monotonic() + seconds
        for child in left:
            child.join(None if end is None else max(0.0, end - time.monotonic()))


def _end_after(wait: Callable[[], None]) -> None:
    wait()
    os._exit(0)
