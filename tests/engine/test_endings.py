"""Whatever dies, a run ends: in time, with its children, in one line, with whole files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from cat_seg.engine import Trainer
from tests.engine.endings import STEP
from tests.warm_python import warm_python

# Seconds from an event to the end of all processes, start-up included.
LIMIT = 60
SCRIPT = "from tests.engine.endings import main; main()"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--no-python", "--nproc-per-node", "2")
TWO, EVALUATE = ("--num-gpus", "2"), ("--eval-only",)
WORKERS = ("DATALOADER.NUM_WORKERS", "2")
IMAGE = "stand_in/images/3.png cannot be preprocessed: "
DIVERGED = "training diverged in iteration 4 at learning rate 0.00957"
KILLED = "a data worker was killed (signal 9), most likely because memory ran out; lower "


Command = Sequence[str]


class Job:
    """A process that runs `tests.engine.endings`, and all that it starts."""

    def __init__(
        self, python: Path, config: Path, folder: Path, event: str, *given: str, starter: Command
    ):
        self._folder = folder
        self._process = subprocess.Popen(
            [*starter, str(python), "-c", SCRIPT, str(config), event, *given],
            cwd=folder,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def terminate(self) -> None:
        """Send SIGTERM to the first process."""
        self._process.terminate()

    def pid(self, event: str = "started") -> int:
        """Wait for an event; returns the process that it came from."""
        end = time.monotonic() + LIMIT
        while not (self._folder / event).exists():
            assert time.monotonic() < end, self.kill()
            assert self._process.poll() is None, self._process.communicate()
            time.sleep(0.01)
        return int((self._folder / event).read_text())

    def end(self) -> tuple[int, str]:
        """Wait until no process is left; returns exit status and what is on stderr."""
        try:
            # Every process of the job holds these pipes.
            _, errors = self._process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            pytest.fail(f"processes are left\n{self.kill()}")
        return self._process.returncode, errors

    def kill(self) -> str:
        """Kill all processes; returns their output."""
        with suppress(FileNotFoundError, ProcessLookupError):
            os.killpg(int((self._folder / "started").read_text()), signal.SIGKILL)
        self._process.kill()
        return "" if self._process.stdout.closed else "\n".join(self._process.communicate())


@pytest.fixture(scope="module")
def python() -> Iterator[Path]:
    """An interpreter that starts at once."""
    with warm_python() as program:
        yield program


@pytest.fixture
def start(python, config_file, tmp_path, cfg) -> Iterator[Callable[..., Job]]:
    """Start a job in tmp_path, with its output in tmp_path/out; none outlives the test."""
    torch.save({"model": Trainer.build_model(cfg).state_dict()}, tmp_path / "weights.pth")
    keys = ("OUTPUT_DIR", "out", "MODEL.WEIGHTS", "weights.pth", "SOLVER.CHECKPOINT_PERIOD", "2")
    started = []

    def start(event: str, *given: str, torchrun: Command | None = None) -> Job:
        starter = [] if torchrun is None else [str(python), *TORCHRUN, *torchrun]
        started.append(Job(python, config_file, tmp_path, event, *given, *keys, starter=starter))
        return started[-1]

    yield start
    for job in started:
        job.kill()


def files_are_whole(out: Path) -> None:
    """Check that everything a run leaves can be read, and holds finite weights."""
    for path in out.glob("*.pth"):
        weights = torch.load(path, weights_only=True)["model"]
        assert all(tensor.isfinite().all() for tensor in weights.values())
    if (out / "last_checkpoint").exists():
        assert (out / (out / "last_checkpoint").read_text()).exists()
    for path in out.rglob("*.json"):
        for line in path.read_text().splitlines() if path.name == "metrics.json" else ():
            json.loads(line)
        if path.name == "results.json":
            json.loads(path.read_text())


def error_lines(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(
    ("event", "given", "status", "message"),
    [
        ("worker raises", WORKERS, 2, f"{IMAGE}ZeroDivisionError: a defect (endings.py, line "),
        ("worker raises", (*EVALUATE, *WORKERS), 2, f"{IMAGE}ZeroDivisionError: a defect"),
        ("worker raises", (*TWO, *WORKERS), 2, f"{IMAGE}ZeroDivisionError: a defect"),
        ("worker raises", (*EVALUATE, *TWO, *WORKERS), 2, f"{IMAGE}ZeroDivisionError: a defect"),
        ("worker lacks memory", WORKERS, 2, f"{IMAGE}MemoryError: Unable to allocate 9 EiB"),
        ("worker killed", WORKERS, 2, KILLED),
        ("worker killed", (*EVALUATE, *WORKERS), 2, KILLED),
        ("worker killed", (*TWO, *WORKERS), 2, KILLED),
        ("worker killed", (*EVALUATE, *TWO, *WORKERS), 2, KILLED),
        ("worker terminated", WORKERS, 2, "a data worker was killed (signal 15); "),
        ("step lacks memory", WORKERS, 2, "out of memory ("),
        ("step lacks memory", TWO, 2, "lower SOLVER.IMS_PER_BATCH, raise SOLVER.ACCUMULATION_ST"),
        ("answer lacks memory", EVALUATE, 2, "in evaluation, lower TEST.IMS_PER_BATCH or "),
        ("step has no room", WORKERS, 2, "No space left on device: 'out'; free some space"),
        ("step diverges", WORKERS, 2, f"{DIVERGED}: loss_sem_seg is nan, loss_half is nan; lower"),
        ("step diverges", TWO, 2, f"{DIVERGED}: loss_sem_seg is nan, loss_half is nan; lower "),
        ("rank 1 diverges", TWO, 2, f"{DIVERGED}: a loss of another process is not finite; "),
        ("rank 1 killed", TWO, 137, "process 1 of 2 was killed (signal 9), most likely because"),
        ("rank 1 killed at start", TWO, 137, "process 1 of 2 was killed (signal 9)"),
        ("answer killed", (*EVALUATE, *TWO), 137, "process 1 of 2 was killed (signal 9)"),
    ],
)
def test_an_error_is_one_line(start, tmp_path, event, given, status, message):
    found, errors = start(event, *given).end()
    assert found == status, errors
    [line] = error_lines(errors)
    assert message in line
    assert "Traceback" not in errors
    files_are_whole(tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.partial"))


@pytest.mark.parametrize(
    ("event", "given"),
    [
        ("step raises", WORKERS),
        ("rank 1 raises", (*TWO, *WORKERS)),
        ("answer raises", (*EVALUATE, *WORKERS)),
        ("answer raises", (*EVALUATE, *TWO)),
    ],
)
def test_a_bug_ends_all_processes_with_its_traceback(start, tmp_path, event, given):
    status, errors = start(event, *given).end()
    assert status == 1, errors
    assert "ZeroDivisionError: a defect" in errors
    files_are_whole(tmp_path / "out")


BUSY = [
    ("start busy", WORKERS),
    ("start busy", TWO),
    ("worker busy", WORKERS),
    ("step busy", WORKERS),
    ("step busy", (*TWO, *WORKERS)),
    ("save busy", TWO),
    ("answer busy", (*EVALUATE, *WORKERS)),
    ("answer busy", (*EVALUATE, *TWO, *WORKERS)),
]


@pytest.mark.parametrize(("event", "given"), BUSY)
def test_ctrl_c_twice_ends_whatever_is_done(start, tmp_path, event, given):
    job = start(event, *given)
    job.pid("busy")
    os.killpg(job.pid(), signal.SIGINT)
    time.sleep(0.5)  # signals of one kind that come at once are one signal
    with suppress(ProcessLookupError):  # the first one was enough
        os.killpg(job.pid(), signal.SIGINT)
    status, errors = job.end()
    assert status == 130, errors
    assert "Traceback" not in errors
    files_are_whole(tmp_path / "out")


@pytest.mark.parametrize(("event", "given"), BUSY)
def test_a_killed_parent_leaves_no_process(start, tmp_path, event, given):
    job = start(event, *given)
    job.pid("busy")
    os.kill(job.pid(), signal.SIGKILL)
    status, _ = job.end()
    assert status == 137
    files_are_whole(tmp_path / "out")


@pytest.mark.parametrize(
    ("event", "given"),
    [
        ("start busy", WORKERS),
        ("start busy", TWO),
        ("answer busy", (*EVALUATE, *WORKERS)),
        ("answer busy", (*EVALUATE, *TWO)),
    ],
)
@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_sigterm_ends_at_once_what_has_nothing_to_save(start, event, given, send):
    job = start(event, *given)
    job.pid("busy")
    send(job.pid(), signal.SIGTERM)
    status, errors = job.end()
    assert status == 143, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("event", "given", "expected"),
    [
        ("step stopped", WORKERS, 143),
        ("rank 1 stopped", TWO, 143),
        ("all told", WORKERS, 138),  # as a scheduler does before the time limit
        ("all told", (*TWO, *WORKERS), 138),
    ],
)
def test_a_stop_in_training_saves_the_iteration(start, tmp_path, event, given, expected):
    status, errors = start(event, *given).end()
    assert status == expected, errors
    assert (tmp_path / "out/last_checkpoint").read_text() == f"model_{STEP:07d}.pth"
    files_are_whole(tmp_path / "out")


def trained(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "model_final.pth", weights_only=True)["model"]


def results(out: Path) -> dict:
    return json.loads((out / "inference/stand_in/results.json").read_text())["sem_seg"]


def test_under_torchrun_a_run_is_that_of_num_gpus(start, tmp_path):
    """Bit for bit, also where a process was killed and torchrun has started all of them again."""
    out = tmp_path / "out"
    status, errors = start("nothing", *TWO).end()
    assert status == 0, errors
    alone = out.rename(tmp_path / "alone")
    resumed = ("--resume", *WORKERS)
    status, errors = start("rank 1 killed once", *resumed, torchrun=("--max-restarts", "1")).end()
    assert status == 0, errors
    assert (tmp_path / "acted").exists()
    for name, value in trained(alone).items():
        assert torch.equal(trained(out)[name], value), name
    assert results(out) == results(alone)
    (tmp_path / "weights.pth").write_bytes((out / "model_final.pth").read_bytes())
    (out / "inference/stand_in/results.json").unlink()
    status, errors = start("nothing", *EVALUATE, torchrun=()).end()
    assert status == 0, errors
    assert results(out) == results(alone)


@pytest.mark.parametrize(
    ("event", "given", "message"),
    [
        ("rank 1 killed", WORKERS, "lost the connection to another process"),
        ("answer killed", EVALUATE, "lost the connection to another process"),
        ("step diverges", WORKERS, DIVERGED),
        ("nothing", ("--num-gpus", "3"), "--num-gpus 3 --num-machines 1: torchrun has already"),
    ],
)
def test_under_torchrun_an_error_is_at_most_one_line(start, tmp_path, event, given, message):
    status, errors = start(event, *given, torchrun=()).end()
    assert status == 1, errors
    lines = error_lines(errors)
    assert len(lines) == 1 or (not lines and "killed" in event), errors
    assert all(message in line for line in lines)
    assert errors.count("Traceback") <= 1  # torchrun's own
    files_are_whole(tmp_path / "out")


def test_under_torchrun_a_stop_saves_the_iteration(start, tmp_path):
    job = start("step waits", *WORKERS, torchrun=())
    job.pid("busy")
    job.terminate()
    status, errors = job.end()
    assert status != 0, errors
    assert (tmp_path / "out/last_checkpoint").read_text() == f"model_{STEP:07d}.pth"
    files_are_whole(tmp_path / "out")
