from __future__ import annotations

import os
import signal
import subprocess
import sys

from cat_seg.utils.paths import REPO_ROOT

RANK = """
import time
from functools import partial
from cat_seg.utils.processes import begin_rank, stop_with_starter
begin_rank(partial(stop_with_starter, 5))
print("started", flush=True)
time.sleep(60)
"""
STARTER = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {RANK!r}], start_new_session=True)
"""


def test_a_rank_ends_with_the_program_that_started_it():
    """As torchrun starts it, in a session of its own."""
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER], cwd=REPO_ROOT, stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout.readline() == "started\n"
    os.kill(starter.pid, signal.SIGKILL)
    # Both processes hold this pipe.
    assert starter.communicate(timeout=30) == ("", None)
