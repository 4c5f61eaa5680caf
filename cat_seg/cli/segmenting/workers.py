"""Processes that share a list of images, each with the model on a device of its own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Generator, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import cast

from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger

from cat_seg.cli.segmenting.pictures import Drawing, Job
from cat_seg.data.custom import register_custom
from cat_seg.errors import UserError, explain
from cat_seg.inference import Segmenter
from cat_seg.utils.parallel import cores
from cat_seg.utils.processes import (
    begin_child,
    end_children,
    signals_held_back,
    stop_with_parent,
    stoppable,
)

# Seconds for a worker to finish on its own, and to stop after SIGTERM before it is killed.
SETTLING, GRACE = 0.0, 5.0


def draw_in_processes(
    cfg: CfgNode,
    vocabulary: Sequence[str] | None,
    devices: Sequence[str],
    drawing: Drawing,
    batches: Sequence[Sequence[Job]],
) -> Generator[tuple[Sequence[Job], list[UserError]], None, None]:
    """Draw batches of images in one process per device; yield each with its errors when done.

    Each process takes the next batch as soon as it is free. If the caller may stop early, it must
    close the iterator (`contextlib.closing`): this ends all processes, and no file is left
    half-written.

    Raises:
        UserError: a process died, or could not load the model or write a file.
    """
    if any(device == "cpu" for device in devices):
        # Otherwise each process would start as many threads as there are cores.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // len(devices))))
    context = multiprocessing.get_context("spawn")  # CUDA does not work in forked processes
    workers: dict[Connection, tuple[BaseProcess, str]] = {}
    resource_tracker.ensure_running()  # starting it later would unblock the signals
    waiting = list(reversed(batches))
    given: dict[Connection, Sequence[Job]] = {}
    try:
        with signals_held_back():
            for number, device in enumerate(devices[: len(batches)]):
                here, there = context.Pipe()
                arguments = (there, cfg, vocabulary, device, drawing, number)
                process = context.Process(target=_work, args=arguments)
                process.start()
                there.close()
                workers[here] = (process, device)
        idle = set(workers)
        while waiting or given:
            for worker in [*idle][: len(waiting)]:
                idle.remove(worker)
                given[worker] = waiting.pop()
                _tell(worker, given[worker])
            for worker in cast(list[Connection], connection.wait(list(given))):
                errors = _answer(worker, *workers[worker])
                idle.add(worker)
                yield given.pop(worker), [UserError(text) for text in errors]
    finally:
        with signals_held_back():  # an interrupted shutdown would leave processes behind
            for worker in workers:
                worker.close()
            end_children([process for process, _ in workers.values()], SETTLING, GRACE)


def _tell(worker: Connection, batch: Sequence[Job]) -> None:
    with suppress(OSError):  # it is dead, which the next `_answer` reports
        worker.send(batch)


def _answer(worker: Connection, process: BaseProcess, device: str) -> list[str]:
    """Return a worker's answer to a batch: the messages of its errors."""
    try:
        answer = worker.recv()
    except (EOFError, OSError):
        process.join()
        code = process.exitcode or 0
        cause = f"was killed (signal {-code})" if code < 0 else f"ended with status {code}"
        reason = ", most likely because memory ran out" if code == -signal.SIGKILL else ""
        raise UserError(
            f"the process on {device} {cause}{reason}; images written so far are complete"
        ) from None
    if isinstance(answer, str):
        raise UserError(answer)
    return answer


def _work(
    parent: Connection,
    cfg: CfgNode,
    vocabulary: Sequence[str] | None,
    device: str,
    drawing: Drawing,
    number: int,
) -> None:
    """Run a worker: load the model, then draw batches until the parent closes the connection.

    The answer to a batch is a list of messages of skipped images, or one message if the worker
    cannot go on.
    """
    begin_child(partial(stop_with_parent, GRACE))
    setup_logger(name="cat_seg")
    if number:  # all would log the same warnings
        logging.getLogger("cat_seg").setLevel(logging.ERROR)
    try:
        with stoppable():  # files are cleaned up before the process ends
            register_custom(cfg)
            cfg = cfg.clone()
            cfg.defrost()
            cfg.MODEL.DEVICE = device
            segmenter = Segmenter(cfg, vocabulary)
            while True:
                batch = parent.recv()
                parent.send([str(error) for error in drawing.draw(segmenter, batch)])
    except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        return  # the parent needs nothing more
    except Exception as error:
        message = explain(error)
        if message is None:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        parent.send(message)
