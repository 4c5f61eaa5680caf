"""Two machines without a common disk: what their processes find must be the same."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch import nn

from cat_seg.checkpoint.checkpointer import TAG, Checkpointer
from cat_seg.data.records import agreed_records
from cat_seg.engine import argument_parser, setup
from cat_seg.errors import UserError

RANKS = 2


def write_checkpoints(root: Path) -> None:
    """Write two checkpoints, and what each rank's machine has of them in each case."""
    files = {}
    for iteration in (3, 5):
        model = nn.Linear(1, 1)
        Checkpointer(model, str(root)).save(f"model_{iteration}", iteration=iteration)
        files[iteration] = (root / f"model_{iteration}.pth").read_bytes()
    for case, first, second in (
        ("same", {3: files[3]}, {3: files[3], 5: files[5]}),
        ("missing", {3: files[3]}, {}),
        ("other", {3: files[3]}, {3: files[5]}),
        ("none", {}, {3: files[3]}),
    ):
        for rank, has in enumerate((first, second)):
            folder = root / str(rank) / case
            folder.mkdir(parents=True)
            for iteration, content in has.items():
                (folder / f"model_{iteration}.pth").write_bytes(content)
                (folder / TAG).write_text(f"model_{iteration}.pth")


def resumed(folder: Path) -> object:
    rest = Checkpointer(nn.Linear(1, 1), str(folder)).resume_or_load("", resume=True)
    return rest.get("iteration")


def weights_accepted(cfg: CfgNode, folder: Path, iteration: int) -> object:
    cfg = cfg.clone()
    cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS = str(folder), str(folder / f"model_{iteration}.pth")
    return Path(setup(cfg, argument_parser().parse_args([])).MODEL.WEIGHTS).name


def images_of(folder: Path, *names: str) -> object:
    def load() -> list[dict[str, str]]:
        return [
            {"file_name": f"{folder}/i/{name}", "sem_seg_file_name": f"{folder}/l/{name}"}
            for name in names
        ]

    DatasetCatalog.register("of_the_rank", load)
    try:
        return len(agreed_records(["of_the_rank"]))
    finally:
        DatasetCatalog.remove("of_the_rank")


def run_rank(rank: int, root: Path, cfg: CfgNode) -> None:
    """What each process does; it writes what it found or was told in each case."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{root}/meeting", rank=rank, world_size=RANKS
    )
    own = root / str(rank)
    cases: dict[str, Callable[[], object]] = {
        case: lambda case=case: resumed(own / case) for case in ("same", "missing", "other", "none")
    }
    cases["weights"] = lambda: weights_accepted(cfg, own / "same", 3)
    cases["other weights"] = lambda: weights_accepted(cfg, own / "other", 3)
    cases["no weights"] = lambda: weights_accepted(cfg, own / "missing", 3)
    cases["images"] = lambda: images_of(own, "a.png", "b.png")
    cases["fewer images"] = lambda: images_of(own, *("a.png", "b.png")[: RANKS - rank])
    cases["other images"] = lambda: images_of(own, "a.png", f"{rank}.png")
    cases["no images"] = lambda: images_of(own, *("a.png", "b.png")[: 2 * (1 - rank)])
    found = {}
    for case, work in cases.items():
        try:
            found[case] = work()
        except UserError as error:
            found[case] = str(error)
    (root / f"found_{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def test_rank_0_counts_and_a_difference_is_an_error_of_all(tmp_path, cfg):
    root = tmp_path
    write_checkpoints(root)
    mp.start_processes(run_rank, (root, cfg), nprocs=RANKS, start_method="fork")
    first, second = (json.loads((root / f"found_{r}.json").read_text()) for r in range(RANKS))
    assert os.uname().nodename in first["missing"]
    for case, expected in {
        "same": 3,
        "none": None,
        "weights": "model_3.pth",
        "images": 2,
    }.items():
        assert first[case] == second[case] == expected, case
    for case, expected in {
        "missing": (
            "OUTPUT_DIR: ",
            "missing/model_3.pth: rank 1 on ",
            "has no such file, ",
        ),
        "other": ("OUTPUT_DIR: ", "other/model_3.pth: rank 1 on ", "copy the file of rank 0"),
        "other weights": ("MODEL.WEIGHTS: ", "rank 1 on ", "has SHA-256 "),
        "no weights": ("MODEL.WEIGHTS: ", "model_3.pth"),
        "fewer images": ("dataset of_the_rank: rank 1 on ", "1 images (", "has 2 images ("),
        "other images": ("dataset of_the_rank: rank 1 on ", "has 2 images (list "),
        "no images": ("dataset of_the_rank",),
    }.items():
        for told in (first[case], second[case]):
            assert all(part in str(told) for part in expected), (case, told)
