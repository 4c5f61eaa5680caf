"""A job on the stand-in model to which something happens: to its workers, ranks or files."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch.utils.data import get_worker_info

from cat_seg.data import DatasetSpec, Layout, register
from cat_seg.data.mapper import InferenceMapper, TrainMapper
from cat_seg.engine import Trainer, argument_parser, evaluate, launch, load_config, setup
from cat_seg.engine.ranks import rank_0_reports_first
from cat_seg.errors import one_line_errors
from tests.engine import stand_in

BAD = "3.png"  # the image that something happens at
STEP = 4  # the training step that something happens in

Action = Callable[[], Any]


def note(event: str) -> None:
    """Write this process's id into a file that tests wait for."""
    unfinished = Path(f"{event}.{os.getpid()}")
    unfinished.write_text(str(os.getpid()))
    unfinished.replace(event)


def once(action: Action) -> Action:
    """Act in one process of a job, and not again if the job is restarted."""

    def act() -> Any:
        with suppress(FileExistsError), open("acted", "x"):
            return action()

    return act


def in_worker(action: Action) -> None:
    """Act in the first data worker that comes to the bad image."""
    for mapper in (TrainMapper, InferenceMapper):

        def changed(self, record, call=mapper.__call__):
            if record["file_name"].endswith(BAD) and get_worker_info() is not None:
                once(action)()
            return call(self, record)

        mapper.__call__ = changed


def in_step(rank: int, action: Action) -> None:
    """Act in a training step of one rank, before the ranks meet in it.

    A number that the action returns multiplies the losses.
    """
    forward, steps = stand_in.StandIn.forward, []

    def changed(self, batch, *given):
        if self.training and comm.get_rank() == rank:
            steps.append(batch)
            if len(steps) == STEP + 1:
                factor = action()
                return {name: loss * (factor or 1) for name, loss in forward(self, batch).items()}
        return forward(self, batch, *given)

    stand_in.StandIn.forward = changed


def in_answer(action: Action) -> None:
    """Act when the last rank answers an image in evaluation."""
    scores = stand_in.StandIn.scores

    def changed(self, item):
        if not self.training and comm.get_rank() == comm.get_world_size() - 1:
            action()
        return scores(self, item)

    stand_in.StandIn.scores = changed


def in_save(action: Action) -> None:
    """Act when half of a checkpoint is written."""

    class Halved:
        def save(self, content, stream):
            stream.write(b"half")
            stream.flush()
            action()

    importlib.import_module("cat_seg.checkpoint.checkpointer").torch = Halved()


def at_start_of(rank: int, action: Action) -> None:
    if comm.get_rank() == rank:
        action()


def send(*signals: int) -> Action:
    def action() -> None:
        for signum in signals:
            os.kill(os.getpid(), signum)

    return action


def stay_busy() -> None:
    note("busy")
    while True:
        time.sleep(0.02)


def defect() -> None:
    raise ZeroDivisionError("a defect")


def refuse(error: Exception) -> Action:
    def action() -> None:
        raise error

    return action


NO_ROOM = OSError(errno.ENOSPC, "No space left on device")
EVENTS: dict[str, Action] = {
    "nothing": lambda: None,
    "worker raises": lambda: in_worker(defect),
    "worker lacks memory": lambda: in_worker(refuse(MemoryError("Unable to allocate 9 EiB"))),
    "worker killed": lambda: in_worker(send(signal.SIGKILL)),
    "worker terminated": lambda: in_worker(send(signal.SIGTERM, signal.SIGTERM)),
    "worker busy": lambda: in_worker(stay_busy),
    "step raises": lambda: in_step(0, defect),
    "step lacks memory": lambda: in_step(0, lambda: torch.empty(1 << 60, dtype=torch.uint8)),
    "step has no room": lambda: in_step(0, refuse(NO_ROOM)),
    "step stopped": lambda: in_step(0, send(signal.SIGTERM)),
    "step waits": lambda: in_step(0, lambda: (note("busy"), time.sleep(1), 1)[-1]),
    "step busy": lambda: in_step(0, stay_busy),
    "step diverges": lambda: in_step(0, lambda: float("nan")),
    "rank 1 diverges": lambda: in_step(1, lambda: float("inf")),
    "rank 1 raises": lambda: in_step(1, defect),
    "rank 1 killed": lambda: in_step(1, send(signal.SIGKILL)),
    "rank 1 killed once": lambda: in_step(1, once(send(signal.SIGKILL))),
    "rank 1 killed at start": lambda: at_start_of(1, send(signal.SIGKILL)),
    "rank 1 stopped": lambda: in_step(1, send(signal.SIGTERM)),
    "all told": lambda: in_step(0, lambda: os.killpg(0, signal.SIGUSR1)),
    "answer raises": lambda: in_answer(defect),
    "answer lacks memory": lambda: in_answer(lambda: torch.empty(1 << 60, dtype=torch.uint8)),
    "answer killed": lambda: in_answer(send(signal.SIGKILL)),
    "answer busy": lambda: in_answer(stay_busy),
    "save busy": lambda: in_save(stay_busy),
    "start busy": lambda: at_start_of(0, stay_busy),
}


def run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Train or evaluate as train_net.py does, in each process."""
    EVENTS[args.event]()
    cfg = setup(cfg, args)
    if args.eval_only:
        evaluate(cfg)
        return
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.train()


@one_line_errors
@rank_0_reports_first()
def main() -> None:
    """Start the processes; arguments are a config file, an event, and those of train_net.py."""
    os.setsid()  # signals to the process group reach this job alone
    note("started")
    config, event, *given = sys.argv[1:]
    root = Path(config).parent
    os.environ["DETECTRON2_DATASETS"] = str(root)
    layout = Layout("stand_in/images", "stand_in/labels")
    register(DatasetSpec("stand_in", str(root / "classes.json"), (layout,)))
    args = argument_parser().parse_args(given)
    args.event = event
    launching = importlib.import_module("cat_seg.engine.launch")
    # A fork takes a moment, a fresh interpreter ten seconds.
    launching.START_METHOD = "fork"
    launching.SETTLING, launching.GRACE = 0.5, 1.5
    importlib.import_module("cat_seg.engine.ranks").FIRST_WORD = 2.0
    importlib.import_module("cat_seg.engine.loading").GRACE = 1.0
    launch(run, load_config(config, args.opts), args)
