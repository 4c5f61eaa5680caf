"""The job script of docs/distributed.md, with stand-ins for srun and scontrol."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cat_seg.utils.paths import REPO_ROOT

SCONTROL = '#!/bin/bash\necho "$@" > requeued\n'
# Processes that save when they are told to, which takes longer than the signal.
SRUN = """#!/bin/bash
echo "$@" > command
trap 'sleep 0.3; touch saved; exit {status}' USR1
sleep 0.5  # until the job has its trap
touch started
while [[ -n "{runs}" ]]; do sleep 0.02; done
exit {status}
"""


@pytest.mark.parametrize(
    ("told", "status", "requeued"), [(True, 138, True), (True, 0, False), (False, 2, False)]
)
def test_a_job_that_was_told_to_stop_is_requeued(tmp_path, told, status, requeued):
    page = (REPO_ROOT / "docs/distributed.md").read_text(encoding="utf-8")
    (tmp_path / "job").write_text(page[page.index("#!/bin/bash") :].partition("```")[0])
    srun = SRUN.format(status=status, runs="yes" if told else "")
    for name, content in (("srun", srun), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    job = subprocess.Popen(["bash", "job"], cwd=tmp_path, env=environment)
    if told:
        wait_for(tmp_path / "started")
        job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=30) == status
    assert (tmp_path / "saved").exists() == told
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    assert "train_net.py" in (tmp_path / "command").read_text()


def wait_for(file: Path) -> None:
    for _ in range(500):
        if file.exists():
            return
        time.sleep(0.02)
    pytest.fail(f"no {file.name}")
