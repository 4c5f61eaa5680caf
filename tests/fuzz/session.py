"""Reading files in another process, with a time limit."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from cat_seg.utils.paths import REPO_ROOT

START, LIMIT = 300.0, 30.0  # seconds until the imports are done, and for one file


class Outcome(NamedTuple):
    """What came of a file.

    kind: "answered", "refused", or where there is a fault "failed" (another exception than
        UserError), "died" (with the interpreter) or "hung".
    told: the message or the traceback.
    """

    kind: str
    told: str

    @property
    def is_fault(self) -> bool:
        """Whether it is neither an answer nor a refusal."""
        return self.kind not in ("answered", "refused")


class Session:
    """A worker process, to be used in a `with` statement; `counts` has the outcomes so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Session:
        environ = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker"],
            cwd=REPO_ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._wait_until_ready(START)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def read(self, kind: str, name: str, content: bytes) -> Outcome:
        """Write a file and have it read as `kind`."""
        path = self._folder / name
        path.write_bytes(content)
        self._process.stdin.write(json.dumps([kind, str(path)]).encode() + b"\n")
        answer = self._answer(LIMIT)
        if answer is None:
            os.kill(self._child, signal.SIGKILL)
            self._answer(LIMIT)
            outcome = Outcome("hung", f"no answer within {LIMIT:.0f} s")
        else:
            outcome = Outcome(answer["outcome"], answer["told"])
        if outcome.kind in ("hung", "died"):
            self._wait_until_ready(LIMIT)
        self.counts[outcome.kind] += 1
        return outcome

    def _wait_until_ready(self, limit: float) -> None:
        answer = self._answer(limit)
        assert answer is not None and answer["outcome"] == "ready", answer
        self._child = int(answer["told"])

    def _answer(self, limit: float) -> dict[str, str] | None:
        ready, _, _ = select.select([self._process.stdout], [], [], limit)
        if not ready:
            return None
        line = self._process.stdout.readline()
        assert line, "the process that reads files has ended"
        return json.loads(line)
