"""Progress bars that also read well in a log file."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

LOG_INTERVAL = 15.0  # seconds between redraws where each is a line of a log


def bar(**options: Any) -> tqdm:
    """A tqdm bar with an ETA, redrawn rarely where the output is no terminal."""
    if not sys.stderr.isatty():
        options |= {"mininterval": LOG_INTERVAL, "maxinterval": LOG_INTERVAL}
    return tqdm(dynamic_ncols=True, **options)


def move(progress: tqdm, position: int, note: str) -> None:
    """Set where a bar is and what it says, for work that is watched from outside."""
    progress.n = position
    progress.set_postfix_str(note, refresh=False)
    now = time.time()
    if now - progress.last_print_t >= progress.mininterval:
        progress.last_print_t = now
        progress.refresh()
