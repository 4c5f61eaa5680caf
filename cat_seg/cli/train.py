"""Train a model, or evaluate one with --eval-only."""

from __future__ import annotations

import argparse

from detectron2.config import CfgNode

from cat_seg.engine import (
    Trainer,
    argument_parser,
    config_restored_on_error,
    evaluate,
    launch,
    load_config,
    setup,
)
from cat_seg.engine.ranks import rank_0_reports_first
from cat_seg.errors import one_line_errors

EXAMPLE = """
Examples:

Train on 4 GPUs (add --resume to continue an interrupted run):
    $ %(prog)s --config-file configs/vitb_384_enhanced.yaml --num-gpus 4 \\
        OUTPUT_DIR output/enhanced

Train on the CPU, with another learning rate:
    $ %(prog)s --config-file configs/vitb_384_oft.yaml MODEL.DEVICE cpu SOLVER.BASE_LR 0.0001

Evaluate:
    $ %(prog)s --config-file configs/vitb_384_oft.yaml --eval-only \\
        MODEL.WEIGHTS model_final.pth
"""


def run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Train in this process, or evaluate with --eval-only."""
    if args.eval_only:
        evaluate(setup(cfg, args), resume=args.resume)
        return
    with config_restored_on_error(cfg, args):
        trainer = Trainer(setup(cfg, args))
        trainer.resume_or_load(resume=args.resume)
    trainer.train()


@one_line_errors
@rank_0_reports_first()
def main() -> None:
    """Parse the command line and start the processes."""
    args = argument_parser(EXAMPLE).parse_args()
    launch(run, load_config(args.config_file, args.opts), args)
