"""Data workers that survive a signal to the process group, but always end with the loading."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from functools import partial
from multiprocessing import connection
from multiprocessing.util import Finalize
from typing import Any

from torch.utils.data import DataLoader

from cat_seg.errors import WorkerDied, worker_death
from cat_seg.utils.processes import (
    WorkerContext,
    WorkerProcess,
    begin_child,
    signals_held_back,
    wait_for_parent,
)

if sys.platform == "win32":
    from multiprocessing.connection import PipeConnection as Connection
else:
    from multiprocessing.connection import Connection

# Seconds for workers to exit PyTorch's way, which releases the locks they share.
GRACE = 5.0
# Seconds until a process whose pipe broke has ended.
SETTLING = 1.0


class SignalProofLoader:
    """A DataLoader whose workers ignore Ctrl-C and the first SIGTERM.

    Both may go to the whole process group, and the running iteration still needs its data. A
    second SIGTERM ends a worker; PyTorch sends one to a worker that does not exit. All workers end
    with the iteration over the loader: when it is closed or raises, and when this process exits or
    is killed.
    """

    def __init__(self, loader: DataLoader) -> None:
        """Take over `loader`, whose worker_init_fn and multiprocessing_context are replaced."""
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the batches.

        Raises:
            WorkerDied: a worker was killed.
        """
        ended, held = multiprocessing.Pipe(duplex=False)
        # At exit, multiprocessing calls this before it waits for the workers.
        end = Finalize(None, held.close, exitpriority=0)
        workers = _HeldContext()
        if self._loader.num_workers:
            self._loader.worker_init_fn = partial(_begin_worker, ended, held)
            self._loader.multiprocessing_context = workers
        try:
            # Not `yield from`, which would close the loader before the workers are told to end.
            for batch in self._loader:  # noqa: UP028
                yield batch
        except (RuntimeError, ConnectionError, EOFError) as error:
            message = worker_death(error, workers.exit_codes())
            if message is None:
                raise
            raise WorkerDied(message) from error
        finally:
            end()
            ended.close()


def _begin_worker(ended: Connection, held: Connection, worker_id: int) -> None:
    held.close()  # so that only the main process holds it open
    sys.excepthook = _without_lost_connections
    begin_child(
        partial(_wait_for_end, ended),
        on_sigterm=lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    )


def _without_lost_connections(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Print no traceback if the main process ends while it fetches a tensor from this one."""
    if not issubclass(kind, EOFError | OSError):
        sys.__excepthook__(kind, error, trace)


def _wait_for_end(ended: Connection) -> None:
    ended.poll(None)  # until the other end is closed, which also happens when its process dies
    wait_for_parent(GRACE)


class _HeldContext(WorkerContext):
    """Context whose processes hold signals back until they have handlers for them."""

    def __init__(self) -> None:
        super().__init__()
        self._started: list[WorkerProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> WorkerProcess:  # type: ignore[override]
        process = _HeldProcess(*args, **kwargs)
        self._started.append(process)
        return process

    def exit_codes(self) -> list[int]:
        """Return the exit codes of the processes that have ended; -N if signal N killed one.

        If none has, wait a moment: a pipe breaks just before its process ends.
        """
        started = [process for process in self._started if process.pid]
        if started:
            connection.wait([process.sentinel for process in started], SETTLING)
        return [process.exitcode for process in started if process.exitcode is not None]


class _HeldProcess(WorkerProcess):
    def start(self) -> None:
        with signals_held_back():
            super().start()
