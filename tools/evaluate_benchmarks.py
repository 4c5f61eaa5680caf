#!/usr/bin/env python
"""Evaluate one set of weights on every benchmark that is on disk, and print one table.

The published protocol: sliding windows, no pooling in the class aggregation, and each
benchmark's own classes. Takes train_net.py's arguments; each benchmark's metrics go to
OUTPUT_DIR/inference/<dataset>/results.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from detectron2.config import CfgNode
from detectron2.utils import comm
from tabulate import tabulate

from cat_seg.data import BENCHMARKS, datasets_root, is_on_disk
from cat_seg.engine import argument_parser, evaluate, launch, load_config, setup
from cat_seg.errors import UserError, one_line_errors

PROTOCOL = (
    *("TEST.SLIDING_WINDOW", "True"),
    *("MODEL.SEM_SEG_HEAD.POOLING_SIZES", "[1, 1]"),
    *("MODEL.SEM_SEG_HEAD.TEST_CLASS_JSON", ""),
)
METRICS = ("mIoU", "mACC", "pACC")


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """Lay out the metrics, in percent, of every benchmark, `-` for those without results.

    Args:
        results: metrics by the name of the dataset.
    """
    rows = [
        [label, *(results.get(dataset, {}).get(metric) for metric in METRICS)]
        for label, dataset in BENCHMARKS
    ]
    return tabulate(
        rows, ["Benchmark", *METRICS], tablefmt="github", floatfmt=".2f", missingval="-"
    )


def run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Evaluate in this process; rank 0 prints the table."""
    results = evaluate(setup(cfg, args), resume=args.resume)
    if comm.is_main_process():
        names = cfg.DATASETS.TEST
        by_dataset = {names[0]: results} if len(names) == 1 else results
        print(table({name: by_dataset[name]["sem_seg"] for name in names}))


@one_line_errors
def main() -> None:
    """Read the command line and start the processes."""
    args = argument_parser(epilog=__doc__).parse_args()
    args.eval_only = True
    cfg = load_config(args.config_file, [*PROTOCOL, *args.opts])
    cfg.DATASETS.TEST = tuple(b.dataset for b in BENCHMARKS if is_on_disk(b.dataset))
    if not cfg.DATASETS.TEST:
        raise UserError(f"no benchmark is in {datasets_root()}; see datasets/README.md")
    launch(run, cfg, args)


if __name__ == "__main__":
    main()
