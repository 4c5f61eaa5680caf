"""Map a function over many items in worker processes that always shut down cleanly."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

from cat_seg.errors import UserError
from cat_seg.utils.processes import WorkerContext, begin_child, signals_held_back, wait_for_parent

T = TypeVar("T")
R = TypeVar("R")

# Maximum items per task: few enough to stop within a second, many enough to hide the cost of
# sending them to a worker.
BATCH = 16


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # missing on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def add_jobs_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --jobs, the number of processes; see `check_jobs`."""
    parser.add_argument(
        "--jobs",
        type=int,
        default=cores(),
        metavar="N",
        help="number of parallel processes (default: one per core, here %(default)s)",
    )


def check_jobs(jobs: int) -> None:
    """Refuse a number of processes below 1.

    Raises:
        UserError: naming --jobs.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: give 1 or more")


def run_in_processes(
    function: Callable[[T], R], items: Sequence[T], processes: int
) -> Generator[tuple[T, R], None, None]:
    """Yield each item with its result, in order of completion.

    If the caller may stop early, it must close the iterator (`contextlib.closing`). Items in
    progress are then finished and the rest dropped, so that no file is left half-written.

    Args:
        function: picklable; an exception it raises ends the iteration.
        items: picklable.
        processes: 1 runs everything in this process.

    Raises:
        UserError: a process was killed.
    """
    if processes == 1:
        yield from ((item, function(item)) for item in items)
        return
    size = max(1, min(BATCH, len(items) // (4 * processes)))
    batches = [items[start : start + size] for start in range(0, len(items), size)]
    # One OpenCV thread per process. Set before forking: a forked worker would deadlock.
    cv2.setNumThreads(0)
    executor = ProcessPoolExecutor(
        processes, WorkerContext(), initializer=begin_child, initargs=(wait_for_parent,)
    )
    try:
        with signals_held_back():
            futures = {executor.submit(_run_batch, function, batch): batch for batch in batches}
        for future in as_completed(futures):
            yield from zip(futures[future], future.result(), strict=True)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, most likely because memory ran out; "
            "run the same command with fewer --jobs"
        ) from error
    finally:
        # Block a second Ctrl-C too: interrupting the shutdown would leave orphaned processes.
        with signals_held_back():
            executor.shutdown(cancel_futures=True)


def _run_batch(function: Callable[[T], R], batch: Sequence[T]) -> list[R]:
    return [function(item) for item in batch]
