"""Measure the time to the first result of a fresh process."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from cat_seg.checkpoint import Checkpointer
from cat_seg.engine import Trainer
from cat_seg.errors import UserError
from cat_seg.utils.paths import REPO_ROOT
from tools.benchmarking.options import Options, build_config
from tools.benchmarking.stages import OTHER, Part
from tools.benchmarking.timing import Unit, describe_unit, measure, progress, summarize
from tools.benchmarking.workloads import machine_settings

COMMAND = (sys.executable, "-m", "tools.benchmarking.first_result")


def run_start(options: Options, note: Callable[[str], None]) -> dict[str, Any]:
    """Write a checkpoint, and measure fresh processes that load it and segment one image each.

    Returns:
        `work`, `time` by phase, `unit` and `memory`, for the report and JSON.

    Raises:
        UserError: the config is invalid, or a process failed.
    """
    with TemporaryDirectory() as folder:
        cfg = build_config(options, Path(folder))
        note("writing a checkpoint")
        torch.manual_seed(0)
        model = Trainer.build_model(cfg)
        size = options.image_size or model.sem_seg_head.encoder.input_size
        work = {"classes": len(model.eval().vocabulary), "image_size": list(size)}
        Checkpointer(model, folder).save("model")
        del model
        cfg.MODEL.WEIGHTS = f"{folder}/model.pth"
        config = Path(folder) / "config.yaml"
        config.write_text(cfg.dump())
        peaks: list[int] = []

        def once() -> tuple[dict[Part, float], float]:
            before = _children_cpu()
            found = _first_result(config, size, options.threads)
            peaks.append(found["peak"])
            parts = {Part(phase, OTHER): seconds for phase, seconds in found["phases"].items()}
            return parts, _children_cpu() - before

        with machine_settings(options, cfg):
            unit = Unit(torch.device(cfg.MODEL.DEVICE), torch.float32)
            for _ in range(options.warmup):
                once()
            peaks.clear()
            taken = measure(once, unit, options.runs, progress(note, "process", options.runs))
    return {
        "work": work,
        "time": summarize(taken, unit),
        "unit": describe_unit(taken, unit),
        "memory": {"kind": "resident", "peak": max(peaks)},
    }


def _first_result(config: Path, size: tuple[int, int], threads: int | None) -> dict[str, Any]:
    arguments = [str(config), *map(str, size), str(time.time())]
    settings = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=REPO_ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"the process that segments an image failed: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
