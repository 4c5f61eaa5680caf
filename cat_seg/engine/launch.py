"""Running a function in one or several processes, on GPUs (NCCL) or the CPU (gloo).

The processes are started here, or by torchrun or srun.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Literal, cast

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm

from cat_seg.checkpoint.checkpointer import last_checkpoint
from cat_seg.checkpoint.reading import local_file
from cat_seg.data.custom import register_custom
from cat_seg.engine.ranks import Place, check_spread, given_place, let_others_report
from cat_seg.engine.setup import check_machine
from cat_seg.errors import explain, fail, lost_process
from cat_seg.utils.parallel import cores
from cat_seg.utils.processes import (
    STOPPING,
    begin_child,
    begin_rank,
    end_children,
    signals_held_back,
    status_of,
    stop_with_parent,
    stop_with_starter,
)

Main = Callable[[CfgNode, argparse.Namespace], object]

# CUDA does not work in a forked process if its parent has used CUDA.
START_METHOD: Literal["spawn"] = "spawn"
# Seconds for ranks to exit on their own after one has failed. Less than ranks.FIRST_WORD, so that
# only one line is printed.
SETTLING = 2.0
# Seconds for a rank to exit after SIGTERM before it is killed.
GRACE = 10.0


def launch(main: Main, cfg: CfgNode, args: argparse.Namespace) -> None:
    """Run main(cfg, args) in each of --num-gpus x --num-machines processes, on MODEL.DEVICE.

    If torchrun or srun has started several processes, this one is one of them, and starts no
    others; see `cat_seg.engine.ranks`.

    With MODEL.DEVICE cpu, --num-gpus is the number of processes, and GPUs are not used. SIGTERM,
    SIGUSR1 and Ctrl-C are passed on to all processes. When one of them fails or dies, the others
    are ended too.

    Args:
        main: a module-level function, so that other processes can import it.
        cfg: the config from `load_config`.
        args: the arguments parsed by `argument_parser`.

    Raises:
        UserError: `check_machine` or `given_place` refuses the run, or, with one process, `main`
            raises it.
        SystemExit: with several processes, the status of the first that failed, or 128 + signal if
            a signal killed it or was received by this process.
    """
    place = given_place(args)
    check_machine(cfg, args, place)
    if torch.device(cfg.MODEL.DEVICE).type == "cpu":
        # Hide the GPUs: with NCCL, every process would take one.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if place is not None:
        begin_rank(partial(stop_with_starter, GRACE))
        _run_in_place(place, main, cfg, args)
        return
    if args.num_gpus * args.num_machines > 1:
        _launch_ranks(main, cfg, args)
        return
    try:
        with _naming_output(cfg):
            main(cfg, args)
    except KeyboardInterrupt as interrupt:
        raise SystemExit(status_of(interrupt)) from None


@contextmanager
def _naming_output(cfg: CfgNode) -> Iterator[None]:
    """Add OUTPUT_DIR to an OSError that names no file, as when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = cfg.OUTPUT_DIR
        raise


def _launch_ranks(main: Main, cfg: CfgNode, args: argparse.Namespace) -> None:
    _fetch_weights(cfg, args)
    if torch.device(cfg.MODEL.DEVICE).type == "cpu":
        # Otherwise each process would start as many threads as there are cores.
        threads = max(1, cores() // args.num_gpus)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    url = f"tcp://127.0.0.1:{_free_port()}" if args.dist_url == "auto" else args.dist_url
    context = multiprocessing.get_context(START_METHOD)
    ranks: list[BaseProcess] = [
        context.Process(target=_rank_process, args=(number, url, main, cfg, args))
        for number in range(args.num_gpus)
    ]
    resource_tracker.ensure_running()  # starting it later would unblock the signals
    with _signals_to_children() as received:
        try:
            with signals_held_back():
                for rank in ranks:
                    rank.start()
            failed = _wait_for(ranks)
        finally:
            # A rank that waits for a dead one may wait forever.
            end_children(ranks, SETTLING, GRACE)
    if received:
        raise SystemExit(128 + received[0])
    if failed is None:
        return
    assert failed.exitcode is not None  # it has ended
    if failed.exitcode > 0:  # it has reported the error itself
        raise SystemExit(failed.exitcode)
    number = -failed.exitcode
    is_sigkill = sys.platform != "win32" and number == signal.SIGKILL
    reason = ", most likely because memory ran out" if is_sigkill else ""
    fail(
        f"process {ranks.index(failed)} of {len(ranks)} was killed (signal {number}){reason}; "
        "continue a training run from its last checkpoint with --resume",
        128 + number,
    )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _wait_for(ranks: Sequence[BaseProcess]) -> BaseProcess | None:
    """Wait until all ranks have succeeded or one has failed; return the failed one, if any."""
    running = {rank.sentinel: rank for rank in ranks}
    while running:
        ready = cast(list[int], connection.wait(list(running)))
        ended = [running.pop(sentinel) for sentinel in ready]
        for rank in ended:
            rank.join()
        # If several ended at once, the one killed by a signal is the cause.
        first = min(ended, key=lambda rank: rank.exitcode or 0)
        is_killed = (first.exitcode or 0) < 0
        failed = first if is_killed else next((r for r in ended if r.exitcode), None)
        if failed is not None:
            return failed
    return None


def _rank_process(
    number: int, url: str, main: Main, cfg: CfgNode, args: argparse.Namespace
) -> None:
    begin_child(partial(stop_with_parent, GRACE))
    world_size = args.num_gpus * args.num_machines
    rank = args.machine_rank * args.num_gpus + number
    _run_in_place(Place(rank, world_size, number, args.num_gpus, url), main, cfg, args)


def _run_in_place(place: Place, main: Main, cfg: CfgNode, args: argparse.Namespace) -> None:
    """Join the other processes, call `main`, and exit if the status is not 0."""
    status: int | str | None = 1
    try:
        with _reported_once(place.rank), _naming_output(cfg):
            if place.starter and place.local_rank == 0:
                _fetch_weights(cfg, args)  # the other processes wait for this one to join them
            _join_others(place, cfg)
            register_custom(cfg)
            main(cfg, args)
        dist.destroy_process_group()
        status = 0
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
    if status:
        # In a normal exit, NCCL may wait for the other ranks.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)


def _join_others(place: Place, cfg: CfgNode) -> None:
    on_gpu = torch.device(cfg.MODEL.DEVICE).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(place.gpu())
    meeting = dist.rendezvous(place.url, place.rank, place.world_size, timeout=DEFAULT_TIMEOUT)
    store, _, _ = next(meeting)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        # torchrun keeps the store when it restarts the processes, with the addresses of the old.
        store=dist.PrefixStore(place.attempt, store),
        world_size=place.world_size,
        rank=place.rank,
        timeout=DEFAULT_TIMEOUT,
    )
    check_spread(place)
    comm.create_local_process_group(place.local_size)
    comm.synchronize()


def _fetch_weights(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Download MODEL.WEIGHTS, once a machine; the processes then find it in the cache."""
    if cfg.MODEL.WEIGHTS and not (args.resume and last_checkpoint(cfg.OUTPUT_DIR)):
        local_file(cfg.MODEL.WEIGHTS)


@contextmanager
def _reported_once(rank: int) -> Iterator[None]:
    """Report an error that is no bug in one line, of one rank, and exit."""
    try:
        yield
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        if lost_process(error) or rank:
            # Let the lost process report first, or else rank 0, which most likely has the same
            # error. When it exits, this process is ended.
            let_others_report()
        fail(message)


@contextmanager
def _signals_to_children() -> Iterator[list[int]]:
    """Pass the signals in STOPPING on to child processes as SIGTERM; yield those received.

    A second Ctrl-C kills them.
    """
    received: list[int] = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        for child in multiprocessing.active_children():
            if received.count(signal.SIGINT) > 1:
                child.kill()
            else:
                child.terminate()

    before = {s: signal.signal(s, pass_on) for s in STOPPING}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
