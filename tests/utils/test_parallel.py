"""Interruption, in one process and in several: one line, nothing half-written, and on again."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from cat_seg.data.preparation import Conversion, Job, prepare
from cat_seg.data.registration import spec_of
from cat_seg.errors import UserError
from cat_seg.utils.parallel import run_in_processes

FILES = 120


def slow_label(folder: Path, number: int) -> np.ndarray:
    with open(folder / "begun", "a") as file:
        file.write(f"{os.getpid()}\n")
    if not (folder / "hurry").exists():
        time.sleep(0.05)
    return np.full((4, 4), number % 150, np.uint8)


def find(root: Path) -> list[Conversion]:
    source = root / "source"
    source.touch()
    os.utime(source, (0, 0))
    labels = root / "labels"
    jobs = tuple(
        Job(labels / f"{n:03d}.png", None, (source,), partial(slow_label, root, n))
        for n in range(FILES)
    )
    return [Conversion(spec_of("ade20k_150_test_sem_seg"), labels, jobs)]


def opencv_threads(_: int) -> int:
    return cv2.getNumThreads()


def signals_left_alone(_: int) -> tuple[object, object, set]:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    return *handlers, signal.pthread_sigmask(signal.SIG_BLOCK, ())


def run_command(root: Path, jobs: int) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    with open(root / "errors", "w") as errors:
        os.dup2(errors.fileno(), 2)
        sys.stderr = errors
        prepare(find, "", ["--root", str(root), "--jobs", str(jobs)])


def wait_until(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


Start = Callable[..., multiprocessing.Process]


@pytest.fixture
def fork() -> Iterator[Start]:
    """Start a function in a process of its own, which is killed at the end of the test."""

    def start(function: Callable, *args) -> multiprocessing.Process:
        cv2.setNumThreads(0)  # earlier tests may have left OpenCV with threads
        process = multiprocessing.get_context("fork").Process(target=function, args=args)
        process.start()
        started.append(process)
        return process

    started: list[multiprocessing.Process] = []
    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.fixture
def command(tmp_path: Path, fork: Start) -> Start:
    """Start a process group that converts slowly, and wait until it is past its first files."""

    def start(jobs: int) -> multiprocessing.Process:
        process = fork(run_command, tmp_path, jobs)
        labels = tmp_path / "labels"
        wait_until(lambda: labels.is_dir() and len(list(labels.glob("*.png"))) >= 5)
        return process

    return start


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_interrupted_and_resumed(tmp_path, command, jobs, signum, send):
    process = command(jobs)
    send(process.pid, signum)
    process.join(30)
    assert process.exitcode == 130
    errors = (tmp_path / "errors").read_text()
    assert errors.splitlines()[-1] == "stopped; run the same command again to resume"
    assert "Traceback" not in errors and "KeyboardInterrupt" not in errors
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "labels").glob("*.png")}
    assert 5 <= len(done) < FILES
    if send is os.kill:
        assert not list((tmp_path / "labels").glob("*.partial"))

    (tmp_path / "begun").unlink()
    (tmp_path / "hurry").touch()
    prepare(find, "", ["--root", str(tmp_path), "--jobs", "4"])
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == [
        f"{n:03d}.png" for n in range(FILES)
    ]
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len((tmp_path / "begun").read_text().split()) == FILES - len(done)


def workers_of(root: Path) -> set[int]:
    return {int(line) for line in (root / "begun").read_text().split()}


def test_workers_end_with_a_killed_command(tmp_path, command):
    ended, held = os.pipe()  # reads as ended when no process holds the other end any more
    process = command(2)
    os.close(held)
    wait_until(lambda: len(workers_of(tmp_path)) == 2)
    assert process.pid not in workers_of(tmp_path)
    process.kill()
    assert select.select([ended], [], [], 30)[0]
    os.close(ended)


def test_a_killed_worker_is_one_line(tmp_path, command):
    process = command(2)
    os.kill(workers_of(tmp_path).pop(), signal.SIGKILL)
    process.join(30)
    assert process.exitcode == 2
    last = (tmp_path / "errors").read_text().splitlines()[-1]
    assert last.startswith("error: a worker process was killed")


def test_processes_do_not_start_threads_of_opencv():
    cv2.setNumThreads(2)
    assert {threads for _, threads in run_in_processes(opencv_threads, range(8), 2)} == {1}


def test_processes_leave_ctrl_c_to_the_main_one_and_hold_back_nothing():
    for _, found in run_in_processes(signals_left_alone, range(8), 2):
        assert found == (signal.SIG_IGN, signal.SIG_DFL, set())


def test_a_second_ctrl_c_waits_until_the_processes_have_ended(monkeypatch):
    def interrupted(executor: ProcessPoolExecutor, **options) -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        shutdown(executor, **options)
        ended.append(executor)

    ended: list[ProcessPoolExecutor] = []
    shutdown = ProcessPoolExecutor.shutdown
    monkeypatch.setattr(ProcessPoolExecutor, "shutdown", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(run_in_processes(str, range(8), 2))
    assert ended


def test_every_item_comes_with_its_result():
    for processes in (1, 3):
        assert dict(run_in_processes(str, range(50), processes)) == {n: str(n) for n in range(50)}


def test_an_exception_of_the_function_ends_it():
    def pairs(processes: int) -> list:
        return list(run_in_processes(refuse, range(10), processes))

    for processes in (1, 2):
        with pytest.raises(UserError, match="no"):
            pairs(processes)


def refuse(number: int) -> None:
    raise UserError("no")


def test_a_defect_ends_it_with_all_processes(tmp_path):
    ended, held = os.pipe()  # as above
    with pytest.raises(ZeroDivisionError):
        list(run_in_processes(divide, range(200), 2))
    os.close(held)
    assert select.select([ended], [], [], 30)[0]
    os.close(ended)


def divide(number: int) -> float:
    return 1 / (number - 50)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_ends_is_one_line(signum):
    with pytest.raises(UserError, match="a worker process was killed, most likely because memory"):
        list(run_in_processes(partial(end, signum), range(200), 2))


def end(signum: int, number: int) -> None:
    os.kill(os.getpid(), signum if number == 50 else 0)
