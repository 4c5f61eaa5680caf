"""Data workers that outlive a signal to the process group, but never the loading itself."""

from __future__ import annotations

import itertools
import multiprocessing
import signal
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import Any

from torch.utils.data import DataLoader

from cat_seg.errors import UserError, worker_death
from cat_seg.processes import begin_child, signals_held_back, wait_for_parent

# Seconds that workers have to end in PyTorch's way, which releases the locks they share.
GRACE = 5.0


class LastingLoader:
    """A DataLoader whose workers ignore Ctrl-C and the first SIGTERM.

    Both may go to the whole process group, and the running iteration still needs its data. A
    second SIGTERM, such as PyTorch sends to a worker that does not end, does end it. All workers
    end with the iteration over the loader: when it is closed, when it raises, when this process
    exits or is killed.
    """

    def __init__(self, loader: DataLoader) -> None:
        """Take over `loader`, which has no `worker_init_fn` of its own."""
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the batches.

        Raises:
            UserError: a worker was killed.
        """
        ended, held = multiprocessing.Pipe(duplex=False)
        # At exit, multiprocessing calls this before it waits for the workers.
        end = Finalize(None, held.close, exitpriority=0)
        self._loader.worker_init_fn = partial(_begin_worker, ended, held)
        try:
            with signals_held_back():  # until workers have set their own handlers
                batches = iter(self._loader)
                first = list(itertools.islice(batches, 1))
            # Not `yield from`, which would close `batches` before the workers are told to end.
            for batch in itertools.chain(first, batches):
                yield batch
        except RuntimeError as error:
            message = worker_death(error)
            if message is None:
                raise
            raise UserError(message) from error
        finally:
            end()
            ended.close()


def _begin_worker(ended: Connection, held: Connection, worker_id: int) -> None:
    held.close()  # so that it is open in the main process alone
    begin_child(
        partial(_wait_for_end, ended),
        on_sigterm=lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    )


def _wait_for_end(ended: Connection) -> None:
    ended.poll(None)  # until the other end is closed, which also happens when its process dies
    wait_for_parent(GRACE)
