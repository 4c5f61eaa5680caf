"""What torchrun's and srun's environment variables make of a process."""

from __future__ import annotations

import signal
import time

import pytest
import torch

from cat_seg.engine import argument_parser
from cat_seg.engine.ranks import Place, given_place, rank_0_reports_first
from cat_seg.engine.setup import check_machine
from cat_seg.errors import UserError
from cat_seg.utils.processes import Stopped

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "first",
    "MASTER_PORT": "29500",
}
# What an sbatch script sees, and what srun adds for its tasks.
SBATCH = {
    "SLURM_JOB_ID": "200505",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NODELIST": "gpu[03-04]",
}
SRUN = SBATCH | {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
}
ONE_TASK = {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_TASKS_PER_NODE": "1"}


def place_of(environment, *given):
    return given_place(argument_parser().parse_args(list(given)), environment)


@pytest.mark.parametrize("given", [(), ("--num-gpus", "4"), ("--num-machines", "2")])
def test_torchrun_gives_the_place(given):
    expected = Place(5, 8, 1, 4, "env://", "torchrun")
    assert place_of(TORCHRUN, *given) == expected
    assert place_of(SRUN | TORCHRUN, *given) == expected  # srun starts torchrun on every machine


def test_restarts_are_told_apart_on_one_machine():
    """On several, the machines may count differently."""
    restarted = TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": "2"}
    assert place_of(restarted).attempt == "0"
    alone = {"RANK": "1", "WORLD_SIZE": "4"}
    assert place_of(restarted | alone).attempt == "2"
    assert place_of(TORCHRUN | alone).attempt == "0"


@pytest.mark.parametrize("given", [(), ("--num-gpus", "4")])
def test_srun_gives_the_place(given):
    place = place_of(SRUN, *given)
    assert place == Place(5, 8, 1, 4, place.url, "srun")
    assert place.url == "tcp://gpu03:28082"
    assert place_of(SRUN | {"SLURM_STEP_ID": "3"}).url != place.url


def test_an_address_for_srun_can_be_given():
    assert place_of(SRUN, "--dist-url", "tcp://there:1").url == "tcp://there:1"
    assert place_of(SRUN | {"MASTER_ADDR": "there", "MASTER_PORT": "7"}).url == "tcp://there:7"


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ("gpu[03-04]", "gpu03"),
        ("one,two", "one"),
        ("alone", "alone"),
        ("a[7,9-11],b1", "a7"),
        ("rack[1-2]-node[08-09].site", "rack1-node08.site"),
    ],
)
def test_the_processes_meet_on_the_first_machine(names, first):
    assert f"//{first}:" in place_of(SRUN | {"SLURM_STEP_NODELIST": names}).url


@pytest.mark.parametrize(
    ("environment", "given"),
    [
        ({}, ()),
        ({"RANK": "1", "WORLD_SIZE": "2"}, ()),  # of machines, as schedulers of containers say it
        (SBATCH, ("--num-gpus", "4")),
        (SRUN | ONE_TASK, ("--num-gpus", "4")),  # an interactive shell
        (TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}, ("--num-gpus", "4")),
        # One task a machine, which starts the processes of its GPUs.
        (SRUN, ("--num-gpus", "4", "--num-machines", "8", "--dist-url", "tcp://there:1")),
    ],
)
def test_all_else_is_as_without_the_variables(environment, given):
    assert place_of(environment, *given) is None


@pytest.mark.parametrize(
    ("environment", "given", "message"),
    [
        (TORCHRUN, ("--num-gpus", "2"), "--num-gpus 2 .*torchrun has already started 8 "),
        (
            SRUN,
            ("--num-gpus", "2"),
            "srun has already .* 4 on this machine; leave both",
        ),
        (TORCHRUN, ("--dist-url", "tcp://there:1"), "leave --dist-url out"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": ""}, (), "LOCAL_WORLD_SIZE is not set; start it with"),
        (TORCHRUN | {"RANK": "one"}, (), "RANK is 'one', not a number"),
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "5,3"}, (), "the same number on each"),
    ],
)
def test_a_contradiction_is_one_line(environment, given, message):
    with pytest.raises(UserError, match=message):
        place_of(environment, *given)


def test_the_batch_is_shared_among_all_processes(cfg):
    with pytest.raises(UserError, match="IMS_PER_BATCH is 2; set it to a multiple of 8"):
        check_machine(cfg, argument_parser().parse_args([]), place_of(TORCHRUN))


@pytest.mark.parametrize(
    ("environment", "visible", "expected"), [(TORCHRUN, 4, 1), (SRUN, 8, 1), (SRUN, 1, 0)]
)
def test_each_process_has_a_gpu(cfg, monkeypatch, environment, visible, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    assert place_of(environment).gpu() == expected


def test_more_processes_than_gpus_are_refused_before_they_meet(cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    cfg.MODEL.DEVICE, cfg.SOLVER.IMS_PER_BATCH = "cuda", 8
    with pytest.raises(UserError, match="starts 4 processes on this machine, which has 1 GPUs"):
        check_machine(cfg, argument_parser().parse_args([]), place_of(TORCHRUN))


@pytest.mark.parametrize(
    ("environment", "waits"),
    [({}, False), (TORCHRUN, True), (SRUN, True), (TORCHRUN | {"RANK": "0"}, False)],
)
def test_the_first_rank_reports_what_all_find(monkeypatch, environment, waits):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(UserError), rank_0_reports_first(environment):
        raise UserError("a bad config")
    assert slept == ([5.0] if waits else [])


def test_a_rank_that_is_ended_meanwhile_reports_nothing(monkeypatch):
    def stop(seconds):
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(time, "sleep", stop)
    with pytest.raises(SystemExit) as status, rank_0_reports_first(TORCHRUN):
        raise UserError("a bad config")
    assert status.value.code == 143
