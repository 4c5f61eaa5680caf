"""Sub-commands of hps-seg in child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from cat_seg.utils.processes import STOPPING

FIRST_SIGNAL = 128  # exit statuses from here on mean that a command was interrupted
TERMINATED = FIRST_SIGNAL + signal.SIGTERM


def run(command: str, *arguments: str) -> int:
    """Run a subcommand of hps-seg in a child process and return its exit status.

    SIGTERM, SIGUSR1 and Ctrl-C are forwarded as SIGTERM, so that the command saves its work. The
    returned status then is that of an interrupted command even if it had just finished, so that no
    further step starts.
    """
    python = os.environ.get("PYTHON") or sys.executable
    child: subprocess.Popen[bytes] | None = None
    interrupted = 0

    def forward(signum: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = TERMINATED
        if child is not None:
            child.terminate()

    before = {s: signal.signal(s, forward) for s in STOPPING}
    try:
        # The terminal sends Ctrl-C to the child as well, which already gets a SIGTERM from us.
        child = subprocess.Popen(
            [python, "-m", "cat_seg.cli.main", command, *arguments],
            env=os.environ | {"PYTHONPATH": _python_path()},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
        if interrupted:  # the signal arrived before the child existed
            child.terminate()
        status = child.wait()
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if status < 0:
        return FIRST_SIGNAL - status
    return status or interrupted


def _python_path() -> str:
    """Return PYTHONPATH with this package first, so that a checkout need not be installed."""
    package = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
