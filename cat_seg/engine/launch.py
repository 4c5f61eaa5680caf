"""Running a function in one process or in several, on GPUs (NCCL) or on the CPU (gloo)."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine import launch as launch_processes
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from cat_seg.data.custom import register_custom
from cat_seg.engine.setup import check_machine
from cat_seg.errors import UserError, fail
from cat_seg.pool import cores

Main = Callable[[CfgNode, argparse.Namespace], object]

# Seconds that rank 0 has to report an error that every rank met.
FIRST_WORD = 5.0


def launch(main: Main, cfg: CfgNode, args: argparse.Namespace) -> None:
    """Run main(cfg, args) in each of --num-gpus x --num-machines processes, on MODEL.DEVICE.

    With MODEL.DEVICE cpu, --num-gpus is the number of processes, and GPUs stay untouched. SIGTERM
    and Ctrl-C go on to all processes; an exit status other than 0 of one is that of the whole.

    Args:
        main: a function of a module, so that other processes can import it.
        cfg: a config of `load_config`.
        args: of `argument_parser`.

    Raises:
        UserError: what `check_machine` refuses, and with one process what `main` raises.
        SystemExit: if one of several processes ended with another status than 0.
    """
    check_machine(cfg, args)
    if torch.device(cfg.MODEL.DEVICE).type == "cpu":
        # detectron2 takes NCCL, and a GPU for every process, wherever it finds one.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if args.num_gpus * args.num_machines > 1:
        _launch_ranks(main, cfg, args)
        return
    try:
        main(cfg, args)
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


def _launch_ranks(main: Main, cfg: CfgNode, args: argparse.Namespace) -> None:
    if torch.device(cfg.MODEL.DEVICE).type == "cpu":
        # Each would otherwise start as many threads as there are cores.
        threads = max(1, cores() // args.num_gpus)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    with _signals_to_children() as received:
        try:
            launch_processes(
                _rank_main,
                args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                args=(main, cfg, args),
            )
        except ProcessExitedException as error:
            code = error.exit_code  # negative where a signal ended the process
            status = 128 + received[0] if received else (code if code > 0 else 128 - code)
            raise SystemExit(status) from None


def _rank_main(main: Main, cfg: CfgNode, args: argparse.Namespace) -> None:
    # This process was spawned, and would spawn its data workers, each with all imports anew.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    register_custom(cfg)
    try:
        main(cfg, args)
    except UserError as error:
        if not comm.is_main_process():
            # Rank 0 met the same error, most likely, and its end ends this process.
            time.sleep(FIRST_WORD)
        fail(str(error))
    dist.destroy_process_group()


@contextmanager
def _signals_to_children() -> Iterator[list[int]]:
    """Pass SIGTERM and Ctrl-C on to child processes as SIGTERM; gives the signals received."""
    received: list[int] = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        for child in multiprocessing.active_children():
            if received.count(signal.SIGINT) > 1:
                child.kill()
            else:
                child.terminate()

    before = {s: signal.signal(s, pass_on) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
