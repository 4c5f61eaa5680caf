"""Measure the peak memory of a section of a program."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import torch

MIB = 2**20
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # see proc_pid_clear_refs(5)


class PeakMemory:
    """Peak memory since `start`.

    CUDA: memory allocated and reserved by PyTorch. CPU: peak resident memory of this process
    (VmHWM), which Linux lets a process reset. If resetting fails, the peak is that since the
    process began, and `since` is "process".
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._since = "start"
        self._before = 0

    def start(self) -> None:
        """Reset the peak."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
            return
        try:
            _CLEAR_REFS.write_text(_RESET_PEAK, encoding="utf-8")
        except OSError:
            self._since = "process"
        self._before = resident("VmRSS")

    def read(self) -> dict[str, int | str]:
        """Return bytes: `peak`, `before` (in use at `start`) and, on CUDA, `reserved`."""
        if self._device.type == "cuda":
            return {
                "kind": "CUDA allocated",
                "before": self._before,
                "peak": torch.cuda.max_memory_allocated(self._device),
                "reserved": torch.cuda.max_memory_reserved(self._device),
            }
        # The kernel adds up its counters per core, so both values are off by some pages.
        peak = max(resident("VmHWM"), self._before)
        return {"kind": "resident", "since": self._since, "before": self._before, "peak": peak}


def resident(field: str, status: Path = _STATUS) -> int:
    """Return resident memory in bytes: current ("VmRSS") or peak ("VmHWM")."""
    if not status.exists():  # not Linux: only the peak is available
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    for line in status.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise ValueError(f"{status} has no {field}")
