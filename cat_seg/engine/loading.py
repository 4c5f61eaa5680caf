"""Data workers that live on while a stopped process finishes its iteration."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})


class LastingLoader:
    """A DataLoader whose workers leave Ctrl-C to their process and live through one SIGTERM.

    Both may go to the whole process group. The running iteration needs its data all the same, and
    a worker that dies raises errors in the process that is about to exit. A second SIGTERM, such
    as PyTorch sends to a worker that does not end, does end it.
    """

    def __init__(self, loader: DataLoader) -> None:
        """Take over `loader`, which has no `worker_init_fn` of its own."""
        loader.worker_init_fn = _begin_worker
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        batches = iter(self._loader)
        with _signals_held_back():  # also from the workers, until they are ready for them
            first = list(itertools.islice(batches, 1))
        yield from first
        yield from batches


def _begin_worker(worker_id: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def _signals_held_back() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
