"""Measure the training loader's time per batch and the memory of its workers."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from cat_seg.data import DatasetSpec, Layout, build_train_loader, register
from cat_seg.data.vocabularies import load_vocabulary
from tools.benchmarking.options import Options, build_config
from tools.benchmarking.timing import spread

NAME = "benchmark_dataload"
IMAGES = 64
SIZE = (480, 640)  # height, width; typical of COCO
REGION = 32  # pixels; side of each square of one label and one color
QUALITY = 95  # JPEG quality


def run_loader(options: Options, note: Callable[[str], None]) -> dict[str, Any]:
    """Take batches from the training loader, `--step` seconds apart.

    Returns:
        `work`, `time` (seconds of waiting per batch) and `memory` (of the largest worker), for the
        report and JSON.

    Raises:
        UserError: the config is invalid.
    """
    with TemporaryDirectory() as folder:
        cfg = build_config(options, Path(folder))
        note(f"writing {IMAGES} images")
        head = cfg.MODEL.SEM_SEG_HEAD
        write_images(Path(folder), len(load_vocabulary(head.TRAIN_CLASS_JSON)), head.IGNORE_VALUE)
        register(DatasetSpec(NAME, head.TRAIN_CLASS_JSON, (Layout(f"{folder}/i", f"{folder}/l"),)))
        try:
            return _run(cfg, options, note)
        finally:
            DatasetCatalog.remove(NAME)
            MetadataCatalog.remove(NAME)


def _run(cfg: CfgNode, options: Options, note: Callable[[str], None]) -> dict[str, Any]:
    cfg.DATASETS.TRAIN = (NAME,)
    workers = cfg.DATALOADER.NUM_WORKERS
    round_size = max(workers, 1)
    batches = iter(build_train_loader(cfg, seed=0))
    # Skip batches that the workers prefetched: they would seem to take no time.
    for _ in range(options.warmup + 3 * workers):
        next(batches)
    waits = []
    for index in range(options.runs * round_size):
        time.sleep(options.step)
        start = time.perf_counter()
        next(batches)
        waits.append(time.perf_counter() - start)
        if (index + 1) % round_size == 0:
            note(f"{index + 1} batches")
    memory = []  # measured separately, because workers keep prefetching while it is read
    for _ in range(options.runs):
        memory.append(largest_child())
        for _ in range(round_size):
            next(batches)
    # Workers deliver in turn, so one round over all workers is the shortest steady period.
    rounds = np.reshape(waits, (options.runs, round_size)).mean(axis=1)
    return {
        "work": {"batch": options.batch, "workers": workers, "step_seconds": options.step},
        "time": {"seconds": spread(rounds.tolist())},
        "memory": {
            "kind": "largest worker's",
            "before": memory[0],
            "peak": max(memory),
            "after_each_round": memory,
        },
    }


def write_images(folder: Path, classes: int, ignored: int) -> None:
    """Write IMAGES noisy JPEGs to folder/i, and PNG label maps made of squares to folder/l."""
    random = np.random.default_rng(0)
    for part in ("i", "l"):
        (folder / part).mkdir()
    grid = (SIZE[0] // REGION, SIZE[1] // REGION)
    for index in range(IMAGES):
        colors = _enlarged(random.integers(256, size=(*grid, 3)))
        noise = random.normal(scale=12, size=(*SIZE, 3))
        image = (colors + noise).clip(0, 255).astype(np.uint8)
        cv2.imwrite(f"{folder}/i/{index}.jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        labels = random.integers(classes, size=grid)
        labels[random.random(grid) < 0.1] = ignored
        cv2.imwrite(f"{folder}/l/{index}.png", _enlarged(labels).astype(np.uint16))


def _enlarged(squares: np.ndarray) -> np.ndarray:
    return squares.repeat(REGION, axis=0).repeat(REGION, axis=1)


def largest_child() -> int:
    """Return the proportional set size (PSS) of the largest child process in bytes, 0 if none."""
    return max((_proportional(child.pid) for child in multiprocessing.active_children()), default=0)


def _proportional(process: int) -> int:
    rollup = Path(f"/proc/{process}/smaps_rollup")
    lines: Iterator[str] = iter(
        rollup.read_text(encoding="utf-8").splitlines() if rollup.exists() else ()
    )
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
