"""Peaks of memory."""

from __future__ import annotations

import mmap

import pytest
import torch

from tools.benchmarking import memory
from tools.benchmarking.memory import MIB, PeakMemory, resident

CPU = torch.device("cpu")


def allocate(mib):
    """Take pages that are new, and not left over from earlier tests."""
    with mmap.mmap(-1, mib * MIB) as pages:
        for _ in range(mib):
            pages.write(b"1" * MIB)


def test_an_allocation_shows_also_after_it_is_gone():
    peak = PeakMemory(CPU)
    peak.start()
    allocate(200)
    found = peak.read()
    assert 195 <= (found["peak"] - found["before"]) / MIB < 300
    assert found["since"] == "start"


def test_earlier_peaks_are_forgotten():
    allocate(300)
    peak = PeakMemory(CPU)
    peak.start()
    found = peak.read()
    assert (found["peak"] - found["before"]) / MIB < 100


def test_where_the_peak_cannot_be_reset_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    peak = PeakMemory(CPU)
    peak.start()
    assert peak.read()["since"] == "process"


def test_fields_of_the_status_file(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n")
    assert resident("VmHWM", status) == 2 * MIB
    assert resident("VmRSS", status) == MIB
    with pytest.raises(ValueError, match="VmSwap"):
        resident("VmSwap", status)
    assert resident("VmRSS", tmp_path / "missing") > MIB


def test_a_peak_is_never_below_the_memory_at_the_start(monkeypatch):
    monkeypatch.setattr(memory, "resident", {"VmRSS": 100 * MIB, "VmHWM": 99 * MIB}.get)
    peak = PeakMemory(CPU)
    peak.start()
    assert peak.read()["peak"] == 100 * MIB
