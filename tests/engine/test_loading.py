from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from cat_seg.engine.loading import SignalProofLoader
from cat_seg.errors import UserError
from cat_seg.utils.processes import STOPPING


class Pids(Dataset):
    """Each item is its index and the id of the process that made it."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.tensor([index, os.getpid()])


class SignalledStart(DataLoader):
    """Sends signals to its workers and to this process as soon as the workers are started."""

    def __iter__(self):
        workers = super().__iter__()
        for pid in (*(worker.pid for worker in workers._workers), os.getpid()):
            for signum in STOPPING:
                os.kill(pid, signum)
        yield from workers


def indices(batches):
    return [int(item[0, 0]) for item in batches]


def test_it_gives_what_the_loader_gives():
    loader = SignalProofLoader(DataLoader(Pids()))
    assert len(loader) == 6
    for _ in range(2):
        assert indices(loader) == list(range(6))
    assert indices(SignalProofLoader(DataLoader([]))) == []


def test_workers_outlive_one_sigterm_but_not_two():
    batches = iter(SignalProofLoader(DataLoader(Pids(), num_workers=1, prefetch_factor=1)))
    worker = int(next(batches)[0, 1])
    for signum in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
        os.kill(worker, signum)
    assert indices([next(batches), next(batches)]) == [1, 2]
    os.kill(worker, signal.SIGTERM)
    with pytest.raises(RuntimeError, match=f"{worker}.* Terminated"):
        time.sleep(10)  # until PyTorch finds the worker dead


def test_the_signal_is_named_when_pytorch_does_not_see_it():
    batches = iter(SignalProofLoader(DataLoader(Pids(), num_workers=1, prefetch_factor=1)))
    worker = int(next(batches)[0, 1])
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(UserError, match=r"a data worker was killed \(signal 9\)"):
            list(batches)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_signals_wait_while_workers_start():
    received = set()
    before = {
        signum: signal.signal(signum, lambda signum, _: received.add(signum)) for signum in STOPPING
    }
    try:
        assert indices(SignalProofLoader(SignalledStart(Pids(), num_workers=2))) == list(range(6))
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert received == set(STOPPING)
