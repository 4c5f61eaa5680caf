"""Measure training steps in several processes: efficiency and communication volume."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import create_ddp_model
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from tools.benchmarking.memory import PeakMemory
from tools.benchmarking.options import Options, build_config
from tools.benchmarking.stages import Trace
from tools.benchmarking.timing import spread
from tools.benchmarking.workloads import Workload, machine_settings

MIB = 2**20


def run_ddp(options: Options, note: Callable[[str], None]) -> dict[str, Any]:
    """Measure the step of one process, then of --processes at once, each with --batch images.

    Returns:
        `work` (including the efficiency and the MiB of gradients that a process reduces per step),
        `time` and `memory` of the slowest process, for the report and JSON.

    Raises:
        UserError: the config is invalid.
    """
    alone, together = (_measure(options, number, note) for number in (1, options.processes))
    slowest = max(together, key=lambda rank: rank["seconds"]["median"])
    efficiency = alone[0]["seconds"]["median"] / slowest["seconds"]["median"]
    return {
        "work": {
            **slowest["work"],
            "processes": options.processes,
            "efficiency": round(efficiency, 3),
            "trained_MiB": round(slowest["trained"] / MIB, 2),
            "reduced_MiB": round(slowest["reduced"] / MIB, 2),
            "all_parameters_MiB": round(slowest["parameters"] / MIB, 2),
        },
        "time": {
            "seconds": slowest["seconds"],
            "cpu_seconds": slowest["cpu"],
            "seconds_alone": alone[0]["seconds"],
            "cpu_seconds_alone": alone[0]["cpu"],
        },
        "memory": slowest["memory"],
    }


def _measure(options: Options, number: int, note: Callable[[str], None]) -> list[dict[str, Any]]:
    note(f"{number} processes" if number > 1 else "1 process")
    with TemporaryDirectory() as folder:
        mp.spawn(_process, (number, options, folder), nprocs=number)
        results = [Path(folder) / f"{rank}.json" for rank in range(number)]
        return [json.loads(result.read_text()) for result in results]


def _process(rank: int, number: int, options: Options, folder: str) -> None:
    """Measure in one of `number` processes, and write <rank>.json to the folder."""
    own = Path(folder) / f"classes_{rank}"
    own.mkdir()
    cfg = build_config(options, own)
    on_gpu = options.device.startswith("cuda")
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=number,
    )
    if on_gpu:
        torch.cuda.set_device(rank)
    workload = Workload(cfg, options)
    device = workload.model.device
    parameters = list(workload.model.parameters())
    sent: list[int] = []
    if number > 1:
        devices = [rank] if on_gpu else None
        workload.model = create_ddp_model(
            workload.model, broadcast_buffers=False, device_ids=devices
        )
        workload.model.register_comm_hook(sent, _counted)
    memory = PeakMemory(device)
    memory.start()
    seconds, cpu = [], []
    with machine_settings(options, cfg):
        for index in range(options.warmup + options.runs):
            sent.clear()
            dist.barrier()
            start = time.perf_counter(), time.process_time()
            workload(Trace(time.perf_counter, lambda begin, end: end - begin))
            if on_gpu:
                torch.cuda.synchronize()
            if index >= options.warmup:
                seconds.append(time.perf_counter() - start[0])
                cpu.append(time.process_time() - start[1])
    found = {
        "work": workload.described,
        "seconds": spread(seconds),
        "cpu": spread(cpu),
        "memory": memory.read(),
        "reduced": sum(sent),
        "trained": sum(p.nbytes for p in parameters if p.requires_grad),
        "parameters": sum(p.nbytes for p in parameters),
    }
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def _counted(sent: list[int], bucket):  # DDP rejects annotations that are strings
    """Average gradients as DDP does by default, and record the bytes of each bucket."""
    sent.append(bucket.buffer().nbytes)
    return allreduce_hook(None, bucket)
