"""Progress bars that also read well in a log file."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

LOG_INTERVAL = 15.0  # seconds between redraws in a log, where each adds a line


def bar(**options: Any) -> tqdm:
    """Return a tqdm bar with an ETA, redrawn less often if stderr is not a terminal."""
    if not sys.stderr.isatty():
        options |= {"mininterval": LOG_INTERVAL, "maxinterval": LOG_INTERVAL}
    return tqdm(dynamic_ncols=True, **options)


def move(progress: tqdm, position: int, note: str) -> None:
    """Set the position and note of a bar, for progress that is polled rather than iterated."""
    progress.n = position
    progress.set_postfix_str(note, refresh=False)
    now = time.time()
    if now - progress.last_print_t >= progress.mininterval:
        progress.last_print_t = now
        progress.refresh()
