"""The place that torchrun or srun gives this process among those of a run."""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from detectron2.utils import comm

from cat_seg.errors import UserError
from cat_seg.utils.processes import status_of

# Seconds that other ranks wait for rank 0 to report an error that occurs on every rank.
FIRST_WORD = 5.0
# The port of a run under srun is one of these, chosen by the ids of job and step.
PORTS = range(15000, 30000)

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
# Not SLURM_NTASKS: sbatch also sets it, for its script, which is one process.
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")


@dataclass(frozen=True)
class Place:
    """One of the processes of a run.

    Attributes:
        rank: its number, from 0 to world_size - 1.
        world_size: the number of processes on all machines.
        local_rank: its number on its machine, from 0 to local_size - 1.
        local_size: the number of processes on its machine.
        url: where the processes meet; an init_method of PyTorch's `init_process_group`.
        starter: what started the processes: "torchrun", "srun", or "" for this program.
        attempt: how often torchrun has restarted them, where that is known.
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    url: str
    starter: str = ""
    attempt: str = "0"

    def gpu(self) -> int:
        """Return the index of the GPU of this process.

        Raises:
            UserError: this machine has fewer GPUs than processes.
        """
        found = torch.cuda.device_count()
        if self.starter == "srun" and found == 1:  # with --gpus-per-task, each process sees its own
            return 0
        if self.local_size > found:
            raise UserError(
                f"{self.starter or 'this program'} starts {self.local_size} processes on this "
                f"machine, which has {found} GPUs; start one process a GPU"
            )
        return self.local_rank


def given_place(
    args: argparse.Namespace, environment: Mapping[str, str] = os.environ
) -> Place | None:
    """Return the place of this process if torchrun or srun has started several, else None.

    torchrun's variables count before those of srun, which may have started torchrun. With
    --num-machines, srun starts one process a machine, and each of them starts the others.

    Args:
        args: the arguments parsed by `argument_parser`, which must not contradict the variables.
        environment: the environment variables.

    Raises:
        UserError: the variables are incomplete, or an argument contradicts them.
    """
    if environment.keys() >= set(TORCHRUN):
        place = _from_torchrun(environment)
    elif environment.keys() >= set(SRUN) and args.num_machines == 1:
        place = _from_srun(environment, args.dist_url)
    else:
        return None
    if place.world_size == 1:
        return None
    _check_arguments(place, args)
    return place


def _from_torchrun(environment: Mapping[str, str]) -> Place:
    rank, world_size, local_rank = (_number(environment, name) for name in TORCHRUN)
    if world_size == 1:
        return Place(0, 1, 0, 1, "env://", "torchrun")
    local_size = _number(environment, "LOCAL_WORLD_SIZE")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        _text(environment, name)
    # Each machine counts its own restarts.
    counted = environment.get("TORCHELASTIC_RESTART_COUNT") if local_size == world_size else None
    return Place(rank, world_size, local_rank, local_size, "env://", "torchrun", counted or "0")


def _from_srun(environment: Mapping[str, str], dist_url: str) -> Place:
    rank, world_size, local_rank = (_number(environment, name) for name in SRUN)
    if world_size == 1:
        return Place(0, 1, 0, 1, dist_url, "srun")
    spread = _text(environment, "SLURM_STEP_TASKS_PER_NODE")  # such as "4(x2)", or "4,3"
    if not re.fullmatch(r"\d+(\(x\d+\))?", spread):
        raise UserError(
            f"srun starts {spread} processes on the machines; start the same number on each "
            "(--ntasks-per-node)"
        )
    if dist_url == "auto":
        address = environment.get("MASTER_ADDR") or _first_machine(environment)
        job, step = _number(environment, "SLURM_JOB_ID"), _number(environment, "SLURM_STEP_ID")
        port = environment.get("MASTER_PORT") or PORTS[(job * 16 + step) % len(PORTS)]
        dist_url = f"tcp://{address}:{port}"
    local_size = int(spread.partition("(")[0])
    return Place(rank, world_size, local_rank, local_size, dist_url, "srun")


def _first_machine(environment: Mapping[str, str]) -> str:
    """Return the first of machines such as "gpu[01-04,07],login1": "gpu01"."""
    names = _text(environment, "SLURM_STEP_NODELIST")
    first = re.match(r"([^,\[]|\[[^\]]*\])*", names)
    assert first is not None  # it matches any text
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0])


def _text(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise UserError(
            f"this process is one of several by {', '.join(TORCHRUN)} or {', '.join(SRUN)}, but "
            f"{name} is not set; start it with torchrun or srun"
        )
    return environment[name]


def _number(environment: Mapping[str, str], name: str) -> int:
    text = _text(environment, name)
    if not text.isdecimal():
        raise UserError(f"the environment variable {name} is {text!r}, not a number")
    return int(text)


def _check_arguments(place: Place, args: argparse.Namespace) -> None:
    machines = place.world_size // place.local_size
    if args.num_gpus not in (1, place.local_size) or args.num_machines not in (1, machines):
        raise UserError(
            f"--num-gpus {args.num_gpus} --num-machines {args.num_machines}: {place.starter} has "
            f"already started {place.world_size} processes, {place.local_size} on this machine; "
            "leave both arguments out"
        )
    if place.starter == "torchrun" and args.dist_url != "auto":
        raise UserError("--dist-url: torchrun has its own --rdzv-endpoint; leave --dist-url out")


def check_spread(place: Place) -> None:
    """Check that machine 0 has the first `local_size` ranks, machine 1 the next, and so on.

    detectron2 forms a machine's group of processes from their ranks. Every process must call this,
    after they have met.

    Raises:
        UserError: on all ranks, if it is otherwise.
    """
    size = place.local_size
    spread = comm.all_gather((place.local_rank, size))
    if place.world_size % size or spread != [(r % size, size) for r in range(place.world_size)]:
        raise UserError(
            "the processes are not spread over the machines evenly and in order; start the same "
            "number on each (torchrun --nproc-per-node, srun --ntasks-per-node "
            "--distribution=block)"
        )


@contextmanager
def rank_0_reports_first(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Delay an error of another rank than 0, so that one that all have is reported once.

    For errors before the processes have met. The end of rank 0 ends the others.
    """
    try:
        yield
    except Exception:
        names = TORCHRUN if environment.keys() >= set(TORCHRUN) else SRUN
        if environment.keys() >= set(names) and environment[names[0]] != "0":
            let_others_report()
        raise


def let_others_report() -> None:
    """Wait for FIRST_WORD seconds. If a signal ends this process meanwhile, it reports nothing."""
    try:
        time.sleep(FIRST_WORD)
    except KeyboardInterrupt as interrupt:
        raise SystemExit(status_of(interrupt)) from None
