"""Python scripts in child processes that end with this one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from cat_seg.errors import UserError
from cat_seg.utils.paths import REPO_ROOT

POLL = 0.5  # seconds between checks of a process


class Scripts:
    """Runner of Python scripts, from one or several threads."""

    def __init__(self, threads: int | None = None) -> None:
        """Give each script `threads` threads for its computations; None leaves it to PyTorch."""
        self._stopping = threading.Event()
        self._environment = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}

    def stop(self) -> None:
        """Make `run` end soon in all threads: terminate the script and raise KeyboardInterrupt."""
        self._stopping.set()

    def run(self, command: Sequence[str], log: Path, look: Callable[[], None]) -> None:
        """Run a script with its output in `log`; terminate it if this thread is interrupted.

        Args:
            command: the script's path or "-m" and a module, and the arguments.
            log: the file to write.
            look: called twice a second, and at the end.

        Raises:
            UserError: the script failed; the message has the log's path and last line.
            KeyboardInterrupt: `stop` was called.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "w", encoding="utf-8") as file:
            # A separate session: Ctrl-C reaches only this process, which terminates the script.
            process = subprocess.Popen(
                [sys.executable, *command],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | self._environment,
                cwd=REPO_ROOT if command[0] == "-m" else None,
                start_new_session=True,
            )
        try:
            while (status := process.poll()) is None:
                look()
                if self._stopping.wait(POLL):
                    raise KeyboardInterrupt
            look()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if status:
            lines = log.read_text(encoding="utf-8").splitlines() or ["no output"]
            name = command[1] if command[0] == "-m" else Path(command[0]).name
            raise UserError(f"{name} failed with exit status {status}: {lines[-1]} (see {log})")
